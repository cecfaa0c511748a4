import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from tests.metrics.maps import blobs, measure

from gscnn_lightning.bench.metrics import fscore_by_distance_maps
from gscnn_lightning.metrics import BoundaryFScore, boundary_fscore


def slow_boundary(mask):
    """Pixel by pixel: differs from the right, lower or lower-right neighbour."""
    height, width = mask.shape
    boundary = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            below, beside = min(y + 1, height - 1), min(x + 1, width - 1)
            boundary[y, x] = mask[y, x] not in (mask[y, beside],) or mask[y, x] != mask[below, x]
            boundary[y, x] |= mask[y, x] != mask[below, beside]
    return boundary


def slow_fscore(pred, label, index, radius, ignore_index):
    """Disc dilation instead of distances; (F or NaN)."""
    valid = label != ignore_index
    a, b = slow_boundary((pred == index) & valid), slow_boundary((label == index) & valid)
    if not a.any() and not b.any():
        return np.nan
    if not a.any() or not b.any():
        return 0.0
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = x**2 + y**2 <= radius**2
    precision = (a & binary_dilation(b, disc)).sum() / a.sum()
    recall = (b & binary_dilation(a, disc)).sum() / b.sum()
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


@pytest.fixture
def golden(reference_dir):
    return np.load(reference_dir / "metrics.npz")


@pytest.mark.parametrize("ignore_index", [255, 2, -1, None])
def test_agrees_with_slow_oracle(ignore_index):
    rng = np.random.default_rng(3)
    preds = blobs(rng, (2, 23, 31), 5)
    target = blobs(rng, (2, 23, 31), 4, ignore_index)
    radii = [0, 1, 1.5, 2, 5]
    scores = boundary_fscore(preds, target, 5, radii, ignore_index=ignore_index)
    expected = [
        [[slow_fscore(p, t, c, r, ignore_index) for c in range(5)] for r in radii]
        for p, t in zip(preds.numpy(), target.numpy(), strict=True)
    ]
    assert scores.shape == (2, 5, 5)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=1e-14)
    assert (scores == 1).sum() < scores.numel() / 4, "the case is too easy to prove anything"


def test_reference_values_per_image(golden):
    names = [re.fullmatch(r"(p\d[^/]*)/F_(?:th|pix)([\d.]+)", key) for key in golden.files]
    checked = 0
    for match in filter(None, names):
        pair, tolerance = match[1], float(match[2])
        preds, target = (torch.from_numpy(golden[f"{pair}/{what}"])[None] for what in ("pred", "label"))
        one = boundary_fscore(preds, target, 19, [tolerance], absent="one")[0, 0].numpy()
        np.testing.assert_allclose(one, golden[match[0]], rtol=0, atol=1e-12)
        skip = boundary_fscore(preds, target, 19, [tolerance])[0, 0].numpy()
        assert (one[np.isnan(skip)] == 1).all()
        np.testing.assert_array_equal(np.where(np.isnan(skip), 1, skip), one)
        checked += 1
    assert checked == 7 * 4 + 6 * 5


@pytest.mark.parametrize("threshold", ["0.0005", "0.001875", "0.00375", "0.005"])
def test_reference_values_of_a_data_set(golden, threshold):
    metric = BoundaryFScore(19, [float(threshold)], absent="one")
    for pair in ("p1_256x512_fewcls", "p2_256x512_emptycases"):
        metric.update(*(torch.from_numpy(golden[f"{pair}/{what}"])[None] for what in ("pred", "label")))
    assert metric.compute().item() == pytest.approx(float(golden[f"dataset/meanF_th{threshold}"]), abs=1e-12)


def test_perfect_prediction_is_one_and_absent_classes_follow_the_convention():
    target = torch.tensor([[[0, 0, 1, 255]] * 4])
    skip = boundary_fscore(target.where(target < 9, 0), target, 4, [0, 3])
    one = boundary_fscore(target.where(target < 9, 0), target, 4, [0, 3], absent="one")
    assert (skip[..., :2] == 1).all()
    assert skip[..., 2:].isnan().all()
    assert (one == 1).all()


def test_class_in_one_map_only_is_zero():
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    preds = target.clone()
    preds[0, 3:5, 3:5] = 1
    assert boundary_fscore(preds, target, 2, [4]).tolist() == [[[0, 0]]]
    assert boundary_fscore(target, preds, 2, [4], absent="one").tolist() == [[[0, 0]]]


def test_one_pixel_shift_is_found_within_one_pixel():
    target = torch.zeros(1, 12, 12, dtype=torch.int32)
    target[..., 6:] = 1
    preds = target.roll(1, dims=2).int()
    preds[..., 0] = 0
    scores = boundary_fscore(preds, target, 2, [0, 1, 2])[0, :, 0]
    assert scores.tolist() == [0, 1, 1]


def test_distances_are_euclidean():
    target, preds = torch.zeros(2, 1, 12, 12, dtype=torch.uint8)
    target[0, 4, 4] = 1
    preds[0, 7, 8] = 1
    # Each has four boundary pixels, 2x2. Distances to the nearest of the other four: sqrt 13, 18, 20 and 25.
    scores = boundary_fscore(preds, target, 2, [3.6, 3.7, 4.3, 4.5, 5], ignore_index=None)
    assert scores[0, :, 1].tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_tolerance_below_one_is_a_fraction_of_the_diagonal_rounded_up():
    rng = np.random.default_rng(0)
    preds, target = blobs(rng, (1, 30, 40), 3), blobs(rng, (1, 30, 40), 3)
    # diagonal 50: 0.03 * 50 = 1.5 -> 2, 0.1 * 50 = 5
    assert boundary_fscore(preds, target, 3, [0.03, 0.1]).equal(boundary_fscore(preds, target, 3, [2, 5]))


def test_grows_with_tolerance_and_is_symmetric_without_void():
    rng = np.random.default_rng(1)
    preds, target = blobs(rng, (1, 40, 50), 6), blobs(rng, (1, 40, 50), 6)
    scores = boundary_fscore(preds, target, 6, [0, 1, 2, 3, 6])
    assert (scores.diff(dim=1) >= 0).all()
    torch.testing.assert_close(scores, boundary_fscore(target, preds, 6, [0, 1, 2, 3, 6]), rtol=0, atol=1e-15)


def test_what_is_predicted_on_void_does_not_matter():
    rng = np.random.default_rng(2)
    preds, target = blobs(rng, (1, 40, 50), 4), blobs(rng, (1, 40, 50), 4, 255)
    other = torch.where(target == 255, 200, preds)
    assert boundary_fscore(preds, target, 4, [1, 2]).equal(boundary_fscore(other, target, 4, [1, 2]))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (0, 4)])
def test_sizes_without_room_for_boundaries_stay_finite(size):
    labels = torch.zeros(1, *size, dtype=torch.uint8)
    assert boundary_fscore(labels, labels, 2, [1]).isnan().all()


def test_all_void_is_absent():
    target = torch.full((2, 6, 6), 255)
    preds = torch.randint(0, 3, (2, 6, 6), generator=torch.Generator().manual_seed(0))
    assert boundary_fscore(preds, target, 3, [1]).isnan().all()
    metric = BoundaryFScore(3, [1])
    metric.update(preds, target)
    assert metric.compute().isnan().all()


def test_more_classes_than_fit_a_byte():
    target = torch.full((1, 6, 6), 299)
    target[..., 3:] = 7
    scores = boundary_fscore(target, target, 300, [1], ignore_index=-100)
    assert scores[0, 0, [7, 299]].tolist() == [1, 1]
    assert scores.isfinite().sum() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preds": torch.zeros(1, 3, 4, 4)}, r"preds has shape \(1, 3, 4, 4\).*argmax"),
        ({"preds": torch.zeros(1, 4, 4)}, "preds has data type torch.float32"),
        ({"target": torch.full((1, 4, 4), 3)}, "target contains label 3, with 3 classes.*or ignored"),
        ({"preds": torch.full((1, 4, 4), -1)}, "preds contains label -1"),
        ({"tolerances": []}, "tolerances"),
        ({"tolerances": [-1]}, "tolerances"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"absent": "zero"}, "absent is 'zero'"),
    ],
)
def test_bad_input_is_named(change, message):
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    arguments = {"preds": labels, "target": labels, "num_classes": 3, "tolerances": [1]} | change
    with pytest.raises(ValueError, match=message):
        boundary_fscore(**arguments)


@pytest.fixture
def batch():
    rng = np.random.default_rng(5)
    return blobs(rng, (6, 30, 40), 5), blobs(rng, (6, 30, 40), 4, 255)


@pytest.mark.parametrize("absent", ["skip", "one"])
def test_any_split_into_batches_gives_the_same_bits(batch, absent):
    whole = measure(BoundaryFScore(5, [1, 3], absent=absent), *batch, [6]).compute()
    for sizes in ([1] * 6, [5, 1], [2, 4]):
        assert measure(BoundaryFScore(5, [1, 3], absent=absent), *batch, sizes).compute().equal(whole)


def test_merged_processes_equal_one_process(batch):
    preds, target = batch
    whole = measure(BoundaryFScore(5, [1, 3]), preds, target, [6])
    first = measure(BoundaryFScore(5, [1, 3]), preds[:1], target[:1], [1])
    second = measure(BoundaryFScore(5, [1, 3]), preds[1:], target[1:], [5])
    first.merge_state(second)
    assert first.compute().equal(whole.compute())
    assert set(whole._reductions) == {"fscore_sum", "num_images"}
    assert {reduction.__name__ for reduction in whole._reductions.values()} == {"dim_zero_sum"}


@pytest.mark.parametrize("absent", ["skip", "one"])
def test_metric_is_the_mean_of_the_function(batch, absent):
    scores = boundary_fscore(*batch, 5, [1, 3], absent=absent)
    per_class = measure(BoundaryFScore(5, [1, 3], absent=absent, average="none"), *batch, [6]).compute()
    torch.testing.assert_close(per_class, scores.nanmean(0), rtol=0, atol=1e-12, equal_nan=True)
    macro = measure(BoundaryFScore(5, [1, 3], absent=absent), *batch, [6]).compute()
    torch.testing.assert_close(macro, scores.nanmean(0).nanmean(-1), rtol=0, atol=1e-12)


def test_forward_gives_the_batch_and_compute_the_whole(batch):
    metric, (preds, target) = BoundaryFScore(5, [2]), batch
    for index in range(2):
        alone = measure(BoundaryFScore(5, [2]), preds[[index]], target[[index]], [1]).compute()
        assert metric(preds[[index]], target[[index]]).equal(alone)
    assert metric.compute().equal(measure(BoundaryFScore(5, [2]), preds[:2], target[:2], [2]).compute())


def test_reset_and_copy_start_afresh(batch):
    metric = measure(BoundaryFScore(5, [2]), *batch, [6])
    copy = deepcopy(metric)
    metric.reset()
    assert metric.fscore_sum.sum() == 0
    assert copy.fscore_sum.sum() > 0


def test_unknown_average_is_refused():
    with pytest.raises(ValueError, match="average is 'micro'"):
        BoundaryFScore(3, [1], average="micro")


@pytest.mark.parametrize("radii", [[0.0], [1, 1.5, 2, 3, 7], [2.3, 40]])
def test_many_points_are_searched_as_distance_maps_tell(radii):
    """So many, up to the frame, that those a step or two apart are found without a tree."""
    rng = np.random.default_rng(11)
    target = blobs(rng, (1, 150, 210), 4, 255)
    preds = torch.where(torch.from_numpy(rng.random(target.shape)) < 0.02, 1, target.roll(3, 2)).where(target != 2, 0)
    preds = torch.where(preds == 255, 0, preds)
    own = boundary_fscore(preds, target, 19, radii)[0].numpy()
    expected = fscore_by_distance_maps(preds[0].numpy(), target[0].numpy(), radii)
    np.testing.assert_allclose(own, expected, rtol=0, atol=1e-12)
    assert np.isfinite(own).any()
