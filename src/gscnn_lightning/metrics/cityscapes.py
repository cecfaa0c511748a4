"""The scores of the official Cityscapes evaluation: IoU and instance-weighted iIoU of classes and categories."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gscnn_lightning.checks import check_tensor
from gscnn_lightning.metrics.label_maps import class_iou
from gscnn_lightning.metrics.segmentation import SegmentationScores

CATEGORIES = {
    "flat": (0, 1),
    "construction": (2, 3, 4),
    "object": (5, 6, 7),
    "nature": (8, 9),
    "sky": (10,),
    "human": (11, 12),
    "vehicle": (13, 14, 15, 16, 17, 18),
}
"""Train ids of each category."""

_INSTANCE_CATEGORIES = ("human", "vehicle")

# Official id: train id and mean size in pixels of an instance in the training set, as the evaluation script has it.
_INSTANCE_CLASSES = {
    24: (11, 3462.4756337644),  # person
    25: (12, 3930.4788056518),  # rider
    26: (13, 12794.0202738185),  # car
    27: (14, 27855.1264367816),  # truck
    28: (15, 35732.1511111111),  # bus
    31: (16, 67583.7075812274),  # train
    32: (17, 6298.7200839748),  # motorcycle
    33: (18, 4672.3249222261),  # bicycle
}

# Weighted pixels are summed as integers in this unit, exact in any order: see `BoundaryFScore`. An instance's rounding
# is 1e-13 of its weight, and a million instances of mean size fit.
_UNIT = 2.0**-30


class CityscapesScores(SegmentationScores):
    r"""All scores that the official Cityscapes evaluation script prints, for the 19 evaluated classes.

    Beside class IoU, the IoU of the 7 categories, in which confusion within a category is no error; and, if instance
    maps are given, instance-level IoU of the 8 classes and 2 categories that have instances:

    .. math::
        \mathrm{iIoU}_c = \frac{\mathrm{iTP}_c}{\mathrm{iTP}_c + \mathrm{iFN}_c + \mathrm{FP}_c}

    where every true pixel counts with the mean size of the class' instances over the size of its own instance, so that
    a small instance weighs as much as a large one. Equal to the script's results.

    Source: Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016, section 4.1.

    Example:
        Half of a person that fills 4 pixels is found:

        >>> target = torch.tensor([[[0, 0, 11, 11, 11, 11]]])
        >>> preds = torch.tensor([[[0, 0, 11, 11, 0, 0]]])
        >>> scores = CityscapesScores()
        >>> scores.update(preds, target, instances=torch.tensor([[[7, 7, 24000, 24000, 24000, 24000]]]))
        >>> result = scores.compute()
        >>> result["iou"][[0, 11]].tolist(), result["category_iou"][[0, 5]].tolist(), result["iiou"][11].item()
        ([0.5, 0.5], [0.5, 0.5], 0.5)
    """

    weighted: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__(19)
        categories = len(_INSTANCE_CATEGORIES)
        self.add_state("weighted", default=torch.zeros(2, 19 + categories, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", default=torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, instances: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) integer, predicted train ids, 0 ... 18, or 255 where none is predicted.
            target: (B, H, W) integer, true train ids, 0 ... 18 or 255.
            instances: (B, H, W) integer, official instance ids: 1000 times the official id plus the number of the
                instance; smaller values are no instances. Give them for all images or for none.

        Raises:
            ValueError: if shapes, data types, labels or ids are out of range.
        """
        if instances is not None:
            _check_instances(instances, target)
        super().update(preds, target)
        if instances is not None:
            for pred, instance in zip(preds.cpu().numpy(), instances.cpu().numpy(), strict=True):
                self.weighted += torch.from_numpy(_weighted_counts(pred, instance)).to(self.weighted.device)
        self.images += torch.tensor([len(preds), len(preds) if instances is not None else 0]).to(self.images.device)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """Scores in [0, 1].

        Returns:
            What :class:`SegmentationScores` returns, "category_iou" (7,) in the order of ``CATEGORIES`` and its mean
            "category_miou". With instance maps also "iiou" (19,), NaN for a class without instances, "category_iiou"
            (7,), and their means "miiou" and "category_miiou".

        Raises:
            ValueError: if only some of the images came with instance maps.
        """
        result = super().compute()
        counts = self.confmat.cpu().double()
        member = torch.zeros(7, 19, dtype=torch.float64)
        for index, classes in enumerate(CATEGORIES.values()):
            member[index, list(classes)] = 1
        by_category = member @ counts @ member.T
        missed = self.unpredicted.cpu().double()
        result["category_iou"] = class_iou(torch.cat([by_category, (member @ missed)[:, None]], dim=1))
        result["category_miou"] = result["category_iou"].nanmean()
        images, with_instances = self.images.tolist()
        if with_instances not in (0, images):
            raise ValueError(f"{with_instances} of {images} images came with instance maps; give them for all or none")
        if with_instances:
            found, lost = self.weighted.cpu().double() * _UNIT
            result["iiou"] = _instance_iou(counts, found[:19], lost[:19], [t for t, _ in _INSTANCE_CLASSES.values()])
            places = [list(CATEGORIES).index(name) for name in _INSTANCE_CATEGORIES]
            of_category = torch.zeros(2, 7, dtype=torch.float64)
            of_category[:, places] = torch.stack([found[19:], lost[19:]])
            result["category_iiou"] = _instance_iou(by_category, of_category[0], of_category[1], places)
            result["miiou"], result["category_miiou"] = result["iiou"].nanmean(), result["category_iiou"].nanmean()
        return result


def _check_instances(instances: Tensor, target: Tensor) -> None:
    check_tensor("instances", instances)
    if instances.shape != target.shape:
        raise ValueError(
            f"instances has shape {tuple(instances.shape)}, target {tuple(target.shape)}; give one id per pixel"
        )
    if instances.is_floating_point() or instances.is_complex() or instances.dtype == torch.bool:
        raise ValueError(f"instances has data type {instances.dtype}; give integer instance ids")


def _instance_iou(counts: Tensor, found: Tensor, missed: Tensor, having_instances: list[int]) -> Tensor:
    """Weighted true positives and false negatives with plain false positives; NaN without instances."""
    false_positives = counts.sum(0) - counts.diagonal()
    ratio = found / (found + missed + false_positives)
    result = torch.full_like(ratio, torch.nan)
    result[having_instances] = ratio[having_instances]
    return result


def _weighted_counts(pred: npt.NDArray[np.integer], instance: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """(2, 19 + 2) weighted pixels found and missed, of the classes and of the categories with instances."""
    first, last = 1000 * min(_INSTANCE_CLASSES), 1000 * (max(_INSTANCE_CLASSES) + 1)
    inside = np.flatnonzero((instance >= first) & (instance < last))
    counts = np.zeros((2, 19 + len(_INSTANCE_CATEGORIES)), np.int64)
    # One histogram of (instance, predicted class) has all that is asked; 19 stands for no class.
    cells = instance.ravel()[inside].astype(np.int64) * 20 + np.minimum(pred.ravel()[inside], 19)
    table = np.bincount(cells, minlength=20 * (int(cells.max(initial=0)) // 20 + 1)).reshape(-1, 20)
    for raw in np.flatnonzero(table.any(1)).tolist():
        if raw // 1000 not in _INSTANCE_CLASSES:
            continue
        train_id, mean_size = _INSTANCE_CLASSES[raw // 1000]
        row, size = table[raw], table[raw].sum()
        for place, members in _accounts(train_id):
            hit = row[members].sum()
            counts[:, place] += np.rint(np.array([hit, size - hit]) * (mean_size / size) / _UNIT).astype(np.int64)
    return counts


def _accounts(train_id: int) -> list[tuple[int, list[int]]]:
    """Where an instance of a class is counted, and the predictions that are right there: its class, its category."""
    category = next(name for name in _INSTANCE_CATEGORIES if train_id in CATEGORIES[name])
    return [(train_id, [train_id]), (19 + _INSTANCE_CATEGORIES.index(category), list(CATEGORIES[category]))]
