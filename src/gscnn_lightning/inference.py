"""Prediction beyond one forward pass: sliding windows, several scales, flips. Plain tensors, no Lightning."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gscnn_lightning.checks import are_numbers, check_image, is_number, is_whole
from gscnn_lightning.errors import SettingError
from gscnn_lightning.output import GSCNNOutput

Output = TypeVar("Output", Tensor, GSCNNOutput)

SMALLEST = 32
"""Height and width in pixels below which images are padded for the network."""

# Rows that are turned into probabilities at once: large enough to be fast, small beside the whole map.
_ROWS = 64


@torch.no_grad()
def predict_logits(
    network: Callable[[Tensor], Output],
    image: Tensor,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    *,
    gates: bool = True,
    window_batch: int = 1,
) -> Output:
    """Logits of whole images of any size, from one or many passes through a network.

    Without any of the options this is ``network(image)``. Otherwise

    - ``window`` cuts the image into overlapping windows of one size. Logits are blended with weights that add up to
      one: at inner window borders they are zero over the outermost quarter of the overlap, where a network sees the
      padding instead of the image, and rise smoothly over the middle half. So the result is exactly that of the whole
      image if the network sees no farther than a quarter of the overlap.
    - ``scales`` and ``flip`` repeat the prediction of resized and of mirrored images and average the
      **probabilities**. What is returned are the logarithms of the mean: a softmax of them gives the mean back. Windows
      have the same size in pixels at every scale, so they bound the memory of the large ones.

    Memory: with windows, one float32 copy of the full-size logits (159 MB for 19 classes at 1024x2048) beside what the
    network needs for one window. With scales or flips, a second one and the logits of one scaled image.

    The network should be in evaluation mode; its mode is not changed. No gradients.

    Args:
        network: takes (B, 3, H, W), returns logits (B, K, H, W) at the size of the image, or a `GSCNNOutput` of
            logits and boundary logits (B, 1, H, W) at that size, and gates of any size.
        image: (B, 3, H, W), whatever the network takes: float in [0, 1] or uint8. Sides below 32 pixels are padded by
            repeating the border, and cut off again.
        window: height and width of the windows in pixels, 32 at least; None for the whole image at once.
        overlap: share of a window that it has in common with the next, 0 to below 1; somewhat more where the image is
            not a whole number of windows.
        scales: factors of height and width, > 0.
        flip: predict the mirrored images too.
        gates: False for a `GSCNNOutput` without gates, which then are neither kept nor resized nor averaged.
        window_batch: windows that go through the network at once, with the memory that takes; on CPUs more than one are
            not faster. It changes no number beyond rounding.

    Returns:
        What the network returns, at the size of ``image``. Gates, if asked for, keep the network's own size after a
        plain pass, and have the size of the image, averaged like the rest, after any other. float32 after any but a
        plain pass.

    Raises:
        ValueError: if ``image`` is not (B, 3, H, W), floating-point or uint8; if a setting is out of range; or if the
            network returns something else, or another number of classes than for the last window or scale.

    Example:
        >>> def network(image):
        ...     return torch.cat([image.mean(1, keepdim=True), image[:, :1]], dim=1)
        >>> image = torch.rand(1, 3, 100, 300)
        >>> logits = predict_logits(network, image, window=(64, 96), scales=(0.5, 1.0), flip=True)
        >>> logits.shape
        torch.Size([1, 2, 100, 300])
        >>> torch.allclose(logits.softmax(1).sum(1), torch.ones(1, 100, 300))
        True
    """
    check_image(image)
    check_settings(window, overlap, scales)
    if not is_whole(window_batch, 1):
        raise SettingError(f"window_batch is {window_batch!r}: give the number of windows at once, 1 or more")
    if not callable(network):
        raise ValueError(f"network is a {type(network).__name__}: give a module or function")
    passing = _checked(network, gates)
    image, size = _pad(image)
    passes = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,))]
    if passes == [(1.0, False)]:
        return _crop(_windowed(passing, image, window, overlap, window_batch), size)
    total: Output | None = None
    for scale, mirrored in passes:
        output = _one_pass(passing, image, window, overlap, window_batch, scale, mirrored)
        total = output if total is None else _map(torch.Tensor.add_, total, output)
    assert total is not None
    return _crop(_to_logits(_map(lambda t: t.div_(len(passes)), total)), size)


def check_settings(window: tuple[int, int] | None, overlap: float, scales: Sequence[float]) -> None:
    """Raise unless `predict_logits` can work with these settings.

    Raises:
        SettingError: one is out of range; the message says which.
    """
    if window is not None and (not are_numbers(window, lambda side: is_whole(side, SMALLEST)) or len(window) != 2):
        raise SettingError(f"window is {window!r}: give height and width in pixels, {SMALLEST} at least")
    if not is_number(overlap, 0) or overlap >= 1:
        raise SettingError(f"overlap is {overlap!r}: give a share of the window, 0 to below 1")
    if not are_numbers(scales, lambda scale: scale > 0):
        raise SettingError(f"scales is {scales!r}: give one or more factors above 0, such as 0.5 1 2")


def _pad(image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """The image with sides of at least `SMALLEST` pixels, and its size before."""
    height, width = image.shape[-2:]
    rows, columns = (torch.arange(max(side, SMALLEST), device=image.device) for side in (height, width))
    if len(rows) > height or len(columns) > width:
        image = image[..., rows.clamp(max=height - 1)[:, None], columns.clamp(max=width - 1)]
    return image, (height, width)


def _crop(output: Output, size: tuple[int, int]) -> Output:
    """Output of the padded image without the padding; gates of another size than the logits are left alone."""
    padded = (output if isinstance(output, Tensor) else output.seg_logits).shape[-2:]
    if padded == size:
        return output
    return _map(lambda t: t[..., : size[0], : size[1]] if t.shape[-2:] == padded else t, output)


def _one_pass(
    network: Callable[[Tensor], Output],
    image: Tensor,
    window: tuple[int, int] | None,
    overlap: float,
    window_batch: int,
    scale: float,
    mirrored: bool,
) -> Output:
    """Probabilities at the size of the image from one scale, mirrored or not."""
    size = (image.shape[-2], image.shape[-1])
    scaled = image
    if scale != 1:
        floating = image if image.is_floating_point() else image.float() / 255
        target = tuple(max(SMALLEST, round(side * scale)) for side in size)
        scaled = F.interpolate(floating, size=target, mode="bilinear", antialias=scale < 1)
    output = _windowed(network, scaled.flip(-1) if mirrored else scaled, window, overlap, window_batch)
    del scaled
    probabilities = _to_probabilities(_map(lambda t: _resized(t, size), output))
    # Flipped in place, as a flipped copy of the logits would be the largest tensor around.
    return _map(_mirror_, probabilities) if mirrored else probabilities


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps in float32 at another size, channel by channel: no second large tensor is needed beside the result."""
    if maps.shape[-2:] == size:
        return maps.float()
    result = maps.new_empty((*maps.shape[:2], *size), dtype=torch.float32)
    for channel in range(maps.shape[1]):
        part = maps[:, channel : channel + 1].float()
        result[:, channel : channel + 1] = F.interpolate(part, size=size, mode="bilinear", align_corners=False)
    return result


def _mirror_(maps: Tensor) -> Tensor:
    for part in maps.flatten(0, 1):
        part.copy_(part.flip(-1))
    return maps


def _to_probabilities(output: Output) -> Output:
    """Logits to probabilities in place, gates as they are."""
    if isinstance(output, Tensor):
        return _softmax_(output)
    boundary = output.boundary_logits
    return GSCNNOutput(_softmax_(output.seg_logits), None if boundary is None else boundary.sigmoid_(), output.gates)


def _to_logits(output: Output) -> Output:
    """Probabilities to logits in place, finite where a probability has underflown."""
    if isinstance(output, Tensor):
        return output.clamp_(min=torch.finfo(output.dtype).tiny).log_()
    boundary = output.boundary_logits
    if boundary is not None:
        boundary = torch.logit(boundary, eps=torch.finfo(boundary.dtype).eps)
    return GSCNNOutput(_to_logits(output.seg_logits), boundary, output.gates)


def _softmax_(logits: Tensor) -> Tensor:
    for start in range(0, logits.shape[-2], _ROWS):
        rows = logits[..., start : start + _ROWS, :]
        rows.copy_(rows.softmax(1))
    return logits


def _windowed(
    network: Callable[[Tensor], Output],
    image: Tensor,
    window: tuple[int, int] | None,
    overlap: float,
    window_batch: int,
) -> Output:
    """Logits at the size of the image, from windows if there is more than one."""
    size: tuple[int, int] = (image.shape[-2], image.shape[-1])
    if window is None or (window[0] >= size[0] and window[1] >= size[1]):
        # What follows works in place, so a network that hands out its input must not have it changed.
        return _map(lambda t: t.clone() if _shares(t, image) else t, network(image))
    rows, columns = _windows(size[0], window[0], overlap), _windows(size[1], window[1], overlap)
    places = list(itertools.product(rows, columns))
    total: Output | None = None
    for first in range(0, len(places), window_batch):
        batch = [
            (_region(top, down, left, across), down, across)
            for (top, down), (left, across) in places[first : first + window_batch]
        ]
        output = network(torch.cat([image[here] for here, _, _ in batch]))
        if total is None:
            total = _map(lambda t: t.new_zeros((len(image), t.shape[1], *size), dtype=torch.float32), output)
        for whole, parts in zip(_tensors(total), _tensors(output), strict=True):
            for (here, down, across), part in zip(batch, parts.split(len(image)), strict=True):
                weight = (down[:, None] * across).to(image.device)
                # Gates have a size of their own.
                whole[here].addcmul_(_resized(part, (len(down), len(across))), weight)
        del output, parts, part
    assert total is not None
    return total


def _region(top: int, down: Tensor, left: int, across: Tensor) -> tuple[Any, ...]:
    """Index of a window, given by its start and its weights along either axis."""
    return (..., slice(top, top + len(down)), slice(left, left + len(across)))


def _checked(network: Callable[[Tensor], Output], gates: bool) -> Callable[[Tensor], Output]:
    """The network with a look at the shapes of what it returns, and without gates unless they are wanted."""
    classes: list[int] = []

    def passing(image: Tensor) -> Output:
        output = network(image)
        if not isinstance(output, Tensor | GSCNNOutput):
            raise ValueError(
                f"the network returned a {type(output).__name__}: it must return a tensor of logits or a GSCNNOutput"
            )
        if isinstance(output, GSCNNOutput) and not gates:
            output = output._replace(gates=())
        _check_output(output, image)
        number = _tensors(output)[0].shape[1]
        if classes and number != classes[0]:
            raise ValueError(
                f"the network returned {number} classes for a window or scale, and {classes[0]} before: it must return "
                "as many for every image"
            )
        classes.append(number)
        return output

    return passing


def _check_output(output: Tensor | GSCNNOutput, image: Tensor) -> None:
    B, _, H, W = image.shape
    parts: list[tuple[str, Tensor, tuple[int | str, ...]]]
    if isinstance(output, Tensor):
        parts = [("logits", output, (B, "K", H, W))]
    else:
        parts = [("logits", output.seg_logits, (B, "K", H, W))]
        parts += [("a gate", gate, (B, 1, "h", "w")) for gate in output.gates]
        if output.boundary_logits is not None:
            parts.append(("boundary logits", output.boundary_logits, (B, 1, H, W)))
    for name, maps, expected in parts:
        as_expected = [side in (found, "K", "h", "w") for side, found in zip(expected, maps.shape, strict=False)]
        if maps.ndim != 4 or maps.shape[1] < 1 or not all(as_expected):
            raise ValueError(
                f"the network returned {name} of shape {tuple(maps.shape)} for images of {H}x{W} pixels: it must "
                f"return ({', '.join(map(str, expected))})"
            )
        if not maps.is_floating_point():
            raise ValueError(f"the network returned {name} of data type {maps.dtype}: it must return floats")


def _windows(side: int, window: int, overlap: float) -> list[tuple[int, Tensor]]:
    """Start and weights of the windows along one axis, evenly spread; the weights add up to one at every pixel.

    Example:
        >>> [(start, weight.tolist()) for start, weight in _windows(6, 4, 0.5)]
        [(0, [1.0, 1.0, 1.0, 0.0]), (2, [0.0, 1.0, 1.0, 1.0])]
    """
    if side <= window:
        return [(0, torch.ones(side))]
    number = 1 + math.ceil((side - window) / (window * (1 - overlap)))
    starts = sorted({round(index * (side - window) / (number - 1)) for index in range(number)})
    total, weights = torch.zeros(side), []
    position = torch.arange(window) + 0.5
    for index, start in enumerate(starts):
        weight = torch.ones(window)
        if index > 0:
            weight *= _rise(position, starts[index - 1] + window - start)
        if index < len(starts) - 1:
            weight *= _rise(window - position, start + window - starts[index + 1])
        total[start : start + window] += weight
        weights.append(weight)
    return [(start, w / total[start : start + window]) for start, w in zip(starts, weights, strict=True)]


def _rise(distance: Tensor, overlap: int) -> Tensor:
    """Weight by distance from a window's border: 0 up to a quarter of the overlap, 1 from three quarters on."""
    if overlap <= 0:
        return torch.ones_like(distance)
    share = (2 * distance / overlap - 0.5).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _shares(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _tensors(output: Tensor | GSCNNOutput) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [part for part in (output.seg_logits, output.boundary_logits, *output.gates) if part is not None]


def _map(function: Callable[..., Tensor], *outputs: Output) -> Output:
    """Apply a function to each tensor of outputs of one kind."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return function(*outputs)
    seg_logits = function(*(output.seg_logits for output in outputs))
    boundaries = [output.boundary_logits for output in outputs]
    boundary = None if first.boundary_logits is None else function(*boundaries)
    gates = tuple(function(*parts) for parts in zip(*(output.gates for output in outputs), strict=True))
    return GSCNNOutput(seg_logits, boundary, gates)
