"""The callback of ``gscnn bench tracking``."""

import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from gscnn_lightning.bench import Timing, print_table
from gscnn_lightning.callbacks import Pictures, RunRecord

_ON, _OFF = "with W&B, pictures and records", "with metrics.csv alone"


class InTurns(pl.Callback):
    """Takes all that tracks a run out of every second epoch, and prints how long epochs of either kind took."""

    def __init__(self) -> None:
        self._callbacks: Sequence[pl.Callback] = ()
        self._loggers: Sequence[Any] = ()
        self._starts: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin an epoch of the other kind."""
        if not self._starts:
            self._callbacks, self._loggers = trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]
        self._starts.append(time.perf_counter())
        tracked = trainer.current_epoch % 2 == 0
        plain = [callback for callback in self._callbacks if not isinstance(callback, Pictures | RunRecord)]
        trainer.callbacks = list(self._callbacks) if tracked else plain  # type: ignore[attr-defined]
        trainer.loggers = list(self._loggers) if tracked else list(self._loggers[:1])

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table."""
        ends = [*self._starts[1:], time.perf_counter()]
        seconds = [end - start for start, end in zip(self._starts, ends, strict=True)][1:]
        count = len(seconds) // 2
        timings = {name: Timing(tuple(seconds[first::2][:count]), None) for name, first in ((_OFF, 0), (_ON, 1))}
        print_table(f"{count} epochs of either kind", timings, _OFF)
