"""Distance-based evaluation: IoU of ever smaller crops around the vanishing point, hence of ever farther scenery."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gscnn_lightning.checks import are_numbers
from gscnn_lightning.metrics.base import RegionIoU
from gscnn_lightning.metrics.label_maps import check_label_maps, check_num_classes, class_iou, nested_confusion

CROP_FACTORS = (0.0, 100.0, 200.0, 300.0, 400.0)
"""Rows cut off above and below, in pixels of a frame of 1024x2048."""

_FRAME_HEIGHT = 1024


def distance_crop_iou(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    factors: Sequence[float] = CROP_FACTORS,
    center: tuple[float, float] = (0.5, 0.5),
    ignore_index: int | None = 255,
) -> Tensor:
    r"""Intersection over union per crop and class, from one confusion matrix per crop over a batch.

    Crop factor f keeps the central :math:`(1 - 2 f / 1024)` of height and width: at 1024x2048 it cuts f rows off above
    and below and 2 f columns off at either side, in other sizes in proportion. What is left lies farther away the
    larger f is, and objects in it are smaller. Best value 1, worst 0, NaN for a class in neither map of a crop.

    Source: Takikawa et al., Gated-SCNN, ICCV 2019, section 4 (distance-based evaluation). The paper crops around an
    approximate vanishing point; by default that is the middle of the frame here.

    Args:
        preds: (B, H, W) integer, predicted classes, 0 ... K-1; anything where the target is ignored.
        target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.
        num_classes: number of classes K, >= 1.
        factors: F crop factors, ascending, 0 to below 512.
        center: vanishing point as shares of height and width; crops close in on it and never leave the image.
        ignore_index: target value to leave out; ``None`` for none.

    Returns:
        (F, K) float64 on the CPU, in [0, 1] or NaN.

    Raises:
        ValueError: if shapes, data types, labels, ``num_classes``, ``factors`` or ``center`` are out of range.

    Example:
        Four columns, of which the crop keeps the middle two:

        >>> target = torch.tensor([[[0, 0, 1, 1]] * 4])
        >>> preds = torch.tensor([[[1, 0, 1, 1]] * 4])
        >>> distance_crop_iou(preds, target, num_classes=2, factors=[0, 256])
        tensor([[0.5000, 0.6667],
                [1.0000, 1.0000]], dtype=torch.float64)
    """
    _check_settings(num_classes, factors, center)
    return class_iou(_confusion(preds, target, num_classes, factors, center, ignore_index))


class DistanceCropIoU(RegionIoU):
    """Mean IoU of a data set by crop factor: how much is lost toward the vanishing point.

    Crops and formula are those of :func:`distance_crop_iou`; the counts of all images are summed first. Best value 1,
    worst 0.

    As input to ``forward`` and ``update``: ``preds`` and ``target``, (B, H, W) integer, on any device.
    As output of ``compute``: (F,) float64 on the CPU with ``average="macro"``, the mean over classes that occurred in
    the crop; (F, K) with ``average="none"``, NaN for a class that did not.

    Args:
        num_classes: number of classes K, >= 1.
        factors: F crop factors, as in :func:`distance_crop_iou`.
        center: vanishing point as shares of height and width.
        ignore_index: target value to leave out; ``None`` for none.
        average: ``"macro"`` or ``"none"``.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> target = torch.tensor([[[0, 0, 1, 1]] * 4])
        >>> preds = torch.tensor([[[1, 0, 1, 1]] * 4])
        >>> metric = DistanceCropIoU(num_classes=2, factors=[0, 256])
        >>> metric.update(preds, target)
        >>> metric.compute()
        tensor([0.5833, 1.0000], dtype=torch.float64)
    """

    def __init__(
        self,
        num_classes: int,
        factors: Sequence[float] = CROP_FACTORS,
        center: tuple[float, float] = (0.5, 0.5),
        ignore_index: int | None = 255,
        average: Literal["macro", "none"] = "macro",
        **kwargs: object,
    ) -> None:
        _check_settings(num_classes, factors, center)
        super().__init__(len(factors), num_classes, ignore_index, average, **kwargs)
        self.factors = tuple(factors)
        self.center = center

    def counts(self, preds: Tensor, target: Tensor) -> Tensor:
        """(F, K, K + 1) int64 counts of a batch, one matrix per crop."""
        return _confusion(preds, target, self.num_classes, self.factors, self.center, self.ignore_index)


def _check_settings(num_classes: int, factors: Sequence[float], center: tuple[float, float]) -> None:
    check_num_classes(num_classes)
    in_range = are_numbers(factors, lambda factor: 0 <= factor < _FRAME_HEIGHT / 2)
    if not in_range or list(factors) != sorted(factors):
        raise ValueError(f"factors is {factors!r}; give one or more, ascending, from 0 to below {_FRAME_HEIGHT // 2}")
    if not are_numbers(center, lambda share: 0 <= share <= 1) or len(center) != 2:
        raise ValueError(f"center is {center!r}; give two shares, of height and width, 0 to 1")


def _confusion(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    factors: Sequence[float],
    center: tuple[float, float],
    ignore_index: int | None,
) -> Tensor:
    """(F, K, K + 1) counts of a batch."""
    check_label_maps(preds, target)
    rows, columns = (
        _crops_around(size, share, factors, target.device)
        for size, share in zip(target.shape[-2:], center, strict=True)
    )
    depth = torch.minimum(rows[:, None], columns[None])
    return nested_confusion(preds, target, depth, len(factors), num_classes, ignore_index)


def _crops_around(size: int, share: float, factors: Sequence[float], device: torch.device) -> Tensor:
    """(size,) int: how many of the crops contain each row, or column."""
    position = torch.arange(size, device=device)
    depth = torch.zeros_like(position, dtype=torch.uint8 if len(factors) < 256 else torch.int64)
    for factor in factors:
        cut = 2 * factor / _FRAME_HEIGHT * size  # from both sides together
        start = round(cut * share)
        depth += (position >= start) & (position < size - (round(cut) - start))
    return depth
