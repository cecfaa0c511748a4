"""Scores from one confusion matrix over a whole split."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class SegmentationScores(MulticlassConfusionMatrix):
    """Intersection over union and accuracy of a split, from one confusion matrix over all its labelled pixels.

    The benchmark's definition: ``IoU_c = TP_c / (TP_c + FP_c + FN_c)`` of summed counts, and mIoU its mean over the
    classes that occur in prediction or labels. (A mean of per-image scores is something else.)

    As input to ``update``: ``preds`` and ``target``, (B, H, W) integer, 0 to K - 1, ``target`` also ``ignore_index``.

    Args:
        num_classes: number of classes K.
        ignore_index: label of void pixels, which are left out.

    Example:
        >>> scores = SegmentationScores(num_classes=3)
        >>> scores.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
        >>> {name: value.tolist() for name, value in scores.compute().items()}
        {'iou': [0.5, 0.5, nan], 'miou': 0.5, 'accuracy': 0.6666666666666666}
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255) -> None:
        # torchmetrics' own checks look for unique values on every update; the data module has checked the labels.
        super().__init__(num_classes, ignore_index=ignore_index, validate_args=False)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores in [0, 1].

        Returns:
            "iou" (K,) float64, NaN for a class in neither; "miou" and "accuracy" scalars, NaN without pixels.
        """
        counts = super().compute().cpu().double()  # Apple's MPS has no float64
        hit = counts.diagonal()
        union = counts.sum(dim=0) + counts.sum(dim=1) - hit
        iou = hit / union  # 0 / 0 gives the NaN that marks an absent class
        return {"iou": iou, "miou": torch.nanmean(iou), "accuracy": hit.sum() / counts.sum()}
