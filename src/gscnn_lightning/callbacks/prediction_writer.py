"""Predictions as image files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter

from gscnn_lightning.callbacks._run_directory import run_directory
from gscnn_lightning.errors import DataError
from gscnn_lightning.prediction_files import DEFAULT_FORMATS, Format, Prediction, PredictionFiles


class PredictionWriter(BasePredictionWriter):
    """Writes the pictures of each predicted image as soon as its batch is done, every process its own.

    Names and contents are those of :class:`gscnn_lightning.prediction_files.PredictionFiles`, the same as those of
    ``gscnn predict``. Existing files are never overwritten.

    Args:
        output_dir: where to write; default ``predictions/`` in the run's directory.
        formats: what to write: "labels" (train ids), "ids" (official Cityscapes ids), "color", "overlay", "boundary",
            "gates".

    Raises:
        DataError: if there is neither ``output_dir`` nor a logger to take the directory from, or if a file exists.
        SettingError: if a format is unknown or does not go with the classes.
    """

    def __init__(self, output_dir: str | Path | None = None, formats: Sequence[Format] = DEFAULT_FORMATS) -> None:
        super().__init__(write_interval="batch")
        self.output_dir = output_dir
        self.formats = formats
        self._files: PredictionFiles | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the directory before the first image is read."""
        super().setup(trainer, pl_module, stage)
        directory = run_directory(trainer)
        if self.output_dir is not None:
            directory = Path(self.output_dir)
        elif directory is not None:
            directory = directory / "predictions"
        elif stage == "predict" and not getattr(trainer, "fast_dev_run", False):
            raise DataError("PredictionWriter has no place to write: give it an output_dir, or the trainer a logger")
        if stage == "predict" and directory is not None:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._files = PredictionFiles(directory, data.class_names, data.class_colors, self.formats)

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
            trainer: not used.
            pl_module: not used.
            prediction: "name" (B strings), "labels" (B, H, W) uint8, "image" (B, 3, H, W) uint8, "boundary_prob"
                (B, 1, H, W) in [0, 1] or None, and "gates" (B, 1, h, w) in [0, 1] each, which may be missing.
            batch_indices: not used.
            batch: not used.
            batch_idx: not used.
            dataloader_idx: not used.
        """
        if self._files is None:
            return
        photos = prediction["image"].permute(0, 2, 3, 1).cpu().numpy()
        labels, prob = prediction["labels"].cpu().numpy(), prediction["boundary_prob"]
        for index, name in enumerate(prediction["name"]):
            self._files.write(
                Prediction(
                    name,
                    photos[index],
                    labels[index],
                    None if prob is None else prob[index, 0].float().cpu().numpy(),
                    tuple(gate[index, 0].float().cpu().numpy() for gate in prediction.get("gates", ())),
                )
            )
