"""Boundary IoU of semantic segmentation: intersection over union of the bands inside the class outlines."""

import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gscnn_lightning.checks import is_number
from gscnn_lightning.metrics.base import LabelMapMetric
from gscnn_lightning.metrics.label_maps import (
    check_label_maps,
    check_num_classes,
    float_dtype,
    mark_ignored,
    uneven_windows,
    value_counts,
)

# OpenCV filters no integers wider than 16 bits, and void needs one of their values.
_MOST_CLASSES = 65535


def boundary_iou(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    distance: float = 0.02,
    ignore_index: int | None = 255,
    frame: bool = True,
) -> Tensor:
    r"""Boundary IoU per class, from the summed counts of a batch.

    With :math:`P_c`, :math:`G_c` the masks of class :math:`c` in prediction and target, and :math:`\partial_d M` the
    pixels of a mask :math:`M` within distance :math:`d` of a pixel outside it,

    .. math::
        \mathrm{BIoU}_c = \frac{|\partial_d P_c \cap \partial_d G_c|}{|\partial_d P_c \cup \partial_d G_c|}

    Best value 1, worst 0, NaN for a class in neither map. Distances are chessboard distances and the outside of the
    image belongs to no mask, as in the authors' program. Pixels ignored in the target belong to no class in either
    map. (The mean over images instead of summed counts: call it once per image.)

    The work is done by OpenCV on the CPU, whatever the device of the input.

    Source: Cheng et al., Boundary IoU: Improving object-centric image segmentation evaluation, CVPR 2021, section 4.

    Args:
        preds: (B, H, W) integer, predicted classes, 0 ... K-1; anything where the target is ignored.
        target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.
        num_classes: number of classes K, >= 1.
        distance: width d of the bands, > 0. From 1 on, pixels; below 1, a fraction of the image diagonal, rounded to
            the nearest whole pixel, 1 at least. The authors take 0.02 for photographs of objects.
        ignore_index: target value to leave out; ``None`` for none.
        frame: False for masks that continue outside of the image, so that its frame makes no band.

    Returns:
        (K,) float64 (float32 on MPS), in [0, 1] or NaN, on the device of ``preds``.

    Raises:
        ValueError: if shapes, data types, labels, ``distance`` or ``num_classes`` are out of range.

    Example:
        A vertical edge, predicted one pixel too far to the right; the bands share none and one of 8 and 12 pixels:

        >>> target = torch.tensor([[[0, 0, 1, 1, 1]] * 4])
        >>> preds = torch.tensor([[[0, 0, 0, 1, 1]] * 4])
        >>> boundary_iou(preds, target, num_classes=3, distance=1, frame=False)
        tensor([0., 0., nan], dtype=torch.float64)
        >>> boundary_iou(preds, target, num_classes=3, distance=2, frame=False)
        tensor([0.3333, 0.3333,    nan], dtype=torch.float64)
    """
    _check_settings(num_classes, distance)
    counts = _counts(preds, target, num_classes, distance, ignore_index, frame)
    intersection, union = counts.to(preds.device, float_dtype(preds.device))
    return intersection / union


class BoundaryIoU(LabelMapMetric):
    r"""Boundary IoU of a data set, from counts summed over all images as in mean IoU.

    The formula is that of :func:`boundary_iou`. Best value 1, worst 0. Counts are integers: the result depends neither
    on batch size nor on the number of processes.

    As input to ``forward`` and ``update``: ``preds`` and ``target``, (B, H, W) integer, on any device.
    As output of ``compute``: a scalar with ``average="macro"``, the mean over classes that occurred; (K,) with
    ``average="none"``, NaN for a class that never did. float64, float32 on MPS.

    Args:
        num_classes: number of classes K, >= 1.
        distance: width of the bands, as in :func:`boundary_iou`.
        ignore_index: target value to leave out; ``None`` for none.
        frame: as in :func:`boundary_iou`.
        average: ``"macro"`` or ``"none"``.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> target = torch.tensor([[[0, 0, 1, 1, 1]] * 4])
        >>> preds = torch.tensor([[[0, 0, 0, 1, 1]] * 4])
        >>> metric = BoundaryIoU(num_classes=3, distance=2, frame=False)
        >>> metric.update(preds, target)
        >>> metric.update(target, target)
        >>> metric.compute()
        tensor(0.6000, dtype=torch.float64)
    """

    intersection: Tensor
    union: Tensor

    def __init__(
        self,
        num_classes: int,
        distance: float = 0.02,
        ignore_index: int | None = 255,
        frame: bool = True,
        average: Literal["macro", "none"] = "macro",
        **kwargs: object,
    ) -> None:
        _check_settings(num_classes, distance)
        super().__init__(num_classes, ignore_index, average, **kwargs)
        self.distance = distance
        self.frame = frame
        self.add_state("intersection", default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("union", default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) integer, predicted classes, 0 ... K-1.
            target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.

        Raises:
            ValueError: if shapes, data types or labels are out of range.
        """
        counts = _counts(preds, target, self.num_classes, self.distance, self.ignore_index, self.frame)
        intersection, union = counts.to(self.union.device)
        self.intersection += intersection
        self.union += union

    def compute(self) -> Tensor:
        """Score of all batches so far: a scalar, or (K,) with ``average="none"``."""
        dtype = float_dtype(self.union.device)
        return self.averaged(self.intersection.to(dtype) / self.union.to(dtype))


def _check_settings(num_classes: int, distance: float) -> None:
    check_num_classes(num_classes)
    if num_classes > _MOST_CLASSES:
        raise ValueError(f"num_classes is {num_classes}; Boundary IoU can tell {_MOST_CLASSES} classes apart")
    if not (is_number(distance) and distance > 0):
        raise ValueError(f"distance is {distance!r}; give a finite width > 0, below 1 as a fraction of the diagonal")


def _counts(
    preds: Tensor, target: Tensor, num_classes: int, distance: float, ignore_index: int | None, frame: bool
) -> Tensor:
    """(2, K) int64 on the CPU: pixels in both bands and in either, per class, summed over the batch."""
    check_label_maps(preds, target)
    # The authors round, where the tolerances of the boundary F-score are rounded up.
    whole = int(distance) if distance >= 1 else max(1, round(distance * math.hypot(*preds.shape[-2:])))
    counts = np.zeros((2, num_classes), np.int64)
    if not preds.numel():
        return torch.from_numpy(counts)
    for pred, label in zip(preds.cpu().numpy(), target.cpu().numpy(), strict=True):
        pred, label = mark_ignored(pred, label, num_classes, ignore_index)
        pred_band, label_band = _band(pred, whole, frame), _band(label, whole, frame)
        both = value_counts(pred, num_classes + 1, pred_band & label_band & (pred == label))
        either = (
            value_counts(pred, num_classes + 1, pred_band) + value_counts(label, num_classes + 1, label_band) - both
        )
        # The mark of ignored pixels is no class.
        counts += np.stack([both, either])[:, :num_classes]
    return torch.from_numpy(counts)


def _band(labels: npt.NDArray[np.integer], distance: int, frame: bool) -> npt.NDArray[np.bool_]:
    """Pixels within a chessboard distance of another label; all classes at once, as no label lies in two masks."""
    # A square around a pixel has several labels if one of the 2x2 windows in it has. They lie to the right and below
    # of the pixel that they are found at, hence the anchor. OpenCV pads with what changes nothing, so the frame is no
    # boundary by itself.
    square = np.ones((2 * distance, 2 * distance), np.uint8)
    band = cv2.dilate(uneven_windows(labels).view(np.uint8), square, anchor=(distance, distance)).view(bool)
    if frame:
        band[:distance] = band[-distance:] = True
        band[:, :distance] = band[:, -distance:] = True
    return band
