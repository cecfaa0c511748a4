"""The parts of the published scores that a score alone does not show: counts, radii, precision."""

import re

import numpy as np
import pytest
import torch

from gscnn_lightning.metrics import BoundaryFScore, SegmentationScores
from gscnn_lightning.metrics.boundary_fscore import _boundary_points, _share_within
from gscnn_lightning.metrics.label_maps import mark_ignored, tolerance_radii

THRESHOLDS = ["0.0005", "0.001875", "0.00375", "0.005"]


@pytest.fixture(scope="module")
def golden(reference_dir):
    with np.load(reference_dir / "metrics.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def pairs(golden):
    names = sorted({key.split("/")[0] for key in golden} - {"dataset"})
    assert len(names) == 7
    return {n: tuple(torch.from_numpy(golden[f"{n}/{kind}"])[None] for kind in ("pred", "label")) for n in names}


def test_precision_and_radius_of_every_tolerance(golden, pairs):
    stated = [m for m in (re.fullmatch(r"(p\d.*)/precision_((?:th|pix)(.*))", key) for key in golden) if m]
    assert len(stated) == 7 * 4 + 6 * 5
    for match in stated:
        name, suffix, tolerance = match.groups()
        pred, label = (x[0].numpy() for x in pairs[name])
        radius = tolerance_radii([float(tolerance)], pred.shape)[0]
        assert radius == golden[f"{name}/radius_{suffix}"]
        a, b = (_boundary_points(x, 19) for x in mark_ignored(pred, label, 19, 255))
        for index, precision in enumerate(golden[match[0]]):
            if a[index].size and b[index].size:
                own = _share_within(a[index], b[index], [radius], pred.shape[1], np.zeros(pred.size, bool))[0]
                assert own == pytest.approx(precision, abs=1e-12)


def check_scores(metric, counts, iou, summary):
    np.testing.assert_array_equal(metric.confmat, counts)
    scores = metric.compute()
    np.testing.assert_allclose(scores["iou"], iou, rtol=0, atol=1e-12)
    share = counts / max(counts.sum(), 1)
    with np.errstate(invalid="ignore"):
        accuracies = counts.diagonal() / counts.sum(1)
        labelled = share.sum(1) > 0
        weighted = (share.sum(1) * scores["iou"].numpy())[labelled].sum()
    if counts.sum():
        own = [scores["accuracy"].item(), np.nanmean(accuracies), scores["miou"].item(), weighted]
        np.testing.assert_allclose(own, summary, rtol=0, atol=1e-12)
    else:
        assert np.isnan([scores["accuracy"], scores["miou"]]).all()
        assert np.isnan(summary[[0, 2]]).all()


def test_confusion_matrix_and_its_scores(golden, pairs):
    whole = SegmentationScores(19)
    for name, pair in pairs.items():
        metric = SegmentationScores(19)
        metric.update(*pair)
        whole.update(*pair)
        check_scores(metric, *(golden[f"{name}/{kind}"] for kind in ("hist", "iou", "summary")))
    check_scores(whole, *(golden[f"dataset/{kind}"] for kind in ("hist", "iou", "summary")))


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_sums_and_counts_per_class(threshold, golden, pairs):
    metric = BoundaryFScore(19, [float(threshold)], absent="one", average="none")
    for name in ("p1_256x512_fewcls", "p2_256x512_emptycases"):
        metric.update(*pairs[name])
    counts = golden[f"dataset/Fcount_th{threshold}"]
    np.testing.assert_array_equal(metric.num_images[0], counts)
    np.testing.assert_allclose(
        metric.compute()[0].numpy() * counts, golden[f"dataset/Fsum_th{threshold}"], rtol=0, atol=1e-12
    )
