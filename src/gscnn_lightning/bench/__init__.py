"""Measurements side by side: functions that take turns in one process, compared by ratios."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gscnn_lightning.errors import SettingError
from gscnn_lightning.terminal import new_table, say

__all__ = ["Timing", "check_repeats", "print_table", "time_side_by_side"]


@dataclass(frozen=True)
class Timing:
    """What one function took.

    Attributes:
        rounds: seconds of every timed call, in the order of the rounds.
        memory: bytes by which one call raised the peak of the process' resident memory, or of the GPU's memory where
            it ran there; None where the system does not tell (anything but Linux and CUDA).
    """

    rounds: tuple[float, ...]
    memory: int | None

    @property
    def seconds(self) -> float:
        """Median of the rounds."""
        return median(self.rounds)

    def ratio(self, baseline: "Timing") -> float:
        """Median over the rounds of this time divided by the baseline's of the same round.

        Functions of one round ran right after each other, so that a machine which is slow for a while slows both.

        Example:
            >>> Timing((2.0, 40.0, 3.0), None).ratio(Timing((1.0, 20.0, 1.0), None))
            2.0
        """
        return median(own / other for own, other in zip(self.rounds, baseline.rounds, strict=True))


def check_repeats(repeats: int) -> None:
    """Raise unless there is a round to time.

    Raises:
        SettingError: `repeats` below 1.
    """
    if repeats < 1:
        raise SettingError(f"repeats must be 1 or more, got {repeats}")


def time_side_by_side(
    functions: Mapping[str, Callable[[], object]], repeats: int = 7, fresh: bool = True, device: str = "cpu"
) -> dict[str, Timing]:
    """Time functions in turns, after one call of each to warm up and one to measure its memory.

    Args:
        functions: what to call, by the name to show.
        repeats: number of timed rounds, 1 or more; every function runs once per round, each round starting with
            another one.
        fresh: every call starts in fresh memory, as if it were the first to need any: right for what a program does
            once. False for what it does over and over, such as training steps: after another call to warm up, every
            call finds the memory that those before it freed, as far as the process keeps it (see
            `gscnn_lightning.allocator`).
        device: where the functions compute; "cuda..." is timed by its own clock, and its memory is what counts.

    Returns:
        One `Timing` per function, in the order of `functions`.

    Raises:
        SettingError: `repeats` below 1.
    """
    check_repeats(repeats)
    for function in functions.values():
        function()
    gc.collect()
    gc.disable()  # a collection would be charged to whoever happens to trigger it
    try:
        memory = {name: _peak_memory(function, device) for name, function in functions.items()}
        if not fresh:
            for function in functions.values():
                function()
        rounds: dict[str, list[float]] = {name: [] for name in functions}
        names = list(functions)
        for turn in range(repeats):
            start = turn % len(names)
            if not fresh:
                gc.collect()  # what a step leaves in cycles would otherwise pile up round by round
            for name in names[start:] + names[:start]:
                rounds[name].append(_seconds(functions[name], fresh, device))
    finally:
        gc.enable()
    return {name: Timing(tuple(rounds[name]), memory[name]) for name in functions}


def print_table(
    title: str, timings: Mapping[str, Timing], baseline: str, extra: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Print times, ratios and peak memory, one line per function.

    Args:
        title: heading of the table.
        timings: what `time_side_by_side` returned.
        baseline: name of the function that the ratios refer to.
        extra: further columns: by heading, the text of every function that has one. A heading may have two lines.
    """
    extra = extra or {}
    table = new_table(title)
    table.caption, table.caption_justify = f"ratio to {baseline!r} in the same round, median", "left"
    # Names get the room that numbers leave in a terminal of 80 columns, and are wrapped before any number is.
    table.add_column("what", vertical="bottom")
    memory_known = any(timing.memory is not None for timing in timings.values())
    if memory_known:
        table.caption += "; extra MB: what a call adds to the peak of memory"
    for heading in ("median\nms", "ratio", *(["extra\nMB"] if memory_known else []), *extra):
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for name, timing in timings.items():
        texts = [f"{timing.seconds * 1e3:.2f}", f"{timing.ratio(timings[baseline]):.2f}"]
        if memory_known:
            texts.append("unknown" if timing.memory is None else f"{timing.memory / 1e6:.1f}")
        table.add_row(name, *texts, *(column.get(name, "") for column in extra.values()))
    say(table)


def _seconds(function: Callable[[], object], fresh: bool, device: str) -> float:
    if fresh:
        _release_memory()
    if device.startswith("cuda"):
        return _seconds_on_gpu(function, device)
    start = time.perf_counter()
    function()
    _wait_for(device)
    return time.perf_counter() - start


def _seconds_on_gpu(function: Callable[[], object], device: str) -> float:
    """Seconds between two marks in the GPU's own stream of work."""
    import torch

    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def _wait_for(device: str) -> None:
    """Until all is computed that was asked of a device."""
    if device.startswith("mps"):
        import torch

        torch.mps.synchronize()


def _release_memory() -> None:
    """Give back what the allocator kept of earlier calls: it would hide the memory that the next call needs.

    Millisecond functions are several times faster in memory that was just freed than in fresh memory, and how much is
    kept depends on whoever ran before. So every call starts without.
    """
    with suppress(AttributeError, OSError):  # of the GNU C library alone
        ctypes.CDLL(None).malloc_trim(0)


def _peak_memory(function: Callable[[], object], device: str) -> int | None:
    """Bytes by which a call raises the peak of the resident memory, or of the GPU's."""
    if device.startswith("cuda"):
        return _peak_on_gpu(function, device)
    if device != "cpu" or not sys.platform.startswith("linux"):
        return None
    try:
        _release_memory()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    except OSError:
        return None
    before = _resident("VmRSS")
    function()
    return max(0, _resident("VmHWM") - before)


def _peak_on_gpu(function: Callable[[], object], device: str) -> int:
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function()
    torch.cuda.synchronize(device)
    return max(0, torch.cuda.max_memory_allocated(device) - before)


def _resident(field: str) -> int:
    """A field of this process' status in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
