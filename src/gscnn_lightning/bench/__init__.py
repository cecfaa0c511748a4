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

from gscnn_lightning.terminal import new_table, say

__all__ = ["Timing", "print_table", "time_side_by_side"]


@dataclass(frozen=True)
class Timing:
    """What one function took.

    Attributes:
        rounds: seconds of every timed call, in the order of the rounds.
        memory: bytes by which one call raised the peak of the process' resident memory, None where the system does not
            tell (anything but Linux).
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


def time_side_by_side(functions: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, Timing]:
    """Time functions in turns, after one call of each to warm up and one to measure its memory.

    Every call starts in fresh memory, as if it were the first to need any.

    Args:
        functions: what to call, by the name to show.
        repeats: number of timed rounds, 1 or more; every function runs once per round, each round starting with
            another one.

    Returns:
        One `Timing` per function, in the order of `functions`.

    Raises:
        ValueError: `repeats` below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be 1 or more, got {repeats}")
    for function in functions.values():
        function()
    gc.collect()
    gc.disable()  # a collection would be charged to whoever happens to trigger it
    try:
        memory = {name: _peak_memory(function) for name, function in functions.items()}
        rounds: dict[str, list[float]] = {name: [] for name in functions}
        names = list(functions)
        for turn in range(repeats):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                rounds[name].append(_seconds(functions[name]))
    finally:
        gc.enable()
    return {name: Timing(tuple(rounds[name]), memory[name]) for name in functions}


def print_table(title: str, timings: Mapping[str, Timing], baseline: str) -> None:
    """Print times, ratios and peak memory, one line per function.

    Args:
        title: heading of the table.
        timings: what `time_side_by_side` returned.
        baseline: name of the function that the ratios refer to.
    """
    table = new_table(title)
    table.caption, table.caption_justify = f"ratio to {baseline!r} in the same round, median", "left"
    table.add_column("what")
    for heading in ("median ms", "ratio", "peak extra MB"):
        table.add_column(heading, justify="right")
    for name, timing in timings.items():
        memory = "unknown" if timing.memory is None else f"{timing.memory / 1e6:.1f}"
        table.add_row(name, f"{timing.seconds * 1e3:.2f}", f"{timing.ratio(timings[baseline]):.2f}", memory)
    say(table)


def _seconds(function: Callable[[], object]) -> float:
    _release_memory()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _release_memory() -> None:
    """Give back what the allocator kept of earlier calls: it would hide the memory that the next call needs.

    Millisecond functions are several times faster in memory that was just freed than in fresh memory, and how much is
    kept depends on whoever ran before. So every call starts without.
    """
    with suppress(AttributeError, OSError):  # of the GNU C library alone
        ctypes.CDLL(None).malloc_trim(0)


def _peak_memory(function: Callable[[], object]) -> int | None:
    """Bytes by which a call raises the peak of the resident memory."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        _release_memory()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    except OSError:
        return None
    before = _resident("VmRSS")
    function()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    """A field of this process' status in bytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
