"""Which epoch is the best: the rule of ``ModelCheckpoint``, for callbacks that run before it."""

import math

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


def monitor_name(trainer: pl.Trainer) -> str | None:
    """Name of the score that chooses the best checkpoint; None if there is none."""
    checkpoint = trainer.checkpoint_callback
    return checkpoint.monitor if isinstance(checkpoint, ModelCheckpoint) else None


def is_better(trainer: pl.Trainer, value: float | None, best: float | None) -> bool:
    """Whether a new score replaces the best; the latest wins where nothing is monitored."""
    if value is None or best is None or math.isnan(best):
        return True
    checkpoint = trainer.checkpoint_callback
    minimize = isinstance(checkpoint, ModelCheckpoint) and checkpoint.mode == "min"
    return value < best if minimize else value > best


def is_best_epoch(trainer: pl.Trainer) -> bool:
    """Whether the validation that has just ended gives the best epoch so far."""
    checkpoint, monitor = trainer.checkpoint_callback, monitor_name(trainer)
    best = checkpoint.best_model_score if isinstance(checkpoint, ModelCheckpoint) else None
    value = float(trainer.callback_metrics[monitor]) if monitor in trainer.callback_metrics else None
    return is_better(trainer, value, None if best is None else float(best))
