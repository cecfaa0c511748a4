"""Decoded frames in memory that loading processes share."""

import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

import numpy as np
import numpy.typing as npt
from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.data.source import Source

Bytes = npt.NDArray[np.uint8]


class KeptFrames:
    """Frames of a source, each decoded once, whichever loading process asks for it first.

    Each of N frames has the N-th part of the memory. One that needs more (4 bytes per pixel) is decoded whenever it is
    asked for; so is one without labels. Memory is taken by frames that were decoded, not before.

    Loading processes that are forked, or spawned with this object, share the memory; any other copy of this object
    decodes. Linux only, see `can_keep`. The memory is a file of its own, not one of torch's or Python's shared memory:
    those lie in /dev/shm, which containers often limit to 64 MB.

    Args:
        source: where the frames come from, one at least.
        gigabytes: memory for all of them together, in 10^9 bytes.
    """

    def __init__(self, source: Source, gigabytes: float) -> None:
        self.source = source
        self._room = int(gigabytes * 1e9) // len(source)
        self._file = -1
        try:
            self._map(os.memfd_create("gscnn-frames"))
        except (OSError, OverflowError) as error:
            rank_zero_info(f"no memory for {gigabytes} GB of decoded frames ({error}): decoding them in every epoch")

    def load(self, index: int) -> tuple[Bytes, Bytes | None]:
        """RGB image (H, W, 3) and train ids (H, W) or None, both uint8, read-only if they were kept.

        Raises:
            DataError: what the source raises, when it decodes.
        """
        if self._file < 0:
            return self.source.load(index)
        index = int(index)  # integers of NumPy would wrap around below
        with self._locked():
            height, width = self._sizes[index].tolist()
        if height:
            return self._place(index, (height, width))
        image, mask = self.source.load(index)
        if mask is None or image.shape != (*mask.shape, 3) or not image.dtype == mask.dtype == np.uint8:
            return image, mask
        if image.nbytes + mask.nbytes > self._room:
            return image, mask
        for part, kept in zip((image, mask), self._place(index, mask.shape, writeable=True), strict=True):
            kept[:] = part
        with self._locked():
            self._sizes[index] = mask.shape
        return self._place(index, mask.shape)

    def __getstate__(self) -> dict[str, Any]:
        # A file can be handed only to a process that is being started.
        file = reduction.DupFd(self._file) if self._file >= 0 and get_spawning_popen() is not None else None
        return {"source": self.source, "room": self._room, "file": file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.source, self._room, self._file = state["source"], state["room"], -1
        if state["file"] is not None:
            self._map(state["file"].detach())

    def _map(self, file: int) -> None:
        weakref.finalize(self, os.close, file)
        sizes = len(self.source) * 2 * 8  # height and width, 0 until the frame is there
        length = sizes + len(self.source) * self._room
        os.ftruncate(file, length)
        memory = np.frombuffer(mmap.mmap(file, length), np.uint8)
        self._file, self._sizes, self._rooms = file, memory[:sizes].view(np.int64).reshape(-1, 2), memory[sizes:]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Order what processes write and read: whoever sees the size of a frame sees its pixels, on any processor."""
        import fcntl  # of Unix

        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _place(self, index: int, size: tuple[int, ...], writeable: bool = False) -> tuple[Bytes, Bytes]:
        height, width = size
        pixels = height * width
        kept = self._rooms[index * self._room :][: 4 * pixels]
        kept.flags.writeable = writeable
        return kept[: 3 * pixels].reshape(height, width, 3), kept[3 * pixels :].reshape(height, width)


def can_keep() -> bool:
    """Whether this system has memory of the kind that `KeptFrames` uses."""
    return hasattr(os, "memfd_create")
