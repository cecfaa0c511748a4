"""The machine that a benchmark runs on: its name, its threads, its precision, and how fast it convolves at best."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, get_args

import torch
from torch.nn.functional import conv2d

from gscnn_lightning.bench import time_side_by_side
from gscnn_lightning.errors import SettingError
from gscnn_lightning.run_folder.environment import environment

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def checked_precision(precision: Any, device: torch.device) -> Precision:  # noqa: ANN401
    """A precision of Lightning's trainer that can be measured here.

    Args:
        precision: as for ``--trainer.precision``.
        device: where it is to be.

    Raises:
        SettingError: it is another one, or the device does not have it.
    """
    name = {"32": "32-true", "None": "32-true"}.get(str(precision), str(precision))
    for known in get_args(Precision):
        if name == known:
            if known == "16-mixed" and device.type == "cpu":
                raise SettingError("precision 16-mixed is for GPUs: use --precision bf16-mixed or 32-true")
            return known
    raise SettingError(f"precision is {precision}: use one of {', '.join(get_args(Precision))}")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context that Lightning's trainer computes a forward pass in."""
    return torch.autocast(device.type, _DTYPES.get(precision), enabled=precision in _DTYPES)


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """A number of threads for torch and OpenCV.

    Args:
        count: the number; None for as many as torch takes by itself.

    Yields:
        The number.

    Raises:
        SettingError: fewer than one.
    """
    import cv2

    if count is not None and count < 1:
        raise SettingError(f"threads is {count}: give 1 or more")
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count or before[0])
    cv2.setNumThreads(count or before[0])
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def machine(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, as `gscnn_lightning.run_folder.environment` tells them, with device and threads.

    Args:
        device: what the benchmark computes on; a GPU is named.
    """
    gpus = [torch.cuda.get_device_name(device)] if device.type == "cuda" else []
    return {**environment(gpus), "device": str(device), "threads": torch.get_num_threads()}


def peak_shape(device: torch.device) -> tuple[int, int, int]:
    """Images, channels and side of the convolution by which `convolution_peak` measures a device: enough for all of it.

    Args:
        device: where.
    """
    return {"cpu": (1, 256, 64), "cuda": (32, 512, 64)}.get(device.type, (32, 256, 64))


def convolution_peak(device: torch.device, precision: Precision, repeats: int = 3) -> float:
    """Floating-point operations per second of the fastest call of one large convolution, two per multiply-add.

    A 3x3 convolution of the shape that `peak_shape` says, forward, in either memory format, by the fastest algorithm
    that there is: what the machine reaches where the shapes suit it. Networks are measured against it.

    Args:
        device: where.
        precision: in which.
        repeats: number of timed calls in either format; ten times as many on GPUs, where they take a millisecond.
    """
    batch, channels, side = peak_shape(device)
    repeats *= 1 if device.type == "cpu" else 10
    rates = []
    for layout in (torch.contiguous_format, torch.channels_last):
        image = torch.randn(batch, channels, side, side, device=device).to(memory_format=layout)
        weight = torch.randn(channels, channels, 3, 3, device=device).to(memory_format=layout)
        if precision in _DTYPES:  # as autocast would; converting is not what is measured
            image, weight = image.to(_DTYPES[precision]), weight.to(_DTYPES[precision])
        calls = {"convolution": lambda x=image, w=weight: conv2d(x, w, padding=1)}
        flop = 2 * batch * 9 * channels**2 * side**2
        with torch.inference_mode(), _tried_algorithms():
            rounds = time_side_by_side(calls, repeats, fresh=False, device=str(device))["convolution"].rounds
        rates.append(flop / min(rounds))
    return max(rates)


@contextmanager
def _tried_algorithms() -> Iterator[None]:
    """Convolutions of GPUs by the algorithm that is the fastest when tried, not by the one that is guessed to be."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True  # the context manager of torch would change other settings, too
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
