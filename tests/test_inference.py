"""Windows, scales and flips on small networks whose results are known."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from gscnn_lightning.inference import predict_logits
from gscnn_lightning.models import GSCNN, GSCNNOutput


class Local(nn.Module):
    """Five classes, boundaries and gates from 5x5 neighbourhoods: it sees two pixels far."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.seg, self.boundary = nn.Conv2d(3, 5, 5, padding=2), nn.Conv2d(3, 1, 5, padding=2)
        self.seen = []

    def forward(self, image):
        self.seen.append(tuple(image.shape[-2:]))
        boundary = self.boundary(image)
        return GSCNNOutput(self.seg(image), boundary, (boundary.sigmoid(),))


@pytest.fixture
def network():
    return Local().eval()


def image(*size, batch=2):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def gscnn():
    torch.manual_seed(0)
    settings = {"channels": 16, "skip_channels": 8, "shape_channels": 16}
    return GSCNN(4, "test_resnet", pretrained=False, **settings).eval()


def test_without_options_it_is_the_network(gscnn):
    picture = image(65, 97)
    output = predict_logits(gscnn, picture)
    with torch.no_grad():
        expected = gscnn(picture)
    assert isinstance(output, GSCNNOutput)
    assert all(a.equal(b) for a, b in zip(output[:2], expected[:2], strict=True))
    assert all(a.equal(b) for a, b in zip(output.gates, expected.gates, strict=True))
    assert not output.seg_logits.requires_grad


@pytest.mark.parametrize("window", [(64, 96), (200, 300)])
def test_window_that_covers_the_image_is_the_network(gscnn, window):
    picture = image(64, 96)
    expected = predict_logits(gscnn, picture)
    assert predict_logits(gscnn, picture, window=window).seg_logits.equal(expected.seg_logits)


@pytest.mark.parametrize("size", [(100, 150), (61, 200), (33, 40)])
@pytest.mark.parametrize("window", [(40, 48), (32, 64)])
@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.7])
def test_windows_equal_the_whole_where_the_network_sees_no_farther_than_the_margin(network, size, window, overlap):
    """A quarter of the overlap is 2 pixels or more here, which is what the network sees."""
    whole = predict_logits(network, image(*size))
    network.seen.clear()
    windows = predict_logits(network, image(*size), window=window, overlap=overlap)
    assert all(h <= window[0] and w <= window[1] for h, w in network.seen)
    for a, b in zip((*windows[:2], *windows.gates), (*whole[:2], *whole.gates), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [2, 3, 100])
def test_windows_in_batches_equal_one_by_one(network, gscnn, number):
    for one in (network, gscnn):
        settings = {"window": (40, 48), "overlap": 0.3, "scales": (1.0, 1.5)}
        expected = predict_logits(one, image(70, 130), **settings, window_batch=1)
        output = predict_logits(one, image(70, 130), **settings, window_batch=number)
        for a, b in zip((*output[:2], *output.gates), (*expected[:2], *expected.gates), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"window": (40, 48)}, {"flip": True}])
def test_gates_come_when_they_are_asked_for(network, options):
    expected = predict_logits(network, image(64, 96), **options)
    output = predict_logits(network, image(64, 96), **options, gates=False)
    assert len(expected.gates) == 1
    assert output.gates == ()
    assert all(a.equal(b) for a, b in zip(output[:2], expected[:2], strict=True))


def test_windows_without_overlap_tile_the_image():
    pointwise = nn.Conv2d(3, 4, 1)
    picture = image(64, 96)
    torch.testing.assert_close(
        predict_logits(pointwise, picture, window=(32, 32), overlap=0.0), pointwise(picture), rtol=0, atol=1e-6
    )


def test_farther_sight_than_the_margin_differs_only_near_the_seams(network):
    whole = predict_logits(network, image(64, 200))
    tiled = predict_logits(network, image(64, 200), window=(64, 50), overlap=0.0)
    wrong = (whole.seg_logits - tiled.seg_logits).abs().amax((0, 1, 2)) > 1e-5
    seams = torch.zeros(200, dtype=torch.bool)
    for seam in (50, 100, 150):
        seams[seam - 2 : seam + 2] = True
    assert wrong.equal(seams)


def test_flip_averages_probabilities_and_makes_the_result_symmetric(network):
    picture = image(40, 50)
    output = predict_logits(network, picture, flip=True)
    plain, mirrored = predict_logits(network, picture), predict_logits(network, picture.flip(-1))
    mean = (plain.seg_logits.softmax(1) + mirrored.seg_logits.flip(-1).softmax(1)) / 2
    torch.testing.assert_close(output.seg_logits.softmax(1), mean)
    torch.testing.assert_close(output.seg_logits.exp(), mean)
    boundary = (plain.boundary_logits.sigmoid() + mirrored.boundary_logits.flip(-1).sigmoid()) / 2
    torch.testing.assert_close(output.boundary_logits.sigmoid(), boundary)
    torch.testing.assert_close(output.gates[0], (plain.gates[0] + mirrored.gates[0].flip(-1)) / 2)
    again = predict_logits(network, picture.flip(-1), flip=True)
    torch.testing.assert_close(again.seg_logits.flip(-1), output.seg_logits)


def test_scales_average_resized_predictions(network):
    picture = image(40, 64)
    output = predict_logits(network, picture, scales=(1.0, 2.0))
    resize = {"mode": "bilinear", "align_corners": False}
    double = network(nn.functional.interpolate(picture, size=(80, 128), **resize)).seg_logits
    double = nn.functional.interpolate(double, size=(40, 64), **resize).softmax(1)
    mean = (predict_logits(network, picture).seg_logits.softmax(1) + double) / 2
    torch.testing.assert_close(output.seg_logits.softmax(1), mean)
    assert network.seen[:2] == [(40, 64), (80, 128)]


def test_windows_keep_their_size_at_every_scale(network):
    output = predict_logits(network, image(64, 96), window=(48, 48), scales=(0.5, 1.0, 2.0), flip=True)
    assert {s for s in network.seen if s[0] > 48 or s[1] > 48} == set()
    assert output.seg_logits.shape == (2, 5, 64, 96)
    torch.testing.assert_close(output.seg_logits.exp().sum(1), torch.ones(2, 64, 96))


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (31, 33), (97, 131)])
@pytest.mark.parametrize("options", [{}, {"window": (64, 64)}, {"scales": (0.5, 1.5), "flip": True}])
def test_any_size_in_same_size_out(gscnn, size, options):
    for picture in (image(*size, batch=1), (255 * image(*size, batch=1)).byte()):
        before = picture.clone()
        output = predict_logits(gscnn, picture, **options)
        assert output.seg_logits.shape == (1, 4, *size)
        assert output.boundary_logits.shape == (1, 1, *size)
        assert output.seg_logits.isfinite().all()
        assert output.boundary_logits.isfinite().all()
        assert picture.equal(before)


def test_control_and_plain_tensors(gscnn):
    control = GSCNN(3, "test_resnet", pretrained=False, channels=16, skip_channels=8, shape_stream=False).eval()
    output = predict_logits(control, image(64, 80), window=(48, 48), flip=True)
    assert output.boundary_logits is None
    assert output.gates == ()
    tensor = predict_logits(lambda x: control(x).seg_logits, image(64, 80), window=(48, 48), flip=True)
    torch.testing.assert_close(tensor, output.seg_logits)


def test_network_that_returns_its_input_leaves_it_alone():
    picture = image(40, 40)
    before = picture.clone()
    output = predict_logits(lambda x: x, picture, flip=True)
    assert picture.equal(before)
    torch.testing.assert_close(output.exp(), before.softmax(1))


def test_half_precision_is_blended_in_float32(network):
    output = predict_logits(lambda x: network(x).seg_logits.bfloat16(), image(64, 64), window=(48, 48))
    assert output.dtype == torch.float32


def test_certain_classes_stay_finite():
    def certain(x):
        return torch.cat([x[:, :1] * 0 + 1e4, x[:, :1] * 0 - 1e4], dim=1)

    output = predict_logits(certain, image(40, 40), flip=True)
    assert output.isfinite().all()
    assert output[:, 0].exp().eq(1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (16, 64)}, r"window is \(16, 64\).*32 at least"),
        ({"overlap": 1.0}, "overlap is 1.0"),
        ({"scales": ()}, "scales is"),
        ({"scales": (0.0,)}, "scales is"),
        ({"window_batch": 0}, "window_batch is 0"),
        ({"image": torch.zeros(3, 64, 64)}, "image has shape"),
    ],
)
def test_bad_settings_are_named(network, change, message):
    with pytest.raises(ValueError, match=message):
        predict_logits(**({"network": network, "image": image(40, 40)} | change))


# Not ru_maxrss, in which the memory of the process that has started this one counts, too.
MEMORY = """
from pathlib import Path
import torch
from gscnn_lightning.inference import predict_logits
from gscnn_lightning.models import GSCNN
network = GSCNN(19, "tf_efficientnet_lite0", pretrained=False, output_stride=16).eval()
image = torch.randint(0, 256, (1, 3, 1024, 2048), dtype=torch.uint8)
output = predict_logits(network, image, window=(1024, 1024), scales=(0.5, 1, 2), flip=True)
assert output.seg_logits.shape == (1, 19, 1024, 2048)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process its peak memory")
def test_three_scales_and_flip_of_a_cityscapes_frame_fit_into_3_gb():
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 3e6  # kilobytes, everything in the process included
