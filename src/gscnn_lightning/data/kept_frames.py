"""Decoded frames in memory that the processes of a machine share: those of the devices, and their loading processes."""

import hashlib
import math
import mmap
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.data.source import Source
from gscnn_lightning.host import machine

Bytes = npt.NDArray[np.uint8]

# Of each frame: where it begins, its height and width, and whether it is there as a whole.
_BEGIN, _HEIGHT, _WIDTH, _STATE = range(4)
_WRITING, _THERE = 1, 2


@dataclass(frozen=True)
class Offer:
    """What one process tells the others of its memory.

    Attributes:
        machine: tells where the process is: a number of a process means something only there; "" if it is not known.
        process: its number.
        file: that of the memory, as this process has it open; -1 if there is none.
        frames: digest of the frames and of the size of the memory.
    """

    machine: str
    process: int
    file: int
    frames: str


class KeptFrames:
    """Frames of a source, each decoded once on a machine, whichever process asks for it first.

    Frames are kept as they are decoded until the memory is full, at 4 bytes per pixel; others are decoded whenever they
    are asked for, and so are those without labels. Memory is taken by frames that were decoded, not before.

    Loading processes that are forked, or spawned with this object, share the memory; any other copy of this object
    decodes. Linux only, see `can_keep`. The memory is a file without a name: the system takes it back when the last
    process that has it open is gone, however that ended. It is not one of torch's or Python's shared memory: those lie
    in /dev/shm, which containers often limit to 64 MB, and outlive who is killed.

    Args:
        source: where the frames come from, one at least.
        gigabytes: memory for all of them together, in 10^9 bytes.
        exchange: given what this process offers, gives what all processes do that come here at the same time, in the
            same order everywhere; those on one machine then use the memory of the first. None: this process is alone.

    Attributes:
        processes: number of processes that share the memory, without loading processes.
    """

    def __init__(
        self, source: Source, gigabytes: float, exchange: Callable[[Offer], list[Offer]] | None = None
    ) -> None:
        self.source = source
        self.processes = 1
        self._bytes = int(gigabytes * 1e9)
        self._file = -1
        reason = ""
        try:
            self._map(os.memfd_create("gscnn-frames"))
        except (OSError, OverflowError) as error:
            reason = f"no memory for {gigabytes} GB of decoded frames ({error}): decoding them in every epoch"
        if exchange is not None:
            reason = self._share(exchange) or reason
        if reason:
            rank_zero_info(reason)

    def load(self, index: int) -> tuple[Bytes, Bytes | None]:
        """RGB image (H, W, 3) and train ids (H, W) or None, both uint8, read-only if they were kept.

        Raises:
            DataError: what the source raises, when it decodes.
        """
        if self._file < 0:
            return self.source.load(index)
        index = int(index)  # integers of NumPy would wrap around below
        with self._locked():
            state = int(self._table[index, _STATE])
        if state == _THERE:
            return self._place(index)
        image, mask = self.source.load(index)
        if mask is None or image.shape != (*mask.shape, 3) or not image.dtype == mask.dtype == np.uint8:
            return image, mask
        with self._locked():
            begin, size = int(self._used[0]), 4 * mask.size
            # Another process may write the same frame; one that was killed over it leaves it to be decoded.
            if self._table[index, _STATE] or begin + size > self._bytes:
                return image, mask
            self._used[0] = begin + size
            self._table[index] = begin, *mask.shape, _WRITING
        for part, kept in zip((image, mask), self._place(index, writeable=True), strict=True):
            kept[:] = part
        with self._locked():
            self._table[index, _STATE] = _THERE
        return self._place(index)

    def said(self) -> str:
        """How many frames fit, in how much memory, and how long it takes; decodes one twice to find out.

        Raises:
            DataError: what the source raises.
        """
        if self._file < 0:
            return ""
        began = time.perf_counter()
        image, mask = self.load(0)
        between = time.perf_counter()
        self.source.load(0)
        seconds = min(between - began, time.perf_counter() - between)  # the first time of a process is a slow one
        if mask is None or image.size != 3 * mask.size:
            return ""
        number, size = len(self.source), 4 * mask.size
        fit = min(number, self._bytes // size)
        height, width = mask.shape
        per = f"{self.processes} processes of a machine share" if self.processes > 1 else "all loading processes share"
        need = f"at {width}x{height} pixels all {number} need {_gigabytes(number * size)} GB"
        if fit == 0:
            return f"frames are decoded in every epoch: cache_gb is {self._bytes / 1e9:g}, {need}"
        kept = f"all {number} frames are" if fit == number else f"{fit} of {number} frames are"
        text = (
            f"{kept} kept once decoded, in {_gigabytes(fit * size)} GB of memory that {per}; decoding them takes about "
            f"{_duration(fit * seconds)} of one core"
        )
        if fit < number:
            text += f"; {need} (--data.cache_gb {math.ceil(number * size / 1e8) / 10:g})"
        free = _available()
        if free is not None and fit * size > free:
            text += f". This machine has {_gigabytes(free)} GB left: lower --data.cache_gb, or it runs out of memory"
        return text

    def __getstate__(self) -> dict[str, Any]:
        # A file can be handed only to a process that is being started.
        file = reduction.DupFd(self._file) if self._file >= 0 and get_spawning_popen() is not None else None
        return {"source": self.source, "bytes": self._bytes, "file": file, "processes": self.processes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.source, self._bytes, self._file = state["source"], state["bytes"], -1
        self.processes = state["processes"]
        if state["file"] is not None:
            self._map(state["file"].detach())

    def _share(self, exchange: Callable[[Offer], list[Offer]]) -> str:
        """Use the memory of the first process of this machine that has some; what is to be said if that fails."""
        here = machine()
        own = Offer(here, os.getpid(), self._file, self._digest())
        same = [other for other in exchange(own) if here and (other.machine, other.frames) == (here, own.frames)]
        usable = [other for other in same if other.file >= 0]
        if not usable:
            return ""
        if usable[0].process != own.process:
            try:
                file = os.open(f"/proc/{usable[0].process}/fd/{usable[0].file}", os.O_RDWR)
            except OSError as error:
                return f"each process keeps decoded frames of its own: they cannot share memory ({error.strerror})"
            self._unmap()
            self._map(file)
        self.processes = len(same)
        return ""

    def _digest(self) -> str:
        digest = hashlib.sha256(f"{len(self.source)} {self._bytes}".encode())
        for index in range(len(self.source)):
            digest.update(self.source.name(index).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()

    def _map(self, file: int) -> None:
        self._closing = weakref.finalize(self, os.close, file)
        head = 8 * (1 + 4 * len(self.source))
        length = head + self._bytes
        if os.fstat(file).st_size != length:
            os.ftruncate(file, length)
        memory = np.frombuffer(mmap.mmap(file, length), np.uint8)
        numbers = memory[:head].view(np.int64)
        self._file, self._used, self._table, self._pixels = file, numbers[:1], numbers[1:].reshape(-1, 4), memory[head:]

    def _unmap(self) -> None:
        if self._file >= 0:
            del self._used, self._table, self._pixels
            self._file = -1
            self._closing()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Order what processes write and read: whoever sees that a frame is there sees its pixels, on any processor."""
        import fcntl  # of Unix

        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _place(self, index: int, writeable: bool = False) -> tuple[Bytes, Bytes]:
        begin, height, width, _ = self._table[index].tolist()
        pixels = height * width
        kept = self._pixels[begin : begin + 4 * pixels]
        kept.flags.writeable = writeable
        return kept[: 3 * pixels].reshape(height, width, 3), kept[3 * pixels :].reshape(height, width)


def can_keep() -> bool:
    """Whether this system has memory of the kind that `KeptFrames` uses."""
    return hasattr(os, "memfd_create")


def _available() -> int | None:
    """Bytes of memory that the system could give, None if it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}" if size >= 1e9 else f"{size / 1e9:.2g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{max(seconds, 0.1):.2g} s"
