"""Networks and label maps on the same frames, with bootstrap confidence intervals over images, blocks and seeds."""

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import LightningDataModule
from rich.table import Table
from rich.text import Text
from torch import Tensor

from gscnn_lightning.drawing.plots import plot_distance_curves
from gscnn_lightning.errors import SettingError
from gscnn_lightning.exporting.network import ExportedNetwork
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.run_folder.score_files import write_json, write_table
from gscnn_lightning.score_names import IOU, MEAN_NAMES, score_headings
from gscnn_lightning.scores import Scores
from gscnn_lightning.scoring.network import predicted_frames
from gscnn_lightning.studies.bootstrap import blocks_of, bootstrap_weights, percentile_interval
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.terminal import new_table, say

State = Mapping[str, Tensor]
_LETTERS = string.ascii_uppercase


@dataclass
class Difference:
    """One score of two sides, in [0, 1] or NaN.

    Attributes:
        a: score of the first.
        b: score of the other.
        low: lower end of the 95 % confidence interval of b - a.
        high: upper end.
    """

    a: float
    b: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """What is compared with others.

    Attributes:
        names: of its members, such as checkpoints of several seeds; its scores are the means of theirs.
        states: of each member, what gives the sums of the metrics of every single frame, in the order of the data.
    """

    names: tuple[str, ...]
    states: tuple[Callable[[Evaluation], Sequence[State]], ...]

    @property
    def name(self) -> str:
        """Of all members together."""
        several = f" (mean of {len(self.names)})" if len(self.names) > 1 else ""
        return ", ".join(self.names) + several


@dataclass(frozen=True)
class Comparison:
    """Several sides on the same frames.

    Attributes:
        sides: their names; the first is called A, the others B, C, ...
        against: of every side but the first, its differences from the first by score: means by their name, such as
            "miou"; of classes "iou/0", of crops "crop/200".
        frames: number of frames.
        blocks: number of blocks of frames that were drawn.
        class_names: K names.
        boundary_names: names of the boundary F-scores.
    """

    sides: tuple[str, ...]
    against: tuple[Mapping[str, Difference], ...]
    frames: int
    blocks: int
    class_names: tuple[str, ...]
    boundary_names: tuple[str, ...]


def compare_sides(
    sides: Sequence[Side],
    evaluation: Evaluation,
    frames: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    block: int = 1,
) -> Comparison:
    """Score several sides on the same frames.

    Args:
        sides: two or more.
        evaluation: the metrics.
        frames: names of the frames.
        resamples: number of bootstrap samples, >= 1.
        seed: of the bootstrap.
        block: number of neighbouring frames that are drawn together, see `bootstrap.blocks_of`.

    Raises:
        SettingError: a side has other frames, or the blocks are no use.
    """
    blocks = blocks_of(frames, block)
    measured = []
    for side in sides:
        members = [list(states(evaluation)) for states in side.states]
        for name, states in zip(side.names, members, strict=True):
            if len(states) != len(frames):
                raise SettingError(f"{name} was measured on {len(states)} frames, and the data have {len(frames)}")
        measured.append(members)
    found = all_differences(evaluation, measured, blocks, resamples, seed)
    names = tuple(side.name for side in sides)
    classes, boundaries = tuple(evaluation.class_names), tuple(evaluation.boundary_names)
    return Comparison(names, found, len(frames), int(blocks.max()) + 1, classes, boundaries)


def image_states(
    task: GSCNNTask | ExportedNetwork, evaluation: Evaluation, datamodule: LightningDataModule, split: str
) -> list[dict[str, Tensor]]:
    """Sums of the metrics of every single frame.

    Args:
        task: the network, of a checkpoint or exported, with its settings of windows, scales and flips.
        evaluation: the metrics.
        datamodule: the frames.
        split: "val" or "test".
    """
    states = []
    for frame in predicted_frames(task, datamodule, split):
        evaluation.reset()
        evaluation.update(*frame)
        states.append(evaluation.state())
    return states


def differences(
    evaluation: Evaluation, a: Sequence[State], b: Sequence[State], resamples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """Scores of two networks with paired bootstrap intervals of their difference over images.

    Args:
        evaluation: the metrics that the states belong to.
        a: N states of single frames, of the first network.
        b: of the second, the same frames in the same order.
        resamples: number of bootstrap samples, >= 1.
        seed: of the bootstrap.

    Returns:
        As in `Comparison`; NaN where a score does not exist for both.
    """
    return all_differences(evaluation, [[a], [b]], np.arange(len(a)), resamples, seed)[0]


def all_differences(
    evaluation: Evaluation,
    sides: Sequence[Sequence[Sequence[State]]],
    blocks: npt.NDArray[np.integer],
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Difference], ...]:
    """Differences of several sides from the first, with paired bootstrap intervals.

    In every sample blocks of frames are drawn with replacement, the same ones for all members of all sides, and of
    sides with several members, such as seeds, as many of these; the score of a side is the mean over those drawn. With
    few members such an interval is rather too narrow: of 3, by about a fifth of what they add to it.

    Source: see `bootstrap`.

    Args:
        evaluation: the metrics that the states belong to.
        sides: of each side, of each member, N states of single frames; all of the same frames in the same order.
        blocks: (N,) number of the block of each frame, as `bootstrap.blocks_of` gives it.
        resamples: number of bootstrap samples, >= 1.
        seed: of the bootstrap.

    Returns:
        For every side but the first, as in `Comparison`; NaN where a score does not exist for both, and intervals of
        NaN where there is one block alone.
    """
    rng = np.random.default_rng(seed)
    drawn = bootstrap_weights(blocks, resamples, rng)
    # The first row draws every frame once: the scores themselves.
    weights = torch.from_numpy(np.concatenate([np.ones((1, len(blocks))), drawn]))
    first, *others = (_of_side(evaluation, members, weights, rng) for members in sides)
    return tuple(_between(first, other, len(weights), int(blocks.max()) + 1) for other in others)


_Samples = dict[str, npt.NDArray[np.float64]]


def _between(first: _Samples, other: _Samples, rows: int, drawn: int) -> dict[str, Difference]:
    """Differences of every score of two sides; without intervals if there was but one block to draw."""
    result = {}
    for name in dict.fromkeys([*first, *other]):
        a, b = (side.get(name, np.full(rows, np.nan)) for side in (first, other))
        # Where one of the scores does not exist, samples of some members may have it.
        exists = drawn > 1 and np.isfinite(a[0]) and np.isfinite(b[0])
        ends = percentile_interval((b - a)[1:]) if exists else (math.nan, math.nan)
        result[name] = Difference(float(a[0]), float(b[0]), *ends)
    return result


def _of_side(
    evaluation: Evaluation, members: Sequence[Sequence[State]], weights: Tensor, rng: np.random.Generator
) -> _Samples:
    """Every score for every row of weights, the mean over members that are drawn; the first row has each once."""
    samples = [_resampled(evaluation, states, weights) for states in members]
    if len(samples) == 1:
        return samples[0]
    number, rows = len(samples), len(weights)
    share = rng.multinomial(number, np.full(number, 1 / number), rows).T / number
    share[:, 0] = 1 / number
    result = {}
    for name in dict.fromkeys(name for sample in samples for name in sample):
        scores = np.stack([sample.get(name, np.full(rows, np.nan)) for sample in samples])
        result[name] = np.where(share > 0, share * scores, 0).sum(0)
    return result


def _resampled(evaluation: Evaluation, states: Sequence[State], weights: Tensor) -> _Samples:
    """Every score for every row of weights."""
    sums = {}
    for key, first in states[0].items():
        stacked = torch.stack([state[key].cpu() for state in states]).double().reshape(len(states), -1)
        sums[key] = (weights @ stacked).reshape(-1, *first.shape)
        if not first.is_floating_point():
            sums[key] = sums[key].round().long()
    rows = [_flat(evaluation.compute_from({key: s[row] for key, s in sums.items()})) for row in range(len(weights))]
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in rows[0]}


def _flat(scores: Scores) -> dict[str, float]:
    """Every score under one name."""
    flat = {**scores.means, **{f"crop/{factor}": value for factor, value in scores.crops.items()}}
    for name, values in scores.classes.items():
        flat.update({f"{name}/{index}": value for index, value in enumerate(values)})
    return flat


def save_comparison(comparison: Comparison, made_with: Mapping[str, Any], out: Path) -> None:
    """Write comparison.csv, comparison.json and distance_curve.png.

    Args:
        comparison: the numbers.
        made_with: what they were made with.
        out: folder; it is made.
    """
    rows: dict[str, dict[str, float]] = {}
    for letter, found in zip(_LETTERS[1:].lower(), comparison.against, strict=False):
        # Of two sides, the columns are those that they have always been.
        end = "" if letter == "b" else f"_{letter}"
        for name, d in found.items():
            values = {"a": d.a, letter: d.b, f"difference{end}": d.b - d.a, f"low{end}": d.low, f"high{end}": d.high}
            rows[name] = {**rows.get(name, {}), **values}
    write_json(out / "comparison.json", {**made_with, "frames": comparison.frames, "scores": rows})
    write_table(out / "comparison.csv", rows, first="score")
    curves: dict[str, Mapping[str, float]] = {}
    for letter, found in zip(_LETTERS[1:], comparison.against, strict=False):
        crops = {name.removeprefix("crop/"): d for name, d in found.items() if name.startswith("crop/")}
        curves |= {"A": {f: d.a for f, d in crops.items()}, letter: {f: d.b for f, d in crops.items()}}
    plot_distance_curves(curves, out / "distance_curve.png")


def show_comparison(comparison: Comparison) -> None:
    """Print the tables of mean scores and of the IoU of the classes."""
    sides = "\n".join(f"{letter}  {name}" for letter, name in zip(_LETTERS, comparison.sides, strict=False))
    changes = ", ".join(f"{letter} - A" for letter in _LETTERS[1 : len(comparison.sides)])
    blocks = "" if comparison.blocks == comparison.frames else f" in {comparison.blocks} blocks"
    say(f"{sides}\n{comparison.frames} frames{blocks}; * where the 95 % interval of {changes} leaves out 0")
    names = comparison.boundary_names
    labels = {**MEAN_NAMES, **dict(zip(names, score_headings(names), strict=True))}
    for letter, found in zip(_LETTERS[1:], comparison.against, strict=False):
        beside = f": {letter} beside A" if len(comparison.sides) > 2 else ""
        means = {label: found[name] for name, label in labels.items() if name in found}
        crops = {f"mean IoU, crop {n.removeprefix('crop/')}": d for n, d in found.items() if n.startswith("crop/")}
        say(_table(f"mean scores{beside}", means | crops, letter))
        classes = {name: found[f"{IOU}/{index}"] for index, name in enumerate(comparison.class_names)}
        known = {name: d for name, d in classes.items() if not np.isnan(d.a + d.b)}
        say(_table(f"IoU{beside}", known, letter))


def _table(title: str, differences: Mapping[str, Difference], letter: str = "B") -> Table:
    """Scores of the first side and of another, which has this letter."""
    table = new_table(title)
    table.add_column("class" if title.startswith("IoU") else "score")
    for heading in ("A", letter, f"{letter} - A", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, d in differences.items():
        values = [f"{100 * value:.2f}" if not np.isnan(value) else "-" for value in (d.a, d.b)]
        table.add_row(Text(name), *values, *_change(d))
    return table


def _change(d: Difference) -> tuple[str, str]:
    """A difference and its interval in percent; dashes where a control has no boundary map to score."""
    if np.isnan(d.low + d.high):
        return "-", "-  "
    low, high, change = (round(100 * value, 2) + 0.0 for value in (d.low, d.high, d.b - d.a))  # never -0.0
    # An end that is zero in all digits shown does not leave it out.
    return f"{change:+.2f}", f"{low:+.2f} to {high:+.2f}{' *' if low > 0 or high < 0 else '  '}"
