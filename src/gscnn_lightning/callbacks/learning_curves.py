"""Learning curves as a picture beside the run's other files."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from gscnn_lightning.callbacks._trainer import if_possible, run_folder
from gscnn_lightning.drawing.plots import plot_learning_curves
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.metrics_csv import read_metrics


class LearningCurves(pl.Callback):
    """Draws ``learning_curves.png`` from the metrics file of the ``CSVLogger`` when training ends.

    Does nothing without a ``CSVLogger``, or when a run was too short to log anything.
    """

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, before checkpoints are summed up and while the logger is open."""
        run = run_folder(trainer)
        loggers = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
        if run is None or not loggers or not trainer.is_global_zero:
            return
        # The logger writes in chunks; its last rows may still be in memory.
        loggers[0].save()
        logged = RunFolder(Path(loggers[0].log_dir))
        if not logged.metrics.exists():
            return
        with if_possible(trainer, "learning curves"):
            plot_learning_curves(*read_metrics(logged), run.learning_curves)
