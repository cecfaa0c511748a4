"""A run in words: one line per epoch, and a table of scores at the end."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import STEP_OUTPUT
from rich import box, get_console
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from gscnn_lightning.callbacks._best_epoch import is_better, monitor_name
from gscnn_lightning.callbacks._run_directory import run_directory
from gscnn_lightning.reports import plot_distance_curves, score_headings, write_table

Scores = dict[str, Any]
"""Plain data, so that checkpoints stay loadable with ``weights_only=True``: "epoch" (from 0, None outside of fit),
"monitored" (the value that chooses the best checkpoint, or None), "means" {score: value}, "classes" {score: list of
values, NaN if absent}, "categories" {category: {score: value}} and "crops" {crop factor: mean IoU}."""

_FILES = (
    ("configuration", "config.yaml"),
    ("metrics", "metrics.csv"),
    ("learning curves", "learning_curves.png"),
    ("contact sheet", "contact_sheet.png"),
    ("pictures", "pictures"),
    ("image scores", "image_scores.csv"),
    ("confusion", "confusion_matrix.png"),
    ("distance curve", "distance_curve.png"),
)

_MEANS = {
    "accuracy": "pixel accuracy",
    "mean_accuracy": "class accuracy",
    "fwiou": "frequency-weighted IoU",
    "category_miou": "category IoU",
    "category_miiou": "category iIoU",
    "boundary_ods": "boundary map, best F",
}


class RunSummary(pl.Callback):
    """Prints a line per training epoch, and a table of class scores at the end of ``fit``, ``validate`` and ``test``.

    The table after ``fit`` shows the epoch of the best checkpoint (the one ``ModelCheckpoint`` monitors), or the last
    validated one if nothing is monitored. The same numbers are saved as ``scores_val.json`` or ``scores_test.json``
    in the run's directory; those of a test also as ``scores_test.csv``, with ``distance_curve.png`` beside them.

    Reads ``class_scores`` of the task, ``{"val": {"iou": (K,), "boundary_f1_3px": (K,), ...}, "test": ...}`` with
    values in [0, 1] and NaN for absent classes; their means from the logged ``val/miou``, ``val/boundary_f1_3px``, ...;
    what else ``stage_scores`` of the task has, ``{"test": Scores}``; and ``class_names`` of the data module. Scores are
    printed in percent, saved in [0, 1].
    """

    def __init__(self) -> None:
        self._best: Scores | None = None
        self._latest: Scores | None = None
        self._directory: Path | None = None
        self._fit_start = self._epoch_start = self._validation_start = 0.0
        self._epochs_done = self._images = 0
        self._validation_seconds = self._earlier_seconds = 0.0
        self._fit_running = False

    def state_dict(self) -> dict[str, Any]:
        """Best scores and time so far, so that a resumed run sums up all of it."""
        return {"best": self._best, "seconds": self._seconds() if self._fit_running else self._earlier_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up ``state_dict``."""
        self._best, self._earlier_seconds = state_dict["best"], state_dict["seconds"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the directory while all processes are certainly there."""
        self._directory = run_directory(trainer)
        if stage == "fit":
            self._best, self._earlier_seconds = None, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is None:
            self._best = None  # resumed in a new folder, ModelCheckpoint starts its choice afresh
        self._fit_start, self._epochs_done, self._fit_running = time.monotonic(), 0, True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting images."""
        self._epoch_start, self._images, self._validation_seconds = time.monotonic(), 0, 0.0
        self._loss_sum: Tensor | float = 0.0
        self._latest = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Mapping[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Count images and add up their losses, without waiting for the device."""
        self._images += len(batch["image"]) * trainer.world_size
        if isinstance(outputs, Mapping):
            # Lightning has divided the loss for the accumulation of gradients.
            weight = len(batch["image"]) * trainer.world_size * trainer.accumulate_grad_batches
            self._loss_sum = self._loss_sum + outputs["loss"].detach() * weight

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of training speed."""
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the scores if they are the best so far; sum up if this was ``validate``."""
        if trainer.sanity_checking:
            return
        self._validation_seconds += time.monotonic() - self._validation_start
        self._latest = _collect(trainer, pl_module, "val")
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._sum_up(trainer, self._latest, "val", "Validation")
        elif self._best is None or is_better(trainer, self._latest["monitored"], self._best["monitored"]):
            self._best = self._latest

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up."""
        self._sum_up(trainer, _collect(trainer, pl_module, "test"), "test", "Test")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's line; validation, if any, is over and epoch means of the losses are there."""
        self._epochs_done += 1
        if trainer.is_global_zero:
            _show(Text(self._epoch_line(trainer), no_wrap=True), soft_wrap=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._earlier_seconds, self._fit_running = self._seconds(), False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up, after all other callbacks have written their files."""
        if self._best is not None:
            self._sum_up(trainer, self._best, "val", _fit_title(trainer, self._best))

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._fit_start

    def _epoch_line(self, trainer: pl.Trainer) -> str:
        now = time.monotonic()
        elapsed = now - self._fit_start
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
        counted = epochs is not None and epochs > 0
        parts = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}" if counted else f"epoch {epoch}"]
        # The mean over the epoch; of several processes the first one's.
        parts.append(f"loss {float(self._loss_sum) / max(self._images, 1):.3f}")
        parts += _mean_scores(self._latest["means"]) if self._latest is not None else []
        speed = self._images / max(now - self._epoch_start - self._validation_seconds, 1e-9)
        parts.append(f"{speed:.{1 if speed < 100 else 0}f} img/s")
        remaining = elapsed / self._epochs_done * (epochs - epoch) if counted and epochs is not None else None
        parts.append(_clock(elapsed) + (f" of {_clock(elapsed + remaining)}" if remaining is not None else ""))
        return "  ".join(parts)

    def _sum_up(self, trainer: pl.Trainer, scores: Scores, stage: str, title: str) -> None:
        if not trainer.is_global_zero:
            return
        names = _class_names(trainer, scores)
        record, facts = _plain_record(scores, names, stage), []
        if trainer.state.fn == TrainerFn.FITTING:
            record["training_seconds"] = round(self._earlier_seconds, 3)
            facts.append(("training time", _clock(self._earlier_seconds)))
        if self._directory is not None:
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._directory / f"scores_{stage}.json"
            path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
            if stage == "test":
                write_table(path.with_suffix(".csv"), record["classes"], first="class")
                if scores.get("crops"):
                    plot_distance_curves({"": scores["crops"]}, self._directory / "distance_curve.png")
        facts += [(label, str(file)) for label, file in _files(trainer, self._directory, stage)]
        _show(_score_table(scores, names, title))
        if stage == "test":
            facts = [*_other_scores(scores), *facts]
        width = max(16, 1 + max((len(label) for label, _ in facts), default=0))
        _show(Text("\n".join(f"{label:<{width}}{fact}" for label, fact in facts)), soft_wrap=True)


def _collect(trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> Scores:
    """Scores of the evaluation that has just ended, as plain data."""
    per_class = getattr(pl_module, "class_scores", {}).get(stage, {})
    logged = trainer.callback_metrics
    whole = getattr(pl_module, "stage_scores", {}).get(stage)
    names = [*("miou" if name == "iou" else name for name in per_class), *(whole.means if whole else ())]
    monitor = monitor_name(trainer)
    return {
        "epoch": trainer.current_epoch if trainer.state.fn == TrainerFn.FITTING else None,
        "monitored": float(logged[monitor]) if monitor in logged else None,
        "means": {name: float(logged[f"{stage}/{name}"]) for name in names if f"{stage}/{name}" in logged},
        "classes": {name: [float(value) for value in values] for name, values in per_class.items()},
        "categories": _floats(whole.categories) if whole else {},
        "crops": _floats(whole.crops) if whole else {},
    }


def _floats(values: Any) -> Any:  # noqa: ANN401
    """Nested mappings of one-element tensors as plain numbers."""
    return {key: _floats(value) for key, value in values.items()} if isinstance(values, Mapping) else float(values)


def _class_names(trainer: pl.Trainer, scores: Scores) -> Sequence[str]:
    count = max((len(values) for values in scores["classes"].values()), default=0)
    return getattr(getattr(trainer, "datamodule", None), "class_names", None) or [f"class {i}" for i in range(count)]


def _fit_title(trainer: pl.Trainer, best: Scores) -> str:
    which = "Best epoch" if best["monitored"] is not None else "Last validated epoch"
    monitored = f" by {monitor_name(trainer)}" if best["monitored"] is not None else ""
    return f"{which}{monitored}: {best['epoch'] + 1} of {trainer.current_epoch}"


def _score_table(scores: Scores, names: Sequence[str], title: str) -> Table:
    """Classes down, scores across, means in the footer; in percent."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.HORIZONTALS, show_footer=True, pad_edge=False
    )
    means = {"iou" if name == "miou" else name: value for name, value in scores["means"].items()}
    table.add_column("class", "mean", footer_style="bold", overflow="ellipsis", no_wrap=True, max_width=28)
    for key, heading in zip(scores["classes"], score_headings(list(scores["classes"])), strict=True):
        footer = _percent(means.get(key, math.nan))
        table.add_column(heading, footer, justify="right", footer_style="bold", min_width=6)
    for index, name in enumerate(names):
        table.add_row(str(name), *(_percent(values[index]) for values in scores["classes"].values()))
    return table


def _plain_record(scores: Scores, names: Sequence[str], stage: str) -> dict[str, Any]:
    """What is saved as JSON, which knows no NaN: null stands for an absent class."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "stage": stage,
        "epoch": scores["epoch"],
        "means": {name: finite(value) for name, value in scores["means"].items()},
        "classes": {
            str(name): {key: finite(values[index]) for key, values in scores["classes"].items()}
            for index, name in enumerate(names)
        },
        **{
            part: json.loads(json.dumps(scores[part]), parse_constant=lambda _: None)
            for part in ("categories", "crops")
            if scores.get(part)
        },
    }


def _other_scores(scores: Scores) -> list[tuple[str, str]]:
    """What a test measures beside the table, as lines of label and value."""
    facts = [(label, _percent(scores["means"][key])) for key, label in _MEANS.items() if key in scores["means"]]
    if scores["crops"]:
        facts.append((f"mIoU at crop {'/'.join(scores['crops'])}", "/".join(map(_percent, scores["crops"].values()))))
    return facts


def _files(trainer: pl.Trainer, directory: Path | None, stage: str) -> list[tuple[str, Path]]:
    """Labels and paths of the run's files that exist."""
    found: list[tuple[str, Path]] = []
    if directory is not None:
        found += [(label, directory / name) for label, name in _FILES]
        found += [("scores", directory / f"scores_{stage}.{suffix}") for suffix in ("json", "csv")]
    for checkpoint in trainer.checkpoint_callbacks if trainer.state.fn == TrainerFn.FITTING else ():
        if isinstance(checkpoint, ModelCheckpoint):
            own = "best checkpoint" if checkpoint.monitor else "last checkpoint"
            paths = ((own, checkpoint.best_model_path), ("last checkpoint", checkpoint.last_model_path))
            found += [(label, Path(path)) for label, path in paths if path]
    return [(label, _relative(path)) for label, path in found if path.exists()]


def _relative(path: Path) -> Path:
    """The path as seen from the working directory, if it lies there."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _show(renderable: RenderableType, soft_wrap: bool = False) -> None:
    """Print above any progress bar: rich's bar shares this console, tqdm's bars are lifted meanwhile."""
    with tqdm.external_write_mode(file=sys.stdout):
        get_console().print(renderable, soft_wrap=soft_wrap, highlight=False)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _mean_scores(means: dict[str, float]) -> list[str]:
    """Such as mIoU 52.1, F 1/3 px 32.1/53.2."""
    prefix = "boundary_f1_"
    parts = [f"mIoU {_percent(means['miou'])}"] if "miou" in means else []
    fscores = {name.removeprefix(prefix).removesuffix("px"): v for name, v in means.items() if name.startswith(prefix)}
    if fscores:
        parts.append(f"F {'/'.join(fscores)} px {'/'.join(map(_percent, fscores.values()))}")
    return parts


def _clock(seconds: float) -> str:
    """1:05 or 2:01:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
