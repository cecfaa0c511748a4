"""What metrics and boundary maps say to input that they are not made for: one message each, or the right number."""

import math

import numpy as np
import pytest
import torch

from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.metrics import (
    BoundaryFScore,
    BoundaryIoU,
    BoundaryODS,
    CityscapesScores,
    DistanceCropIoU,
    SegmentationScores,
    TrimapIoU,
    boundary_fscore,
    boundary_iou,
    boundary_ods,
    distance_crop_iou,
    trimap_iou,
)
from gscnn_lightning.metrics.evaluation import Evaluation

Y = (torch.arange(160).reshape(2, 8, 10) // 5 % 4).long()
EDGES = (Y == 1).long()
PROB = EDGES * 0.9

FUNCTIONS = {
    "F-score": lambda preds, target, classes=4: boundary_fscore(preds, target, classes, [1]),
    "boundary IoU": lambda preds, target, classes=4: boundary_iou(preds, target, classes),
    "trimap": lambda preds, target, classes=4: trimap_iou(preds, target, classes, [1]),
    "crops": lambda preds, target, classes=4: distance_crop_iou(preds, target, classes),
}
CLASSES = {
    "F-score": lambda classes=4: BoundaryFScore(classes, [1]),
    "boundary IoU": lambda classes=4: BoundaryIoU(classes),
    "trimap": lambda classes=4: TrimapIoU(classes, [1]),
    "crops": lambda classes=4: DistanceCropIoU(classes),
    "scores": lambda classes=4: SegmentationScores(classes),
}


def label(value):
    labels = Y.clone()
    labels[0, 2, 3] = value
    return labels


def updated(name, preds, target):
    metric = CLASSES[name]()
    metric.update(preds, target)
    return metric.compute()


def evaluated(batch, preds=Y, prob=PROB[:, None], **settings):
    evaluation = Evaluation(
        ["a", "b", "c", "d"], **{"ignore_index": 255, "boundary_tolerances": [1], "everything": True, **settings}
    )
    evaluation.update(preds, prob, batch)
    return evaluation.compute()


PAIRS = {
    "label K": (Y, label(4), "target contains label.* 4.* 4 classes .* 0 to 3"),
    "prediction -1": (label(-1), Y, "preds contains label.* -1.* 4 classes .* 0 to 3"),
    "float labels": (Y, Y.float(), "target has data type torch.float32; give integer class labels"),
    "bool predictions": (Y > 1, Y, "preds has data type torch.bool; give integer class labels"),
    "logits": (torch.rand(2, 4, 8, 10), Y, r"\(2, 4, 8, 10\).* logits after argmax"),
    "arrays": (Y.numpy(), Y.numpy(), r"preds is ndarray, no tensor"),
    "one of another size": (Y, Y[..., :5], r"\(2, 8, 10\) and target \(2, 8, 5\)"),
}

BAD = {
    **{
        f"{name}, {what}": (lambda name=name, p=p, t=t: FUNCTIONS[name](p, t), message)
        for name in FUNCTIONS
        for what, (p, t, message) in PAIRS.items()
    },
    **{
        f"{name} of a data set, {what}": (lambda name=name, p=p, t=t: updated(name, p, t), message)
        for name in CLASSES
        for what, (p, t, message) in PAIRS.items()
        if name == "scores" or what in ("label K", "arrays")
    },
    **{
        f"{name} of a data set, K = 0": (lambda make=make: make(0), "num_classes is 0; give the number of classes")
        for name, make in CLASSES.items()
    },
    "F-score, K = 2.5": (lambda: BoundaryFScore(2.5, [1]), "num_classes is 2.5; give the number of classes"),
    "scores, K as text": (lambda: SegmentationScores("4"), "num_classes is '4'; give the number of classes"),
    "scores, ignore_index 0.5": (lambda: SegmentationScores(4, 0.5), "ignore_index is 0.5; give a whole number"),
    "F-score, ignore_index as text": (lambda: BoundaryFScore(4, [1], "255"), "ignore_index is '255'; give a whole"),
    "F-score, one tolerance": (lambda: boundary_fscore(Y, Y, 4, 3), "tolerances is 3; give one or more"),
    "F-score, negative tolerance": (lambda: boundary_fscore(Y, Y, 4, [-1]), r"tolerances is \[-1\]; give one or more"),
    "F-score, NaN": (lambda: BoundaryFScore(4, [math.nan]), r"tolerances is \[nan\]; give one or more"),
    "F-score, no tolerances": (lambda: BoundaryFScore(4, None), "tolerances is None; give one or more"),
    "F-score, absent": (lambda: BoundaryFScore(4, [1], absent="zero"), "absent is 'zero'; use 'skip' or 'one'"),
    "F-score, average": (lambda: BoundaryFScore(4, [1], average="micro"), "average is 'micro'; use 'macro' or"),
    "boundary IoU, distance 0": (lambda: BoundaryIoU(4, 0), "distance is 0; give a finite width"),
    "boundary IoU, distance as text": (lambda: BoundaryIoU(4, "2"), "distance is '2'; give a finite width"),
    "trimap, one width": (lambda: TrimapIoU(4, 3), "widths is 3; give one or more"),
    "trimap, width 0": (lambda: trimap_iou(Y, Y, 4, [0]), r"widths is \[0\]; give one or more"),
    "crops, one factor": (lambda: DistanceCropIoU(4, 100), "factors is 100; give one or more"),
    "crops, factor 512": (lambda: distance_crop_iou(Y, Y, 4, [0, 512]), r"factors is \[0, 512\]; give one or more"),
    "crops, three shares": (lambda: DistanceCropIoU(4, center=(0.5, 0.5, 0.5)), r"center is \(0.5, 0.5, 0.5\); give"),
    "crops, one share": (lambda: DistanceCropIoU(4, center=0.5), "center is 0.5; give"),
    "ODS, logits": (lambda: boundary_ods(9 * PROB, EDGES), r"preds lies in \[0, 8.1\]; give probabilities"),
    "ODS, NaN": (lambda: boundary_ods(PROB * math.nan, EDGES), r"preds lies in \[nan, nan\]; give probabilities"),
    "ODS, integers": (lambda: boundary_ods(EDGES, EDGES), "preds has data type torch.int64; give probabilities"),
    "ODS, arrays": (lambda: boundary_ods(PROB.numpy(), EDGES.numpy()), "preds is ndarray, no tensor"),
    "ODS, another size": (lambda: boundary_ods(PROB, EDGES[..., :5]), r"target \(2, 8, 5\)"),
    "ODS, soft truth": (lambda: boundary_ods(PROB, EDGES * 0.5), "target contains 0.5; .* 0, 1 or ignore_index 255"),
    "ODS, truth of 0 and 128": (lambda: boundary_ods(PROB, EDGES * 128), "target contains 128; .* 0, 1 or"),
    "ODS, truth of 0 and 255, nothing ignored": (
        lambda: boundary_ods(PROB, EDGES * 255, ignore_index=None),
        r"target contains 255; .* 0 or 1: .*\(target > 0\)",
    ),
    "ODS, NaN in the truth": (lambda: boundary_ods(PROB, EDGES * math.nan), "target contains nan"),
    "ODS, thresholds": (lambda: BoundaryODS(thresholds=[0.5, 0.2]), r"thresholds is \[0.5, 0.2\]; give 1 to 254"),
    "ODS, one threshold": (lambda: BoundaryODS(thresholds=0.5), "thresholds is 0.5; give 1 to 254"),
    "ODS, tolerance": (lambda: BoundaryODS(math.nan), "tolerance is nan; give a finite distance"),
    "ODS, tolerances": (lambda: BoundaryODS([3, 5]), r"tolerance is \[3, 5\]; give a finite distance"),
    "Cityscapes, instances of another size": (
        lambda: CityscapesScores().update(Y, Y, Y[..., :5]),
        "instances has shape",
    ),
    "Cityscapes, instances in floats": (
        lambda: CityscapesScores().update(Y, Y, Y.float()),
        "instances has data type torch.float32; give integer",
    ),
    "Cityscapes, instances of NumPy": (
        lambda: CityscapesScores().update(Y, Y, Y.numpy()),
        "instances is ndarray, no tensor",
    ),
    "evaluation, no labels": (lambda: evaluated({"boundary": EDGES[:, None]}), r"batch has no 'mask', only \['bound"),
    "evaluation, too few names": (lambda: evaluated({"mask": Y, "name": ["a"]}), "1 names for 2 images; give one"),
    "evaluation, boundaries of another size": (
        lambda: evaluated({"mask": Y, "boundary": EDGES[:, None, :, :5]}),
        r"boundary has shape \(2, 1, 8, 5\)",
    ),
    "evaluation, no class": (lambda: Evaluation([], 255, [1]), "num_classes is 0; give the number of classes"),
    "evaluation, one tolerance": (lambda: Evaluation(["a"], 255, 3), "boundary_tolerances is 3; give one or more"),
    "evaluation, nothing yet": (lambda: Evaluation(["a"], 255, [1]).compute(), "no batch .*; call update first"),
    "boundaries, list": (lambda: label_boundaries(Y.tolist()), "labels must be an array or a tensor, got list"),
    "boundaries, four axes": (lambda: label_boundaries(Y[:, None]), r"got shape \(2, 1, 8, 10\)"),
    "boundaries, radius 0": (lambda: label_boundaries(Y, 0), "radius must be 1 or more, got 0"),
    "boundaries, radius inf": (
        lambda: label_boundaries(Y, math.inf),
        "radius must be 1 or more, got inf: give a finite number",
    ),
    "boundaries, radius as text": (lambda: label_boundaries(Y, "2"), "radius must be 1 or more.*, got '2'"),
    "boundaries, void": (lambda: label_boundaries(Y, void="skip"), "void must be 'exclude' or 'boundary', got 'skip'"),
    "boundaries, no ignore_index": (
        lambda: label_boundaries(Y.numpy(), ignore_index=None),
        "ignore_index must be a whole number, got None: .* -1",
    ),
    "boundaries, no ignore_index of a tensor": (lambda: label_boundaries(Y, ignore_index=None), "got None"),
}


def with_instances(ids):
    metric = CityscapesScores()
    metric.update(Y + 11, Y.flip(-1) + 11, ids)
    return {name: value for name, value in metric.compute().items() if "iiou" in name}


def of_uint16(metric):
    return metric(Y.to(torch.uint16), Y.flip(-1).to(torch.uint16)), metric(Y, Y.flip(-1))


RIGHT = {
    "Cityscapes, ids of nothing that has instances": lambda: (
        with_instances(torch.where(Y == 0, 10**9, 24000 + Y)),
        with_instances(torch.where(Y == 0, 0, 24000 + Y)),
    ),
    **{f"{name}, uint16": lambda metric=metric: of_uint16(metric) for name, metric in FUNCTIONS.items()},
    **{
        f"{name}, bytes": lambda metric=metric: (metric(Y.byte(), Y.flip(-1).byte()), metric(Y, Y.flip(-1)))
        for name, metric in FUNCTIONS.items()
    },
    "scores, uint16": lambda: (
        updated("scores", Y.to(torch.uint16), Y.flip(-1).to(torch.uint16)),
        updated("scores", Y, Y.flip(-1)),
    ),
    "boundaries, uint16": lambda: (label_boundaries(Y.to(torch.uint16)), label_boundaries(Y)),
    "boundaries, bool": lambda: (label_boundaries(EDGES.bool()), label_boundaries(EDGES)),
    "boundaries, big-endian": lambda: (
        torch.from_numpy(label_boundaries(Y.numpy().astype(">i2"))),
        label_boundaries(Y),
    ),
    "boundaries, a view from the back": lambda: (
        torch.from_numpy(label_boundaries(np.flip(Y.numpy().astype(np.uint8), 2))),
        label_boundaries(Y).flip(2),
    ),
    "ODS, bool truth": lambda: (boundary_ods(PROB, EDGES.bool()), boundary_ods(PROB, EDGES)),
    "ODS, float truth": lambda: (boundary_ods(PROB, EDGES.double()), boundary_ods(PROB, EDGES)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_input_is_handled_right(name):
    found, expected = RIGHT[name]()
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("name", CLASSES)
def test_a_refused_batch_leaves_the_metric_as_it_was(name):
    metric, other = CLASSES[name](), CLASSES[name]()
    for one in (metric, other):
        one.update(Y, Y.flip(-1))
    with pytest.raises(ValueError, match="target contains"):
        metric.update(Y, label(4))
    torch.testing.assert_close(metric.compute(), other.compute(), equal_nan=True)
