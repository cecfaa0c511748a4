import math

import cv2
import numpy as np
import pytest
import torch

from gscnn_lightning import boundaries
from gscnn_lightning.boundaries import disc_half_widths
from gscnn_lightning.data import label_boundaries


def brute_force(labels, radius, ignore_index=255, void="exclude", frame=False):
    """The definition, pixel pair by pixel pair."""
    H, W = labels.shape
    reach = math.ceil(radius)
    out = np.zeros((H, W), np.uint8)
    for y in range(H):
        for x in range(W):
            here = labels[y, x]
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if dy * dy + dx * dx > radius * radius:
                        continue
                    inside = 0 <= y + dy < H and 0 <= x + dx < W
                    if not inside:
                        out[y, x] |= frame and here != ignore_index
                        continue
                    there = labels[y + dy, x + dx]
                    if void == "exclude" and ignore_index in (here, there):
                        continue
                    out[y, x] |= here != there
    return out


def blobs(seed, shape=(17, 21), classes=5, void_share=0.2):
    """Label map of random rectangles, some of them void."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for _ in range(9):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        label = 255 if rng.random() < void_share else rng.integers(classes)
        labels[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = label
    return labels


def both(labels, *args, **kwargs):
    """Boundaries after checking that OpenCV and torch agree in value, type and shape."""
    array = label_boundaries(labels, *args, **kwargs)
    tensor = label_boundaries(torch.from_numpy(labels), *args, **kwargs)
    assert array.dtype == np.uint8
    assert tensor.dtype == torch.uint8
    assert array.shape == labels.shape
    assert np.array_equal(array, tensor.numpy())
    return array


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("void", ["exclude", "boundary"])
@pytest.mark.parametrize("radius", [1, 1.5, 2, 2.23, 2.24, 2.5, 3, 4.3])
def test_equals_the_definition(radius, void, frame):
    for seed in range(3):
        labels = blobs(seed)
        expected = brute_force(labels, radius, void=void, frame=frame)
        assert np.array_equal(both(labels, radius, void=void, frame=frame), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("radius", [1, 2, 2.5])
def test_strips_join_without_a_seam(radius, dtype, monkeypatch):
    monkeypatch.setattr(boundaries, "_STRIP_BYTES", 1)  # the fewest rows a strip may have
    rng = np.random.default_rng(0)
    for _ in range(3):
        # Rows and columns of their own labels, and void one pixel wide: whatever is near the end of a strip matters.
        labels = rng.integers(0, 4, (50, 1)).repeat(7, 1).astype(dtype)
        labels[rng.random(labels.shape) < 0.3] = 255
        labels[0, 0] = 300 if dtype == np.int32 else 7
        assert np.array_equal(both(labels, radius), brute_force(labels, radius))


@pytest.mark.parametrize("ignore_index", [0, 3, 254, 255])
def test_any_label_can_be_the_ignored_one(ignore_index):
    # All of 0 to 255 occur, so no stand-in for void is free.
    labels = np.random.default_rng(0).permutation(np.arange(256, dtype=np.uint8)).reshape(16, 16).repeat(2, 0)
    labels[3:9, 4:10] = ignore_index
    expected = brute_force(labels, 2, ignore_index)
    assert np.array_equal(both(labels, 2, ignore_index), expected)


@pytest.mark.parametrize(
    ("dtype", "values", "ignore_index"),
    [
        ("int8", [-128, 127, 0, -1], -1),
        ("int16", [-32768, 32767, 5, 255], 255),
        ("int16", [-100, 155, 156, 3], 156),
        ("int16", [-100, 155, 154, 3], 156),
        ("int32", [-1, 0, 18, 33000], -1),
        ("int32", [0, 65280, 65534, 65535], 65535),
        ("int32", [0, 65535, 65536, 3], 65536),
        ("int64", [-(2**63), 2**63 - 1, 0, 7], 7),
        ("int64", [0, 1, 18, 255], 255),
        ("int64", [24000, 24001, 26000, 65536 * 3], -1),
    ],
)
def test_any_integer_type(dtype, values, ignore_index):
    labels = np.array(values, dtype)[np.random.default_rng(1).integers(0, 4, (6, 7)).repeat(3, 0).repeat(2, 1)]
    expected = brute_force(labels, 2, ignore_index, frame=True)
    assert np.array_equal(both(labels, 2, ignore_index, frame=True), expected)


def test_unsigned_arrays_and_masks_of_bool():
    labels = blobs(3, classes=2, void_share=0)
    expected = brute_force(labels, 2)
    for dtype in (np.uint16, np.uint32, np.uint64, bool):
        assert np.array_equal(label_boundaries(labels.astype(dtype)), expected)
    assert np.array_equal(label_boundaries(torch.from_numpy(labels).bool()).numpy(), expected)


def test_ignore_index_outside_the_type_ignores_nothing():
    labels = blobs(4)
    assert np.array_equal(both(labels, 2, ignore_index=-1), both(labels, 2, void="boundary"))


def test_matches_the_released_rule(reference_dir):
    reference = np.load(reference_dir / "edges.npz")
    cases = [key.split("/", 2)[1:] for key in reference.files if key.startswith("clean/")]
    assert len(cases) >= 3
    for radius, name in cases:
        made = both(reference[f"label/{name}"], int(radius[1:]), void="boundary", frame=True)
        assert np.array_equal(made[None], reference[f"clean/{radius}/{name}"]), (radius, name)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 4, 4), (2, 0, 3)])
def test_without_pixels(shape):
    assert both(np.zeros(shape, np.uint8), 2).shape == shape


def test_straight_boundary_is_two_radii_wide():
    labels = np.zeros((9, 20), np.uint8)
    labels[:, 10:] = 7
    for radius in (1, 2, 3):
        expected = np.zeros_like(labels)
        expected[:, 10 - radius : 10 + radius] = 1
        assert np.array_equal(both(labels, radius), expected)


def test_isolated_pixel_marks_a_disc():
    labels = np.zeros((7, 7), np.uint8)
    labels[3, 3] = 1
    expected = [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    assert both(labels, 2).tolist() == expected


def test_void_hides_a_boundary_unless_the_other_class_is_within_reach():
    row = np.array([[0, 0, 255, 1, 1], [0, 255, 255, 1, 1]], np.uint8)
    assert both(row[:1], 2).tolist() == [[0, 1, 0, 1, 0]]
    assert both(row[1:], 2).tolist() == [[0, 0, 0, 0, 0]]
    assert both(row[1:], 1, void="boundary").tolist() == [[1, 1, 1, 1, 0]]


@pytest.mark.parametrize("frame", [False, True])
def test_all_void_has_no_boundary(frame):
    assert both(np.full((5, 6), 255, np.uint8), 2, frame=frame).sum() == 0


def test_does_not_depend_on_which_class_is_which():
    labels = blobs(5, classes=19)
    renamed = np.append(np.random.default_rng(0).permutation(19), np.full(237, 255)).astype(np.uint8)[labels]
    assert np.array_equal(both(renamed, 3), both(labels, 3))


def test_flips_and_transposes_with_the_labels():
    labels = blobs(6)
    marked = both(labels, 2)
    for move in (np.flipud, np.fliplr, np.transpose):
        assert np.array_equal(both(np.ascontiguousarray(move(labels)), 2), move(marked))


def test_views_are_fine_and_the_input_stays_as_it_is():
    labels = np.stack([blobs(7), blobs(8)], axis=-1)
    before = labels.copy()
    assert np.array_equal(label_boundaries(labels[..., 1]), label_boundaries(blobs(8)))
    assert np.array_equal(labels, before)


def test_images_of_a_batch_do_not_touch():
    batch = np.stack([blobs(seed) for seed in range(3)])
    assert np.array_equal(both(batch, 2), np.stack([both(image, 2) for image in batch]))


def test_radius_beyond_the_image():
    labels = blobs(9, shape=(5, 6), void_share=0)
    assert np.array_equal(both(labels, 20), np.full((5, 6), len(np.unique(labels)) > 1))


def test_real_frame(camvid_root):
    labels = cv2.imread(str(camvid_root / "valannot" / "0016E5_07959.png"), cv2.IMREAD_UNCHANGED)
    labelled = labels != 11
    expected = np.zeros(labels.shape, bool)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            if dy * dy + dx * dx <= 4:
                here = np.s_[max(0, -dy) : 360 - max(0, dy), max(0, -dx) : 480 - max(0, dx)]
                there = np.s_[max(0, dy) : 360 + min(0, dy), max(0, dx) : 480 + min(0, dx)]
                expected[here] |= (labels[here] != labels[there]) & labelled[here] & labelled[there]
    assert expected.sum() == 11464
    assert np.array_equal(both(labels, 2, ignore_index=11), expected)


def test_compiles_without_graph_breaks():
    labels = torch.from_numpy(np.stack([blobs(1), blobs(2)]))
    compiled = torch.compile(lambda x: label_boundaries(x, 2, frame=True), fullgraph=True, backend="eager")
    assert torch.equal(compiled(labels), label_boundaries(labels, 2, frame=True))


def test_disc_rows():
    assert disc_half_widths(1) == [1, 0]
    assert disc_half_widths(5) == [5, 4, 4, 4, 3, 0]
    assert disc_half_widths(2.5) == [2, 2, 1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"radius": 0.5}, ValueError, "radius must be 1 or more, got 0.5"),
        ({"radius": float("nan")}, ValueError, "got nan"),
        ({"void": "ignore"}, ValueError, "'exclude' or 'boundary', got 'ignore'"),
        ({"labels": np.zeros(4, np.uint8)}, ValueError, r"got shape \(4,\)"),
        ({"labels": np.zeros((4, 4))}, TypeError, "must be integers, got float64"),
        ({"labels": torch.zeros(4, 4)}, TypeError, "must be integers, got torch.float32"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        label_boundaries(**{"labels": np.zeros((4, 4), np.uint8), **change})


def phantom(shape, radius):
    """What a pixel at row -2, column -1, which the published distance transform sees, marks within a radius."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    return (row + 2) ** 2 + (column + 1) ** 2 <= radius**2


def test_released_call_is_the_rule_without_road_and_with_a_phantom_pixel(reference_dir):
    with np.load(reference_dir / "edges.npz") as file:
        reference = dict(file)
    names = [key.removeprefix("label/") for key in reference if key.startswith("label/")]
    assert len(names) == 10
    for name in names:
        labels = reference[f"label/{name}"]
        for radius in (1, 2, 3):
            quirk = phantom(labels.shape, radius)
            assert quirk.sum() == (2 if radius == 3 else 0)
            # The corrected call: every class counts, the phantom is seen wherever one of the 19 is absent.
            made = both(labels, radius, void="boundary", frame=True)
            seen = quirk if len(np.unique(labels[labels < 19])) < 19 else False
            assert np.array_equal((made | seen)[None], reference[f"corrected/r{radius}/{name}"]), (name, radius)
            # The released call: class 0 counts as void, and a plane of its own is always empty.
            without_road = both(np.where(labels == 0, 255, labels), radius, void="boundary", frame=True)
            assert np.array_equal((without_road | quirk)[None], reference[f"orig/r{radius}/{name}"]), (name, radius)
