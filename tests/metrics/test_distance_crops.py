import numpy as np
import pytest
import torch
from tests.metrics.maps import blobs, measure, perturbed

from gscnn_lightning.metrics import DistanceCropIoU, distance_crop_iou


def plain_iou(preds, target, num_classes):
    valid = target != 255
    masks = [((preds == c) & valid, (target == c) & valid) for c in range(num_classes)]
    with np.errstate(invalid="ignore"):
        return np.array([(a & b).sum() / np.float64((a | b).sum()) for a, b in masks])


def test_a_cityscapes_frame_is_cropped_by_the_papers_pixels():
    rng = np.random.default_rng(0)
    target = blobs(rng, (1, 1024, 2048), 19, 255)[0].numpy().astype(np.uint8)
    preds = perturbed(target, rng)
    scores = distance_crop_iou(torch.from_numpy(preds)[None], torch.from_numpy(target)[None], 19)
    for factor, score in zip((0, 100, 200, 300, 400), scores.numpy(), strict=True):
        crop = np.s_[factor : 1024 - factor, 2 * factor : 2048 - 2 * factor]
        np.testing.assert_array_equal(score, plain_iou(preds[crop], target[crop], 19))


def test_other_sizes_are_cropped_in_proportion_and_around_the_given_point():
    rng = np.random.default_rng(1)
    preds, target = blobs(rng, (2, 40, 60), 4), blobs(rng, (2, 40, 60), 4, 255)
    whole, middle, corner = (
        distance_crop_iou(preds, target, 4, factors=[0, 256], center=center)
        for center in ((0.5, 0.5), (0.5, 0.5), (0.25, 1.0))
    )
    assert whole[0].equal(corner[0])
    np.testing.assert_array_equal(middle[1], plain_iou(*(m[:, 10:30, 15:45].numpy() for m in (preds, target)), 4))
    np.testing.assert_array_equal(corner[1], plain_iou(*(m[:, 5:25, 30:].numpy() for m in (preds, target)), 4))


def test_absent_and_void():
    target = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    target[:, 0] = 1
    scores = distance_crop_iou(torch.ones_like(target), target, 3, factors=[0, 256])
    assert scores[0].nan_to_num(9).tolist() == [9, 1, 9]
    assert scores[1].isnan().all()


@pytest.mark.parametrize("sizes", [[1] * 5, [4, 1]])
def test_any_split_gives_the_same(sizes):
    rng = np.random.default_rng(2)
    batch = blobs(rng, (5, 30, 40), 4), blobs(rng, (5, 30, 40), 4, 255)
    expected = distance_crop_iou(*batch, 4)
    assert measure(DistanceCropIoU(4, average="none"), *batch, sizes).compute().equal(expected)
    assert measure(DistanceCropIoU(4), *batch, sizes).compute().equal(expected.nanmean(-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": []}, "factors is"),
        ({"factors": [200, 100]}, "ascending"),
        ({"factors": [512]}, "below 512"),
        ({"center": (0.5, 2)}, "center is"),
        ({"target": torch.full((1, 4, 4), 3)}, "target contains labels from 3 to 3"),
    ],
)
def test_bad_input_is_named(change, message):
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        distance_crop_iou(**({"preds": labels, "target": labels, "num_classes": 3} | change))
    with pytest.raises(ValueError, match="average is 'micro'"):
        DistanceCropIoU(3, average="micro")
