import albumentations as A
import cv2
import numpy as np
import pytest

from gscnn_lightning.data.transforms import RandomScaleCrop, training_transform


def frame(height=60, width=90, seed=0):
    """Image whose red channel is the mask, so that misalignment shows."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 5, (height // 10, width // 10), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[..., 0] = mask
    return image, mask


def crop(transform, image, mask, seed=0):
    transform.set_random_seed(seed)
    out = transform(image=image, mask=mask)
    return out["image"], out["mask"]


def test_crop_without_scaling_is_a_window_of_the_frame():
    image, mask = frame()
    image[..., 1], image[..., 2] = np.arange(60)[:, None], np.arange(90)  # every pixel says where it is from
    transform = RandomScaleCrop((20, 30), (1.0, 1.0))
    corners = set()
    for seed in range(200):
        cut, cut_mask = crop(transform, image, mask, seed)
        top, left = int(cut[0, 0, 1]), int(cut[0, 0, 2])
        assert np.array_equal(cut, image[top : top + 20, left : left + 30])
        assert np.array_equal(cut_mask, mask[top : top + 20, left : left + 30])
        corners.add((top, left))
    tops, lefts = zip(*corners, strict=True)
    assert min(tops) == 0
    assert max(tops) == 40
    assert min(lefts) <= 1
    assert max(lefts) >= 59


def test_window_has_the_size_of_the_crop_over_the_factor():
    _, mask = frame(600, 900)
    image = np.zeros((600, 900, 3), np.uint8)
    transform = RandomScaleCrop((100, 150), (0.5, 2.0))
    factors = []
    for seed in range(300):
        transform.set_random_seed(seed)
        drawn = transform.get_params_dependent_on_data({"shape": image.shape}, {"mask": mask})
        top, left, height, width = drawn["window"]
        assert 0 <= top <= 600 - height
        assert 0 <= left <= 900 - width
        assert width / 1.5 == pytest.approx(height, abs=1)
        factors.append(100 / height)
    assert min(factors) == pytest.approx(0.5, abs=0.02)
    assert max(factors) == pytest.approx(2.0, abs=0.04)
    assert np.mean(factors) == pytest.approx(1.25, abs=0.08)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.7, 1.6, 2.0])
def test_equals_scaling_the_whole_frame_and_cropping(factor):
    # The window is the whole frame, so both orders are the same thing.
    image, mask = frame()
    size = round(60 * factor), round(90 * factor)
    cut, cut_mask = crop(RandomScaleCrop(size, (factor, factor)), image, mask)
    interpolation = cv2.INTER_AREA if factor < 0.5 else cv2.INTER_LINEAR
    assert np.array_equal(cut, cv2.resize(image, size[::-1], interpolation=interpolation))
    rows = np.floor((np.arange(size[0]) + 0.5) * 60 / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * 90 / size[1]).astype(int)
    assert np.mean(cut_mask != mask[rows][:, columns]) < 0.02  # ties between two pixel centres may fall either way


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3, 2.0])
def test_image_and_mask_stay_aligned(factor):
    # A vertical edge, scaled: it must not move in the mask against the image by more than half a pixel.
    mask = np.zeros((200, 200), np.uint8)
    mask[:, 100:] = 1
    image = np.repeat(mask[..., None] * 255, 3, axis=2)
    for seed in range(20):
        cut, cut_mask = crop(RandomScaleCrop((80, 100), (factor, factor)), image, mask, seed)
        assert abs(cut[0, :, 0].sum() / 255 - cut_mask[0].sum()) <= 0.51


def test_outside_of_the_frame_is_grey_and_void():
    image, mask = np.full((40, 50, 3), 9, np.uint8), np.full((40, 50), 3, np.uint8)
    places = set()
    for seed in range(30):
        cut, cut_mask = crop(RandomScaleCrop((64, 64), (1.0, 1.0)), image, mask, seed)
        assert (cut_mask == 3).sum() == 40 * 50
        assert (cut_mask == 255).sum() == 64 * 64 - 40 * 50
        assert np.array_equal(np.unique(cut[cut_mask == 255], axis=0), [[124, 116, 104]])
        assert (cut[cut_mask == 3] == 9).all()
        places.add(tuple(np.argwhere(cut_mask == 3)[0]))
    assert len(places) > 10


def test_class_uniform_finds_the_rare_class():
    mask = np.zeros((200, 300), np.uint8)
    mask[:, 150:] = 255
    mask[77, 33] = 8
    image = np.zeros((200, 300, 3), np.uint8)
    transform = RandomScaleCrop((21, 21), (1.0, 1.0), class_uniform=1.0)
    masks = [crop(transform, image, mask, seed)[1] for seed in range(200)]
    # Two classes: half of the crops are centred on the single pixel; void is never chosen.
    assert 75 <= sum(cut[10, 10] == 8 for cut in masks) <= 125
    assert all(cut[10, 10] != 255 for cut in masks)
    plain = RandomScaleCrop((21, 21), (1.0, 1.0))
    assert sum((crop(plain, image, mask, seed)[1] == 8).any() for seed in range(200)) <= 10


def test_class_uniform_draws_all_pixels_of_a_class_alike():
    mask = np.full((30, 30), 255, np.uint8)
    mask[10, 10], mask[20, 12:15] = 4, 4
    image = np.zeros((30, 30, 3), np.uint8)
    image[10, 10], image[20, 12:15] = 1, [[2] * 3, [3] * 3, [4] * 3]
    transform = RandomScaleCrop((3, 3), (1.0, 1.0), class_uniform=1.0)
    centres = [int(crop(transform, image, mask, seed)[0][1, 1, 0]) for seed in range(400)]
    assert np.bincount(centres, minlength=5)[1:] == pytest.approx(100, abs=35)


def test_class_uniform_accepts_all_void():
    image, mask = np.zeros((30, 30, 3), np.uint8), np.full((30, 30), 255, np.uint8)
    _, cut = crop(RandomScaleCrop((8, 8), class_uniform=1.0), image, mask)
    assert cut.shape == (8, 8)
    assert (cut == 255).all()


def test_pipeline_changes_colours_but_no_label():
    image, mask = frame(100, 120)
    transform = training_transform((100, 120), (1.0, 1.0), flip=0.0, color_jitter=0.4, blur=1.0)
    cut, cut_mask = crop(transform, image, mask)
    assert np.array_equal(cut_mask, mask)
    assert cut.dtype == np.uint8
    assert not np.array_equal(cut, image)


def test_flip_moves_image_and_mask_together():
    image, mask = frame()
    transform = training_transform(None, flip=1.0, color_jitter=0.0, blur=0.0)
    cut, cut_mask = crop(transform, image, mask)
    assert np.array_equal(cut, image[:, ::-1])
    assert np.array_equal(cut_mask, mask[:, ::-1])


def test_switched_off_is_the_identity():
    image, mask = frame()
    cut, cut_mask = crop(training_transform(None, flip=0.0, color_jitter=0.0, blur=0.0), image, mask)
    assert np.array_equal(cut, image)
    assert np.array_equal(cut_mask, mask)


def test_same_seed_same_sample_and_inputs_untouched():
    image, mask = frame(120, 160)
    before = image.copy(), mask.copy()
    transform = training_transform((64, 64), class_uniform=0.5)
    first, again, other = (crop(transform, image, mask, seed) for seed in (1, 1, 2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(image, before[0])
    assert np.array_equal(mask, before[1])


def test_composes_with_stock_transforms_and_has_a_repr():
    image, mask = frame()
    pipeline = A.Compose([RandomScaleCrop((16, 24)), A.VerticalFlip(p=1.0)], seed=0)
    out = pipeline(image=image, mask=mask)
    assert out["image"].shape == (16, 24, 3)
    assert out["mask"].shape == (16, 24)
    assert "size=(16, 24)" in repr(pipeline)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_size": (0, 8)}, r"crop size .* got \(0, 8\)"),
        ({"crop_size": (8, 8), "scale": (2.0, 0.5)}, r"scale .* got \(2.0, 0.5\)"),
        ({"crop_size": (8, 8), "scale": (0.0, 1.0)}, r"scale .* got \(0.0, 1.0\)"),
        ({"crop_size": None, "flip": 1.5}, "flip is a probability .* got 1.5"),
        ({"crop_size": None, "blur": -1}, "blur is a probability .* got -1"),
        ({"crop_size": None, "class_uniform": 2}, "class_uniform is a probability .* got 2"),
        ({"crop_size": None, "color_jitter": 1.0}, "color_jitter .* got 1.0"),
    ],
)
def test_wrong_numbers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        training_transform(**arguments)
