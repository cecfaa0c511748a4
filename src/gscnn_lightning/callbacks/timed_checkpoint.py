"""Checkpoints within an epoch, by the clock."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from gscnn_lightning.callbacks._trainer import between_steps


class TimedCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` by the clock that waits until a training can go on exactly from what it saves."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Write a checkpoint if it is time."""
        if between_steps(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
