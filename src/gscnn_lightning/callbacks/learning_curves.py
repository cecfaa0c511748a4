"""Learning curves as a picture beside the run's other files."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from gscnn_lightning.callbacks._run_directory import run_directory
from gscnn_lightning.drawing import plot_learning_curves
from gscnn_lightning.errors import DataError


class LearningCurves(pl.Callback):
    """Draws ``learning_curves.png`` from the metrics file of the ``CSVLogger`` when training ends.

    Does nothing without a ``CSVLogger``, or when a run was too short to log anything.
    """

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, before checkpoints are summed up and while the logger is open."""
        directory = run_directory(trainer)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        if directory is None or not loggers or not trainer.is_global_zero:
            return
        # The logger writes in chunks; its last rows may still be in memory.
        loggers[0].save()
        metrics_csv = Path(loggers[0].log_dir) / "metrics.csv"
        if not metrics_csv.exists():
            return
        try:
            plot_learning_curves(metrics_csv, directory / "learning_curves.png")
        except DataError as error:
            # A finished training must not fail for want of a picture.
            pl.utilities.rank_zero_info(f"No learning curves drawn: {error}")
