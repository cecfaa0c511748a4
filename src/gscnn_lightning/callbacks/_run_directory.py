"""Where a run keeps its files."""

from pathlib import Path

import pytorch_lightning as pl


def run_directory(trainer: pl.Trainer) -> Path | None:
    """Directory of the run's logger; None without a logger, as in ``fast_dev_run``.

    ``Trainer.log_dir`` is a collective call: every process has to make it, not only the one that writes.
    """
    log_dir = trainer.log_dir
    return Path(log_dir) if trainer.loggers and log_dir is not None else None


def logged_step(trainer: pl.Trainer) -> int:
    """The step beside which Lightning logs scores: the last one that was made."""
    return max(trainer.global_step - 1, 0)
