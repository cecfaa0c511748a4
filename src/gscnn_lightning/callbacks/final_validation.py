"""A validation after the last epoch, whatever the interval of validations."""

import pytorch_lightning as pl


class FinalValidation(pl.Callback):
    """Validates after the last epoch of a fit, even if ``check_val_every_n_epoch`` does not divide their number.

    Without it a short training would end without a score and without a best checkpoint, and a longer one would throw
    its last epochs away.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at an epoch within which a training goes on, since it is not started once more."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the last epoch one of those with a validation."""
        if trainer.check_val_every_n_epoch is not None and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1
