"""The built-in scenes: reproducible, exact, varied, and writable in the Cityscapes layout."""

import hashlib

import cv2
import numpy as np
import pytest

from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_TRAIN_ID_TO_ID, IGNORE_INDEX
from gscnn_lightning.data.scenes.canvas import LABEL, Camera, Canvas, Dice, Strokes, make_palette, mix
from gscnn_lightning.data.scenes.draw import ScenesDataset, draw_scene, write_scenes
from gscnn_lightning.data.scenes.light import noise_tiles
from gscnn_lightning.data.scenes.objects import foliage_sprites
from gscnn_lightning.errors import DataError


@pytest.fixture(scope="module")
def sample():
    """Sixty scenes of the default size: images (60, 256, 512, 3) and labels (60, 256, 512)."""
    images, labels = zip(*(draw_scene(index, seed=7) for index in range(60)), strict=True)
    return np.stack(images), np.stack(labels)


# Contract


def test_image_and_labels_have_the_documented_shape_and_type():
    image, labels = draw_scene(3)
    assert image.shape == (256, 512, 3)
    assert labels.shape == (256, 512)
    assert image.dtype == labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*range(19), IGNORE_INDEX}


@pytest.mark.parametrize("size", [(64, 64), (64, 192), (128, 256), (200, 333), (512, 1024)])
def test_other_sizes(size):
    image, labels = draw_scene(0, size=size)
    assert image.shape == (*size, 3)
    assert labels.shape == size
    assert image.std() > 10


@pytest.mark.parametrize("size", [(63, 128), (128, 63), (256, 128), (100, 301)])
def test_sizes_that_cannot_be_drawn_are_named(size):
    with pytest.raises(DataError, match=f"{size[0]} x {size[1]}.*choose"):
        draw_scene(0, size=size)


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1)])
def test_negative_index_or_seed_is_an_error(index, seed):
    with pytest.raises(DataError, match="must not be negative"):
        draw_scene(index, seed)


# Reproducibility


def test_scene_depends_only_on_seed_and_index():
    first = draw_scene(5, seed=1)
    draw_scene(6, seed=1)
    again = draw_scene(5, seed=1)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_first_scene_stays_what_it_is():
    """Golden shares of scene 0; the tolerance allows for rasterisation details of other OpenCV versions."""
    image, labels = draw_scene(0)
    share = np.bincount(labels.ravel(), minlength=256) / labels.size
    expected = {"road": 0.245, "sidewalk": 0.053, "building": 0.375, "sky": 0.137, "bicycle": 0.008}
    for name, value in expected.items():
        assert share[LABEL[name]] == pytest.approx(value, abs=0.005), name
    np.testing.assert_allclose(image.mean(axis=(0, 1)), (85.4, 76.1, 86.7), atol=3)


@pytest.mark.parametrize("other", [(6, 1), (5, 2)])
def test_another_index_or_seed_gives_another_scene(other):
    labels, other_labels = draw_scene(5, seed=1)[1], draw_scene(*other)[1]
    assert (labels != other_labels).mean() > 0.1


def test_layout_does_not_depend_on_the_size():
    small, large = draw_scene(11)[1], draw_scene(11, size=(512, 1024))[1]
    agreement = (small == large[::2, ::2]).mean()
    assert agreement > 0.93


def test_process_wide_random_state_is_neither_used_nor_changed():
    np.random.seed(0)  # noqa: NPY002
    before = hashlib.sha256(np.random.get_state()[1].tobytes()).hexdigest()  # noqa: NPY002
    draw_scene(2)
    assert hashlib.sha256(np.random.get_state()[1].tobytes()).hexdigest() == before  # noqa: NPY002


# Content


def test_every_class_is_in_at_least_one_scene_out_of_ten(sample):
    counts = np.stack([np.bincount(labels.ravel(), minlength=256) for labels in sample[1]])
    share = (counts[:, :19] >= 20).mean(axis=0)
    rare = {name: round(float(value), 3) for name, value in zip(CITYSCAPES.names, share, strict=True) if value < 0.1}
    assert rare == {}
    assert (counts[:, IGNORE_INDEX] > 0).mean() > 0.3


def test_no_class_fills_more_than_half_of_the_pixels(sample):
    share = np.bincount(sample[1].ravel(), minlength=256) / sample[1].size
    assert share.max() < 0.5
    assert share[LABEL["road"]] > 0.1


def test_layout_varies_between_scenes(sample):
    """A constant prediction, the most frequent label of every pixel, must be a poor one."""
    labels = sample[1][:, ::4, ::4]
    votes = np.stack([(labels == train_id).sum(axis=0) for train_id in range(19)])
    constant = votes.argmax(axis=0)
    ious = []
    for train_id in range(19):
        hit = ((labels == train_id) & (constant == train_id)).sum()
        union = ((labels == train_id) | ((constant == train_id)[None] & (labels != IGNORE_INDEX))).sum()
        ious.append(hit / max(union, 1))
    assert np.mean(ious) < 0.25


def test_light_varies_between_scenes(sample):
    brightness = sample[0].mean(axis=(1, 2, 3))
    assert brightness.std() > 10
    assert 50 < brightness.mean() < 180


def test_mean_colour_does_not_give_the_class_away(sample):
    """Colours overlap: nearest mean colour must be a bad classifier of the movable objects."""
    movable = [LABEL[name] for name in ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")]
    pixels = sample[0].reshape(-1, 3).astype(float)
    labels = sample[1].ravel()
    means = np.stack([pixels[labels == train_id].mean(axis=0) for train_id in movable])
    recalls = []
    for row, train_id in enumerate(movable):
        own = pixels[labels == train_id][::7]
        nearest = ((own[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
        recalls.append((nearest == row).mean())
    assert np.mean(recalls) < 0.4


def test_edges_of_the_picture_follow_the_labels(sample):
    """Picture and labels come from one geometry: label edges carry far more contrast than other places."""
    ratios = []
    for image, labels in zip(*sample, strict=True):
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
        step = np.abs(np.diff(grey, axis=1))
        edge = np.diff(labels.astype(int), axis=1) != 0
        ratios.append(step[edge].mean() / step[~edge].mean())
    assert np.median(ratios) > 3


def test_thin_structures_are_thin_and_present(sample):
    """Most pole pixels vanish under a 9-pixel-wide opening, yet poles exist."""
    poles = (sample[1] == LABEL["pole"]).astype(np.uint8)
    wide = sum(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((1, 15), np.uint8)).sum() for mask in poles)
    assert poles.sum() > 1000
    assert wide / poles.sum() < 0.35


# Building blocks


def test_camera_projects_by_the_pinhole_equations():
    camera = Camera(height=1.5, focal=400.0, center_x=250.0, horizon=120.0)
    assert camera.point(2.0, 0.5, 10.0) == pytest.approx((250 + 400 * 2 / 10, 120 + 400 * 1.0 / 10))
    points = np.array([[2.0, 0.5, 10.0], [-1.0, 1.5, 40.0]])
    np.testing.assert_allclose(camera.project(points), [[330.0, 160.0], [240.0, 120.0]])


def test_one_stroke_writes_colour_and_label_to_the_same_pixels():
    canvas = Canvas(20, 30)
    strokes = Strokes(canvas, lambda points: points)
    strokes.add(np.array([[(3.0, 4.0), (9.0, 4.0), (9.0, 8.0), (3.0, 8.0)]]), (10, 20, 30), 7)
    strokes.add(np.array([[(0.0, 15.0), (29.0, 15.0)]]), (40, 50, 60), 9, width=2)
    strokes.draw()
    painted = canvas.pixels[..., :3].any(axis=-1)
    np.testing.assert_array_equal(painted, canvas.pixels[..., 3] > 0)
    assert painted[4:9, 3:10].all()
    assert (canvas.pixels[6, 5] == (10, 20, 30, 7)).all()
    assert (canvas.pixels[15, 20] == (40, 50, 60, 9)).all()


def test_stamp_leaves_transparent_pixels_alone_and_clips():
    canvas = Canvas(8, 8)
    sprite = np.array([[0, 127], [1, 0]])
    canvas.stamp(sprite, (-2.0, 0.0, 4.0, 4.0), make_palette((0, 0, 0), (254, 254, 254), 8))
    labels = canvas.pixels[..., 3]
    np.testing.assert_array_equal(labels[:4, :4], [[0, 8, 8, 8], [0, 8, 8, 8], [8, 0, 0, 0], [8, 0, 0, 0]])
    assert labels[4:].sum() == labels[:, 4:].sum() == 0
    assert (canvas.pixels[0, 1] == (254, 254, 254, 8)).all()


def test_dice_are_uniform_and_repeatable():
    dice, again = Dice((3, 4)), Dice((3, 4))
    draws = [dice.random() for _ in range(4000)]
    assert draws == [again.random() for _ in range(4000)]
    assert np.mean(draws) == pytest.approx(0.5, abs=0.02)
    assert {dice.integer(2, 4) for _ in range(200)} == {2, 3, 4}
    picks = [dice.weighted({"often": 0.9, "seldom": 0.1}) for _ in range(2000)]
    assert picks.count("often") / 2000 == pytest.approx(0.9, abs=0.03)


def test_mix_reaches_both_ends():
    assert mix((10, 20, 30), (200, 100, 0), 0.0) == (10, 20, 30)
    assert mix((10, 20, 30), (200, 100, 0), 1.0) == (200, 100, 0)


def test_noise_tiles_are_periodic_and_standardised():
    for name, tile in noise_tiles().items():
        np.testing.assert_array_equal(tile[:512, :512], tile[512:, 512:])
        assert abs(tile.mean()) < 1e-3, name
        assert 0.5 < tile.std() < 1.2, name


def test_foliage_has_ragged_outlines_and_holes_no_wider_than_the_sprite():
    for sprite in foliage_sprites():
        cover = (sprite > 0).mean()
        assert 0.3 < cover < 0.95
        assert sprite.min() >= 0
        assert sprite.max() <= 127


# Data set


def test_dataset_counts_from_start():
    dataset = ScenesDataset(4, start=10, seed=3, size=(64, 128))
    assert len(dataset) == 4
    image, labels = dataset.load(2)
    expected = draw_scene(12, 3, (64, 128))
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(labels, expected[1])
    assert dataset.name(2) == "scenes/scenes_000012_000019"
    assert len({dataset.name(index) for index in range(4)}) == 4


@pytest.mark.parametrize("index", [-1, 4])
def test_dataset_refuses_indices_out_of_range(index):
    with pytest.raises(IndexError, match="4 scenes"):
        ScenesDataset(4).load(index)


def test_dataset_needs_samples():
    with pytest.raises(DataError, match="num_samples must be at least 1, got 0"):
        ScenesDataset(0)


# On disk


def test_written_scenes_are_the_drawn_ones_in_cityscapes_layout(tmp_path):
    out = tmp_path / "scenes"
    write_scenes(out, num_train=2, num_val=1, seed=5, size=(64, 128))
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert files == [
        "gtFine/train/scenes/scenes_000000_000019_gtFine_labelIds.png",
        "gtFine/train/scenes/scenes_000001_000019_gtFine_labelIds.png",
        "gtFine/val/scenes/scenes_000002_000019_gtFine_labelIds.png",
        "leftImg8bit/train/scenes/scenes_000000_000019_leftImg8bit.png",
        "leftImg8bit/train/scenes/scenes_000001_000019_leftImg8bit.png",
        "leftImg8bit/val/scenes/scenes_000002_000019_leftImg8bit.png",
    ]
    image, labels = draw_scene(2, 5, (64, 128))
    stored = cv2.imread(str(out / files[5]))
    np.testing.assert_array_equal(stored[..., ::-1], image)
    ids = cv2.imread(str(out / files[2]), cv2.IMREAD_UNCHANGED)
    official = {**CITYSCAPES_TRAIN_ID_TO_ID, IGNORE_INDEX: 0}
    np.testing.assert_array_equal(ids, np.vectorize(official.get)(labels))


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="not an empty folder"):
        write_scenes(tmp_path, 1, 1, size=(64, 128))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
