"""``gscnn bench step``: a whole training step beside that of the control, and of a plain DeepLabV3+."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from torch import nn

from gscnn_lightning.allocator import keep_memory
from gscnn_lightning.bench import check_repeats, time_side_by_side
from gscnn_lightning.bench.counts import counted_flop, saved_bytes
from gscnn_lightning.bench.machine import torch_threads
from gscnn_lightning.bench.record import BenchRecord
from gscnn_lightning.bench.subjects import (
    CONTROL,
    PEER,
    TWO_STREAM,
    Subject,
    TrainingStep,
    check_size,
    chosen_peer,
    chosen_subject,
    task_step,
)
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import parsed_settings
from gscnn_lightning.task import Batch


def measure_step(
    others: Sequence[str],
    size: tuple[int, int, int] | None,
    device: str,
    precision: str,
    threads: int | None,
    repeats: int,
    compile: bool,
    out: Path | None,
    compare: Path | None,
) -> None:
    """Print the tables of ``gscnn bench step``.

    Args:
        others: arguments of ``gscnn-fit fit``; the config camvid if they name none.
        size: number of images, height, width; None for the config's batches.
        device: where.
        precision: "config" for the config's.
        threads: None for as many as torch takes.
        repeats: number of timed rounds.
        compile: time compiled steps, too.
        out: JSON file to write.
        compare: JSON file to compare with.

    Raises:
        SettingError: a setting cannot be used.
    """
    check_repeats(repeats)
    subject = chosen_subject(others, "camvid", device, precision)
    chosen = _checked_size(subject, size)
    with torch_threads(threads):
        settings = {"arguments": subject.arguments, "size": chosen, "compile": compile, "repeats": repeats}
        record = BenchRecord("step", settings, subject.device, subject.precision, out, compare)
        batch = subject.batch(chosen)
        steps, flop = _steps(subject, batch, record, compile)
        calls: dict[str, Callable[[], object]] = {name: partial(step, batch) for name, step in steps.items()}
        timings = time_side_by_side(calls, repeats, fresh=False, device=str(subject.device))
        count, height, width = chosen
        backbone = subject.settings["model"]["backbone"]
        record.add(f"one training step, {backbone}, {count}x3x{height}x{width}", timings, CONTROL, flop)
        _images_per_second(record, {name: count / timing.seconds for name, timing in timings.items()})
        record.save()


def step_seconds(rows: Mapping[str, Sequence[str]], repeats: int = 7) -> dict[str, float]:
    """Seconds of a training step of several configs, measured in turns.

    They are measured in a process of their own, whose memory is free for trainings afterwards.

    Args:
        rows: arguments of ``gscnn-fit fit`` by name.
        repeats: number of timed rounds.

    Returns:
        Medians by name.

    Raises:
        SettingError: a setting cannot be used.
    """
    given = {name: list(arguments) for name, arguments in rows.items()}
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        try:
            return process.submit(_step_seconds, given, repeats).result()
        except BrokenProcessPool as error:
            raise SettingError(
                "the process that measures steps ended without a result: it may have lacked memory (lower "
                "--data.batch_size); a script of your own needs `if __name__ == '__main__':` around its calls"
            ) from error


def _step_seconds(rows: Mapping[str, Sequence[str]], repeats: int) -> dict[str, float]:
    keep_memory()  # as in a training
    calls: dict[str, Callable[[], object]] = {}
    device = "cpu"
    for name, arguments in rows.items():
        accelerator = parsed_settings(arguments)["trainer"].get("accelerator", "auto")
        subject = chosen_subject(arguments, "camvid", "auto" if accelerator == "gpu" else accelerator, "config")
        crop, batch = subject.data.augmentation["crop_size"], subject.data.batch_size
        if crop is None:
            raise SettingError(f"steps of {name} are timed on crops, and it has none: give --data.crop_size")
        if batch == 1 and subject.settings["model"]["norm"] == "batch":
            raise SettingError(f"{name} has a batch_size of 1, of which batch normalisation cannot be trained: give 2")
        step = task_step(subject, subject.settings["model"]["compile"])[1]
        calls[name] = partial(step, subject.batch((batch, int(crop[0]), int(crop[1]))))
        device = str(subject.device)
    timings = time_side_by_side(calls, repeats, fresh=False, device=device)
    first = next(iter(timings.values()))
    return {name: first.seconds * timing.ratio(first) for name, timing in timings.items()}


def _steps(
    subject: Subject, batch: Batch, record: BenchRecord, compile: bool
) -> tuple[dict[str, TrainingStep], dict[str, int]]:
    """The step of every row, and its operations; what they keep for the backward pass is said."""
    steps: dict[str, TrainingStep] = {}
    saved: dict[str, int] = {}
    task, steps[TWO_STREAM] = task_step(subject, shape_stream=True)
    own: dict[str, nn.Module] = {TWO_STREAM: task.network}
    control, steps[CONTROL] = task_step(subject, shape_stream=False)
    own[CONTROL] = control.network
    peer = chosen_peer(task, batch["image"])
    if isinstance(peer, str):
        record.remark("peer", peer, peer)
    else:
        steps[PEER], own[PEER] = TrainingStep(subject, peer.loss, peer), peer
    for name, step in steps.items():
        saved[name], loss = saved_bytes(partial(step.forward, batch), own[name].parameters())
        del loss  # and with it what was saved
    flop = {name: counted_flop(partial(step, batch))[0] for name, step in steps.items()}
    shown = ", ".join(f"{name} {size / 1e6:.1f} MB ({size / saved[CONTROL]:.2f})" for name, size in saved.items())
    record.remark("saved_bytes", saved, f"kept for the backward pass (ratio to {CONTROL!r}): {shown}")
    if compile:
        for name, stream in ((TWO_STREAM, True), (CONTROL, False)):
            compiled = f"{name}, compiled"
            steps[compiled] = task_step(subject, compile=True, shape_stream=stream)[1]
            flop[compiled] = flop[name]
    return steps, flop


def _checked_size(subject: Subject, size: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if size is None:
        crop = subject.data.augmentation["crop_size"]
        if crop is None:
            raise SettingError("the config trains on whole frames: give --size [BATCH,HEIGHT,WIDTH]")
        size = (subject.data.batch_size, int(crop[0]), int(crop[1]))
    check_size(size)
    if size[0] == 1 and subject.settings["model"]["norm"] == "batch":
        raise SettingError("size is of one image, of which no batch normalisation can be trained: use 2 or more")
    return size


def _images_per_second(record: BenchRecord, rates: dict[str, float]) -> None:
    shown = ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
    record.remark("images_per_second", rates, f"images per second: {shown}")
