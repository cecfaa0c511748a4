"""Labelled pixels for which no class is predicted: missed by the class they belong to, false for no other."""

import cv2
import numpy as np
import pytest
import torch
from tests.metrics.maps import blobs

from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_TRAIN_ID_TO_ID
from gscnn_lightning.metrics import (
    BoundaryFScore,
    BoundaryIoU,
    DistanceCropIoU,
    SegmentationScores,
    boundary_fscore,
    boundary_iou,
    distance_crop_iou,
    trimap_iou,
)
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.metrics.label_maps import nested_confusion, value_counts


def test_missed_pixels_count_against_their_class_alone():
    target = torch.tensor([[[0, 0, 1, 1, 1, 255]]])
    preds = torch.tensor([[[0, 255, 1, 1, 0, 255]]])
    scores = SegmentationScores(2)
    scores.update(preds, target)
    found = scores.compute()
    assert found["iou"].tolist() == [1 / 3, 2 / 3]
    assert (found["accuracy"], found["fwiou"]) == (3 / 5, pytest.approx((2 / 3 + 2) / 5))
    assert scores.confusion.tolist() == [[1, 0], [1, 2]]
    assert distance_crop_iou(preds, target, 2, factors=[0])[0].tolist() == [1 / 3, 2 / 3]
    assert trimap_iou(preds, target, 2, widths=[9])[0].tolist() == [1 / 3, 2 / 3]


def test_region_and_boundary_scores_are_those_of_one_class_more():
    """A class that nothing is labelled with is to the other classes what no class is."""
    rng = np.random.default_rng(1)
    preds, target = blobs(rng, (2, 40, 60), 5), blobs(rng, (2, 40, 60), 4, 255)
    void = torch.where(preds == 4, 255, preds)
    for score in (
        lambda p, k: distance_crop_iou(p, target, k),
        lambda p, k: boundary_iou(p, target, k, 2)[None],
        lambda p, k: boundary_fscore(p, target, k, [1, 3])[0],
        lambda p, k: trimap_iou(p, target, k, [1, 3]),
    ):
        assert score(void, 4).equal(score(preds, 5)[..., :4])
    for metric in (BoundaryFScore(4, [1]), BoundaryIoU(4, 2), DistanceCropIoU(4)):
        metric.update(void, target)


def test_void_that_is_a_class_is_a_class():
    """With the label of class 0 left out, class 0 can still be predicted."""
    target, preds = torch.tensor([[[0, 1, 1, 2]]]), torch.tensor([[[1, 0, 1, 2]]])
    counts = nested_confusion(preds, target, torch.ones(1, 1, 1, dtype=torch.int32), 1, 3, 0)[0]
    assert counts.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]


def test_other_integers_and_devices_count_alike():
    rng = np.random.default_rng(2)
    preds, target, depth = blobs(rng, (2, 30, 41), 6), blobs(rng, (2, 30, 41), 5, 255), blobs(rng, (1, 30, 41), 4)
    preds = torch.where(preds == 5, 255, preds)
    wide = nested_confusion(preds, target, depth, 3, 5, 255)
    assert wide.equal(nested_confusion(preds.byte(), target.byte(), depth.byte(), 3, 5, 255))
    some = nested_confusion(preds.byte(), target.byte(), depth.byte(), 3, 30, 255)  # more cells than a byte has numbers
    assert some[:, :5, [0, 1, 2, 3, 4, 30]].equal(wide)
    many = nested_confusion(preds, target, depth, 3, 200, 255)  # more cells than 16 bits have numbers
    assert many[:, :5, [0, 1, 2, 3, 4, 200]].equal(wide)
    assert many.sum() == wide.sum()


def test_values_are_counted_as_numpy_does():
    rng = np.random.default_rng(3)
    for dtype in (np.uint8, np.uint16, np.int32):
        values, where = rng.integers(0, 200, (50, 70)).astype(dtype), rng.random((50, 70)) < 0.3
        assert np.array_equal(value_counts(values, 201), np.bincount(values.ravel(), minlength=201))
        assert np.array_equal(value_counts(values, 201, where), np.bincount(values[where], minlength=201))


def test_official_script_counts_predicted_void_alike(tmp_path, official):
    rng = np.random.default_rng(4)
    target, preds = (blobs(rng, (1, 60, 80), 19, 255)[0].numpy().astype(np.uint8) for _ in range(2))
    to_id = np.zeros(256, np.uint8)
    for train_id, raw in CITYSCAPES_TRAIN_ID_TO_ID.items():
        to_id[train_id] = raw
    instances = to_id[target].astype(np.uint16)
    instances[target == 11] = 24001  # one crowd of persons
    files = [tmp_path / name for name in ("a_pred.png", "a_gtFine_labelIds.png", "a_gtFine_instanceIds.png")]
    for file, content in zip(files, (to_id[preds], to_id[target], instances), strict=True):
        cv2.imwrite(str(file), content)
    theirs = official.evaluateImgLists([str(files[0])], [str(files[1])], official.args)
    evaluation = Evaluation(CITYSCAPES.names, 255, [1], everything=True)
    batch = {"mask": torch.from_numpy(target)[None], "instances": torch.from_numpy(instances.astype(np.int32))[None]}
    evaluation.update(torch.from_numpy(preds)[None], None, batch)
    ours = evaluation.compute()
    assert (preds[target != 255] == 255).any()
    for name, iou in zip(CITYSCAPES.names, ours.classes["iou"], strict=True):
        assert iou == pytest.approx(theirs["classScores"][name], abs=1e-9)
    assert ours.classes["iiou"][11] == pytest.approx(theirs["classInstScores"]["person"], abs=1e-9)
    for name, scores in ours.categories.items():
        assert scores["category_iou"] == pytest.approx(theirs["categoryScores"][name], abs=1e-9)
    human = ours.categories["human"]["category_iiou"]
    assert human == pytest.approx(theirs["categoryInstScores"]["human"], abs=1e-9)
