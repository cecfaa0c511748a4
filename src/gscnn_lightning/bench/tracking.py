"""``gscnn bench tracking``: what pictures, records and W&B add to an epoch."""

from pathlib import Path
from tempfile import TemporaryDirectory

from gscnn_lightning.errors import SettingError


def tracking(config: Path = Path("configs/camvid.yaml"), epochs: int = 7) -> None:
    """Time the epochs of a training, every second one with W&B (offline), pictures and records.

    Every epoch has a validation, and every epoch that is tracked makes its pictures, which a training does ten times in
    all. The first epoch warms up. The run itself is not kept.

    For example, gscnn bench tracking, or gscnn bench tracking --config configs/scenes.yaml

    Args:
        config: config of gscnn-fit; it finds its data by itself, as by GSCNN_CAMVID_ROOT.
        epochs: number of epochs in all, 3 or more; an odd number makes pairs.

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
        main(["fit", "--config", str(config), *length, *place, *callback])
