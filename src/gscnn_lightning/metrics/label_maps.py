"""What all metrics of label maps share: checks, void, distances in pixels, confusion matrices."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gscnn_lightning.boundaries import signed
from gscnn_lightning.checks import are_numbers, check_tensor, is_whole


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
    """Both maps with ``num_classes`` wherever the target is ignored; anything else must be a class.

    Args:
        pred: predicted classes, any shape.
        label: true classes of the same shape, or ``ignore_index``.
        num_classes: number of classes K.
        ignore_index: target value to leave out; ``None`` for none.

    Returns:
        Two maps with values 0 ... K, uint8 if they fit, else uint16 or int64.

    Raises:
        ValueError: a label is neither a class nor ignored.
    """
    check_ignore_index(ignore_index)
    ignored = np.zeros(label.shape, bool) if ignore_index is None else label == ignore_index
    dtype: type[np.integer] = np.uint8 if num_classes < 256 else np.uint16 if num_classes < 65536 else np.int64
    marked: list[npt.NDArray[np.integer]] = []
    for name, labels in (("preds", pred), ("target", label)):
        kept = np.where(ignored, 0, labels)
        if kept.size and (kept.min() < 0 or kept.max() >= num_classes):
            wrong = kept.min() if kept.min() < 0 else kept.max()
            raise ValueError(
                f"{name} contains label {wrong}, with {num_classes} classes and ignore_index {ignore_index}; "
                f"labels must be 0 to {num_classes - 1}" + (" or ignored" if name == "target" else "")
            )
        marked.append(np.where(ignored, num_classes, kept).astype(dtype))
    return marked[0], marked[1]


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
        preds: (B, H, W) integer, predicted classes, 0 ... K-1; anything where the target is ignored.
        target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.
        depth: number of regions that contain the pixel, 0 ... R; broadcasts to (B, H, W).
        num_regions: number of regions R; the first contains all others, the last lies innermost.
        num_classes: number of classes K.
        ignore_index: target value to leave out; ``None`` for none.

    Returns:
        (R, K, K) int64 counts, rows are true classes, columns predicted ones.

    Raises:
        ValueError: a label is neither a class nor ignored.
    """
    check_ignore_index(ignore_index)
    preds, target = signed(preds), signed(target)
    if ignore_index is not None:
        ignored = target == ignore_index
        # Void lies in no region, whatever is predicted there.
        preds, target = preds.masked_fill(ignored, 0), target.masked_fill(ignored, 0)
        depth = torch.where(ignored, 0, depth)
    for name, labels in (("preds", preds), ("target", target)):
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
            raise ValueError(
                f"{name} contains labels from {int(labels.min())} to {int(labels.max())}; with {num_classes} classes "
                f"and ignore_index {ignore_index} they must be 0 to {num_classes - 1}"
            )
    cells = (depth.int() * num_classes + target) * num_classes + preds
    rings = torch.bincount(cells.flatten(), minlength=(num_regions + 1) * num_classes**2)[num_classes**2 :]
    # A pixel of an inner region belongs to all regions around it.
    return rings.reshape(num_regions, num_classes, num_classes).flip(0).cumsum(0).flip(0)


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union per class.

    Args:
        confusion: (..., K, K) counts, rows are true classes, columns predicted ones.

    Returns:
        (..., K) float64 on the CPU, NaN for a class in neither.

    Example:
        >>> class_iou(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
        tensor([0.7500, 0.6667,    nan], dtype=torch.float64)
    """
    counts = confusion.cpu().double()  # Apple's MPS has no float64
    hit = counts.diagonal(dim1=-2, dim2=-1)
    return hit / (counts.sum(-1) + counts.sum(-2) - hit)  # 0 / 0 gives the NaN that marks an absent class


def float_dtype(device: torch.device) -> torch.dtype:
    """The widest float type of a device: float64, except on Apple's MPS."""
    return torch.float32 if device.type == "mps" else torch.float64
