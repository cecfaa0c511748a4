"""Pictures of validation images during a run: what the network sees, says and attends to."""

import csv
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from gscnn_lightning.callbacks._run_directory import logged_step, run_directory
from gscnn_lightning.drawing import SheetRow, contact_sheet
from gscnn_lightning.picture_files import shrunk, write_pictures
from gscnn_lightning.reports import folder_name, loosest_boundary_score
from gscnn_lightning.tracking import log_pictures

SNAPSHOTS = 10
"""Times that pictures are made during training, unless the callback is told otherwise."""


class Pictures(pl.Callback):
    """Writes pictures of a few validation images during training, and of the worst ones at its end.

    The images are spread evenly over the validation set, so they are the same ones in every run. Each has a folder
    ``pictures/epoch_NNN/III_NAME`` in the run's directory (NNN counts from 1, III is its place in the set) with the
    files of `gscnn_lightning.picture_files.write_pictures`. They are made after the first validation of every N epochs,
    and at the end of ``fit`` with the weights of the best checkpoint, in the folder of its epoch; without a
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
        self._directory: Path | None = None
        self._latest = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the directory while all processes are certainly there."""
        directory = run_directory(trainer)
        has_data = getattr(trainer, "datamodule", None) is not None
        self._directory = directory if trainer.is_global_zero and has_data else None
        self._latest = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after ``validate``, and when it is time during a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._draw_all(trainer, pl_module, _epoch_of(trainer.ckpt_path))
        elif not trainer.sanity_checking and self._is_time(trainer):
            self._latest = trainer.current_epoch + 1
            self._draw(trainer, pl_module, self._latest)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw with the best weights while the network is still on its device."""
        checkpoint = trainer.checkpoint_callback
        best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
        if self._directory is None:
            return
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
        if self._directory is None or not rows:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        sheet = contact_sheet(rows, data.class_names, data.class_colors)
        cv2.imwrite(str(self._directory / "contact_sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        # Another fit or validation in the same directory has other worst images.
        shutil.rmtree(self._directory / "pictures" / "worst", ignore_errors=True)
        worst = list(enumerate(_worst_images(self._directory / "image_scores.csv", self.num_worst)))
        if worst:
            self._write(trainer, pl_module, worst, "worst", digits=2)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> list[SheetRow]:
        """The fixed images."""
        if self._directory is None:
            return []
        length = len(_dataset(trainer))
        indices = np.unique(np.linspace(0, length - 1, self.num_images).round().astype(int)).tolist() if length else []
        return self._write(trainer, pl_module, [(i, i) for i in indices], f"epoch_{epoch:03d}", digits=3)

    def _write(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        numbered: Sequence[tuple[int, int]],
        folder: str,
        digits: int,
    ) -> list[SheetRow]:
        """Predict and write images, given as pairs of the number in their folder's name and their place in the set."""
        assert self._directory is not None
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        dataset, pictures = _dataset(trainer), dict[str, SheetRow]()
        with _evaluation(pl_module), trainer.precision_plugin.forward_context():
            for number, index in numbered:
                row = shrunk(predicted_row(pl_module, data, dataset[index]))
                name = folder_name(number, row.name, digits)
                write_pictures(self._directory / "pictures" / folder / name, row, data.class_colors)
                pictures[name] = row
        key = "worst" if folder == "worst" else "pictures"
        log_pictures(trainer.loggers, key, pictures, data.class_names, data.class_colors, logged_step(trainer))
        return list(pictures.values())


def _dataset(trainer: pl.Trainer) -> Any:  # noqa: ANN401
    return trainer.datamodule.val_dataloader().dataset  # type: ignore[attr-defined]


def predicted_row(task: Any, data: Any, sample: Mapping[str, Any]) -> SheetRow:  # noqa: ANN401
    """An image with its labels and all that a network says of it.

    Args:
        task: a `GSCNNTask` in evaluation mode, predicts with its own windows, scales and flips.
        data: the data module, whose rule makes the true boundary.
        sample: "image" (3, H, W) uint8, "mask" (H, W) and "name", as a data set has it.
    """
    output = task.predict_output(sample["image"][None].to(task.device))
    boundary_logits, labels = output.boundary_logits, sample["mask"].numpy()
    return SheetRow(
        name=str(sample["name"]),
        photo=sample["image"].permute(1, 2, 0).numpy(),
        labels=labels,
        preds=output.seg_logits[0].argmax(0).cpu().numpy(),
        boundary=data.boundaries(labels),
        boundary_prob=None if boundary_logits is None else boundary_logits[0, 0].float().sigmoid().cpu().numpy(),
        gates=tuple(gate[0, 0].float().cpu().numpy() for gate in output.gates),
    )


def _worst_images(image_scores: Path, number: int) -> list[int]:
    """Places in the set of the images with the lowest boundary F at the largest tolerance, worst first."""
    if not image_scores.exists():
        return []
    with image_scores.open(newline="") as file:
        reader = csv.DictReader(file)
        key = loosest_boundary_score(reader.fieldnames or ())
        if key is None:
            return []
        # An image without any boundary has no score.
        scored = [(float(row[key]), int(row["index"])) for row in reader if row[key]]
    return [index for _, index in sorted(scored)[:number]]


def _epoch_of(checkpoint: str | Path | None) -> int:
    """Epoch of a checkpoint, counted from 1; 0 without one, or if it comes from no training of ours."""
    if checkpoint is None:
        return 0
    return torch.load(checkpoint, map_location="meta", weights_only=True, mmap=True).get("epoch", -1) + 1


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
    module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    try:
        yield
    finally:
        module.load_state_dict(own)
