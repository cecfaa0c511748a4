"""``gscnn bench tracking``: what pictures, records and W&B add to an epoch."""

from tempfile import TemporaryDirectory

from gscnn_lightning.errors import SettingError


def measure_tracking(config: str, epochs: int) -> None:
    """Train, and print the table of ``gscnn bench tracking``.

    Args:
        config: config of gscnn-fit.
        epochs: number of epochs in all.

    Raises:
        SettingError: there are too few epochs.
    """
    from gscnn_lightning.cli import main

    if epochs < 3:
        raise SettingError(f"epochs is {epochs}: give 3 or more, one to warm up and one of each kind")
    with TemporaryDirectory() as folder:
        place = ["--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true"]
        place += ["--trainer.logger.save_dir", folder, "--trainer.enable_progress_bar", "false"]
        length = ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", "1"]
        callback = ["--trainer.callbacks+", "gscnn_lightning.bench.in_turns.InTurns"]
        main(["fit", "--config", config, *length, *place, *callback])
