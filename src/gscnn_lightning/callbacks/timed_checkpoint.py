"""Checkpoints within an epoch, by the clock."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class TimedCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` by the clock that leaves the last batch of an epoch to the checkpoint of the epoch's end.

    Lightning takes an epoch whose last batch is in a checkpoint for completed, and its validation would be lost.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Write a checkpoint if it is time."""
        if not trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
