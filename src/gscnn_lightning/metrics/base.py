"""What the metrics of label maps have in common: settings, range and mean."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from gscnn_lightning.metrics.label_maps import check_ignore_index, check_num_classes, class_iou


class LabelMapMetric(Metric):
    """Score per class in [0, 1], higher is better, of predicted and true label maps (B, H, W).

    Args:
        num_classes: number of classes K, >= 1.
        ignore_index: target value to leave out; ``None`` for none.
        average: ``"macro"`` for the mean over classes that occurred, ``"none"`` for a score per class.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if an argument is out of range.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(
        self, num_classes: int, ignore_index: int | None, average: Literal["macro", "none"], **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        check_num_classes(num_classes)
        check_ignore_index(ignore_index)
        if average not in ("macro", "none"):
            raise ValueError(f"average is {average!r}; use 'macro' or 'none'")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.average = average

    def averaged(self, per_class: Tensor) -> Tensor:
        """Scores (..., K), or their mean (...) over classes, NaN left out, with ``average="macro"``."""
        return per_class.nanmean(-1) if self.average == "macro" else per_class


class RegionIoU(LabelMapMetric):
    """IoU in several regions of the images, from one confusion matrix per region over all images.

    A subclass says in `counts` what the regions are.

    Args:
        num_regions: number of regions R.
        num_classes: number of classes K, >= 1.
        ignore_index: target value to leave out; ``None`` for none.
        average: ``"macro"`` or ``"none"``.
        kwargs: arguments of :class:`torchmetrics.Metric`.
    """

    confusion: Tensor

    def __init__(
        self,
        num_regions: int,
        num_classes: int,
        ignore_index: int | None,
        average: Literal["macro", "none"],
        **kwargs: object,
    ) -> None:
        super().__init__(num_classes, ignore_index, average, **kwargs)
        zeros = torch.zeros(num_regions, num_classes, num_classes + 1, dtype=torch.int64)
        self.add_state("confusion", default=zeros, dist_reduce_fx="sum")

    def counts(self, preds: Tensor, target: Tensor) -> Tensor:
        """(R, K, K + 1) int64 counts of a batch, as `nested_confusion` gives them."""
        raise NotImplementedError

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) integer, predicted classes, 0 ... K-1, or ``ignore_index`` where none is predicted.
            target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.

        Raises:
            ValueError: if shapes, data types or labels are out of range.
        """
        self.confusion += self.counts(preds, target).to(self.confusion.device)

    def compute(self) -> Tensor:
        """Scores of all batches so far, float64 on the CPU: (R,), or (R, K) with ``average="none"``."""
        return self.averaged(class_iou(self.confusion))
