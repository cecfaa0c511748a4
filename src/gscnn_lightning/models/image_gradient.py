"""Image gradients for the fusion module, in torch and on the device of the image."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gscnn_lightning.checks import can_look, check_floating, check_image, check_tensor
from gscnn_lightning.errors import SettingError

GradientKind = Literal["canny", "sobel", "none", "release"]

_TAN_22 = 13573  # tan(22.5 degrees) in 15-bit fixed point, the sector test of OpenCV's Canny
_COMPONENT_ROUNDS = 8  # leave at most 0.03 % of the pixels of any photograph tried, up to 2048x1024; 10 leave none


class ImageGradient(nn.Module):
    """Image gradient of an RGB image: section 3.2 of the paper feeds Canny edges to the fusion.

    Args:
        kind: "canny": edges with thresholds 10 and 100 on the RGB image, in {0, 1}; "sobel": gradient magnitude in
            [0, 1]; "none": zeros; "release": what the published checkpoint saw, in {0, 255}: Canny of the normalised
            image, truncated to integers modulo 256.
        mean: three numbers, RGB mean of the backbone's normalisation; only "release" uses it.
        std: three numbers, RGB standard deviation of it; only "release" uses it.

    Raises:
        ValueError: ``kind`` is not one of these, or there are not three numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: GradientKind = "canny", mean: Tensor | None = None, std: Tensor | None = None) -> None:
        super().__init__()
        if kind not in get_args(GradientKind):
            raise SettingError(f"image_gradient {kind!r} is not known: use one of {', '.join(get_args(GradientKind))}")
        self.kind = kind
        zeros = torch.zeros(1, 3, 1, 1)
        self.register_buffer("mean", zeros if mean is None else _of_channels("mean", mean), persistent=False)
        self.register_buffer("std", zeros + 1 if std is None else _of_channels("std", std), persistent=False)
        if can_look(self.std) and not (self.std > 0).all():
            raise SettingError(f"std holds {self.std.min().item():g}: give three numbers above 0")

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Gradient map (B, 1, H, W) of an image (B, 3, H, W) in [0, 1], or uint8; carries no gradient of its own.

        Raises:
            ValueError: the image is of another kind.
        """
        check_image(image)
        if not image.is_floating_point():
            image = image / 255
        if self.kind == "none":
            return torch.zeros_like(image[:, :1])
        if self.kind == "sobel":
            return sobel(image)
        if self.kind == "canny":
            return canny((image.float() * 255).round().to(torch.int32), 10, 100).to(image.dtype)
        normalised = (image.float() - self.mean) / self.std
        return canny(normalised.to(torch.int32) & 255, 10, 100).to(image.dtype) * 255

    def extra_repr(self) -> str:
        """The kind of gradient."""
        return self.kind


def _of_channels(name: str, values: Tensor) -> Tensor:
    check_floating(name, values)
    if values.numel() != 3:
        raise SettingError(f"{name} has shape {tuple(values.shape)}: give three numbers, one per channel")
    return values.reshape(1, 3, 1, 1).clone()


def _check_maps(image: Tensor) -> None:
    check_tensor("image", image)
    if image.ndim != 4 or min(image.shape[1:]) < 1:
        raise ValueError(f"image has shape {tuple(image.shape)}: give (B, C, H, W)")


def sobel(image: Tensor) -> Tensor:
    """Sobel magnitude, the largest over the channels.

    Args:
        image: (B, C, H, W) float in [0, 1].

    Returns:
        (B, 1, H, W) in [0, 1]; 1 is a step from 0 to 1 along an axis (steeper corners are clipped).

    Raises:
        ValueError: the image is of another kind.
    """
    _check_maps(image)
    if not image.is_floating_point():
        raise ValueError(f"image has data type {image.dtype}: give floating-point numbers in [0, 1] (image / 255)")
    dx, dy = _sobel_pair(F.pad(image.float(), (1, 1, 1, 1), mode="replicate"))
    magnitude = (dx.square() + dy.square()).amax(dim=1, keepdim=True).sqrt() / 4
    return magnitude.clamp(max=1).to(image.dtype)


def canny(image: Tensor, low: int = 10, high: int = 100) -> Tensor:
    """Canny edges as OpenCV draws them (aperture 3, L1 norm), without leaving the device.

    Equal to ``cv2.Canny(image, low, high)`` unless a weak edge winds so long that the fixed number of rounds of the
    search does not reach its end.

    Args:
        image: (B, C, H, W) integers 0 to 255 of any integer type.
        low: L1 gradient above which a local maximum continues an edge.
        high: L1 gradient above which a local maximum starts an edge; in either order.

    Returns:
        (B, 1, H, W) bool.

    Raises:
        ValueError: the image is of another kind.
    """
    _check_maps(image)
    if image.is_floating_point() or image.is_complex():
        raise ValueError(f"image has data type {image.dtype}: give integers 0 to 255 ((255 * image).byte())")
    low, high = min(low, high), max(low, high)
    padded = F.pad(image.float(), (1, 1, 1, 1), mode="replicate").to(torch.int32)
    dx, dy = _sobel_pair(padded)
    magnitude = dx.abs() + dy.abs()
    # OpenCV takes, per pixel, the channel with the largest gradient; the first one wins a tie.
    magnitude, channel = magnitude.max(dim=1, keepdim=True)
    dx, dy = dx.gather(1, channel), dy.gather(1, channel)
    candidate = _is_local_maximum(magnitude, dx, dy) & (magnitude > low)
    return _hysteresis(candidate & (magnitude > high), candidate)


def _sobel_pair(padded: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical 3x3 Sobel differences of a map that is padded by one pixel."""
    top, mid, bottom = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    smooth_rows = top + 2 * mid + bottom
    step_rows = bottom - top
    dx = smooth_rows[..., 2:] - smooth_rows[..., :-2]
    dy = step_rows[..., :-2] + 2 * step_rows[..., 1:-1] + step_rows[..., 2:]
    return dx, dy


def _is_local_maximum(magnitude: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Non-maximum suppression along the gradient in four sectors; ties are broken as OpenCV does."""
    h, w = magnitude.shape[-2:]
    padded = F.pad(magnitude, (1, 1, 1, 1))

    def neighbour(row: int, col: int) -> Tensor:
        return padded[..., 1 + row : 1 + row + h, 1 + col : 1 + col + w]

    ax, ay = dx.abs(), dy.abs() * 2**15
    tan22 = ax * _TAN_22
    horizontal = ay < tan22
    vertical = ay > tan22 + ax * 2**16
    falling = (dx < 0) != (dy < 0)  # the gradient points to the upper right or the lower left
    before = torch.where(falling, neighbour(-1, 1), neighbour(-1, -1))
    after = torch.where(falling, neighbour(1, -1), neighbour(1, 1))
    diagonal_maximum = (magnitude > before) & (magnitude > after)
    horizontal_maximum = (magnitude > neighbour(0, -1)) & (magnitude >= neighbour(0, 1))
    vertical_maximum = (magnitude > neighbour(-1, 0)) & (magnitude >= neighbour(1, 0))
    # Choices by logic, as ONNX Runtime has none between truth values. No gradient is both horizontal and vertical.
    sides = (horizontal & horizontal_maximum) | (vertical & vertical_maximum)
    return sides | (diagonal_maximum & ~(horizontal | vertical))


def _hysteresis(strong: Tensor, candidate: Tensor) -> Tensor:
    """Candidates connected to a strong edge through 8-neighbours.

    Connected components by hooking and pointer jumping (Shiloach and Vishkin 1982) in a fixed number of rounds, so that
    nothing waits for the data. Candidates inside a 2x2 block always touch each other, so the blocks are the nodes.
    """
    height, width = candidate.shape[-2:]
    pad = (0, width % 2, 0, height % 2)
    candidate, strong = F.pad(candidate, pad), F.pad(strong, pad)
    links = _block_links(candidate)
    occupied = _block_any(candidate)
    nodes = occupied.numel()
    own = torch.arange(nodes, device=candidate.device).view_as(occupied)
    parent = own.flatten()
    # Slices of a size that is not known take an exporter minutes; for it every block has the numbers of its neighbours.
    around = _neighbours(parent.view_as(occupied), links) if torch.compiler.is_exporting() else None
    for _ in range(_COMPONENT_ROUNDS):
        grand = parent[parent]
        if around is None:
            lowest = _lowest_neighbour(grand.view_as(occupied), links).flatten()
        else:
            lowest = grand[around].amin(dim=0)
        hooked = grand.scatter_reduce(0, parent, lowest, "amin")
        parent = torch.minimum(hooked, lowest)
    root = parent[parent]
    started = torch.zeros(nodes, dtype=torch.uint8, device=candidate.device)
    started = started.scatter_reduce(0, root, _block_any(strong).flatten().to(torch.uint8), "amax")
    alive = started[root].view_as(occupied).bool()
    alive = alive.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    return (alive & candidate)[..., :height, :width]


def _block_any(x: Tensor) -> Tensor:
    """(B, 1, 2h, 2w) bool to (B, 1, h, w): whether any pixel of the 2x2 block is set."""
    return x[..., ::2, ::2] | x[..., ::2, 1::2] | x[..., 1::2, ::2] | x[..., 1::2, 1::2]


def _block_links(x: Tensor) -> list[tuple[int, int, Tensor]]:
    """Which 2x2 blocks touch the neighbour at (rows, cols) to the right and below: the other half is symmetric."""
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    return [
        (0, 1, (b | d)[..., :, :-1] & (a | c)[..., :, 1:]),
        (1, 0, (c | d)[..., :-1, :] & (a | b)[..., 1:, :]),
        (1, 1, d[..., :-1, :-1] & a[..., 1:, 1:]),
        (1, -1, c[..., :-1, 1:] & b[..., 1:, :-1]),
    ]


def _lowest_neighbour(x: Tensor, links: list[tuple[int, int, Tensor]]) -> Tensor:
    """The lowest number among a block and the blocks that it touches."""
    h, w = x.shape[-2:]
    lowest = x.clone()
    for row, col, touching in links:
        here = (..., slice(0, h - row), slice(max(0, -col), w - max(0, col)))
        there = (..., slice(row, h), slice(max(0, col), w - max(0, -col)))
        lowest[here] = torch.where(touching, torch.minimum(lowest[here], x[there]), lowest[here])
        lowest[there] = torch.where(touching, torch.minimum(lowest[there], x[here]), lowest[there])
    return lowest


def _neighbours(number: Tensor, links: list[tuple[int, int, Tensor]]) -> Tensor:
    """(9, blocks) numbers of every block and of the blocks that it touches, its own in place of those it does not."""
    found = [number]
    for row, col, touching in links:
        step = row * number.shape[-1] + col
        left, right = max(0, -col), max(0, col)
        here = F.pad(touching.to(number.dtype), (left, right, 0, row))
        there = F.pad(touching.to(number.dtype), (right, left, row, 0))
        found += [number + here * step, number - there * step]
    return torch.stack(found).flatten(1)
