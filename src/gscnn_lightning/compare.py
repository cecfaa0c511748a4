"""``gscnn compare``: two checkpoints on the same frames, with bootstrap confidence intervals over images."""

import argparse
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning import LightningDataModule
from pytorch_lightning.cli import instantiate_class
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

import gscnn_lightning.data  # noqa: F401, for short names such as `--data CamVidDataModule`
from gscnn_lightning.checkpoint import check_checkpoint, load_task
from gscnn_lightning.errors import SettingError
from gscnn_lightning.evaluation import Evaluation, Scores
from gscnn_lightning.reports import MEAN_NAMES, plot_distance_curves, score_headings, write_table
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.tool_parser import HelpFormatter, underscored

DESCRIPTION = """Score two checkpoints on the same frames, such as Gated-SCNN and its matched control.

Prints and saves every score of both, the difference B - A and its 95 % confidence interval over images (paired
bootstrap: frames are drawn with replacement, the same ones for both). The data are those of A's run, unless --config or
--data says otherwise.

examples:
  gscnn compare control/checkpoints/best.ckpt gscnn/checkpoints/best.ckpt
  gscnn compare A.ckpt B.ckpt --config configs/cityscapes.yaml --data.root PATH --out control_against_gscnn
"""


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


def compare(
    a: str,
    b: str,
    datamodule: LightningDataModule,
    out: Path = Path("comparison"),
    split: Literal["val", "test"] = "test",
    resamples: int = 1000,
    seed: int = 0,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    device: str = "auto",
) -> dict[str, Difference]:
    """Score two checkpoints side by side.

    Args:
        a: checkpoint to compare with, such as the control's.
        b: checkpoint that is compared.
        datamodule: the frames.
        out: folder for comparison.csv, comparison.json and distance_curve.png.
        split: which frames.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.
        window: height and width of sliding windows, None for whole images.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images as factors; probabilities are averaged.
        flip: average with the mirrored images, too.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is.

    Returns:
        The differences by score: means by their name, such as "miou"; of classes "iou/road", of crops "crop/200".

    Raises:
        GSCNNError: a checkpoint or the data cannot be used, or the two have other classes.
    """
    if resamples < 1:
        raise SettingError(f"resamples is {resamples}: give 1 or more")
    how = {"window": window, "overlap": overlap, "scales": scales, "flip_average": flip}
    tasks = [load_task(path, device, **how) for path in (a, b)]
    datamodule.setup("validate" if split == "val" else "test")
    names: Any = datamodule.class_names  # type: ignore[attr-defined]
    for path, task in zip((a, b), tasks, strict=True):
        if list(task.class_names) != list(names):
            raise SettingError(
                f"{path} has {len(task.class_names)} classes {', '.join(task.class_names[:3])}, ..., the data "
                f"{len(names)} {', '.join(names[:3])}, ...: compare checkpoints on data of their own classes"
            )
    # One and the same set of tolerances, whatever the checkpoints were trained with.
    tolerances = tasks[0].settings.boundary_tolerances
    evaluation = Evaluation(names, tasks[0].settings.ignore_index, tolerances, everything=True)
    first, second = (image_states(task, evaluation, datamodule, split) for task in tasks)
    result = differences(evaluation, first, second, resamples, seed)
    made_with = {"a": a, "b": b, "split": split, "frames": len(first), "resamples": resamples, **how}
    _save(result, made_with, out)
    _show(result, a, b, len(first), names, evaluation.boundary_names, out)
    return result


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
    for batch in tqdm(loader, unit="batch", disable=None):  # None: only in a terminal
        batch = datamodule.transfer_batch_to_device(batch, task.device, 0)
        batch = datamodule.on_after_batch_transfer(batch, 0)
        output = task.predict_output(batch["image"])
        preds, prob = output.seg_logits.argmax(1), output.boundary_logits
        for index in range(len(preds)):
            one = slice(index, index + 1)
            evaluation.reset()
            frame = {key: value[one] for key, value in batch.items() if isinstance(value, Tensor)}
            evaluation.update(preds[one], None if prob is None else prob[one].float().sigmoid(), frame)
            states.append(evaluation.state())
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
        As `compare`; NaN where a score does not exist for both.
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
        stacked = torch.stack([state[key].cpu() for state in states]).double().flatten(1)
        sums[key] = (weights @ stacked).round().long().reshape(-1, *first.shape)
    rows = [_flat(evaluation.compute_from({key: s[row] for key, s in sums.items()})) for row in range(len(weights))]
    return {name: np.array([row.get(name, np.nan) for row in rows]) for name in rows[0]}


def _flat(scores: Scores) -> dict[str, float]:
    """Every score under one name."""
    flat = {name: float(value) for name, value in scores.means.items()}
    flat.update({f"crop/{factor}": float(value) for factor, value in scores.crops.items()})
    for name, values in scores.classes.items():
        flat.update({f"{name}/{index}": float(value) for index, value in enumerate(values)})
    return flat


def _save(result: Mapping[str, Difference], made_with: Mapping[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = {
        name: {"a": d.a, "b": d.b, "difference": d.b - d.a, "low": d.low, "high": d.high} for name, d in result.items()
    }
    write_table(out / "comparison.csv", rows, first="score")
    plain = json.loads(json.dumps({**made_with, "scores": rows}), parse_constant=lambda _: None)
    (out / "comparison.json").write_text(json.dumps(plain, indent=2) + "\n")
    crops = {name.removeprefix("crop/"): d for name, d in result.items() if name.startswith("crop/")}
    curves = {"A": {f: d.a for f, d in crops.items()}, "B": {f: d.b for f, d in crops.items()}}
    plot_distance_curves(curves, out / "distance_curve.png")


def _show(
    result: Mapping[str, Difference],
    a: str,
    b: str,
    frames: int,
    class_names: Sequence[str],
    boundary_names: Sequence[str],
    out: Path,
) -> None:
    console = Console(highlight=False)
    console.print(f"A  {a}\nB  {b}\n{frames} frames; * where the 95 % interval of B - A leaves out 0", soft_wrap=True)
    labels = {**MEAN_NAMES, **dict(zip(boundary_names, score_headings(boundary_names), strict=True))}
    means = {label: result[name] for name, label in labels.items() if name in result}
    means.update({f"mean IoU, crop {n[5:]}": d for n, d in result.items() if n.startswith("crop/")})
    console.print(_table("mean scores", means))
    classes = {name: result[f"iou/{index}"] for index, name in enumerate(class_names)}
    console.print(_table("IoU", {name: d for name, d in classes.items() if not np.isnan(d.a + d.b)}))
    console.print(f"saved in {out}: comparison.csv, comparison.json, distance_curve.png", soft_wrap=True)


def _table(title: str, differences: Mapping[str, Difference]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.HORIZONTALS)
    table.add_column("score" if title != "IoU" else "class")
    for heading in ("A", "B", "B - A", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, d in differences.items():
        low, high, change = (round(100 * value, 2) + 0.0 for value in (d.low, d.high, d.b - d.a))  # never -0.0
        # An end that is zero in all digits shown does not leave it out.
        interval = f"{low:+.2f} to {high:+.2f}{' *' if low > 0 or high < 0 else '  '}"
        known = not np.isnan(d.low + d.high)  # a control has no boundary map to score
        values = [f"{100 * value:.2f}" if not np.isnan(value) else "-" for value in (d.a, d.b)]
        table.add_row(name, *values, f"{change:+.2f}" if known else "-", interval if known else "-  ")
    return table


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="gscnn compare", description=DESCRIPTION, formatter_class=HelpFormatter)
    parser.add_argument("a", help="checkpoint to compare with, such as the control's")
    parser.add_argument("b", help="checkpoint that is compared")
    parser.add_argument("--config", type=str, help="config of gscnn-fit that names the data; default that of A's run")
    parser.add_subclass_arguments(LightningDataModule, "data")
    parser.add_function_arguments(compare, as_group=False, skip={"a", "b", "datamodule"})
    return parser


def _data_of_config(args: Sequence[str]) -> dict[str, Any]:
    """The data settings of the config that is named, or of the run that the first checkpoint lies in."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("checkpoints", nargs="*")
    for name in ("config", *inspect.signature(compare).parameters):
        known.add_argument(f"--{name}")
    plain = [arg for index, arg in enumerate(args) if not _belongs_to_data(args, index)]
    given = known.parse_known_args(plain)[0]
    path = given.config or (_run_config(given.checkpoints[0]) if given.checkpoints else None)
    if path is None:
        return {}
    try:
        config = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SettingError(f"config {path} cannot be read ({error}): check --config") from error
    data = config.get("data") if isinstance(config, dict) else None
    if not isinstance(data, dict):
        raise SettingError(f"config {path} names no data: give a config of gscnn-fit, or --data")
    return data


def _belongs_to_data(args: Sequence[str], index: int) -> bool:
    """Whether an argument is a data setting or its value."""
    if args[index].startswith("--data"):
        return True
    before = args[index - 1] if index else ""
    return before.startswith("--data") and "=" not in before


def _run_config(checkpoint: str) -> str | None:
    """config.yaml of the run that a checkpoint lies in."""
    for folder in list(Path(checkpoint).resolve().parents)[:2]:
        if (folder / "config.yaml").is_file():
            return str(folder / "config.yaml")
    return None


def main(args: list[str]) -> None:
    """Run ``gscnn compare``.

    Args:
        args: arguments after ``gscnn compare``.
    """
    parser, args = _parser(), underscored(args)
    data = _data_of_config(args)
    config = parser.parse_args([*(["--data", json.dumps(data)] if data else []), *args])
    for checkpoint in (config.a, config.b):
        check_checkpoint(str(checkpoint))
    config.out.mkdir(parents=True, exist_ok=True)  # found out before minutes of scoring, if it cannot be made
    if config.data is None:
        raise SettingError(f"which data? {config.a} lies in no run with a config.yaml: give --config or --data")
    settings = config.as_dict()
    del settings["config"]
    compare(datamodule=instantiate_class((), settings.pop("data")), **settings)
