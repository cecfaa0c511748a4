"""All metrics of a stage together, against the metrics alone."""

import numpy as np
import pytest
import torch
from tests.metrics.maps import blobs

from gscnn_lightning.classes import CAMVID, CITYSCAPES
from gscnn_lightning.data import label_boundaries
from gscnn_lightning.metrics import (
    BoundaryFScore,
    BoundaryODS,
    CityscapesScores,
    boundary_iou,
    calibration_error,
    distance_crop_iou,
)
from gscnn_lightning.metrics.evaluation import Evaluation


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    preds, labels = blobs(rng, (5, 40, 60), 19), blobs(rng, (5, 40, 60), 19, 255)
    prob = torch.from_numpy(rng.random((5, 1, 40, 60)))
    batch = {"mask": labels, "boundary": label_boundaries(labels)[:, None], "instances": labels * 1000 + 13000}
    return preds, prob, batch


def part(frames, index):
    preds, prob, batch = frames
    return preds[index], None if prob is None else prob[index], {key: value[index] for key, value in batch.items()}


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


def test_scores_are_those_of_the_metrics(frames):
    preds, prob, batch = frames
    evaluation = Evaluation(CITYSCAPES.names, 255, [1, 0.05], everything=True)
    evaluation.update(*frames)
    scores = evaluation.compute()
    labels = batch["mask"]
    assert list(scores.classes) == ["iou", "boundary_f1_1px", "boundary_f1_0.05diag", "boundary_iou", "iiou"]
    fscore = BoundaryFScore(19, [1, 0.05], average="none")
    fscore.update(preds, labels)
    assert same(scores.classes["boundary_f1_0.05diag"], fscore.compute()[1])
    assert same(scores.classes["boundary_iou"], boundary_iou(preds, labels, 19))
    assert scores.means["boundary_iou"] == boundary_iou(preds, labels, 19).nanmean()
    crops = distance_crop_iou(preds, labels, 19).nanmean(-1)
    assert list(scores.crops) == ["0", "100", "200", "300", "400"]
    assert list(scores.crops.values()) == crops.tolist()
    official = CityscapesScores()
    official.update(preds, labels, batch["instances"])
    expected = official.compute()
    assert same(scores.classes["iiou"], expected["iiou"])
    assert scores.means["category_miiou"] == expected["category_miiou"]
    assert scores.categories["human"]["category_iiou"] == expected["category_iiou"][5]
    ods = BoundaryODS(1)
    ods.update(prob, batch["boundary"].masked_fill(labels[:, None] == 255, 255))
    assert scores.means["boundary_ods"] == ods.compute()["ods"]


def test_calibration_is_that_of_the_softmax_where_there_are_logits(frames):
    logits = torch.randn(5, 19, 40, 60, generator=torch.Generator().manual_seed(0))
    evaluation = Evaluation(CITYSCAPES.names, 255, [1], everything=True)
    evaluation.update(*frames, logits)
    scores = evaluation.compute()
    expected = calibration_error(logits.softmax(1), frames[2]["mask"])
    assert (scores.means["ece"], scores.means["ece_boundary"]) == (expected["ece"], expected["ece_boundary"])
    for index, region in enumerate(("all", "boundary")):
        assert same(scores.reliability[region]["accuracy"], expected["accuracy"][index])
        assert len(scores.reliability[region]["pixels"]) == 15
    again = evaluation.compute_from(evaluation.state())
    assert again.means["ece"] == scores.means["ece"]
    evaluation.reset()
    evaluation.update(*frames)
    without = evaluation.compute()
    assert "ece" not in without.means
    assert without.reliability == evaluation.compute_from(evaluation.state()).reliability == {}


def test_validation_has_only_what_it_logs(frames):
    evaluation = Evaluation(CITYSCAPES.names, 255, [1])
    evaluation.update(*frames)
    scores = evaluation.compute()
    assert list(scores.classes) == ["iou", "boundary_f1_1px"]
    assert list(scores.means) == ["miou", "accuracy", "boundary_f1_1px"]
    assert (scores.crops, scores.categories) == ({}, {})


def test_other_classes_and_control_lack_what_they_cannot_have(frames):
    evaluation = Evaluation(CAMVID.names, 255, [1], everything=True)
    labels = frames[2]["mask"]
    labels = labels.where((labels < 11) | (labels == 255), 3)
    evaluation.update(frames[0] % 11, None, {"mask": labels})
    scores = evaluation.compute()
    assert scores.categories == {}
    assert "boundary_ods" not in scores.means
    assert "iiou" not in scores.classes
    assert {"fwiou", "mean_accuracy", "boundary_iou"} < set(scores.means)


@pytest.mark.parametrize("control", [False, True])
def test_states_of_single_frames_add_up(frames, control):
    frames = (frames[0], None if control else frames[1], frames[2])
    evaluation = Evaluation(CITYSCAPES.names, 255, [1, 3], everything=True)
    evaluation.update(*frames)
    whole = evaluation.compute()
    states = []
    for index in range(5):
        evaluation.reset()
        evaluation.update(*part(frames, slice(index, index + 1)))
        states.append(evaluation.state())
    scores = evaluation.compute_from({key: sum(state[key] for state in states) for key in states[0]})
    for ours, theirs in ((scores.means, whole.means), (scores.classes, whole.classes), (scores.crops, whole.crops)):
        assert list(ours) == list(theirs)
        assert all(same(ours[name], theirs[name]) for name in ours)
    assert ("boundary_ods" in scores.means) is not control
