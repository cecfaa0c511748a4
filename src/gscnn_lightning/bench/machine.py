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
_CHANNELS, _SIDE = 256, 64


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


def convolution_peak(device: torch.device, precision: Precision, repeats: int = 3) -> float:
    """Floating-point operations per second of the fastest call of one large convolution, two per multiply-add.

    A 3x3 convolution of 256 to 256 channels on 64x64 pixels, forward, in either memory format: what the machine reaches
    where the shapes suit it. Networks are measured against it.

    Args:
        device: where.
        precision: in which.
        repeats: number of timed calls in either format.
    """
    batch = 1 if device.type == "cpu" else 32
    rates = []
    for layout in (torch.contiguous_format, torch.channels_last):
        image = torch.randn(batch, _CHANNELS, _SIDE, _SIDE, device=device).to(memory_format=layout)
        weight = torch.randn(_CHANNELS, _CHANNELS, 3, 3, device=device).to(memory_format=layout)
        if precision in _DTYPES:  # as autocast would; converting is not what is measured
            image, weight = image.to(_DTYPES[precision]), weight.to(_DTYPES[precision])
        calls = {"convolution": lambda x=image, w=weight: conv2d(x, w, padding=1)}
        flop = 2 * batch * 9 * _CHANNELS**2 * _SIDE**2
        with torch.inference_mode():
            rounds = time_side_by_side(calls, repeats, fresh=False, device=str(device))["convolution"].rounds
        rates.append(flop / min(rounds))
    return max(rates)
