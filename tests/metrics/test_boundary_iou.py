import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from tests.metrics.maps import blobs, measure

from gscnn_lightning.metrics import BoundaryIoU, boundary_iou


def slow_band(mask, distance, frame):
    """The authors' construction: what repeated erosion with a 3x3 square takes away from a mask."""
    square = np.ones((3, 3), bool)
    return mask & ~binary_erosion(mask, square, iterations=distance, border_value=0 if frame else 1)


def slow_counts(pred, label, index, distance, frame, ignore_index):
    valid = label != ignore_index
    a, b = (slow_band((labels == index) & valid, distance, frame) for labels in (pred, label))
    return (a & b).sum(), (a | b).sum()


@pytest.mark.parametrize("frame", [True, False])
@pytest.mark.parametrize("ignore_index", [255, 2, None])
@pytest.mark.parametrize("distance", [1, 3, 40])
def test_agrees_with_slow_oracle(distance, ignore_index, frame):
    rng = np.random.default_rng(3)
    preds, target = blobs(rng, (2, 33, 41), 5), blobs(rng, (2, 33, 41), 4, ignore_index)
    counts = np.array(
        [
            [slow_counts(p, t, c, distance, frame, ignore_index) for c in range(5)]
            for p, t in zip(preds.numpy(), target.numpy(), strict=True)
        ]
    ).sum(0)
    with np.errstate(invalid="ignore"):
        expected = counts[:, 0] / counts[:, 1]
    scores = boundary_iou(preds, target, 5, distance, ignore_index, frame)
    assert scores.dtype == torch.float64
    np.testing.assert_array_equal(scores.numpy(), expected)
    assert np.nanmax(expected) < 1


def test_fraction_of_the_diagonal_is_rounded_to_the_nearest_pixel():
    rng = np.random.default_rng(0)
    preds, target = blobs(rng, (1, 30, 40), 3), blobs(rng, (1, 30, 40), 3)
    for share, pixels in ((0.001, 1), (0.048, 2), (0.052, 3)):  # of a diagonal of 50
        assert boundary_iou(preds, target, 3, share).equal(boundary_iou(preds, target, 3, pixels))


def test_wide_bands_give_plain_iou():
    rng = np.random.default_rng(1)
    preds, target = blobs(rng, (1, 30, 40), 3), blobs(rng, (1, 30, 40), 3)
    iou = [((preds == c) & (target == c)).sum() / ((preds == c) | (target == c)).sum() for c in range(3)]
    torch.testing.assert_close(boundary_iou(preds, target, 3, 50), torch.stack(iou).double(), rtol=0, atol=1e-7)


def test_perfect_prediction_is_one_and_absent_classes_are_nan():
    target = torch.tensor([[[0, 0, 1, 255]] * 4], dtype=torch.uint8)
    scores = boundary_iou(target.where(target < 9, 0), target, 4, 1)
    assert scores[:2].tolist() == [1, 1]
    assert scores[2:].isnan().all()
    assert boundary_iou(target, torch.full_like(target, 255), 4).isnan().all()


def test_class_in_one_map_only_is_zero():
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    preds = target.clone()
    preds[0, 3:5, 3:5] = 1
    assert boundary_iou(preds, target, 2, 1)[1] == 0


def test_what_is_predicted_on_void_does_not_matter():
    rng = np.random.default_rng(2)
    preds, target = blobs(rng, (1, 40, 50), 4), blobs(rng, (1, 40, 50), 4, 255)
    assert boundary_iou(preds, target, 4).equal(boundary_iou(torch.where(target == 255, 200, preds), target, 4))


def test_more_classes_than_fit_a_byte():
    target = torch.full((1, 6, 6), 299)
    target[..., 3:] = 7
    scores = boundary_iou(target, target, 300, ignore_index=-100)
    assert scores[[7, 299]].tolist() == [1, 1]
    assert scores.isfinite().sum() == 2


@pytest.mark.parametrize("size", [(0, 4), (1, 1), (1, 9)])
def test_smallest_sizes(size):
    labels = torch.zeros(1, *size, dtype=torch.uint8)
    score = boundary_iou(labels, labels, 2)[0].item()
    assert score == 1 or (math.isnan(score) and labels.numel() == 0)


@pytest.mark.parametrize("sizes", [[1] * 6, [5, 1], [2, 4]])
def test_any_split_into_batches_and_processes_gives_the_same(sizes):
    rng = np.random.default_rng(5)
    batch = blobs(rng, (6, 30, 40), 5), blobs(rng, (6, 30, 40), 4, 255)
    whole = measure(BoundaryIoU(5, average="none"), *batch, [6]).compute()
    assert whole.equal(boundary_iou(*batch, 5)) or whole.isnan().any()
    assert measure(BoundaryIoU(5, average="none"), *batch, sizes).compute().nan_to_num(9).equal(whole.nan_to_num(9))
    first, second = (BoundaryIoU(5, average="none") for _ in range(2))
    first.update(batch[0][:2], batch[1][:2])
    second.update(batch[0][2:], batch[1][2:])
    first.merge_state(second)
    assert first.compute().nan_to_num(9).equal(whole.nan_to_num(9))
    macro = measure(BoundaryIoU(5), *batch, sizes)
    assert macro.compute() == whole.nanmean()
    copy = deepcopy(macro)
    macro.reset()
    assert macro.union.sum() == 0 < copy.union.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": 0}, "distance is 0"),
        ({"distance": math.inf}, "distance is inf"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_classes": 70000}, "can tell 65535"),
        ({"preds": torch.full((1, 4, 4), 3)}, "preds contains label 3"),
        ({"target": torch.zeros(1, 4, 5)}, r"target \(1, 4, 5\)"),
    ],
)
def test_bad_input_is_named(change, message):
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        boundary_iou(**({"preds": labels, "target": labels, "num_classes": 3} | change))
    with pytest.raises(ValueError, match="average is 'micro'"):
        BoundaryIoU(3, average="micro")
