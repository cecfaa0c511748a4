"""What networks and their parts say to input that they are not made for: one message each, or the right numbers."""

import functools
import math

import pytest
import torch

from gscnn_lightning.errors import GSCNNError
from gscnn_lightning.models import GSCNN, BoundaryASPP, GatedConv2d, ImageGradient, ShapeStream, canny, sobel
from gscnn_lightning.models.refinement import ConvexUpsampling

TINY = {"backbone": "test_resnet", "pretrained": False, "channels": 16, "skip_channels": 8, "shape_channels": 16}
IMAGE = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
BYTES = (IMAGE * 255).byte()


def maps(channels, height=8, width=12, batch=2):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def made(num_classes=4, **settings):
    return GSCNN(num_classes, **{**TINY, **settings})


@functools.cache
def network(**settings):
    torch.manual_seed(0)
    return made(**settings).eval()


def seen(image, *args, **kwargs):
    with torch.no_grad():
        return network()(image, *args, **kwargs).seg_logits


def shape_stream(*args, **kwargs):
    return ShapeStream(16, [4, 8, 16], 16).eval()(*args, **kwargs)


OTHER_ERRORS = (
    "backbone",
    "backbone None",
    "output_stride 4",
    "freeze_stages 9",
    "freeze_stages 1.5",
    "backbone_weights",
)
WIDTH = "{} is {}: give a whole number of 1 or more"

BAD = {
    "K = 0": (lambda: made(0), "num_classes is 0: .* at least 2"),
    "K = 1": (lambda: made(1), "num_classes is 1: .* at least 2"),
    "K = 2.5": (lambda: made(2.5), "num_classes is 2.5: .* at least 2"),
    "K as text": (lambda: made("19"), "num_classes is '19': .* at least 2"),
    "channels 0": (lambda: made(channels=0), WIDTH.format("channels", 0)),
    "channels 16.5": (lambda: made(channels=16.5), WIDTH.format("channels", 16.5)),
    "skip_channels -1": (lambda: made(skip_channels=-1), WIDTH.format("skip_channels", -1)),
    "shape_channels 12": (lambda: made(shape_channels=12), "shape_channels 12 cannot be halved three times: use"),
    "shape_channels 16.0": (lambda: made(shape_channels=16.0), "shape_channels 16.0 cannot be halved"),
    "norm": (lambda: made(norm="layer"), "norm 'layer' is not known: use 'batch' or 'group'"),
    "refine": (lambda: made(refine="sharp"), "refine is 'sharp': use 'none' or 'convex'"),
    "stream_start": (lambda: made(stream_start="last"), "stream_start is 'last': use 'first' or 'skip'"),
    "image_gradient": (lambda: made(image_gradient="laplace"), "image_gradient 'laplace' is not known: use one of"),
    "backbone": (lambda: made(backbone="resnet5O"), "unknown backbone 'resnet5O'.*Did you mean"),
    "backbone None": (lambda: made(backbone=None), "backbone is None: give the name of a timm model"),
    "output_stride 4": (lambda: made(output_stride=4), "output_stride 4 is not possible: use 8, 16 or 32"),
    "freeze_stages 9": (lambda: made(freeze_stages=9), "freeze_stages is 9, but backbone 'test_resnet' has"),
    "freeze_stages 1.5": (lambda: made(freeze_stages=1.5), "freeze_stages is 1.5, but backbone"),
    "backbone_weights": (lambda: made(backbone_weights="nowhere.pth"), "nowhere.pth does not exist: check the path"),
    "int16 image": (lambda: seen(BYTES.short()), r"image has data type torch.int16: give uint8, or .* in \[0, 1\]"),
    "int64 image": (lambda: seen(BYTES.long()), "image has data type torch.int64: give uint8"),
    "bool image": (lambda: seen(IMAGE > 0.5), "image has data type torch.bool: give uint8"),
    "complex image": (lambda: seen(IMAGE + 0j), "image has data type torch.complex64: give uint8"),
    "float image of 0 to 255": (
        lambda: seen(BYTES.float()),
        r"image has values up to 25\d: give uint8, or floating-point numbers in \[0, 1\] \(image / 255\)",
    ),
    "NaN in the image": (lambda: seen(IMAGE * math.nan), "image has values up to nan: give"),
    "image of NumPy": (lambda: seen(BYTES.numpy()), r"image is ndarray, no tensor: make one of it"),
    "grey image": (lambda: seen(IMAGE[:, :1]), r"image has shape \(2, 1, 32, 48\).* \(B, 3, H, W\) RGB"),
    "RGBA image": (lambda: seen(torch.cat([IMAGE, IMAGE[:, :1]], 1)), r"image has shape \(2, 4, 32, 48\)"),
    "channels last": (lambda: seen(BYTES.movedim(1, -1)), r"image has shape \(2, 32, 48, 3\)"),
    "one image": (lambda: seen(IMAGE[0]), r"image has shape \(3, 32, 48\)"),
    "small image": (lambda: seen(IMAGE[..., :31]), "image is 32x31 pixels: pad it to at least 32x32"),
    "image elsewhere": (lambda: seen(IMAGE.to("meta")), "image is on meta and the network on cpu: move one"),
    "stride 0": (lambda: seen(IMAGE, stride=0), "stride is 0: give a whole number of 1 or more"),
    "stride 1.5": (lambda: seen(IMAGE, stride=1.5), "stride is 1.5: give a whole number of 1 or more"),
    "gradient of another batch": (
        lambda: seen(IMAGE, maps(1, 32, 48, 1)),
        r"gradient has shape \(1, 1, 32, 48\): give \(2, 1, h, w\)",
    ),
    "gradient in colour": (lambda: seen(IMAGE, IMAGE), r"gradient has shape \(2, 3, 32, 48\): give \(2, 1, h, w\)"),
    "gate, no channels": (lambda: GatedConv2d(0), WIDTH.format("channels", 0)),
    "gate, norm": (lambda: GatedConv2d(4, "layer"), "norm 'layer' is not known"),
    "gate, other channels": (
        lambda: GatedConv2d(4)(maps(5), maps(1)),
        r"features has shape \(2, 5, 8, 12\): give \(B, 4, h, w\)",
    ),
    "gate, gating of two channels": (
        lambda: GatedConv2d(4)(maps(4), maps(2)),
        r"gating has shape \(2, 2, 8, 12\): give \(2, 1, 8, 12\)",
    ),
    "gate, gating of one place": (
        lambda: GatedConv2d(4)(maps(4), maps(1, 1, 1)),
        r"gating has shape \(2, 1, 1, 1\): give \(2, 1, 8, 12\)",
    ),
    "shape stream, no input": (lambda: ShapeStream(0, [1, 1, 1]), WIDTH.format("in_channels", 0)),
    "shape stream, two gates": (lambda: ShapeStream(8, [1, 1]), "three gates, but 2 gating maps were given"),
    "shape stream, one number": (lambda: ShapeStream(8, 3), "gating_channels is 3: give three"),
    "shape stream, gate of no channels": (
        lambda: ShapeStream(8, [1, 0, 1]),
        r"gating_channels is \[1, 0, 1\]: give three",
    ),
    "shape stream, 20 channels": (lambda: ShapeStream(8, [1, 1, 1], 20), "shape_channels 20 cannot be halved"),
    "shape stream, other first map": (
        lambda: shape_stream(maps(8), [maps(4), maps(8), maps(16)]),
        r"first_map has shape \(2, 8, 8, 12\): give \(B, 16, h, w\)",
    ),
    "shape stream, two maps": (
        lambda: shape_stream(maps(16), [maps(4), maps(8)]),
        "three gates, but 2 gating maps were given",
    ),
    "shape stream, four maps": (
        lambda: shape_stream(maps(16), [maps(4), maps(8), maps(16), maps(16)]),
        "three gates, but 4 gating maps were given",
    ),
    "shape stream, maps in another order": (
        lambda: shape_stream(maps(16), [maps(16), maps(8), maps(4)]),
        r"gating map 0 has shape \(2, 16, 8, 12\): give \(B, 4, h, w\)",
    ),
    "ASPP, no input": (lambda: BoundaryASPP(0), WIDTH.format("in_channels", 0)),
    "ASPP, no channels": (lambda: BoundaryASPP(8, 0), WIDTH.format("channels", 0)),
    "ASPP, rate 0": (lambda: BoundaryASPP(8, 4, (0,)), r"rates is \(0,\): give dilations of 1 or more"),
    "ASPP, one rate": (lambda: BoundaryASPP(8, 4, 12), "rates is 12: give dilations of 1 or more"),
    "ASPP, no attention": (lambda: BoundaryASPP(8, 4).eval()(maps(8)), "boundary_attention is missing"),
    "ASPP, attention too much": (
        lambda: BoundaryASPP(8, 4, boundary=False).eval()(maps(8), maps(1)),
        "boundary_attention is given",
    ),
    "ASPP, other features": (
        lambda: BoundaryASPP(8, 4).eval()(maps(9), maps(1)),
        r"features has shape \(2, 9, 8, 12\): give \(B, 8, h, w\)",
    ),
    "ASPP, attention of one image": (
        lambda: BoundaryASPP(8, 4).eval()(maps(8), maps(1, batch=1)),
        r"boundary_attention has shape \(1, 1, 8, 12\): give \(2, 1, h, w\)",
    ),
    "upsampling, no classes": (lambda: ConvexUpsampling(0, 8, 8), WIDTH.format("num_classes", 0)),
    "upsampling, no channels": (lambda: ConvexUpsampling(3, 8, 0), WIDTH.format("channels", 0)),
    "upsampling, no fine channels": (lambda: ConvexUpsampling(3, 0, 8), WIDTH.format("fine_channels", 0)),
    "upsampling, width 0": (lambda: ConvexUpsampling(3, 8, 8, width=0), WIDTH.format("width", 0)),
    "upsampling, ratio 0": (lambda: ConvexUpsampling(3, 8, 8, 0), WIDTH.format("ratio", 0)),
    "upsampling, no fine map": (
        lambda: ConvexUpsampling(3, 8, 8, 4).eval()(maps(3), maps(8), []),
        "fine maps have 0 channels in all: give 8",
    ),
    "upsampling, other fine maps": (
        lambda: ConvexUpsampling(3, 8, 8, 4).eval()(maps(3), maps(8), [maps(4, 32, 48), maps(3, 32, 48)]),
        "fine maps have 7 channels in all: give 8",
    ),
    "upsampling, fine maps of several sizes": (
        lambda: ConvexUpsampling(3, 8, 8, 4).eval()(maps(3), maps(8), [maps(4, 32, 48), maps(4, 16, 24)]),
        r"fine map 1 has shape \(2, 4, 16, 24\): give \(2, c, 32, 48\)",
    ),
    "upsampling, coarse fine map": (
        lambda: ConvexUpsampling(3, 8, 8, 4).eval()(maps(3), maps(8), [maps(8, 4, 6)]),
        r"fine maps are 4x6 .* scores 8x12: give maps 4 times as large",
    ),
    "upsampling, other features": (
        lambda: ConvexUpsampling(3, 8, 8, 4).eval()(maps(3), maps(9), [maps(8, 32, 48)]),
        r"features has shape \(2, 9, 8, 12\): give \(B, 8, h, w\)",
    ),
    "image gradient, kind": (lambda: ImageGradient("prewitt"), "image_gradient 'prewitt' is not known: use one of"),
    "image gradient, mean of two": (
        lambda: ImageGradient("release", torch.zeros(2)),
        r"mean has shape \(2,\): give three numbers",
    ),
    "image gradient, std 0": (
        lambda: ImageGradient("release", torch.zeros(3), torch.zeros(3)),
        "std holds 0: give three numbers above 0",
    ),
    "image gradient, grey": (lambda: ImageGradient()(IMAGE[:, :1]), r"image has shape \(2, 1, 32, 48\)"),
    "image gradient, int16": (lambda: ImageGradient()(BYTES.short()), "image has data type torch.int16: give uint8"),
    "Canny, floats": (lambda: canny(IMAGE), r"image has data type torch.float32: give integers 0 to 255"),
    "Canny, one image": (lambda: canny(BYTES[0]), r"image has shape \(3, 32, 48\): give \(B, C, H, W\)"),
    "Sobel, bytes": (lambda: sobel(BYTES), r"image has data type torch.uint8: give floating-point numbers in \[0, 1\]"),
    "Sobel, one image": (lambda: sobel(IMAGE[0]), r"image has shape \(3, 32, 48\): give \(B, C, H, W\)"),
}


def in_double():
    torch.manual_seed(0)
    return made().eval().double()(IMAGE).seg_logits.float().detach()


def gradient_of(kind):
    return ImageGradient(kind, torch.full((3,), 0.5), torch.full((3,), 0.25))


RIGHT = {
    "float64 image": lambda: (seen(IMAGE.double()), seen(IMAGE)),
    "float16 image": lambda: (seen(IMAGE.half()), seen(IMAGE.half().float())),
    "network in float64": lambda: (in_double(), seen(IMAGE)),
    "no images": lambda: (seen(IMAGE[:0]), seen(IMAGE)[:0]),
    "not contiguous": lambda: (seen(BYTES.movedim(1, -1).contiguous().movedim(-1, 1)), seen(BYTES)),
    "slightly out of range": lambda: (seen(IMAGE * 1.1 - 0.05).isfinite().all(), torch.tensor(True)),
    "gradient of another size": lambda: (seen(IMAGE, maps(1, 64, 96)).shape, seen(IMAGE).shape),
    **{
        f"image gradient {kind} of bytes": lambda kind=kind: (
            gradient_of(kind)(BYTES),
            gradient_of(kind)(BYTES.float() / 255),
        )
        for kind in ("canny", "sobel", "none", "release")
    },
    "image gradient, mean of three": lambda: (
        gradient_of("release")(IMAGE),
        ImageGradient("release", torch.full((1, 3, 1, 1), 0.5), torch.full((1, 3, 1, 1), 0.25))(IMAGE),
    ),
    "Canny, thresholds the other way round": lambda: (canny(BYTES, 100, 10), canny(BYTES, 10, 100)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(GSCNNError if name in OTHER_ERRORS else ValueError) as told:
        call()
    told.match(message)


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_input_is_handled_right(name):
    found, expected = RIGHT[name]()
    if isinstance(found, torch.Tensor):
        torch.testing.assert_close(found, expected)
    assert found.shape == expected.shape if isinstance(found, torch.Tensor) else found == expected


def test_noise_is_an_image_and_training_never_looks_at_the_values():
    """A first try of a network is mostly one on random numbers."""
    seen(torch.randn(1, 3, 32, 32))
    made().train()(BYTES.float())
