"""What more than one room asks of its arguments: numbers, tensors, images. Messages say what was seen and what to give.

What can be known of a tensor without its values is asked wherever it comes in. Values are looked at only where that
waits for no device and stops no compiler, see `can_look`.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gscnn_lightning.errors import SettingError

# Tuples, as compilers of torch before 2.8 know no unions of types.
_WHOLE = (int, np.integer)
_NUMBERS = (int, float, np.integer, np.floating)


def is_whole(value: Any, least: float = -math.inf) -> bool:  # noqa: ANN401
    """Whether something is a whole number, not below the least."""
    return isinstance(value, _WHOLE) and not isinstance(value, bool) and bool(value >= least)


def is_number(value: Any, least: float = -math.inf) -> bool:  # noqa: ANN401
    """Whether something is a finite number, not below the least."""
    return isinstance(value, _NUMBERS) and bool(least <= value < math.inf)


def are_numbers(values: Any, holds: Callable[[Any], bool]) -> bool:  # noqa: ANN401
    """Whether something is one or more finite numbers that all pass a test."""
    members = list(values) if isinstance(values, Iterable) else []
    return bool(members) and all(is_number(value) and holds(value) for value in members)


def check_whole(name: str, value: object, least: int | None = None) -> None:
    """Raise unless something is a whole number, not below the least.

    Raises:
        SettingError: it is not.
    """
    if not is_whole(value, -math.inf if least is None else least):
        raise SettingError(f"{name} is {value!r}: give a whole number{'' if least is None else f' of {least} or more'}")


def check_not_negative(name: str, value: object) -> None:
    """Raise unless something is a finite number of 0 or more.

    Raises:
        SettingError: it is not.
    """
    if not is_number(value, 0):
        raise SettingError(f"{name} is {value!r}: give a number of 0 or more")


def can_look(x: Tensor) -> bool:
    """Whether the values of a tensor can decide what happens: on CPUs, out of compilers and exporters.

    Elsewhere every look waits for all that the device has to do.
    """
    # A subclass may have no values, as those that trace shapes.
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and type(x) is Tensor and x.numel() > 0


def check_tensor(name: str, x: object) -> None:
    """Raise unless something is a tensor.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} is {type(x).__name__}, no tensor: make one of it (torch.as_tensor)")


def check_floating(name: str, x: Tensor) -> None:
    """Raise unless something is a tensor of floating-point numbers.

    Raises:
        ValueError: it is not.
    """
    check_tensor(name, x)
    if not x.is_floating_point():
        raise ValueError(f"{name} has data type {x.dtype}: give floating-point numbers")


def check_shape(name: str, x: Tensor, shape: Iterable[int]) -> None:
    """Raise unless something is a tensor of a shape.

    Raises:
        ValueError: it is not.
    """
    check_tensor(name, x)
    if x.shape != tuple(shape):
        raise ValueError(f"{name} has shape {tuple(x.shape)}: give {tuple(shape)}")


def check_image(image: Tensor) -> None:
    """Raise unless something is a batch of images: (B, 3, H, W), floating-point or uint8.

    Raises:
        ValueError: it is not.
    """
    check_tensor("image", image)
    if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[-2:]) < 1:
        raise ValueError(f"image has shape {tuple(image.shape)}: give (B, 3, H, W) RGB")
    if not (image.is_floating_point() or image.dtype == torch.uint8):
        raise ValueError(f"image has data type {image.dtype}: give uint8, or floating-point numbers in [0, 1]")
