"""Boundary F-score of semantic segmentation: how well predicted class boundaries meet the true ones.

All tolerances come from one pass: the boundary pixels of both maps are gathered once, a k-d tree per class gives the
distance of each to the nearest one of the other map, and every tolerance only counts these distances.
"""

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from gscnn_lightning.metrics.base import LabelMapMetric
from gscnn_lightning.metrics.label_maps import (
    check_distances,
    check_label_maps,
    check_num_classes,
    float_dtype,
    mark_ignored,
    tolerance_radii,
    uneven_windows,
)

Absent = Literal["skip", "one"]

# Sums of F are kept as integers in this unit: exact in any order, so that neither batch size nor number of processes
# can change a score, and available on devices without float64. 2e6 images fit; rounding stays below 2e-13.
_UNIT = 2.0**-42

_MARGIN = 5
_FEW = 256  # so many points the search in the tree takes less time than looking around them
_STEPS = range(-_MARGIN, _MARGIN + 1)
_NEAR = [
    (squared, [(y, x) for y in _STEPS for x in _STEPS if y * y + x * x == squared])
    for squared in sorted({y * y + x * x for y in _STEPS for x in _STEPS})
    if 0 < squared < (_MARGIN + 1) ** 2  # beyond, more steps straight ahead are nearer than the corners
]
"""Squared distances, the shortest first, and the steps (rows, columns) that lead there."""


def boundary_fscore(
    preds: Tensor,
    target: Tensor,
    num_classes: int,
    tolerances: Sequence[float],
    ignore_index: int | None = 255,
    absent: Absent = "skip",
) -> Tensor:
    r"""Boundary F-score per image, tolerance and class.

    With :math:`A_c` and :math:`B_c` the boundary pixels of class :math:`c` in prediction and target, and
    :math:`d(p, S)` the Euclidean distance from pixel :math:`p` to the nearest pixel of :math:`S`,

    .. math::
        P = \frac{|\{a \in A_c : d(a, B_c) \le r\}|}{|A_c|}, \quad
        R = \frac{|\{b \in B_c : d(b, A_c) \le r\}|}{|B_c|}, \quad
        F = \frac{2 P R}{P + R}

    A pixel belongs to the boundary of a class mask if it differs from its right, lower or lower-right neighbour; the
    image frame is no boundary. Pixels ignored in the target belong to no class in either map. Best value 1, worst 0.
    F is 0 if only one of the maps has a boundary of the class; ``absent`` decides if neither has.

    The work is done by SciPy on the CPU, whatever the device of the input: a k-d tree on the few boundary pixels beats
    a dense distance map per class by far, and the score is never differentiated. Keep it off the training path, as
    reading the maps waits for the device.

    Source: Perazzi et al., A benchmark dataset and evaluation methodology for video object segmentation, CVPR 2016,
    section 4; used per class by Takikawa et al., Gated-SCNN, ICCV 2019, section 4.1.

    Args:
        preds: (B, H, W) integer, predicted classes, 0 ... K-1; anything where the target is ignored.
        target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.
        num_classes: number of classes K, >= 1.
        tolerances: T distances r, >= 0. From 1 on, pixels; below 1, a fraction of the image diagonal, rounded up to
            whole pixels.
        ignore_index: target value to leave out; ``None`` for none.
        absent: F of a class without boundary in both maps: ``"skip"`` gives NaN, ``"one"`` gives 1, the convention of
            the published Gated-SCNN scores, in which every absent class raises the mean.

    Returns:
        (B, T, K) float64 (float32 on MPS), in [0, 1] or NaN, on the device of ``preds``.

    Raises:
        ValueError: if shapes, data types, labels, ``tolerances``, ``num_classes`` or ``absent`` are out of range.

    Example:
        A vertical edge, predicted one pixel too far to the right:

        >>> import torch
        >>> target = torch.tensor([[[0, 0, 1, 1, 1]] * 4])
        >>> preds = torch.tensor([[[0, 0, 0, 1, 1]] * 4])
        >>> boundary_fscore(preds, target, num_classes=3, tolerances=[0, 1])
        tensor([[[0., 0., nan],
                 [1., 1., nan]]], dtype=torch.float64)
    """
    _validate_settings(num_classes, tolerances, absent)
    check_label_maps(preds, target)
    radii = tolerance_radii(tolerances, (preds.shape[-2], preds.shape[-1]))
    scores = np.empty((preds.shape[0], len(radii), num_classes))
    for index, (pred, label) in enumerate(zip(preds.cpu().numpy(), target.cpu().numpy(), strict=True)):
        pred, label = mark_ignored(pred, label, num_classes, ignore_index)
        scores[index] = _image_fscore(pred, label, num_classes, radii)
    if absent == "one":
        scores[np.isnan(scores)] = 1.0
    return torch.from_numpy(scores).to(preds.device, float_dtype(preds.device))


class BoundaryFScore(LabelMapMetric):
    r"""Mean boundary F-score of a data set, for several tolerances at once.

    .. math:: F_{rc} = \frac{1}{|I_c|} \sum_{i \in I_c} F_{rc}(i)

    where :math:`F_{rc}(i)` is :func:`boundary_fscore` of image :math:`i` at tolerance :math:`r`, and :math:`I_c` the
    images in which class :math:`c` has a boundary in prediction or target (``absent="skip"``) or all images
    (``absent="one"``). Best value 1, worst 0. Sums are exact: the result does not depend, to the last bit, on batch
    size, order or number of processes.

    As input to ``forward`` and ``update``: ``preds`` and ``target``, (B, H, W) integer, on any device.
    As output of ``compute``: (T,) float64 with ``average="macro"``, the mean over classes that occurred; (T, K) with
    ``average="none"``, NaN for a class that never did. float32 on MPS.

    Args:
        num_classes: number of classes K, >= 1.
        tolerances: T distances, as in :func:`boundary_fscore`.
        ignore_index: target value to leave out; ``None`` for none.
        absent: ``"skip"`` or ``"one"``, as in :func:`boundary_fscore`.
        average: ``"macro"`` or ``"none"``.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    Attributes:
        image_scores: (B, T, K) scores of each image of the latest update, as :func:`boundary_fscore` returns them.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> target = torch.tensor([[[0, 0, 1, 1, 1]] * 4])
        >>> preds = torch.tensor([[[0, 0, 0, 1, 1]] * 4])
        >>> metric = BoundaryFScore(num_classes=3, tolerances=[0, 1])
        >>> metric.update(preds, target)
        >>> metric.update(target, target)
        >>> metric.compute()
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    fscore_sum: Tensor
    num_images: Tensor
    image_scores: Tensor

    def __init__(
        self,
        num_classes: int,
        tolerances: Sequence[float],
        ignore_index: int | None = 255,
        absent: Absent = "skip",
        average: Literal["macro", "none"] = "macro",
        **kwargs: object,
    ) -> None:
        _validate_settings(num_classes, tolerances, absent)
        super().__init__(num_classes, ignore_index, average, **kwargs)
        self.tolerances = tuple(tolerances)
        self.absent = absent
        zeros = torch.zeros(len(self.tolerances), num_classes, dtype=torch.int64)
        self.add_state("fscore_sum", default=zeros, dist_reduce_fx="sum")
        self.add_state("num_images", default=zeros.clone(), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            preds: (B, H, W) integer, predicted classes, 0 ... K-1.
            target: (B, H, W) integer, true classes, 0 ... K-1 or ``ignore_index``.

        Raises:
            ValueError: if shapes, data types or labels are out of range.
        """
        scores = boundary_fscore(preds, target, self.num_classes, self.tolerances, self.ignore_index, self.absent)
        self.image_scores = scores
        in_units = (scores.nan_to_num(0.0) / _UNIT).round().long()
        self.fscore_sum += in_units.sum(0).to(self.fscore_sum.device)
        self.num_images += scores.isfinite().sum(0).to(self.num_images.device)

    def compute(self) -> Tensor:
        """Scores of all batches so far: (T,), or (T, K) with ``average="none"``."""
        dtype = float_dtype(self.fscore_sum.device)
        return self.averaged(self.fscore_sum.to(dtype) * _UNIT / self.num_images.to(dtype))


def _validate_settings(num_classes: int, tolerances: Sequence[float], absent: str) -> None:
    check_num_classes(num_classes)
    check_distances("tolerances", tolerances)
    if absent not in ("skip", "one"):
        raise ValueError(f"absent is {absent!r}; use 'skip' or 'one'")


def _image_fscore(
    pred: npt.NDArray[np.integer], label: npt.NDArray[np.integer], num_classes: int, radii: Sequence[float]
) -> npt.NDArray[np.float64]:
    """(T, K) scores of one image, NaN for a class with no boundary in either map."""
    pred_points, label_points = _boundary_points(pred, num_classes), _boundary_points(label, num_classes)
    scores = np.full((len(radii), num_classes), np.nan)
    occupied = np.zeros(pred.size, bool)
    for index in range(num_classes):
        a, b = pred_points[index], label_points[index]
        if a.size and b.size:
            precision = _share_within(a, b, radii, pred.shape[1], occupied)
            recall = _share_within(b, a, radii, pred.shape[1], occupied)
            total = precision + recall
            scores[:, index] = 2 * precision * recall / np.where(total > 0, total, 1)
        elif a.size or b.size:
            scores[:, index] = 0
    return scores


def _boundary_points(labels: npt.NDArray[np.integer], num_classes: int) -> list[npt.NDArray[np.intp]]:
    """Flat positions of the boundary pixels of each class.

    The boundary of class c consists of the pixels whose 2x2 window (itself, right, lower, lower-right) is not uniform
    and contains c, so all classes are found together.
    """
    height, width = labels.shape
    points = np.flatnonzero(uneven_windows(labels))
    # The edge is replicated: the window of the last column or row repeats its own pixels.
    right = (points % width < width - 1).astype(np.intp)
    lower = width * (points < (height - 1) * width)
    window = labels.ravel()[np.stack([points, points + right, points + lower, points + right + lower])]
    return _group_by_class(points, window, num_classes)


def _group_by_class(
    points: npt.NDArray[np.intp], window: npt.NDArray[np.integer], num_classes: int
) -> list[npt.NDArray[np.intp]]:
    """Points of each class found in their windows (4, N), every point at most once per class."""
    first_seen = window < num_classes
    for later in range(1, 4):
        first_seen[later] &= (window[later] != window[:later]).all(0)
    classes = window[first_seen]
    order = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=num_classes))
    return np.split(np.broadcast_to(points, window.shape)[first_seen][order], ends[:-1])


def _share_within(
    points: npt.NDArray[np.intp],
    others: npt.NDArray[np.intp],
    radii: Sequence[float],
    width: int,
    occupied: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """(T,) share of points with one of the others within each radius; ``occupied`` is all-False scratch space."""
    occupied[others] = True
    # Points common to both need no search, and a good prediction has many; most of the rest are a few steps apart.
    left = points[~occupied[points]]
    beyond = np.zeros(len(radii), np.intp)
    if left.size > _FEW:
        reach = _MARGIN * (width + 1)
        column = left % width
        inside = (column >= _MARGIN) & (column < width - _MARGIN) & (left >= reach) & (left < occupied.size - reach)
        left, at_frame = left[inside], left[~inside]
        for squared, offsets in _NEAR:
            near = np.zeros(left.size, bool)
            for dy, dx in offsets:
                near |= occupied[left + (dy * width + dx)]
            beyond += np.count_nonzero(near) * (math.sqrt(squared) > np.asarray(radii))
            left = left[~near]
        left = np.concatenate([left, at_frame])
    occupied[others] = False
    if left.size:
        distance = _distances(np.divmod(left, width), np.divmod(others, width), max(radii) + 0.5)
        beyond += (distance[None] > np.asarray(radii)[:, None]).sum(1)
    return 1 - beyond / points.size


_Places = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


def _distances(points: _Places, others: _Places, limit: float) -> npt.NDArray[np.float64]:
    """Distance of each point to the nearest of the others, infinite from ``limit`` on; rows and columns, 0 or more."""
    # Where nothing lies in the same cell of a grid or in one beside it, nothing is within reach.
    cell = math.ceil(limit)
    shape = [max(int(a.max()), int(b.max())) // cell + 3 for a, b in zip(points, others, strict=True)]
    grid = np.zeros(shape, np.uint8)
    grid[points[0] // cell + 1, points[1] // cell + 1] = 1
    near = cv2.dilate(grid, np.ones((3, 3), np.uint8))[others[0] // cell + 1, others[1] // cell + 1] != 0
    if not near.any():
        return np.full(points[0].size, math.inf)
    # Plain median-free splitting builds faster, and the points are spread evenly enough for the search not to mind.
    places = np.stack([part[near] for part in others], axis=-1).astype(np.float64)
    tree = cKDTree(places, balanced_tree=False, compact_nodes=False)
    return tree.query(np.stack(points, axis=-1).astype(np.float64), distance_upper_bound=limit)[0]
