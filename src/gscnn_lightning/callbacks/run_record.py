"""The record of a run as plain files: what it was made with, and the scores behind its means."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from gscnn_lightning.callbacks._best_epoch import is_best_epoch
from gscnn_lightning.callbacks._run_directory import logged_step, run_directory
from gscnn_lightning.environment import environment
from gscnn_lightning.evaluation import Scores
from gscnn_lightning.reports import plot_confusion, write_confusion, write_image_scores
from gscnn_lightning.tracking import announce, log_record, log_scores, wandb_run_id


class RunRecord(pl.Callback):
    """Writes what a run was made with and what it scored, image by image and class by class, into its directory.

    At the start of ``fit``, ``validate`` and ``test``: ``environment.json`` (versions, hardware, command, code) and
    ``classes.json`` (names and colours of the classes). From the best epoch, the one that ``ModelCheckpoint`` keeps, or
    from the evaluation: ``image_scores.csv`` (boundary F and mIoU of every image), ``confusion_matrix.csv`` (pixels,
    rows are true classes) and ``confusion_matrix.png``. W&B and TensorBoard, where a run has them, get the scores per
    class and W&B the environment and the confusion matrix, too. The id of the W&B run is kept in checkpoints.

    Reads ``stage_scores`` of the task, {"val": `gscnn_lightning.evaluation.Scores`, "test": ...}, and ``class_names``
    and ``class_colors`` of the data module, or of the task where there is none.
    """

    def __init__(self) -> None:
        self._directory: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the directory while all processes are certainly there; write what is known at the start."""
        self._directory = run_directory(trainer)
        if stage not in ("fit", "validate", "test") or self._directory is None or not trainer.is_global_zero:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        record = {**environment(), "precision": str(trainer.precision), "devices": trainer.world_size}
        _write_json(self._directory / "environment.json", record)
        classes = _classes(trainer, pl_module)
        colors = [list(color) for color in classes.class_colors]
        _write_json(self._directory / "classes.json", {"names": list(classes.class_names), "colors": colors})
        log_record(trainer.loggers, "environment", record)
        announce(trainer.loggers)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores of a new best epoch, or of ``validate``."""
        if not trainer.sanity_checking and (trainer.state.fn == TrainerFn.VALIDATING or is_best_epoch(trainer)):
            self._record(trainer, pl_module, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores of ``test``."""
        self._record(trainer, pl_module, "test")

    def _record(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        scores = getattr(pl_module, "stage_scores", {}).get(stage)
        if scores is None or self._directory is None or not trainer.is_global_zero:
            return
        names = list(_classes(trainer, pl_module).class_names)
        _write_scores(self._directory, scores, names)
        classes = {name: values.tolist() for name, values in scores.classes.items()}
        log_scores(trainer.loggers, stage, names, classes, scores.confusion.numpy(), logged_step(trainer))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the id of the W&B run, so that resuming continues it."""
        run_id = wandb_run_id(trainer.loggers)
        if run_id is not None:
            checkpoint["wandb_run_id"] = run_id


def _classes(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:  # noqa: ANN401
    """What has the names and colours of the classes: the data module, or the task where there is none."""
    return getattr(trainer, "datamodule", None) or pl_module


def _write_scores(directory: Path, scores: Scores, class_names: list[str]) -> None:
    write_image_scores(directory / "image_scores.csv", scores.images)
    counts = scores.confusion.numpy().astype(np.int64)
    write_confusion(directory / "confusion_matrix.csv", counts, class_names)
    plot_confusion(directory / "confusion_matrix.png", counts, class_names)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
