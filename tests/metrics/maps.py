"""Label maps and wrong predictions for the tests of the metrics."""

import cv2
import numpy as np
import torch

from gscnn_lightning.classes import CITYSCAPES_ID_TO_TRAIN_ID


def blobs(rng, shape, num_classes, ignore_index=None):
    """Smooth random label maps, so that boundaries have the sparsity of real ones."""
    coarse = rng.integers(0, num_classes, (shape[0], shape[1] // 6 + 1, shape[2] // 6 + 1))
    labels = coarse.repeat(6, 1).repeat(6, 2)[:, : shape[1], : shape[2]]
    labels = np.where(rng.random(labels.shape) < 0.03, rng.integers(0, num_classes, labels.shape), labels)
    if ignore_index is not None:
        labels[rng.random(labels.shape) < 0.1] = ignore_index
    return torch.from_numpy(labels)


def perturbed(labels, rng, reach=3.0):
    """(H, W) uint8 train ids, displaced by a smooth random field of some pixels; void gets some class."""
    height, width = labels.shape
    field = [cv2.GaussianBlur(rng.standard_normal(labels.shape).astype(np.float32), (0, 0), 8) for _ in range(2)]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dx, dy = (reach * part / part.std() for part in field)
    moved = cv2.remap(labels, x + dx, y + dy, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.where(moved == 255, rng.integers(0, 19), moved).astype(np.uint8)


def train_ids(raw):
    """Official ids to train ids, 255 for void."""
    table = np.full(256, 255, np.uint8)
    for official, train_id in CITYSCAPES_ID_TO_TRAIN_ID.items():
        table[official % 256] = train_id
    return table[raw]


def measure(metric, preds, target, sizes):
    """The metric after batches of the given sizes."""
    for p, t in zip(preds.split(sizes), target.split(sizes), strict=True):
        metric.update(p, t)
    return metric
