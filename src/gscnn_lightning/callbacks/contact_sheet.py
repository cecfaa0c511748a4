"""A contact sheet of validation images: what the network sees, says and attends to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from gscnn_lightning.callbacks._run_directory import run_directory
from gscnn_lightning.data.boundaries import label_boundaries
from gscnn_lightning.drawing import SheetRow, contact_sheet


class ContactSheet(pl.Callback):
    """Writes ``contact_sheet.png`` into the run's directory at the end of ``fit`` and of ``validate``.

    The images are spread evenly over the validation set, so they are the same ones in every run. After ``fit`` they
    show the network of the best checkpoint, or the final one if no ``ModelCheckpoint`` has chosen a best.

    Args:
        num_images: number of images, >= 1; fewer if the set is smaller.

    Raises:
        ValueError: if ``num_images`` is below 1.
    """

    def __init__(self, num_images: int = 4) -> None:
        if num_images < 1:
            raise ValueError(f"num_images is {num_images}; give at least 1, or leave the callback out")
        self.num_images = num_images

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw with the best weights while the network is still on its device."""
        checkpoint = trainer.checkpoint_callback
        best = checkpoint.best_model_path if isinstance(checkpoint, ModelCheckpoint) else ""
        if best and trainer.is_global_zero:
            with _weights_of(pl_module, best):
                self._draw(trainer, pl_module)
        else:
            self._draw(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after ``validate``, not after the validations of a fit."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        directory = run_directory(trainer)
        datamodule = getattr(trainer, "datamodule", None)
        if directory is None or datamodule is None or not trainer.is_global_zero:
            return
        dataset = datamodule.val_dataloader().dataset
        if len(dataset) == 0:
            return
        indices = np.unique(np.linspace(0, len(dataset) - 1, self.num_images).round().astype(int))
        with _evaluation(pl_module), trainer.precision_plugin.forward_context():
            rows = [_sheet_row(pl_module, dataset[int(index)]) for index in indices]
        sheet = contact_sheet(rows, datamodule.class_names, datamodule.class_colors)
        directory.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(directory / "contact_sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _sheet_row(pl_module: pl.LightningModule, sample: Mapping[str, Tensor]) -> SheetRow:
    output = pl_module(sample["image"][None].to(pl_module.device))
    boundary_logits = output.boundary_logits
    return SheetRow(
        name=str(sample["name"]),
        photo=sample["image"].permute(1, 2, 0).numpy(),
        labels=sample["mask"].numpy(),
        preds=output.seg_logits[0].argmax(0).cpu().numpy(),
        boundary=label_boundaries(sample["mask"].numpy()),
        boundary_prob=None if boundary_logits is None else boundary_logits[0, 0].float().sigmoid().cpu().numpy(),
        gates=tuple(gate[0, 0].float().cpu().numpy() for gate in output.gates),
    )


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
    own = {key: value.clone() for key, value in module.state_dict().items()}
    module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    try:
        yield
    finally:
        module.load_state_dict(own)
