"""Calibration error against a slow computation that sorts pixels into bins one by one."""

import math

import numpy as np
import pytest
import torch
from tests.metrics.maps import blobs

from gscnn_lightning.metrics import CalibrationError, calibration_error


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    target = blobs(rng, (3, 20, 30), 5, 255)
    logits = torch.from_numpy(rng.normal(size=(3, 5, 20, 30)) * 3)
    logits.scatter_add_(1, target.where(target < 5, 0).long()[:, None], torch.full((3, 1, 20, 30), 3.0).double())
    return logits.float().softmax(1), target


def slow(probabilities, target, bins, radius, ignore=255):
    """Pixels, sums of confidence and right ones by region and bin, in NumPy's double precision."""
    sums = np.zeros((2, bins, 3))
    for prob, labels in zip(probabilities.double().numpy(), target.numpy(), strict=True):
        height, width = labels.shape
        for y in range(height):
            for x in range(width):
                if labels[y, x] == ignore:
                    continue
                confidence = prob[:, y, x].max()
                place = next(m for m in range(bins) if confidence * bins <= m + 1 or m == bins - 1)
                near = any(
                    labels[v, u] not in (labels[y, x], ignore)
                    for v in range(max(0, y - radius), min(height, y + radius + 1))
                    for u in range(max(0, x - radius), min(width, x + radius + 1))
                    if (v - y) ** 2 + (u - x) ** 2 <= radius**2
                )
                right = prob[:, y, x].argmax() == labels[y, x]
                for region in range(1 + near):
                    sums[region, place] += 1, confidence, right
    return sums


@pytest.mark.parametrize(("bins", "radius"), [(15, 3), (7, 1), (1, 2)])
def test_errors_and_bins_are_those_of_the_slow_computation(maps, bins, radius):
    sums = slow(*maps, bins, radius)
    found = calibration_error(*maps, bins, radius)
    pixels, confidence, right = np.moveaxis(sums, -1, 0)
    np.testing.assert_array_equal(found["pixels"], pixels)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found["confidence"], confidence / pixels, atol=1e-9)
        np.testing.assert_allclose(found["accuracy"], right / pixels, atol=1e-9)
        shares = pixels / pixels.sum(1, keepdims=True)
        expected = np.nansum(shares * np.abs(right / pixels - confidence / pixels), 1)
    assert found["ece"].item() == pytest.approx(expected[0], abs=1e-9)
    assert found["ece_boundary"].item() == pytest.approx(expected[1], abs=1e-9)
    assert 0 < pixels[1].sum() < pixels[0].sum()


def test_sums_do_not_depend_on_batches_or_order_and_merge(maps):
    probabilities, target = maps
    whole = CalibrationError()
    whole.update(probabilities, target)
    parts = [CalibrationError() for _ in range(2)]
    for index, part in ((2, 0), (0, 0), (1, 1)):
        parts[part].update(probabilities[[index]], target[[index]])
    parts[0].merge_state(parts[1])
    expected, found = whole.compute(), parts[0].compute()
    assert all(expected[name].nan_to_num(9).equal(found[name].nan_to_num(9)) for name in expected)
    assert whole.compute()["pixels"].dtype == torch.float64


def test_perfect_and_overconfident_networks():
    target = torch.zeros(1, 10, 10, dtype=torch.long)
    certain = torch.stack([torch.ones(1, 10, 10), torch.zeros(1, 10, 10)], 1)
    assert calibration_error(certain, target)["ece"] == 0
    assert calibration_error(certain, 1 - target)["ece"] == 1
    assert calibration_error(certain, target)["ece_boundary"].isnan(), "there is no boundary"
    target[0, :, 5:] = 255
    assert calibration_error(certain, target)["pixels"].sum(1).tolist() == [50, 0], "contact with void is none"
    target[:] = 255
    assert calibration_error(certain, target)["ece"].isnan()
    assert calibration_error(certain, target, ignore_index=None)["ece"] == 1


def test_reach_of_the_band_may_be_a_share_of_the_diagonal(maps):
    share = 2 / math.hypot(20, 30) - 1e-6
    assert calibration_error(*maps, width=share)["ece_boundary"] == calibration_error(*maps, width=2)["ece_boundary"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.zeros(1, 4, 5, dtype=torch.long)}, r"\(1, 2, 4, 4\) and target \(1, 4, 5\)"),
        ({"target": torch.zeros(1, 4, 4)}, "target has data type torch.float32"),
        ({"probabilities": torch.zeros(1, 2, 4, 4, dtype=torch.long)}, "probabilities have data type torch.int64"),
        ({"probabilities": torch.full((1, 2, 4, 4), 3.0)}, r"lie in \[3, 3\]; give probabilities, logits after a soft"),
        ({"bins": 0}, "bins is 0"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_what_cannot_be_is_said(change, message):
    given = {"probabilities": torch.full((1, 2, 4, 4), 0.5), "target": torch.zeros(1, 4, 4, dtype=torch.long)}
    with pytest.raises(ValueError, match=message):
        calibration_error(**(given | change))
