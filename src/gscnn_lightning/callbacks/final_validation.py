"""A validation after the last step, whatever the interval of validations, and whatever has ended the training."""

import pytorch_lightning as pl

from gscnn_lightning.callbacks._trainer import validate_now


class FinalValidation(pl.Callback):
    """Validates after the last step of a fit, if none has come after it anyway.

    Without it a training that ends between two validations would throw its last steps away, and a short one would end
    without a score and without a best checkpoint: by ``max_epochs`` that ``check_val_every_n_epoch`` does not divide,
    by ``max_steps``, by ``max_time``, or by an `EarlyStopping` that watches the training. To be listed before the
    callbacks that report at the end of a fit.
    """

    def __init__(self) -> None:
        self._validated: int | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at an epoch within which a training goes on, since it is not started once more."""
        self._validated = trainer.global_step
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the last epoch one of those with a validation."""
        if trainer.check_val_every_n_epoch is not None and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note after which step it was."""
        if not trainer.sanity_checking:
            self._validated = trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate unless that was done after the last step."""
        if trainer.enable_validation and self._validated != trainer.global_step:
            validate_now(trainer)
