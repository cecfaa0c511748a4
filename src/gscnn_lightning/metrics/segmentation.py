"""Scores from one confusion matrix over a whole split."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from gscnn_lightning.metrics.label_maps import (
    check_ignore_index,
    check_label_maps,
    check_num_classes,
    class_iou,
    nested_confusion,
)


class SegmentationScores(MulticlassConfusionMatrix):
    r"""Intersection over union and accuracy of a split, from one confusion matrix over all its labelled pixels.

    The benchmark's definition: ``IoU_c = TP_c / (TP_c + FP_c + FN_c)`` of summed counts, and mIoU its mean over the
    classes that occur in prediction or labels. (A mean of per-image scores is something else.) With :math:`n_c` the
    number of labelled pixels of class c,

    .. math::
        \mathrm{accuracy} = \frac{\sum_c TP_c}{\sum_c n_c}, \quad
        \mathrm{accuracy}_c = \frac{TP_c}{n_c}, \quad
        \mathrm{fwIoU} = \frac{\sum_c n_c \mathrm{IoU}_c}{\sum_c n_c}

    As input to ``update``: ``preds`` and ``target``, (B, H, W) integer, 0 to K - 1 or ``ignore_index``. A labelled
    pixel without a predicted class is missed: it counts against the class it belongs to, and against no other.

    Args:
        num_classes: number of classes K.
        ignore_index: label of void pixels, which are left out; ``None`` for none.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> scores = SegmentationScores(num_classes=3)
        >>> scores.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
        >>> {name: value.tolist() for name, value in scores.compute().items() if name != "class_accuracy"}
        {'iou': [0.5, 0.5, nan], 'miou': 0.5, 'accuracy': 0.6666666666666666, 'mean_accuracy': 0.75, 'fwiou': 0.5}
        >>> scores.confusion.tolist()
        [[1, 0, 0], [1, 1, 0], [0, 0, 0]]

    Attributes:
        confusion: (K, K) int64 on the CPU, pixels of each true class (row) by predicted class (column), of all
            processes when ``compute`` was last called.
        image_confusion: (B, K, K + 1) int64, the same of each image of the latest update, and behind the classes the
            pixels without a predicted one.
    """

    confusion: Tensor
    unpredicted: Tensor
    image_confusion: Tensor

    def __init__(self, num_classes: int, ignore_index: int | None = 255) -> None:
        check_num_classes(num_classes)
        check_ignore_index(ignore_index)
        # torchmetrics' own checks look for unique values on every update, which is slow; ours look at the range.
        super().__init__(num_classes, ignore_index=ignore_index, validate_args=False)
        self.add_state("unpredicted", default=torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) integer, predicted classes, 0 to K - 1, or ``ignore_index`` where none is predicted;
                anything where the target is ignored.
            target: (B, H, W) integer, true classes, 0 to K - 1 or ``ignore_index``.

        Raises:
            ValueError: if shapes, data types or labels are out of range.
        """
        check_label_maps(preds, target)
        everywhere = torch.ones(1, 1, 1, dtype=torch.int32, device=target.device)
        # torchmetrics copies the labelled pixels first, which takes longer than counting them.
        counts = [
            nested_confusion(pred[None], label[None], everywhere, 1, self.num_classes, self.ignore_index)[0]
            for pred, label in zip(preds, target, strict=True)
        ]
        self.image_confusion = torch.stack(counts)
        # As of the other metrics, the sums may be on another device: a network on a GPU, measured by `gscnn compare`.
        counts_of_all = self.image_confusion.sum(0).to(self.confmat.device)
        self.confmat += counts_of_all[:, :-1]
        self.unpredicted += counts_of_all[:, -1]

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores in [0, 1].

        Returns:
            "iou" (K,) float64, NaN for a class in neither; "miou" its mean; "accuracy" of the pixels; "class_accuracy"
            (K,), NaN for a class without labels, and "mean_accuracy" its mean; "fwiou", the mean of IoU weighted by
            labelled pixels. Scalars are NaN without pixels.
        """
        self.confusion = super().compute().cpu()
        counts = self.with_unpredicted(self.confusion).double()
        hit, labelled = counts.diagonal(), counts.sum(dim=1)
        iou, class_accuracy = class_iou(counts), hit / labelled
        return {
            "iou": iou,
            "miou": iou.nanmean(),
            "accuracy": hit.sum() / labelled.sum(),
            "class_accuracy": class_accuracy,
            "mean_accuracy": class_accuracy.nanmean(),
            "fwiou": (labelled * iou.nan_to_num(0.0)).sum() / labelled.sum(),
        }

    def with_unpredicted(self, confusion: Tensor) -> Tensor:
        """A confusion matrix (K, K) with the labelled pixels of no predicted class as its last column, on the CPU."""
        return torch.cat([confusion.cpu(), self.unpredicted.cpu()[:, None]], dim=1)  # Apple's MPS has no float64
