import math

import numpy as np
import pytest
import torch
from tests.metrics.maps import blobs, measure

from gscnn_lightning.metrics import TrimapIoU, trimap_iou


def slow_band(labels, width):
    """Pixel by pixel: another class within the width, void taking no part."""
    height, breadth = labels.shape
    reach = int(width)
    band = np.zeros(labels.shape, bool)
    for y in range(height):
        for x in range(breadth):
            for j in range(max(0, y - reach), min(height, y + reach + 1)):
                for i in range(max(0, x - reach), min(breadth, x + reach + 1)):
                    near = (j - y) ** 2 + (i - x) ** 2 <= width**2
                    band[y, x] |= near and labels[j, i] not in (255, labels[y, x]) and labels[y, x] != 255
    return band


def test_agrees_with_slow_oracle():
    rng = np.random.default_rng(0)
    preds, target = blobs(rng, (2, 17, 23), 4), blobs(rng, (2, 17, 23), 3, 255)
    widths = [3, 1, 1.5]
    scores = trimap_iou(preds, target, 4, widths)
    for width, score in zip(widths, scores.numpy(), strict=True):
        bands = np.stack([slow_band(labels, width) for labels in target.numpy()])
        assert 0 < bands.mean() < 1
        for c in range(4):
            a, b = bands & (preds.numpy() == c), bands & (target.numpy() == c)
            assert score[c] == ((a & b).sum() / (a | b).sum() if (a | b).any() else math.nan)


def test_fraction_of_the_diagonal_and_data_type():
    rng = np.random.default_rng(1)
    preds, target = blobs(rng, (1, 30, 40), 3), blobs(rng, (1, 30, 40), 3, 255)
    expected = trimap_iou(preds, target, 3, [2, 5])
    assert trimap_iou(preds.byte(), target.byte(), 3, [0.03, 0.1]).equal(expected)


def test_without_a_boundary_there_is_nothing_to_score():
    labels = torch.zeros(1, 6, 6, dtype=torch.uint8)
    assert trimap_iou(labels, labels, 2, [1, 3]).isnan().all()


@pytest.mark.parametrize("sizes", [[1] * 5, [4, 1]])
def test_any_split_gives_the_same(sizes):
    rng = np.random.default_rng(2)
    batch = blobs(rng, (5, 30, 40), 4), blobs(rng, (5, 30, 40), 4, None)
    expected = trimap_iou(*batch, 4, [1, 4], ignore_index=None)
    metric = measure(TrimapIoU(4, [1, 4], ignore_index=None, average="none"), *batch, sizes)
    assert metric.compute().equal(expected)
    assert measure(TrimapIoU(4, [1, 4]), *batch, sizes).compute().equal(expected.nanmean(-1))


def test_bad_input_is_named():
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    for widths in ([], [0], [math.inf]):
        with pytest.raises(ValueError, match="widths is"):
            trimap_iou(labels, labels, 3, widths)
    with pytest.raises(ValueError, match="average is 'micro'"):
        TrimapIoU(3, [1], average="micro")
