"""Which threads may use a network when: as many at once as keep the processor busy and fit into memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """The work has ended early, and the result of what a thread does is no longer wanted."""


class Turns:
    """Turns at a network for threads that each have a picture.

    On a CPU two pictures pass the network at once, each on half of the cores: that takes less time than one after the
    other on all cores, which wait for each other at the end of every layer. An accelerator has one picture at a time.

    Args:
        device: of the network.
        pixels: that may be in the network at once; a larger picture passes alone.

    Attributes:
        at_once: number of pictures that may be in the network at once.
        cores: that torch uses, of this machine or as it was told.
    """

    def __init__(self, device: torch.device, pixels: int) -> None:
        self.cores = torch.get_num_threads()
        self.at_once = min(2, self.cores) if device.type == "cpu" else 1
        self._pixels = pixels
        self._within: list[int] = []
        self._changed = threading.Condition()
        self._stopped = False

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait for a turn, and have it; the thread's operations use its share of the cores.

        Args:
            pixels: of the picture, at its largest scale.

        Raises:
            Stopped: there are no more turns.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(pixels))
            self.check()
            self._within.append(pixels)
        alone = self.at_once == 1 or pixels > self._pixels // 2
        # This is a setting of each thread.
        torch.set_num_threads(self.cores if alone else self.cores // self.at_once)
        try:
            yield
        finally:
            with self._changed:
                self._within.remove(pixels)
                self._changed.notify_all()

    def check(self) -> None:
        """Raise `Stopped` after `stop`."""
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """No more turns; who waits for one gets `Stopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let threads to come use all cores again."""
        torch.set_num_threads(self.cores)

    def _has_room(self, pixels: int) -> bool:
        if not self._within:
            return True
        return len(self._within) < self.at_once and sum(self._within) + pixels <= self._pixels
