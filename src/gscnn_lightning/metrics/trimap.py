"""Trimap IoU: intersection over union of the pixels near true class boundaries."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.metrics.base import RegionIoU
from gscnn_lightning.metrics.label_maps import (
    check_distances,
    check_label_maps,
    check_num_classes,
    class_iou,
    nested_confusion,
    tolerance_radii,
)


def trimap_iou(
    preds: Tensor, target: Tensor, num_classes: int, widths: Sequence[float], ignore_index: int | None = 255
) -> Tensor:
    """Intersection over union per width and class, of the pixels near the true boundaries of a batch.

    A pixel counts at width w if a pixel of another true class lies within Euclidean distance w. Contact with void makes
    no boundary. Best value 1, worst 0, NaN for a class in neither map of the band. The rule is that of
    :func:`gscnn_lightning.data.label_boundaries`, and everything stays on the device.

    Source: Kohli et al., Robust higher order potentials for enforcing label consistency, IJCV 2009, section 5; with
    IoU, Krähenbühl and Koltun, Efficient inference in fully connected CRFs, NIPS 2011, section 6.

    Args:
        preds: (B, H, W) integer, predicted classes, 0 ... K-1; anything where the target is ignored.
        target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.
        num_classes: number of classes K, >= 1.
        widths: T reaches of the band on either side of a boundary, > 0. From 1 on, pixels; below 1, a
            fraction of the image diagonal, rounded up to whole pixels.
        ignore_index: target value to leave out; ``None`` for none.

    Returns:
        (T, K) float64 on the CPU, in [0, 1] or NaN.

    Raises:
        ValueError: if shapes, data types, labels, ``num_classes`` or ``widths`` are out of range.

    Example:
        The wrong column is two pixels from the true edge:

        >>> target = torch.tensor([[[0, 0, 0, 1, 1, 1]] * 4])
        >>> preds = torch.tensor([[[0, 0, 0, 1, 0, 0]] * 4])
        >>> trimap_iou(preds, target, num_classes=2, widths=[1, 2])
        tensor([[1.0000, 1.0000],
                [0.6667, 0.5000]], dtype=torch.float64)
    """
    _check_settings(num_classes, widths)
    return class_iou(_confusion(preds, target, num_classes, widths, ignore_index))


class TrimapIoU(RegionIoU):
    """Mean IoU of a data set near its true boundaries, for several widths at once.

    Band and formula are those of :func:`trimap_iou`; the counts of all images are summed first. Best value 1, worst 0.

    As input to ``forward`` and ``update``: ``preds`` and ``target``, (B, H, W) integer, on any device.
    As output of ``compute``: (T,) float64 on the CPU with ``average="macro"``, the mean over classes that occurred in
    the band; (T, K) with ``average="none"``, NaN for a class that did not.

    Args:
        num_classes: number of classes K, >= 1.
        widths: T reaches of the band, as in :func:`trimap_iou`.
        ignore_index: target value to leave out; ``None`` for none.
        average: ``"macro"`` or ``"none"``.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> target = torch.tensor([[[0, 0, 0, 1, 1, 1]] * 4])
        >>> preds = torch.tensor([[[0, 0, 0, 1, 0, 0]] * 4])
        >>> metric = TrimapIoU(num_classes=2, widths=[1, 2])
        >>> metric.update(preds, target)
        >>> metric.compute()
        tensor([1.0000, 0.5833], dtype=torch.float64)
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[float],
        ignore_index: int | None = 255,
        average: Literal["macro", "none"] = "macro",
        **kwargs: object,
    ) -> None:
        _check_settings(num_classes, widths)
        super().__init__(len(widths), num_classes, ignore_index, average, **kwargs)
        self.widths = tuple(widths)

    def counts(self, preds: Tensor, target: Tensor) -> Tensor:
        """(T, K, K + 1) int64 counts of a batch, one matrix per width."""
        return _confusion(preds, target, self.num_classes, self.widths, self.ignore_index)


def _check_settings(num_classes: int, widths: Sequence[float]) -> None:
    check_num_classes(num_classes)
    check_distances("widths", widths, above_zero=True)


def _confusion(
    preds: Tensor, target: Tensor, num_classes: int, widths: Sequence[float], ignore_index: int | None
) -> Tensor:
    """(T, K, K + 1) counts of a batch."""
    check_label_maps(preds, target)
    ignored = -1 if ignore_index is None else ignore_index
    depth = torch.zeros(target.shape, dtype=torch.uint8, device=target.device)
    radii = tolerance_radii(widths, (target.shape[-2], target.shape[-1]))
    for radius in radii:
        depth += label_boundaries(target, radius, ignored)
    nested = nested_confusion(preds, target, depth, len(radii), num_classes, ignore_index)
    counts = torch.empty_like(nested)
    counts[sorted(range(len(radii)), key=lambda index: -radii[index])] = nested  # the widest band contains the others
    return counts
