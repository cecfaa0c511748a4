"""Pictures of validation images during a run: what the network sees, says and attends to."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from gscnn_lightning.callbacks._trainer import best_checkpoint, if_possible, logged_step, run_folder
from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.drawing.sheets import contact_sheet
from gscnn_lightning.output import Prediction
from gscnn_lightning.prediction.predictor import predicted_sample, spread_indices
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.pictures import folder_name, shrunk, write_pictures
from gscnn_lightning.run_folder.score_files import read_image_scores
from gscnn_lightning.scores import worst_images
from gscnn_lightning.tracking import log_pictures
from gscnn_lightning.trust.checkpoints import read_content

SNAPSHOTS = 10
"""Times that pictures are made during training, unless the callback is told otherwise."""


class Pictures(pl.Callback):
    """Writes pictures of a few validation images during training, and of the worst ones at its end.

    The images are spread evenly over the validation set, so they are the same ones in every run. Each has a folder
    ``pictures/epoch_NNN/III_NAME`` in the run's directory (NNN counts from 1, III is its place in the set) with the
    files of `gscnn_lightning.run_folder.pictures.write_pictures`. They are made after the first validation of every N
    epochs, and at the end of ``fit`` with the weights of the best checkpoint, in the folder of its epoch; without a
    `ModelCheckpoint` that has chosen a best, with the final ones. ``contact_sheet.png`` shows them side by side.
    The images with the lowest boundary F at the largest tolerance, according to ``image_scores.csv`` of `RunRecord`,
    which has to come before this callback, follow as ``pictures/worst/RR_NAME``.

    After ``validate`` it is the same with the weights that were validated. W&B and TensorBoard, where a run has them,
    show the same pictures. They are predicted as in validation, with the task's ``predict_output``, and are no wider
    than 1024 pixels.

    Args:
        num_images: number of images, >= 1; fewer if the set is smaller.
        every_n_epochs: N, >= 1; by default a tenth of all epochs.
        num_worst: number of worst images, >= 0.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(self, num_images: int = 4, every_n_epochs: int | None = None, num_worst: int = 12) -> None:
        if num_images < 1:
            raise ValueError(f"num_images is {num_images}; give at least 1, or leave the callback out")
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs}; give at least 1, or None for a tenth of the epochs")
        if num_worst < 0:
            raise ValueError(f"num_worst is {num_worst}; give 0 for none, or more")
        self.num_images = num_images
        self.every_n_epochs = every_n_epochs
        self.num_worst = num_worst
        self._run: RunFolder | None = None
        self._latest = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the folder while all processes are certainly there."""
        run = run_folder(trainer)
        has_data = getattr(trainer, "datamodule", None) is not None
        self._run = run if trainer.is_global_zero and has_data else None
        self._latest = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after ``validate``, and when it is time during a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            with if_possible(trainer, "pictures"):
                self._draw_all(trainer, pl_module, _epoch_of(trainer.ckpt_path))
        elif not trainer.sanity_checking and self._is_time(trainer):
            self._latest = trainer.current_epoch + 1
            with if_possible(trainer, "pictures"):
                self._draw(trainer, pl_module, self._latest)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw with the best weights while the network is still on its device."""
        checkpoint = best_checkpoint(trainer)
        best = "" if checkpoint is None else checkpoint.best_model_path
        if self._run is None:
            return
        with if_possible(trainer, "pictures"):
            if best:
                with _weights_of(pl_module, best):
                    self._draw_all(trainer, pl_module, _epoch_of(best))
            else:
                self._draw_all(trainer, pl_module, trainer.current_epoch)

    def _is_time(self, trainer: pl.Trainer) -> bool:
        """Whether N epochs have passed; the last epoch is left to the end of training."""
        epochs, epoch = trainer.max_epochs or -1, trainer.current_epoch + 1
        # Without a number of epochs, as with max_steps alone, every tenth is drawn.
        every = self.every_n_epochs or (math.ceil(epochs / SNAPSHOTS) if epochs > 0 else SNAPSHOTS)
        return epoch != epochs and epoch // every > self._latest // every

    def _draw_all(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """The fixed images with their contact sheet, and the worst ones."""
        rows = self._draw(trainer, pl_module, epoch)
        if self._run is None or not rows:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        sheet = contact_sheet(rows, data.class_names, data.class_colors)
        write_picture(self._run.contact_sheet, sheet, overwrite=True)
        # Another fit or validation in the same folder has other worst images.
        shutil.rmtree(self._run.worst_pictures, ignore_errors=True)
        worst = worst_images(read_image_scores(self._run))[: self.num_worst]
        if worst:
            numbered = [(rank, image.index) for rank, image in enumerate(worst)]
            self._write(trainer, pl_module, numbered, self._run.worst_pictures, digits=2)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> list[Prediction]:
        """The fixed images."""
        if self._run is None:
            return []
        indices = spread_indices(len(_dataset(trainer)), self.num_images)
        folder = self._run.epoch_pictures(epoch)
        return self._write(trainer, pl_module, [(index, index) for index in indices], folder, digits=3)

    def _write(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        numbered: Sequence[tuple[int, int]],
        folder: Path,
        digits: int,
    ) -> list[Prediction]:
        """Predict and write images, given as pairs of the number in their folder's name and their place in the set."""
        assert self._run is not None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        dataset, pictures = _dataset(trainer), dict[str, Prediction]()
        with _evaluation(pl_module), trainer.precision_plugin.forward_context():
            for number, index in numbered:
                row = shrunk(predicted_sample(pl_module, data, dataset[index]))
                name = folder_name(number, row.name, digits)
                write_pictures(folder / name, row, data.class_colors)
                pictures[name] = row
        key = "worst" if folder == self._run.worst_pictures else "pictures"
        log_pictures(trainer.loggers, key, pictures, data.class_names, data.class_colors, logged_step(trainer))
        return list(pictures.values())


def _dataset(trainer: pl.Trainer) -> Any:  # noqa: ANN401
    return trainer.datamodule.val_dataloader().dataset  # type: ignore[attr-defined]


def _epoch_of(checkpoint: str | Path | None) -> int:
    """Epoch of a checkpoint, counted from 1; 0 without one, or if it comes from no training of ours."""
    if checkpoint is None:
        return 0
    return read_content(str(checkpoint)).get("epoch", -1) + 1


@contextmanager
def _evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each submodule is in the mode it was in."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for submodule, training in modes.items():
            submodule.training = training


@contextmanager
def _weights_of(module: torch.nn.Module, checkpoint: str) -> Iterator[None]:
    """The module with the weights of a checkpoint, its own ones put back afterwards.

    Swapping weights, rather than building a second task from the checkpoint, never asks for pretrained weights again.
    """
    own = {key: value.to("cpu", copy=True) for key, value in module.state_dict().items()}
    read_content(checkpoint)
    module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    try:
        yield
    finally:
        module.load_state_dict(own)
