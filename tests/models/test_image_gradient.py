import cv2
import numpy as np
import pytest
import torch
from skimage import data

from gscnn_lightning.models import ImageGradient, canny, sobel


def tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("photo", ["astronaut", "coffee", "chelsea", "rocket"])
def test_canny_is_opencvs_on_photographs(photo):
    image = getattr(data, photo)()
    expected = cv2.Canny(image, 10, 100) > 0
    edges = canny(tensor(image), 10, 100)[0, 0].numpy()
    assert expected.mean() > 0.02
    assert (edges != expected).mean() <= 0.001
    assert (ImageGradient("canny")(tensor(image) / 255)[0, 0].numpy() != edges).mean() == 0


@pytest.mark.parametrize("root", ["cityscapes_root", "camvid_root"])
def test_canny_is_opencvs_on_road_scenes(root, request):
    files = sorted(
        p for p in request.getfixturevalue(root).rglob("*") if p.match("leftImg8bit/*/*/*.png") or p.match("val/*.jpg")
    )
    for path in files[:: max(1, len(files) // 4)][:4]:
        image = cv2.imread(str(path))
        edges = canny(tensor(image), 10, 100)[0, 0].numpy()
        assert (edges != (cv2.Canny(image, 10, 100) > 0)).mean() <= 0.001, path


@pytest.mark.parametrize("size", [(32, 32), (37, 51), (40, 33)])
def test_canny_is_opencvs_on_noise_of_any_size(size):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), dtype=np.uint8), (0, 0), 2)
    np.testing.assert_array_equal(canny(tensor(image))[0, 0].numpy(), cv2.Canny(image, 10, 100) > 0)


def test_images_of_a_batch_do_not_mix():
    a, b = tensor(data.coffee()[:96, :128]), tensor(data.chelsea()[:96, :128])
    torch.testing.assert_close(canny(torch.cat([a, b])), torch.cat([canny(a), canny(b)]))


def test_release_gradient_is_what_the_checkpoint_saw(reference):
    arrays = reference("network.npz")
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1),
    )
    for photo in ("a", "b"):
        gradient = ImageGradient("release", mean, std)(tensor(arrays[f"{photo}/image_u8"]) / 255)
        np.testing.assert_array_equal(gradient.numpy(), arrays[f"{photo}/canny"])


def test_sobel_of_a_step_and_its_range():
    image = torch.zeros(1, 3, 6, 8)
    image[..., 4:] = 0.5
    expected = torch.zeros(1, 1, 6, 8)
    expected[..., 3:5] = 0.5
    torch.testing.assert_close(sobel(image), expected)
    assert sobel(torch.rand(2, 3, 16, 16).round()).max() <= 1


def test_none_is_zero_and_unknown_is_named():
    assert not ImageGradient("none")(torch.rand(1, 3, 8, 8)).any()
    with pytest.raises(ValueError, match="image_gradient 'prewitt' is not known: use one of canny, sobel"):
        ImageGradient("prewitt")
