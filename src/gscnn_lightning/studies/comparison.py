"""Checkpoints on the same frames, with bootstrap confidence intervals over images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from rich.table import Table
from rich.text import Text
from torch import Tensor

from gscnn_lightning.agreement import check_classes
from gscnn_lightning.drawing.plots import plot_distance_curves
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.run_folder.score_files import write_json, write_table
from gscnn_lightning.score_names import IOU, MEAN_NAMES, score_headings
from gscnn_lightning.scores import Scores
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.terminal import new_table, progress, say


@dataclass
class Difference:
    """One score of both checkpoints, in [0, 1] or NaN.

    Attributes:
        a: score of the first.
        b: score of the second.
        low: lower end of the 95 % confidence interval of b - a.
        high: upper end.
    """

    a: float
    b: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same frames.

    Attributes:
        sides: names of both.
        differences: by score: means by their name, such as "miou"; of classes "iou/0", of crops "crop/200".
        frames: number of frames.
        class_names: K names.
        boundary_names: names of the boundary F-scores.
    """

    sides: tuple[str, ...]
    differences: Mapping[str, Difference]
    frames: int
    class_names: tuple[str, ...]
    boundary_names: tuple[str, ...]


def compare_tasks(
    names: Sequence[str],
    tasks: Sequence[GSCNNTask],
    data: Any,  # noqa: ANN401
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Score two networks side by side.

    Args:
        names: of the two, such as their checkpoints.
        tasks: the two in evaluation mode, with their settings of windows, scales and flips.
        data: the data module.
        split: which frames, "val" or "test".
        resamples: number of bootstrap samples, >= 1.
        seed: of the bootstrap.

    Raises:
        SettingError: a network has other classes than the data.
    """
    data.setup("validate" if split == "val" else "test")
    classes = tuple(data.class_names)
    for path, task in zip(names, tasks, strict=True):
        check_classes(task.class_names, classes, f"checkpoint {path}", "the data")
    # One and the same set of tolerances, whatever the checkpoints were trained with.
    first = tasks[0].settings
    evaluation = Evaluation(classes, first.ignore_index, first.boundary_tolerances, everything=True)
    a, b = (image_states(task, evaluation, data, split) for task in tasks)
    found = differences(evaluation, a, b, resamples, seed)
    return Comparison(tuple(names), found, len(a), classes, tuple(evaluation.boundary_names))


@torch.no_grad()
def image_states(
    task: GSCNNTask, evaluation: Evaluation, datamodule: LightningDataModule, split: str
) -> list[dict[str, Tensor]]:
    """Sums of the metrics of every single frame.

    Args:
        task: the network with its settings of windows, scales and flips.
        evaluation: the metrics.
        datamodule: the frames.
        split: "val" or "test".
    """
    loader: Any = datamodule.val_dataloader() if split == "val" else datamodule.test_dataloader()
    states = []
    with progress(len(loader), "batches") as advance:
        for batch in loader:
            batch = datamodule.transfer_batch_to_device(batch, task.device, 0)
            batch = datamodule.on_after_batch_transfer(batch, 0)
            output = task.predict_output(batch["image"], gates=False)
            preds, prob = output.labels, output.boundary_prob
            for index in range(len(preds)):
                one = slice(index, index + 1)
                evaluation.reset()
                frame = {key: value[one] for key, value in batch.items() if isinstance(value, Tensor)}
                evaluation.update(preds[one], None if prob is None else prob[one], frame)
                states.append(evaluation.state())
            advance()
    return states


def differences(
    evaluation: Evaluation,
    a: Sequence[Mapping[str, Tensor]],
    b: Sequence[Mapping[str, Tensor]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Scores of two networks with paired bootstrap intervals of their difference.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile intervals).

    Args:
        evaluation: the metrics that the states belong to.
        a: N states of single frames, of the first network.
        b: of the second, the same frames in the same order.
        resamples: number of bootstrap samples, >= 1.
        seed: of the bootstrap.

    Returns:
        As in `Comparison`; NaN where a score does not exist for both.
    """
    drawn = np.random.default_rng(seed).multinomial(len(a), np.full(len(a), 1 / len(a)), resamples)
    # The first row draws every frame once: the scores themselves.
    weights = torch.from_numpy(np.concatenate([np.ones((1, len(a))), drawn]))
    scores = [_resampled(evaluation, states, weights) for states in (a, b)]
    result = {}
    for name in dict.fromkeys([*scores[0], *scores[1]]):
        first, second = (s.get(name, np.full(len(weights), np.nan)) for s in scores)
        change = (second - first)[1:]
        change = change[np.isfinite(change)]
        low, high = np.quantile(change, [0.025, 0.975]) if change.size else (np.nan, np.nan)
        result[name] = Difference(float(first[0]), float(second[0]), float(low), float(high))
    return result


def _resampled(
    evaluation: Evaluation, states: Sequence[Mapping[str, Tensor]], weights: Tensor
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
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
    rows = {
        name: {"a": d.a, "b": d.b, "difference": d.b - d.a, "low": d.low, "high": d.high}
        for name, d in comparison.differences.items()
    }
    write_json(out / "comparison.json", {**made_with, "frames": comparison.frames, "scores": rows})
    write_table(out / "comparison.csv", rows, first="score")
    crops = {name.removeprefix("crop/"): d for name, d in comparison.differences.items() if name.startswith("crop/")}
    curves = {"A": {f: d.a for f, d in crops.items()}, "B": {f: d.b for f, d in crops.items()}}
    plot_distance_curves(curves, out / "distance_curve.png")


def show_comparison(comparison: Comparison) -> None:
    """Print the tables of mean scores and of the IoU of the classes."""
    a, b = comparison.sides
    say(f"A  {a}\nB  {b}\n{comparison.frames} frames; * where the 95 % interval of B - A leaves out 0")
    found, names = comparison.differences, comparison.boundary_names
    labels = {**MEAN_NAMES, **dict(zip(names, score_headings(names), strict=True))}
    means = {label: found[name] for name, label in labels.items() if name in found}
    means.update({f"mean IoU, crop {n.removeprefix('crop/')}": d for n, d in found.items() if n.startswith("crop/")})
    say(_table("mean scores", means))
    classes = {name: found[f"{IOU}/{index}"] for index, name in enumerate(comparison.class_names)}
    say(_table("IoU", {name: d for name, d in classes.items() if not np.isnan(d.a + d.b)}))


def _table(title: str, differences: Mapping[str, Difference]) -> Table:
    table = new_table(title)
    table.add_column("score" if title != "IoU" else "class")
    for heading in ("A", "B", "B - A", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, d in differences.items():
        low, high, change = (round(100 * value, 2) + 0.0 for value in (d.low, d.high, d.b - d.a))  # never -0.0
        # An end that is zero in all digits shown does not leave it out.
        interval = f"{low:+.2f} to {high:+.2f}{' *' if low > 0 or high < 0 else '  '}"
        known = not np.isnan(d.low + d.high)  # a control has no boundary map to score
        values = [f"{100 * value:.2f}" if not np.isnan(value) else "-" for value in (d.a, d.b)]
        table.add_row(Text(name), *values, f"{change:+.2f}" if known else "-", interval if known else "-  ")
    return table
