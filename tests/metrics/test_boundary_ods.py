import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from gscnn_lightning.metrics import BoundaryODS, boundary_ods


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    target = (rng.random((3, 1, 24, 30)) < 0.05).astype(np.uint8)
    preds = np.clip(0.5 * target + rng.random(target.shape) ** 3, 0, 1).astype(np.float32)
    target[rng.random(target.shape) < 0.1] = 255
    return torch.from_numpy(preds), torch.from_numpy(target)


def slow_counts(pred, label, threshold, radius):
    valid = label != 255
    a, b = (pred >= np.float32(threshold)) & valid, (label == 1) & valid
    near_b, near_a = (distance_transform_edt(~m) <= radius if m.any() else np.zeros_like(m) for m in (b, a))
    return (a & near_b).sum(), a.sum(), (b & near_a).sum(), b.sum()


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 4])
def test_agrees_with_slow_oracle(maps, tolerance):
    thresholds = [0.1, 0.3, 0.5, 0.7, 0.9]
    scores = boundary_ods(*maps, tolerance, thresholds)
    best = []
    for index, threshold in enumerate(thresholds):
        pairs = zip(maps[0][:, 0].numpy(), maps[1][:, 0].numpy(), strict=True)
        precise, predicted, found, true = sum(np.array(slow_counts(p, t, threshold, tolerance)) for p, t in pairs)
        assert scores["precision"][index] == precise / predicted
        assert scores["recall"][index] == found / true
        best.append(2 * precise * found / (precise * true + found * predicted))
    assert scores["ods"].item() == pytest.approx(max(best), abs=1e-14)
    assert scores["threshold"] == thresholds[int(np.argmax(best))]
    assert 0.1 < max(best) < 1


def test_perfect_map_and_silent_map():
    target = torch.zeros(1, 1, 12, 12)
    target[..., 6] = 1
    perfect = boundary_ods(target, target, 0)
    assert perfect["ods"] == 1
    assert perfect["recall"].eq(1).all()
    silent = boundary_ods(torch.zeros_like(target), target)
    assert silent["ods"] == 0
    assert boundary_ods(target, torch.zeros_like(target))["ods"].isnan()


def test_void_is_neither_predicted_nor_true(maps):
    preds, target = maps
    expected = boundary_ods(preds, target)
    changed = boundary_ods(torch.where(target == 255, 1.0, preds), target)
    assert all(changed[name].equal(expected[name]) for name in expected)


def test_tolerance_as_fraction_of_the_diagonal(maps):
    preds, target = (m[..., :24, :18] for m in maps)  # diagonal 30
    assert boundary_ods(preds, target, 0.05)["ods"] == boundary_ods(preds, target, 2)["ods"]


@pytest.mark.parametrize("sizes", [[1, 1, 1], [2, 1]])
def test_any_split_gives_the_same(maps, sizes):
    expected, metric = boundary_ods(*maps, 2), BoundaryODS(2)
    for p, t in zip(maps[0].split(sizes), maps[1].split(sizes), strict=True):
        metric.update(p[:, 0].double(), t[:, 0].long())
    assert all(metric.compute()[name].equal(expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": -1}, "tolerance is -1"),
        ({"thresholds": [0.5, 0.1]}, "thresholds is"),
        ({"thresholds": [0.0]}, "thresholds is"),
        ({"preds": torch.full((1, 4, 4), 2.0)}, r"preds lies in \[2, 2\].*sigmoid"),
        ({"preds": torch.full((1, 4, 4), math.nan)}, "preds lies in"),
        ({"preds": torch.zeros(1, 4, 4, dtype=torch.uint8)}, "data type torch.uint8"),
        ({"preds": torch.zeros(1, 2, 4, 4)}, "preds has shape"),
    ],
)
def test_bad_input_is_named(change, message):
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        boundary_ods(**({"preds": target.float(), "target": target} | change))
