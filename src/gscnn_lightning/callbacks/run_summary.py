"""A run in words: one line per epoch, and a table of scores at the end."""

import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import STEP_OUTPUT
from rich import get_console
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor

from gscnn_lightning.callbacks._trainer import best_checkpoint, monitor_name, run_folder
from gscnn_lightning.callbacks.run_record import RunRecord
from gscnn_lightning.errors import SettingError
from gscnn_lightning.run_folder import LAST, RunFolder
from gscnn_lightning.score_names import MIOU, is_boundary_score, score_headings, tolerance_text
from gscnn_lightning.scores import Scores
from gscnn_lightning.scoring.tables import facts_text, other_scores, percent, score_table
from gscnn_lightning.terminal import clock


class RunSummary(pl.Callback):
    """Prints a line per training epoch, and a table of class scores at the end of ``fit``, ``validate`` and ``test``.

    The table after ``fit`` shows the epoch of the best checkpoint (the one ``ModelCheckpoint`` monitors), or the last
    validated one if nothing is monitored. Below it are the files that the run has left.

    Prints what `RunRecord` keeps, which has to be there before it. Scores are in percent.

    Raises:
        SettingError: the trainer has no `RunRecord`, or only one that comes later.
    """

    def __init__(self) -> None:
        self._record = RunRecord()
        self._run: RunFolder | None = None
        self._epoch_start = self._validation_start = self._validation_seconds = 0.0
        self._epoch = self._images = self._images_before = 0
        self._loss_sum: Tensor | float = 0.0
        self._resumed: dict[str, float] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the folder while all processes are certainly there."""
        self._run = run_folder(trainer)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        records = [callback for callback in callbacks[: callbacks.index(self)] if isinstance(callback, RunRecord)]
        if not records:
            raise SettingError("RunSummary prints what RunRecord keeps: put a RunRecord before it")
        self._record = records[0]

    def state_dict(self) -> dict[str, float]:
        """Sums of the epoch so far, so that a run that is resumed within it sums up all of it."""
        return {"epoch": self._epoch, "images": self._images, "loss_sum": float(self._loss_sum)}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Take up ``state_dict``, unless the checkpoint is from before there were sums in it."""
        self._resumed = state_dict if "images" in state_dict else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clocks; a training that goes on within an epoch does not start it once more."""
        self._start_epoch(trainer)
        if self._resumed is not None and self._resumed["epoch"] == self._epoch:
            self._images = self._images_before = int(self._resumed["images"])
            self._loss_sum = self._resumed["loss_sum"]
        self._resumed = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting images."""
        self._start_epoch(trainer)

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
        """Sum up if this was ``validate``."""
        self._validation_seconds += time.monotonic() - self._validation_start
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._sum_up(trainer, self._record.latest, "val", "Validation")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up."""
        self._sum_up(trainer, self._record.latest, "test", "Test")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's line; validation, if any, is over and epoch means of the losses are there."""
        if trainer.is_global_zero:
            _show(trainer, Text(self._epoch_line(trainer), no_wrap=True), soft_wrap=True)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sum up, after all other callbacks have written their files."""
        best = self._record.best
        if best is not None:
            which = f"Best epoch by {monitor_name(trainer)}" if self._record.is_monitored else "Last validated epoch"
            self._sum_up(trainer, best, "val", f"{which}: {best.epoch} of {trainer.current_epoch}")

    def _start_epoch(self, trainer: pl.Trainer) -> None:
        self._epoch = trainer.current_epoch
        self._epoch_start, self._validation_seconds = time.monotonic(), 0.0
        self._images, self._images_before, self._loss_sum = 0, 0, 0.0

    def _epoch_line(self, trainer: pl.Trainer) -> str:
        now = time.monotonic()
        elapsed = self._record.training_seconds  # with what came before the training was resumed
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
        counted = epochs is not None and epochs > 0
        parts = [f"epoch {epoch:>{len(str(epochs))}}/{epochs}" if counted else f"epoch {epoch}"]
        # The mean over the epoch; of several processes the first one's.
        parts.append(f"loss {float(self._loss_sum) / max(self._images, 1):.3f}")
        parts += _mean_scores(self._record.latest.means) if self._record.latest is not None else []
        speed = (self._images - self._images_before) / max(now - self._epoch_start - self._validation_seconds, 1e-9)
        parts.append(f"{speed:.{1 if speed < 100 else 0}f} img/s")
        remaining = elapsed / epoch * (epochs - epoch) if counted and epochs is not None else None
        parts.append(clock(elapsed) + (f" of {clock(elapsed + remaining)}" if remaining is not None else ""))
        return "  ".join(parts)

    def _sum_up(self, trainer: pl.Trainer, scores: Scores | None, stage: str, title: str) -> None:
        if scores is None or not trainer.is_global_zero:
            return
        facts = other_scores(scores)
        if scores.training_seconds is not None:
            facts.append(("training time", clock(scores.training_seconds)))
        facts += [(label, str(path)) for label, path in _files(trainer, self._run, stage)]
        _show(trainer, score_table(scores, title))
        _show(trainer, Text(facts_text(facts)), soft_wrap=True)


def _files(trainer: pl.Trainer, run: RunFolder | None, stage: str) -> list[tuple[str, Path]]:
    """Labels and paths of the run's files that exist."""
    found: list[tuple[str, Path]] = []
    if run is not None:
        found += [*run.present(), ("scores", run.scores(stage)), ("scores", run.class_table(stage))]
    best = best_checkpoint(trainer)
    for checkpoint in trainer.checkpoint_callbacks if trainer.state.fn == TrainerFn.FITTING else ():
        if isinstance(checkpoint, ModelCheckpoint):
            own = "last checkpoint" if checkpoint.filename in (None, LAST) else "checkpoint"
            own = "best checkpoint" if checkpoint is best and checkpoint.monitor else own
            paths = ((own, checkpoint.best_model_path), ("last checkpoint", checkpoint.last_model_path))
            found += [(label, Path(path)) for label, path in paths if path]
    # Several callbacks write last.ckpt, each at its times.
    return [(label, _relative(path)) for label, path in dict.fromkeys(found) if path.exists()]


def _relative(path: Path) -> Path:
    """The path as seen from the working directory, if it lies there."""
    path, here = path.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _show(trainer: pl.Trainer, what: RenderableType, soft_wrap: bool = False) -> None:
    """Print above any progress bar: rich's shares this console, those of Lightning's other callback are lifted."""
    lifted: AbstractContextManager[None] = nullcontext()
    if isinstance(trainer.progress_bar_callback, TQDMProgressBar):
        from tqdm import tqdm  # type: ignore[import-untyped]

        lifted = tqdm.external_write_mode(file=sys.stdout)
    with lifted:
        get_console().print(what, soft_wrap=soft_wrap, highlight=False)


def _mean_scores(means: Mapping[str, float]) -> list[str]:
    """Such as mIoU 52.1, F 1/3 px 32.1/53.2."""
    parts = [f"{score_headings([MIOU])[0]} {percent(means[MIOU])}"] if MIOU in means else []
    fscores = {tolerance_text(name): value for name, value in means.items() if is_boundary_score(name)}
    if fscores:
        parts.append(f"F {'/'.join(fscores)} px {'/'.join(map(percent, fscores.values()))}")
    return parts
