"""Predictions as image files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter

from gscnn_lightning.callbacks._run_directory import run_directory
from gscnn_lightning.data.boundaries import label_boundaries
from gscnn_lightning.drawing import colorize_labels, overlay_boundaries, overlay_labels
from gscnn_lightning.errors import DataError


class PredictionWriter(BasePredictionWriter):
    """Writes the pictures of each predicted image as soon as its batch is done, every process its own.

    For an image called NAME (which may contain "/") these files appear:

    - ``NAME_labels.png``: train ids, uint8;
    - ``NAME_color.png``: class colours;
    - ``NAME_overlay.png``: photo tinted with class colours, class outlines in white;
    - ``NAME_boundary.png``: boundary probability times 255, uint8; only from a network with shape stream.

    Existing files are never overwritten.

    Args:
        output_dir: where to write; default ``predictions/`` in the run's directory.

    Raises:
        DataError: if there is neither ``output_dir`` nor a logger to take the directory from, or if a file exists.
    """

    def __init__(self, output_dir: str | Path | None = None) -> None:
        super().__init__(write_interval="batch")
        self.output_dir = output_dir
        self._directory: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the directory before the first image is read."""
        super().setup(trainer, pl_module, stage)
        directory = run_directory(trainer)
        if self.output_dir is not None:
            self._directory = Path(self.output_dir)
        elif directory is not None:
            self._directory = directory / "predictions"
        elif stage == "predict" and not getattr(trainer, "fast_dev_run", False):
            raise DataError("PredictionWriter has no place to write: give it an output_dir, or the trainer a logger")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Mapping[str, Any],
        batch_indices: Sequence[int] | None,
        batch: object,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the pictures of one batch.

        Args:
            trainer: its data module knows the class colours.
            pl_module: not used.
            prediction: "name" (B strings), "labels" (B, H, W) uint8, "image" (B, 3, H, W) uint8, and "boundary_prob"
                (B, 1, H, W) in [0, 1] or None.
            batch_indices: not used.
            batch: not used.
            batch_idx: not used.
            dataloader_idx: not used.
        """
        if self._directory is None:
            return
        colors = trainer.datamodule.class_colors  # type: ignore[attr-defined]
        labels = prediction["labels"].cpu().numpy()
        photos = prediction["image"].permute(0, 2, 3, 1).cpu().numpy()
        for index, name in enumerate(prediction["name"]):
            outlined = overlay_boundaries(
                overlay_labels(photos[index], labels[index], colors),
                label_boundaries(labels[index], radius=1),
                color=(255, 255, 255),
            )
            self._write(f"{name}_labels.png", labels[index])
            self._write(f"{name}_color.png", colorize_labels(labels[index], colors))
            self._write(f"{name}_overlay.png", outlined)
            if prediction["boundary_prob"] is not None:
                prob = prediction["boundary_prob"][index, 0].float().mul(255).round().cpu().numpy()
                self._write(f"{name}_boundary.png", prob.astype(np.uint8))

    def _write(self, name: str, picture: npt.NDArray[np.uint8]) -> None:
        assert self._directory is not None
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if picture.ndim == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR).astype(np.uint8)
        encoded = cv2.imencode(".png", picture)[1].tobytes()
        try:
            # Exclusive creation: two images of one name cannot overwrite each other, in whatever process they are.
            with path.open("xb") as file:
                file.write(encoded)
        except FileExistsError as error:
            raise DataError(
                f"{path} exists already and is not overwritten: remove it or choose another output_dir; "
                "if this run wrote it, two images have the same name"
            ) from error
