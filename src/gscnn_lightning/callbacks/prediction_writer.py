"""Predictions as image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BasePredictionWriter

from gscnn_lightning.callbacks._trainer import run_folder
from gscnn_lightning.errors import DataError
from gscnn_lightning.output import Prediction
from gscnn_lightning.prediction import DEFAULT_FORMATS, Format
from gscnn_lightning.prediction.files import PredictionFiles


class PredictionWriter(BasePredictionWriter):
    """Writes the pictures of each predicted image as soon as its batch is done, every process its own.

    Names and contents are those of :class:`gscnn_lightning.prediction.files.PredictionFiles`, the same as those of
    ``gscnn predict``. Existing files are never overwritten.

    Args:
        output_dir: where to write; default ``predictions/`` in the run's directory.
        formats: what to write: "labels" (train ids), "ids" (official Cityscapes ids), "color", "overlay", "boundary",
            "gates", "confidence", "entropy".

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
        run = run_folder(trainer)
        directory = None if run is None else run.predictions
        if self.output_dir is not None:
            directory = Path(self.output_dir)
        elif run is None and stage == "predict" and not getattr(trainer, "fast_dev_run", False):
            raise DataError("PredictionWriter has no place to write: give it an output_dir, or the trainer a logger")
        if stage == "predict" and directory is not None:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._files = PredictionFiles(directory, data.class_names, data.class_colors, self.formats)
            task: Any = pl_module
            # There may be a writer of other formats beside this one.
            task.trust_maps = tuple({*getattr(task, "trust_maps", ()), *self._files.trust})

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: Sequence[Prediction],
        batch_indices: Sequence[int] | None,
        batch: object,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the pictures of one batch.

        Args:
            trainer: not used.
            pl_module: not used.
            prediction: the images of the batch.
            batch_indices: not used.
            batch: not used.
            batch_idx: not used.
            dataloader_idx: not used.
        """
        if self._files is not None:
            for image in prediction:
                self._files.write(image)
