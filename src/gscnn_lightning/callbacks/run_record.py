"""The record of a run as plain files: what it was made with, what it scored."""

import time
from dataclasses import asdict, replace
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from gscnn_lightning.callbacks._trainer import (
    best_checkpoint,
    if_possible,
    is_better,
    logged_step,
    monitored_value,
    run_folder,
)
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.environment import environment
from gscnn_lightning.run_folder.record import draw_stage, write_details, write_stage
from gscnn_lightning.run_folder.score_files import write_json
from gscnn_lightning.scores import Scores
from gscnn_lightning.tracking import announce, log_record, log_scores, wandb_run_id


class RunRecord(pl.Callback):
    """Writes what a run was made with and what it scored into its folder.

    At the start of ``fit``, ``validate`` and ``test``: ``environment.json`` (versions, hardware, command, code) and
    ``classes.json`` (names and colours of the classes). From the best epoch, the one that ``ModelCheckpoint`` keeps, or
    from the evaluation: ``image_scores.csv`` (boundary F and mIoU of every image), ``confusion_matrix.csv`` (pixels,
    rows are true classes) and ``confusion_matrix.png``. After an evaluation, and when a training has ended and all
    other files are there: ``scores_val.json`` or ``scores_test.json``; after a test also ``scores_test.csv`` and
    ``distance_curve.png``, ``reliability.csv`` and ``reliability.png``. W&B and TensorBoard, where a run has them, get
    the scores per class and W&B the environment and the confusion matrix, too. The id of the W&B run is kept in
    checkpoints.

    Reads ``stage_scores`` of the task, {"val": `gscnn_lightning.scores.Scores`, "test": ...}, and ``class_names``
    and ``class_colors`` of the data module, or of the task where there is none.

    Attributes:
        latest: scores of the latest evaluation of this epoch; None before it.
        best: scores of the best epoch so far, which is the last validated one if nothing is monitored.
    """

    def __init__(self) -> None:
        self.latest: Scores | None = None
        self.best: Scores | None = None
        self._monitored: float | None = None
        self._run: RunFolder | None = None
        self._fit_start = self._earlier_seconds = 0.0
        self._fit_running = False

    @property
    def is_monitored(self) -> bool:
        """Whether a score chose the best epoch."""
        return self._monitored is not None

    @property
    def training_seconds(self) -> float:
        """Time of the training so far, with validations and what came before it was resumed."""
        return self._earlier_seconds + (time.monotonic() - self._fit_start if self._fit_running else 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Best scores and time so far, so that a resumed run sums up all of it."""
        # Plain data, which loads with weights_only; files have the images and confusions.
        best = None if self.best is None else asdict(replace(self.best, confusion=None, images=[]))
        return {"best": best, "monitored": self._monitored, "seconds": self.training_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up ``state_dict``."""
        self.best = None if state_dict["best"] is None else Scores(**state_dict["best"])
        self._monitored, self._earlier_seconds = state_dict["monitored"], state_dict["seconds"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take up what `RunSummary` kept before it was this callback's."""
        states = checkpoint.get("callbacks", {})
        earlier = states.get("RunSummary") or {}
        if self.state_key not in states and "best" in earlier:
            best = earlier["best"]
            parts = {name: best[name] for name in ("means", "classes", "categories", "crops")} if best else {}
            self.best = Scores(**parts, epoch=best["epoch"] + 1) if best else None
            self._monitored, self._earlier_seconds = best["monitored"] if best else None, earlier["seconds"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the folder while all processes are certainly there; write what is known at the start."""
        self._run = run_folder(trainer)
        if stage == "fit":
            self.best, self._monitored, self._earlier_seconds = None, None, 0.0
        if stage not in ("fit", "validate", "test") or self._run is None or not trainer.is_global_zero:
            return
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [torch.cuda.get_device_name(index) for index in range(count)]
        record = {**environment(gpus), "precision": str(trainer.precision), "devices": trainer.world_size}
        write_json(self._run.environment, record)
        classes = _classes(trainer, pl_module)
        colors = [list(color) for color in classes.class_colors]
        write_json(self._run.classes, {"names": list(classes.class_names), "colors": colors})
        log_record(trainer.loggers, "environment", record)
        announce(trainer.loggers)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        checkpoint = best_checkpoint(trainer)
        if checkpoint is not None and checkpoint.best_model_score is None:
            self.forget()  # resumed in a new folder, ModelCheckpoint starts its choice afresh
        self._fit_start, self._fit_running, self.latest = time.monotonic(), True, None

    def forget(self) -> None:
        """Choose the best epoch among those to come."""
        self.best = self._monitored = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the scores of the epoch before."""
        self.latest = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores of ``validate``, or of a new best epoch."""
        scores = self._scores(trainer, pl_module, "val")
        if trainer.sanity_checking or scores is None:
            return
        self.latest = scores
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._write_details(trainer, scores, "val")
            self._write_scores(trainer, scores, "val")
        elif self.best is None or is_better(trainer, monitored_value(trainer), self._monitored):
            self.best, self._monitored = scores, monitored_value(trainer)
            self._write_details(trainer, scores, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores of ``test``."""
        self.latest = self._scores(trainer, pl_module, "test")
        if self.latest is not None:
            self._write_details(trainer, self.latest, "test")
            self._write_scores(trainer, self.latest, "test")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._earlier_seconds, self._fit_running = self.training_seconds, False

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the scores of the best epoch, after all other callbacks have written their files."""
        if self.best is not None:
            names = tuple(_classes(trainer, pl_module).class_names)
            self.best = replace(self.best, class_names=names, training_seconds=self._earlier_seconds)
            self._write_scores(trainer, self.best, "val")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the id of the W&B run, so that resuming continues it."""
        run_id = wandb_run_id(trainer.loggers)
        if run_id is not None:
            checkpoint["wandb_run_id"] = run_id

    def _scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> Scores | None:
        scores = getattr(pl_module, "stage_scores", {}).get(stage)
        if scores is None:
            return None
        epoch = trainer.current_epoch + 1 if trainer.state.fn == TrainerFn.FITTING else None
        return replace(scores, class_names=tuple(_classes(trainer, pl_module).class_names), epoch=epoch)

    def _write_details(self, trainer: pl.Trainer, scores: Scores, stage: str) -> None:
        """Scores of images and of pairs of classes."""
        if self._run is None or scores.confusion is None or not trainer.is_global_zero:
            return
        with if_possible(trainer, "scores of images and confusion matrix"):
            write_details(self._run, scores)
        log_scores(trainer.loggers, stage, scores, logged_step(trainer))

    def _write_scores(self, trainer: pl.Trainer, scores: Scores, stage: str) -> None:
        if self._run is not None and trainer.is_global_zero:
            write_stage(self._run, stage, scores)
            if stage == "test":
                with if_possible(trainer, "plots of the scores"):
                    draw_stage(self._run, scores)


def _classes(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:  # noqa: ANN401
    """What has the names and colours of the classes: the data module, or the task where there is none."""
    return getattr(trainer, "datamodule", None) or pl_module
