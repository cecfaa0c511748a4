"""``gscnn bench loop``: what Lightning, callbacks and logger add to a step of a bare loop over the same batches."""

import gc
import io
import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from gscnn_lightning.bench import Timing, check_repeats
from gscnn_lightning.bench.counts import counted_flop
from gscnn_lightning.bench.machine import torch_threads
from gscnn_lightning.bench.record import BenchRecord
from gscnn_lightning.bench.subjects import Subject, chosen_subject, task_step
from gscnn_lightning.cli import GSCNNCLI
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import data_module
from gscnn_lightning.optim import poly_decay, warmup
from gscnn_lightning.task import GSCNNTask

LIGHTNING, BARE = "gscnn-fit", "bare loop"


def measure_loop(
    others: Sequence[str],
    batches: int,
    device: str,
    precision: str,
    threads: int | None,
    repeats: int,
    out: Path | None,
    compare: Path | None,
) -> None:
    """Print the table of ``gscnn bench loop``.

    Args:
        others: arguments of ``gscnn-fit fit``; the config scenes if they name none.
        batches: length of an epoch, at most the config's.
        device: where.
        precision: "config" for the config's.
        threads: None for as many as torch takes.
        repeats: number of epochs of either loop, after one of each to warm up.
        out: JSON file to write.
        compare: JSON file to compare with.

    Raises:
        SettingError: a setting cannot be used.
    """
    check_repeats(repeats)
    if batches < 3:
        raise SettingError(f"batches is {batches}: give 3 or more, of which the first is not timed")
    subject = chosen_subject(others, "scenes", device, precision)
    with torch_threads(threads):
        settings = {"arguments": subject.arguments, "batches": batches, "repeats": repeats}
        record = BenchRecord("loop", settings, subject.device, subject.precision, out, compare)
        loops = {LIGHTNING: _fit, BARE: _bare_loop}
        rounds: dict[str, list[float]] = {name: [] for name in loops}
        losses: dict[str, float] = {}
        flop = 0
        for turn in range(repeats + 1):
            for name in sorted(loops, reverse=turn % 2 == 1):  # the bare loop first, which says what cannot be
                gc.collect()
                watch = Stopwatch(batches, subject.device, count=turn == 0 and name == BARE)
                loops[name](subject, watch)
                losses[name], flop = watch.loss, watch.flop or flop
                if turn:
                    rounds[name].append(watch.seconds)
        timings = {name: Timing(tuple(times), None) for name, times in rounds.items()}
        record.add(f"one step of an epoch of {batches} batches", timings, BARE, dict.fromkeys(loops, flop))
        per_step = {name: timing.seconds for name, timing in timings.items()}
        shown = ", ".join(f"{name} {seconds:.4f}" for name, seconds in per_step.items())
        record.remark("seconds_per_step", per_step, f"seconds per step: {shown}")
        same = math.isclose(*losses.values(), rel_tol=1e-5)
        end = " and ".join(f"{loss:.4f}" for loss in losses.values())
        record.remark("last_losses", losses, f"loss of the last batch: {end}, {'the same' if same else 'NOT the same'}")
        record.save()


class Stopwatch(pl.Callback):
    """Time from the start of the second batch of an epoch to the end of its last, either loop's.

    Args:
        batches: length of the epoch, 3 or more.
        device: what computes.
        count: count the floating-point operations of the first step.

    Attributes:
        seconds: per step.
        loss: of the last batch.
        flop: of a step, 0 if they are not counted.
    """

    def __init__(self, batches: int, device: torch.device, count: bool = False) -> None:
        self.batches, self.count = batches, count
        self.seconds = self.loss = math.nan
        self.flop = 0
        self._device, self._start = device, math.nan

    def begin(self, index: int) -> None:
        """A batch is there, on its device."""
        if index == 1:
            self._start = self._now()

    def end(self, index: int, loss: Tensor) -> None:
        """The step with the batch has been taken."""
        if index == self.batches - 1:
            self.seconds = (self._now() - self._start) / (self.batches - 1)
            self.loss = float(loss)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:  # noqa: ANN401
        """Lightning is about to take a step."""
        self.begin(index)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        index: int,
    ) -> None:
        """Lightning has taken a step."""
        self.end(index, outputs["loss"])

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _TimedCLI(GSCNNCLI):
    """``gscnn-fit`` with a stopwatch."""

    def __init__(self, args: list[str], watch: Stopwatch) -> None:
        self._watch = watch
        super().__init__(args)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:  # noqa: ANN401
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.append(self._watch)  # type: ignore[attr-defined]
        return trainer


def _fit(subject: Subject, watch: Stopwatch) -> None:
    """One epoch of ``gscnn-fit``, with all that it reports; its files are not kept."""
    with TemporaryDirectory() as folder, _quiet():
        length = {"max_epochs": 1, "limit_train_batches": watch.batches, "limit_val_batches": 1}
        length |= {"num_sanity_val_steps": 0, "accumulate_grad_batches": 1}
        where = {"accelerator": {"cuda": "gpu"}.get(subject.device.type, subject.device.type)}
        where |= {"devices": f"[{subject.device.index or 0}]" if subject.device.type == "cuda" else "1"}
        chosen = {**length, **where, "precision": subject.precision, "logger": "CSVLogger", "logger.save_dir": folder}
        words = [word for name, value in chosen.items() for word in (f"--trainer.{name}", str(value))]
        _TimedCLI(["fit", *subject.arguments, *words, "--model.pretrained", "false"], watch)


def _bare_loop(subject: Subject, watch: Stopwatch) -> None:
    """The same epoch without Lightning."""
    data = data_module(subject.arguments)
    task, step = task_step(subject)
    data.setup("fit")
    loader = data.train_dataloader()
    if len(loader) < watch.batches:
        raise SettingError(f"batches is {watch.batches}, but an epoch of the config has {len(loader)}: give fewer")
    scheduler = _schedule(task, step.optimizer, watch.batches)
    for index, loaded in enumerate(islice(loader, watch.batches)):
        moved = {
            name: value.to(subject.device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in loaded.items()
        }
        batch = data.on_after_batch_transfer(moved, 0)
        watch.begin(index)
        if index == 0 and watch.count:
            watch.flop, loss = counted_flop(partial(step, batch))
        else:
            loss = step(batch)
        scheduler.step()
        watch.end(index, loss)


def _schedule(task: GSCNNTask, optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """The learning rates of the task over a number of steps."""
    h = task.settings

    def factor(step: int, power: float, rising: int) -> float:
        warm = warmup(step, rising)
        return poly_decay(step, rising, steps, power) if warm is None else warm

    return LambdaLR(optimizer, partial(factor, power=h.poly_power, rising=h.warmup_steps))


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what a training prints, unless it fails."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    except SystemExit as stop:
        lines = printed.getvalue().strip().splitlines() or [f"exit code {stop.code}"]
        raise SettingError(f"the training stopped: {lines[0]}") from stop
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
