"""What all metrics of label maps share: checks, void, distances in pixels, confusion matrices."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gscnn_lightning.boundaries import signed
from gscnn_lightning.checks import are_numbers, check_tensor, is_whole

_MOST_CELLS = 1 << 16
_EXACT = 1 << 24  # OpenCV gives counts in single precision, in which whole numbers are exact up to this


def check_label_maps(preds: Tensor, target: Tensor) -> None:
    """Raise unless both are integer label maps of one shape (B, H, W).

    Raises:
        ValueError: they are not; the message says what was seen.
    """
    for name, labels in (("preds", preds), ("target", target)):
        check_tensor(name, labels)
    if preds.ndim != 3 or preds.shape != target.shape:
        raise ValueError(
            f"preds has shape {tuple(preds.shape)} and target {tuple(target.shape)}; "
            "give two label maps of the same shape (B, H, W), logits after argmax over classes"
        )
    for name, labels in (("preds", preds), ("target", target)):
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise ValueError(f"{name} has data type {labels.dtype}; give integer class labels")


def check_num_classes(num_classes: int) -> None:
    """Raise unless there is at least one class.

    Raises:
        ValueError: there is none.
    """
    if not is_whole(num_classes, 1):
        raise ValueError(f"num_classes is {num_classes!r}; give the number of classes, at least 1")


def check_ignore_index(ignore_index: int | None) -> None:
    """Raise unless it is a label or ``None``.

    Raises:
        ValueError: it is something else.
    """
    if ignore_index is not None and not is_whole(ignore_index):
        raise ValueError(f"ignore_index is {ignore_index!r}; give a whole number, or None to leave nothing out")


def check_distances(name: str, values: Sequence[float], above_zero: bool = False) -> None:
    """Raise unless there are one or more distances.

    Raises:
        ValueError: there is none, or one is negative, not finite, or 0 though it has to be above.
    """
    if not are_numbers(values, lambda value: value > 0 if above_zero else value >= 0):
        raise ValueError(f"{name} is {values!r}; give one or more finite distances {'>' if above_zero else '>='} 0")


def mark_ignored(
    pred: npt.NDArray[np.integer], label: npt.NDArray[np.integer], num_classes: int, ignore_index: int | None
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Both maps with ``num_classes`` wherever the target is ignored, or no class predicted; else there must be a class.

    Args:
        pred: predicted classes, any shape; ``ignore_index``, unless that is a class, where none is predicted.
        label: true classes of the same shape, or ``ignore_index``.
        num_classes: number of classes K.
        ignore_index: target value to leave out; ``None`` for none.

    Returns:
        Two maps with values 0 ... K, uint8 if they fit, else uint16 or int64.

    Raises:
        ValueError: a label is neither a class nor ignored.
    """
    check_ignore_index(ignore_index)
    marked = _marked_pair(pred, label, num_classes, ignore_index)
    for name, marks, labels in (("preds", marked[0], pred), ("target", marked[1], label)):
        if not _in_range(marks, num_classes):
            wrong = labels[marks > num_classes]
            worst = wrong.min() if wrong.min() < 0 else wrong.max()
            raise ValueError(
                f"{name} contains label {worst}, with {num_classes} classes and ignore_index {ignore_index}; "
                f"labels must be 0 to {num_classes - 1}" + (" or ignored" if name == "target" else "")
            )
    return marked


def _in_range(marks: npt.NDArray[np.integer], num_classes: int) -> bool:
    return not marks.size or int(marks.max()) <= num_classes


def _marked_pair(
    pred: npt.NDArray[np.integer], label: npt.NDArray[np.integer], num_classes: int, ignore_index: int | None
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """As `mark_ignored`, with more than K for what is neither a class nor ignored."""
    dtype: type[np.integer] = np.uint8 if num_classes < 256 else np.uint16 if num_classes < 65536 else np.int64
    marked_label = _marked(label, num_classes, ignore_index, dtype)
    if pred.dtype == marked_label.dtype == np.uint8 and num_classes < 255 and pred.size and pred.max() < num_classes:
        ignored = label == ignore_index if ignore_index in range(num_classes) else marked_label == num_classes
        void = ignored.view(np.uint8) * np.uint8(num_classes)
        return np.maximum(pred, void), np.maximum(marked_label, void)
    marked_pred = _marked(pred, num_classes, ignore_index, dtype)
    if ignore_index is not None:
        ignored = label == ignore_index
        np.copyto(marked_label, num_classes, where=ignored)
        np.copyto(marked_pred, num_classes, where=ignored)  # there, anything may have been predicted
    return marked_pred, marked_label


def _marked(
    labels: npt.NDArray[np.integer], num_classes: int, ignore_index: int | None, dtype: type[np.integer]
) -> npt.NDArray[np.integer]:
    """A copy with K for ``ignore_index`` unless that is a class, and K + 1 for what is neither."""
    has_void = ignore_index is not None and not 0 <= ignore_index < num_classes
    if num_classes < 255 and labels.size and (labels.dtype == np.uint8 or (labels.min() >= 0 and labels.max() < 256)):
        table = np.full(256, num_classes + 1, np.uint8)
        table[:num_classes] = np.arange(num_classes)
        if has_void and ignore_index in range(256):
            table[ignore_index] = num_classes
        flat = np.ascontiguousarray(labels, np.uint8).reshape(1, -1)
        return cv2.LUT(flat, table).reshape(labels.shape)
    wide = labels.astype(np.int64)
    wide[(wide < 0) | (wide >= num_classes)] = num_classes + 1
    if has_void:
        wide[labels == ignore_index] = num_classes
    # A type that holds K need not hold K + 1.
    return wide.astype(dtype) if num_classes + 1 <= np.iinfo(dtype).max else wide


def tolerance_radii(tolerances: Sequence[float], image_size: tuple[int, int]) -> list[float]:
    """Tolerances in pixels of an image.

    Args:
        tolerances: distances, >= 0; from 1 on in pixels, below 1 as fractions of the image diagonal.
        image_size: (height, width) in pixels.

    Returns:
        One distance in pixels per tolerance; fractions are rounded up to whole pixels.

    Example:
        >>> tolerance_radii([3, 0.00088, 0.005], image_size=(1024, 2048))
        [3.0, 3.0, 12.0]
    """
    diagonal = math.hypot(*image_size)
    return [float(tol) if tol >= 1 else float(math.ceil(tol * diagonal)) for tol in tolerances]


def nested_confusion(
    preds: Tensor, target: Tensor, depth: Tensor, num_regions: int, num_classes: int, ignore_index: int | None
) -> Tensor:
    """Confusion matrices of regions that lie in one another, from one pass over the pixels.

    Args:
        preds: (B, H, W) integer, predicted classes, 0 ... K-1; ``ignore_index``, unless that is a class, where no class
            is predicted; anything where the target is ignored.
        target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.
        depth: number of regions that contain the pixel, 0 ... R; broadcasts to (B, H, W).
        num_regions: number of regions R; the first contains all others, the last lies innermost.
        num_classes: number of classes K.
        ignore_index: target value to leave out; ``None`` for none.

    Returns:
        (R, K, K + 1) int64 counts, rows are true classes, columns predicted ones; the last column counts pixels without
        a predicted class.

    Raises:
        ValueError: a label is neither a class nor ignored.
    """
    check_ignore_index(ignore_index)
    shape = (num_regions + 1, num_classes + 1, num_classes + 1)
    if preds.device.type == target.device.type == depth.device.type == "cpu":
        pred, label = _marked_pair(preds.numpy(), target.numpy(), num_classes, ignore_index)
        if _in_range(pred, num_classes) and _in_range(label, num_classes):
            return _of_regions(torch.from_numpy(_cell_counts(pred, label, depth.numpy(), shape)))
    preds, target = signed(preds), signed(target)
    if ignore_index is not None:
        ignored = target == ignore_index
        # Void lies in no region, whatever is predicted there.
        preds, target = preds.masked_fill(ignored, 0), target.masked_fill(ignored, 0)
        depth = torch.where(ignored, 0, depth)
        if not 0 <= ignore_index < num_classes:
            preds = torch.where(preds == ignore_index, num_classes, preds)
    for name, labels, most in (("preds", preds, num_classes), ("target", target, num_classes - 1)):
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) <= most:
            raise ValueError(
                f"{name} contains labels from {int(labels.min())} to {int(labels.max())}; with {num_classes} classes "
                f"and ignore_index {ignore_index} they must be 0 to {num_classes - 1}"
            )
    cells = (depth.int() * (num_classes + 1) + target) * (num_classes + 1) + preds
    return _of_regions(torch.bincount(cells.flatten(), minlength=math.prod(shape)).reshape(shape))


def _of_regions(rings: Tensor) -> Tensor:
    """(R, K, K + 1) counts of regions from (R + 1, K + 1, K + 1) counts by depth."""
    # A pixel of an inner region belongs to all regions around it.
    return rings[1:, :-1].flip(0).cumsum(0).flip(0)


def _cell_counts(
    pred: npt.NDArray[np.integer], label: npt.NDArray[np.integer], depth: npt.NDArray[Any], shape: tuple[int, int, int]
) -> npt.NDArray[np.int64]:
    """How often each depth, label and prediction go together; (B, H, W) maps, ``depth`` broadcasts to them."""
    size = math.prod(shape)
    if size > _MOST_CELLS:
        wide = (depth.astype(np.int64) * shape[1] + label) * shape[2] + pred
        return np.bincount(wide.ravel(), minlength=size).reshape(shape)
    if pred.dtype == label.dtype == np.uint8 and shape[0] * shape[1] <= 256 and sys.byteorder == "little":
        # Two bytes side by side are a number of 16 bits, without arithmetic in 16 bits.
        outer = depth.astype(np.uint8) * np.uint8(shape[1]) + label
        pairs = cv2.merge([np.ascontiguousarray(part).reshape(1, -1) for part in (pred, outer)])
        counts = value_counts(pairs.view(np.uint16), shape[0] * shape[1] * 256)
        return counts.reshape(*shape[:2], 256)[..., : shape[2]]
    cells = np.multiply(label, shape[2], dtype=np.uint16, casting="unsafe")
    np.add(cells, pred, out=cells, casting="unsafe")
    np.add(cells, np.multiply(depth, shape[1] * shape[2], dtype=np.uint16, casting="unsafe"), out=cells)
    return value_counts(cells, size).reshape(shape)


def uneven_windows(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Pixels whose 2x2 window (itself, right, lower, lower-right) has several labels; the edge is replicated.

    Args:
        labels: (H, W).
    """
    uneven = np.zeros(labels.shape, bool)
    np.not_equal(labels[:, :-1], labels[:, 1:], out=uneven[:, :-1])
    uneven[:-1] |= labels[:-1] != labels[1:]
    uneven[:-1, :-1] |= labels[:-1, :-1] != labels[1:, 1:]
    return uneven


def value_counts(
    values: npt.NDArray[np.integer], size: int, where: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """(size,) int64: how often each of 0 ... size - 1 occurs; as `numpy.bincount`, in a fraction of the time.

    Args:
        values: of any shape, below `size`; uint8 or uint16, or else NumPy counts them.
        size: number of different values.
        where: of the same shape, what to count; None for everything.
    """
    if values.dtype not in (np.uint8, np.uint16):
        return np.bincount(values.ravel() if where is None else values[where], minlength=size)
    counts = np.zeros(size, np.int64)
    flat, mask = np.ascontiguousarray(values).reshape(-1, 1), None
    for start in range(0, flat.size, _EXACT):
        part = slice(start, start + _EXACT)
        if where is not None:
            mask = np.ascontiguousarray(where).view(np.uint8).reshape(-1, 1)[part]
        counts += cv2.calcHist([flat[part]], [0], mask, [size], [0, size]).ravel().astype(np.int64)
    return counts


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union per class.

    Args:
        confusion: (..., K, K) counts, rows are true classes, columns predicted ones; or (..., K, K + 1), the last
            column for pixels without a predicted class, which are missed.

    Returns:
        (..., K) float64 on the CPU, NaN for a class in neither.

    Example:
        >>> class_iou(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
        tensor([0.7500, 0.6667,    nan], dtype=torch.float64)
    """
    counts = confusion.cpu().double()  # Apple's MPS has no float64
    hit = counts.diagonal(dim1=-2, dim2=-1)
    predicted = counts.sum(-2)[..., : counts.shape[-2]]
    return hit / (counts.sum(-1) + predicted - hit)  # 0 / 0 gives the NaN that marks an absent class


def float_dtype(device: torch.device) -> torch.dtype:
    """The widest float type of a device: float64, except on Apple's MPS."""
    return torch.float32 if device.type == "mps" else torch.float64
