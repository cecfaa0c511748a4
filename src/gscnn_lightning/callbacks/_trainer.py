"""What callbacks ask the trainer: where a run keeps its files, which score chooses its best epoch."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from gscnn_lightning.errors import DataError
from gscnn_lightning.run_folder import BEST, RunFolder

_LEFT_OUT: WeakKeyDictionary[pl.Trainer, set[str]] = WeakKeyDictionary()


@contextmanager
def if_possible(trainer: pl.Trainer, what: str) -> Iterator[None]:
    """Let a training of days go on without files that cannot be written, which is said once.

    Args:
        trainer: the run.
        what: the files, in words.
    """
    try:
        yield
    except (OSError, DataError) as error:
        said = _LEFT_OUT.setdefault(trainer, set())
        if what not in said:
            rank_zero_info(f"The run goes on without {what}: {error}")
        said.add(what)


def run_folder(trainer: pl.Trainer) -> RunFolder | None:
    """Folder of the run's logger; None without a logger, as in ``fast_dev_run``.

    ``Trainer.log_dir`` is a collective call: every process has to make it, not only the one that writes.
    """
    log_dir = trainer.log_dir
    return RunFolder(Path(log_dir)) if trainer.loggers and log_dir is not None else None


def logged_step(trainer: pl.Trainer) -> int:
    """The step beside which Lightning logs scores: the last one that was made."""
    return max(trainer.global_step - 1, 0)


def between_steps(trainer: pl.Trainer) -> bool:
    """Whether a training whose batch has just ended can be saved so that it goes on exactly from there.

    Not after the last batch of an epoch, which Lightning then takes for completed, so that its validation would be
    lost; nor while gradients are being accumulated, which are not in a checkpoint.
    """
    return not trainer.is_last_batch and not trainer.fit_loop.epoch_loop._should_accumulate()


def validate_now(trainer: pl.Trainer) -> None:
    """Run the validation of a fit, and keep the checkpoint if it is the best, when Lightning would not."""
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    for callback in trainer.checkpoint_callbacks:
        # One that waits for the end of the epoch has seen it pass without a score.
        if isinstance(callback, ModelCheckpoint) and callback._should_save_on_train_epoch_end(trainer):
            callback.on_train_epoch_end(trainer, trainer.lightning_module)


def best_checkpoint(trainer: pl.Trainer) -> ModelCheckpoint | None:
    """What chooses the best checkpoint, whatever other `ModelCheckpoint` there are; None if nothing does.

    It is the one that ``gscnn-fit`` adds, or else the first that monitors a score, or else the first.
    """
    found = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    found.sort(key=lambda callback: (callback.monitor is None, callback.filename != BEST))
    return found[0] if found else None


def monitor_name(trainer: pl.Trainer) -> str | None:
    """Name of the score that chooses the best checkpoint; None if there is none."""
    checkpoint = best_checkpoint(trainer)
    return None if checkpoint is None else checkpoint.monitor


def monitored_value(trainer: pl.Trainer) -> float | None:
    """Latest value of the score that chooses the best checkpoint; None if there is none."""
    monitor = monitor_name(trainer)
    return float(trainer.callback_metrics[monitor]) if monitor in trainer.callback_metrics else None


def is_better(trainer: pl.Trainer, value: float | None, best: float | None) -> bool:
    """Whether a new score replaces the best, by the rule of ``ModelCheckpoint``.

    The latest wins where nothing is monitored. For callbacks that run before ``ModelCheckpoint``.
    """
    if value is None or best is None or math.isnan(best):
        return True
    checkpoint = best_checkpoint(trainer)
    minimize = checkpoint is not None and checkpoint.mode == "min"
    return value < best if minimize else value > best
