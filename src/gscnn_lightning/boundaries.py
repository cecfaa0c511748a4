"""Boundary maps made from label maps, on the CPU with OpenCV and on any device with torch, bit for bit alike.

Gated-SCNN (Takikawa et al., ICCV 2019, section 3.3) supervises its shape stream with boundaries taken from the
semantic labels. A pixel is a boundary pixel when another label lies within a Euclidean radius, in other words when the
maximum and the minimum of the labels over a disc differ.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gscnn_lightning.checks import is_number, is_whole
from gscnn_lightning.classes import IGNORE_INDEX

_STRIP_BYTES = 1 << 19
_HUGE_PAGE = 1 << 21

Labels = TypeVar("Labels", npt.NDArray[Any], Tensor)
Void = Literal["exclude", "boundary"]


def label_boundaries(
    labels: Labels,
    radius: float = 2,
    ignore_index: int = IGNORE_INDEX,
    void: Void = "exclude",
    frame: bool = False,
) -> Labels:
    """Mark the pixels that have another label within `radius`.

    Args:
        labels: class ids, (H, W) or (B, H, W), any integer type; uint8 is fastest.
        radius: Euclidean distance in pixels, 1 or more, need not be whole. Both sides of a boundary are marked, so a
            straight boundary becomes 2 * radius pixels wide.
        ignore_index: label of void pixels; one that no pixel has, such as -1, where there is no void.
        void: "exclude": void pixels are never marked and contact with them marks nothing. "boundary": void is a label
            like any other, and contact with it is marked on both sides.
        frame: mark labelled pixels within `radius` of the pixels just outside the image. Together with
            `void="boundary"` this is the rule the released checkpoint was trained with.

    Returns:
        uint8 array or tensor (as given) of the shape of `labels`, 1 on boundary pixels and 0 elsewhere.

    Raises:
        ValueError: `labels` are neither array nor tensor or have not 2 or 3 axes, `radius` is below 1 or not finite,
            `ignore_index` is not whole, or `void` is unknown.
        TypeError: `labels` are not whole numbers.

    Example:
        >>> label_boundaries(np.array([[0, 0, 0, 1, 1, 255]], dtype=np.uint8), radius=1)
        array([[0, 0, 1, 1, 0, 0]], dtype=uint8)
    """
    if not isinstance(labels, Tensor | np.ndarray):
        raise ValueError(f"labels must be an array or a tensor, got {type(labels).__name__}: convert them")
    if not is_number(radius, 1):
        raise ValueError(f"radius must be 1 or more, got {radius!r}: give a finite number of pixels")
    if not is_whole(ignore_index):
        raise ValueError(
            f"ignore_index must be a whole number, got {ignore_index!r}: give one that no pixel has, such as -1, where "
            "there is no void"
        )
    if void not in ("exclude", "boundary"):
        raise ValueError(f"void must be 'exclude' or 'boundary', got {void!r}")
    if labels.ndim not in (2, 3):
        raise ValueError(f"labels must be (H, W) or (B, H, W), got shape {tuple(labels.shape)}")
    if isinstance(labels, Tensor):
        return _tensor_boundaries(labels, radius, ignore_index, void, frame)
    return _array_boundaries(np.asarray(labels), radius, ignore_index, void, frame)


def signed(labels: Tensor) -> Tensor:
    """Labels in a type that torch can do more with than store: int64 in place of 16 to 64 bits without sign."""
    return labels.long() if labels.dtype in (torch.uint16, torch.uint32, torch.uint64) else labels


def disc_half_widths(radius: float) -> list[int]:
    """Half width of each row of the disc dx^2 + dy^2 <= radius^2, for dy = 0, 1, ... floor(radius).

    Example:
        >>> disc_half_widths(2)
        [2, 1, 0]
    """
    return [math.isqrt(math.floor(radius * radius - dy * dy)) for dy in range(math.floor(radius) + 1)]


def disc(radius: float) -> npt.NDArray[np.uint8]:
    """The disc as an OpenCV structuring element."""
    reach = math.floor(radius)
    disc = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    for dy, half in enumerate(disc_half_widths(radius)):
        disc[[reach - dy, reach + dy], reach - half : reach + half + 1] = 1
    return disc


def _array_boundaries(
    labels: npt.NDArray[Any], radius: float, ignore_index: int, void: Void, frame: bool
) -> npt.NDArray[np.uint8]:
    """OpenCV version of `label_boundaries`."""
    if labels.dtype.kind not in "iub":
        raise TypeError(f"labels must be integers, got {labels.dtype}: convert them with .astype")
    is_bytes = labels.dtype in (np.uint8, np.bool_)
    low, high = (0, 255) if is_bytes or not labels.size else (int(labels.min()), int(labels.max()))
    if high - low > np.iinfo(np.uint16).max:
        # Wider than OpenCV filters; torch filters all integers.
        tensor = torch.from_numpy(labels.astype(np.int64))
        return _tensor_boundaries(tensor, radius, ignore_index, void, frame).numpy()
    compact = _compact(labels, low, high)
    ignore = ignore_index - low if 0 <= ignore_index - low <= np.iinfo(compact.dtype).max else None
    images = compact[None] if labels.ndim == 2 else compact
    out = _empty(images.size).reshape(images.shape)
    for image, marked in zip(images, out, strict=True) if labels.size else ():
        _mark(image, radius, ignore if void == "exclude" else None, marked)
        if frame:
            _mark_frame(image, math.floor(radius), ignore, marked)
    return out.reshape(labels.shape)


def _compact(labels: npt.NDArray[Any], low: int, high: int) -> npt.NDArray[Any]:
    """Labels in an unsigned type that OpenCV filters, equal where they were equal."""
    if labels.dtype in (np.uint8, np.bool_):
        return np.ascontiguousarray(labels).view(np.uint8)
    # Wrapping is wanted: int8 labels may span more than int8 can hold.
    return (labels - np.array(low, labels.dtype)).astype(np.uint8 if high - low < 256 else np.uint16)


def _mark(image: npt.NDArray[Any], radius: float, ignore: int | None, out: npt.NDArray[np.uint8]) -> None:
    """Mark the pixels of one image that have another label within `radius`, `ignore` left out.

    Works through strips of rows small enough for a core's cache, in the same few buffers.
    """
    height, width = image.shape
    # The disc of radius 2 is a cross of crosses: two pixels are within each other's disc when one cross around some
    # third pixel, void or not, has both. Three filters of 5 pixels take less time than two of 13.
    spread = disc(1) if disc_half_widths(radius) == disc_half_widths(2) else None
    element = disc(radius) if spread is None else spread
    reach = math.floor(radius)
    rows = max(_STRIP_BYTES // (width * image.itemsize), 8 * reach)
    space = _empty(3 * min(rows + 2 * reach, height) * width * image.itemsize, _HUGE_PAGE // 2)
    buffers = space.view(image.dtype).reshape(3, -1, width)
    for top in range(0, height, rows):
        end, first, last = min(top + rows, height), max(top - reach, 0), min(top + rows + reach, height)
        strip, inner = image[first:last], np.s_[top - first : end - first]
        # Wrapping is wanted: void becomes the largest label, whatever it was.
        one = image.dtype.type(1)
        labels = strip if ignore in (None, np.iinfo(image.dtype).max) else strip - image.dtype.type(ignore) - one
        _mark_strip(labels, inner, element, spread, ignore is not None, buffers[:, : last - first], out[top:end])


def _mark_strip(
    labels: npt.NDArray[Any],
    inner: slice,
    element: npt.NDArray[np.uint8],
    spread: npt.NDArray[np.uint8] | None,
    has_void: bool,
    buffers: npt.NDArray[Any],
    out: npt.NDArray[np.uint8],
) -> None:
    """Mark the inner rows of a strip, where the largest number of the type is void if there is any.

    OpenCV pads with the neutral element of each filter, so nothing outside the image takes part. As the largest label,
    void takes no part in a minimum; for the maximum it becomes the smallest.
    """
    lowered, largest, smallest = buffers
    if has_void:
        cv2.threshold(labels, np.iinfo(labels.dtype).max - 1, 0, cv2.THRESH_TOZERO_INV, dst=lowered)
    cv2.dilate(lowered if has_void else labels, element, dst=largest)
    cv2.erode(labels, element, dst=smallest)
    marks = cv2.compare(largest, smallest, cv2.CMP_NE, dst=lowered)  # 255 or 0
    if spread is not None:
        marks = cv2.dilate(marks, spread, dst=largest)
    # Marks are the largest number of the labels' type, so larger than all labels but void.
    marks = marks[inner] if labels.itemsize == 1 else marks[inner] * np.uint16(257)
    np.greater(marks, labels[inner] if has_void else 0, out=out.view(bool))


def _empty(size: int, least: int = _HUGE_PAGE) -> npt.NDArray[np.uint8]:
    """Bytes for a result or buffers, in huge pages from `least` bytes on, if the system has huge pages.

    Page by page, the system takes longer to provide the memory for a large frame than the filters need. NumPy asks for
    huge pages from 4 MB on; what is never touched of that is never provided.
    """
    if size < least:
        return np.empty(size, np.uint8)
    memory = np.empty(max(size, _HUGE_PAGE) + _HUGE_PAGE, np.uint8)
    start = -memory.ctypes.data % _HUGE_PAGE
    return memory[start : start + size]


def _mark_frame(image: npt.NDArray[Any], reach: int, ignore: int | None, out: npt.NDArray[np.uint8]) -> None:
    """Mark labelled pixels that have the outside of the image within `reach`."""
    for strip in (np.s_[:reach], np.s_[-reach:], np.s_[:, :reach], np.s_[:, -reach:]):
        out[strip] |= True if ignore is None else image[strip] != ignore


def _tensor_boundaries(labels: Tensor, radius: float, ignore_index: int, void: Void, frame: bool) -> Tensor:
    """Torch version of `label_boundaries`: stays on the device, no synchronisation, compiles without graph breaks."""
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be integers, got {labels.dtype}: convert them with .long()")
    labels = signed(labels.to(torch.uint8) if labels.dtype == torch.bool else labels)
    limits = torch.iinfo(labels.dtype)
    # A comparison with a number the type cannot hold would wrap around and hit a real label.
    can_be_void = limits.min <= ignore_index <= limits.max
    labelled = labels != ignore_index if can_be_void else torch.ones_like(labels, dtype=torch.bool)
    low = high = labels
    if void == "exclude" and can_be_void:
        low, high = labels.masked_fill(~labelled, limits.min), labels.masked_fill(~labelled, limits.max)
    largest = _disc_extreme(low, radius, torch.maximum, limits.min)
    smallest = _disc_extreme(high, radius, torch.minimum, limits.max)
    marked = largest != smallest
    if void == "exclude":
        marked = marked & labelled
    if frame:
        marked = marked | (labelled & _near_frame(labels, math.floor(radius)))
    return marked.to(torch.uint8)


def _disc_extreme(x: Tensor, radius: float, extreme: Callable[[Tensor, Tensor], Tensor], neutral: int) -> Tensor:
    """Maximum or minimum over a disc, (..., H, W) to (..., H, W), with 8 * radius element-wise operations at most.

    The rows of a disc are intervals, so the filter is a horizontal filter per half width, each growing out of the one
    before, and a vertical combination of them.
    """
    H, W = x.shape[-2:]
    widths = disc_half_widths(radius)
    reach = widths[0]
    canvas = x.new_full((*x.shape[:-2], H + 2 * reach, W + 2 * reach), neutral)
    canvas[..., reach : reach + H, reach : reach + W] = x
    rows = [canvas[..., reach : reach + W]]
    for dx in range(1, reach + 1):
        sides = extreme(canvas[..., reach - dx : reach - dx + W], canvas[..., reach + dx : reach + dx + W])
        rows.append(extreme(rows[-1], sides))
    out = rows[reach][..., reach : reach + H, :]
    for dy, half in list(enumerate(widths))[1:]:
        above, below = rows[half][..., reach - dy : reach - dy + H, :], rows[half][..., reach + dy : reach + dy + H, :]
        out = extreme(out, extreme(above, below))
    return out


def _near_frame(labels: Tensor, reach: int) -> Tensor:
    """(H, W) bool: the outermost `reach` rows and columns."""
    H, W = labels.shape[-2:]
    row, column = torch.arange(H, device=labels.device), torch.arange(W, device=labels.device)
    near_row, near_column = torch.minimum(row, H - 1 - row) < reach, torch.minimum(column, W - 1 - column) < reach
    return near_row[:, None] | near_column[None, :]
