"""Layers against the numbers of the published program: forward, gradients and running statistics in both modes."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from gscnn_lightning.models import GSCNN, BoundaryASPP, GatedConv2d, ShapeStream
from gscnn_lightning.models.layers import (
    BatchNorm2d,
    make_norm,
    resize,
    resize_strided,
    set_memory_format,
    set_pointwise_dilation,
    trains_faster_channels_last,
)
from gscnn_lightning.models.shape_stream import ResidualBlock

ASPP = {"features": "branches", "img_conv": "pool", "edge_conv": "boundary"}


def gate_name(key):
    return "conv.weight" if key == "weight" else key.replace("_gate_conv", "gate")


def block_name(key):
    return key.replace("bn", "norm")


def aspp_name(key):
    head, _, rest = key.partition(".")
    return f"{ASPP[head]}.{rest}"


def stream_name(key):
    head, _, rest = key.partition(".")
    kind, number = head.rstrip("0123456789"), head[len(head.rstrip("0123456789")) :]
    index = int(number or 1) - 1
    if kind == "dsn":
        return f"gating.{(3, 4, 7).index(index + 1)}.{rest}"
    if kind == "res":
        return f"blocks.{index}.{block_name(rest)}"
    if kind == "gate":
        return f"gates.{index}.{gate_name(rest)}"
    return f"reduce.{index}.{rest}" if kind == "d" else f"boundary.{rest}"


def load(module, case, arrays, rename):
    prefix = f"{case}/state/"
    state = {rename(k.removeprefix(prefix)): torch.as_tensor(v) for k, v in arrays.items() if k.startswith(prefix)}
    module.load_state_dict(state)
    return module.double()  # in float32 a value next to 0 may fall on either side of a ReLU, as processors round


def double(array):
    return torch.tensor(array, dtype=torch.float64)


def close(actual, expected):
    expected = torch.as_tensor(expected)
    torch.testing.assert_close(actual.detach().float(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


CASES = {
    "gated_conv_c8": (lambda: GatedConv2d(8), gate_name),
    "gated_conv_c16": (lambda: GatedConv2d(16), gate_name),
    "gated_conv_c32": (lambda: GatedConv2d(32), gate_name),
    "basic_block_c16": (lambda: ResidualBlock(16), block_name),
    "aspp_os8": (lambda: BoundaryASPP(24, 16, (12, 24, 36)), aspp_name),
    "aspp_os16": (lambda: BoundaryASPP(20, 8, (6, 12, 18)), aspp_name),
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", CASES)
def test_layer_equals_the_published_one(case, mode, reference):
    arrays = reference("layers.npz")
    build, rename = CASES[case]
    module = load(build(), case, arrays, rename).train(mode == "train")
    inputs = [double(arrays[f"{case}/in{i}"]).requires_grad_() for i in (0, 1) if f"{case}/in{i}" in arrays]
    output = module(*inputs)
    output = output[0] if isinstance(output, tuple) else output
    close(output, arrays[f"{case}/{mode}/out0"])
    (output * double(arrays[f"{case}/cotangent0"])).sum().backward()
    for i, x in enumerate(inputs):
        close(x.grad, arrays[f"{case}/{mode}/grad_in{i}"])
    check_parameters(module, case, mode, arrays, rename)


def test_shape_stream_and_fusion_equal_the_published_ones(reference):
    arrays = reference("layers.npz")
    for mode in ("eval", "train"):
        stream = ShapeStream(64, (256, 512, 4096))
        fusion = nn.Conv2d(2, 1, 1, bias=False)
        fusion.weight.data = double(arrays["shape_stream/state/cw.weight"])
        without_fusion = {k: v for k, v in arrays.items() if not k.endswith("cw.weight")}
        load(stream, "shape_stream", without_fusion, stream_name).train(mode == "train")
        maps = {k: double(arrays[f"shape_stream/{k}"]).requires_grad_() for k in ("m1", "m3", "m4", "m7")}
        logits, alphas = stream(maps["m1"], [maps["m3"], maps["m4"], maps["m7"]])
        edge = logits.sigmoid()
        acts = fusion(torch.cat([edge, double(arrays["shape_stream/canny"])], 1)).sigmoid()
        close(edge, arrays[f"shape_stream/{mode}/edge"])
        close(acts, arrays[f"shape_stream/{mode}/acts"])
        assert [a.shape for a in alphas] == [(2, 1, 32, 48)] * 3
        cotangents = [double(arrays[f"shape_stream/cotangent_{n}"]) for n in ("edge", "acts")]
        (edge * cotangents[0] + acts * cotangents[1]).sum().backward()
        for name, m in maps.items():
            close(m.grad, arrays[f"shape_stream/{mode}/grad_{name}"])
        check_parameters(stream, "shape_stream", mode, without_fusion, stream_name)


def check_parameters(module, case, mode, arrays, rename):
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    prefix = f"{case}/{mode}/grad_param_norm/"
    norms = {k.removeprefix(prefix): float(v) for k, v in arrays.items() if k.startswith(prefix)}
    assert norms
    for key, norm in norms.items():
        if key == "cw.weight" or (
            mode == "train" and (key.startswith("dsn") or "_gate_conv.3" in key) and "bias" in key
        ):
            continue  # the fusion is checked by its output; biases in front of a batch norm have no gradient
        assert float(parameters[rename(key)].grad.norm()) == pytest.approx(norm, rel=2e-4, abs=1e-6), key
    if mode == "train":
        prefix = f"{case}/train/buffer_after/"
        after = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        assert after
        for key, value in after.items():
            np.testing.assert_allclose(buffers[rename(key)].numpy(), value, rtol=1e-4, atol=1e-6, err_msg=key)


def test_gate_is_the_papers_formula():
    gate = GatedConv2d(8).eval()
    s, r = torch.randn(1, 8, 5, 6), torch.randn(1, 1, 5, 6)
    out, alpha = gate(s, r)
    torch.testing.assert_close(out, gate.conv(s * alpha + s))
    assert alpha.min() >= 0
    assert alpha.max() <= 1


def test_single_value_per_channel_uses_running_statistics():
    norm = BatchNorm2d(4).train()
    x = torch.randn(1, 4, 1, 1)
    torch.testing.assert_close(norm(x), x / (1 + 1e-5) ** 0.5)
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(("channels", "groups"), [(64, 16), (48, 8), (33, 1), (8, 2), (1, 1)])
def test_group_norm_divides_any_width(channels, groups):
    norm = make_norm("group", channels)
    assert norm.num_groups == groups
    assert norm(torch.randn(2, channels, 3, 3)).isfinite().all()


def test_unknown_norm_and_widths_are_named():
    with pytest.raises(ValueError, match="norm 'layer' is not known: use 'batch' or 'group'"):
        make_norm("layer", 8)
    with pytest.raises(ValueError, match="shape_channels 20"):
        ShapeStream(16, (8, 8, 8), channels=20)
    with pytest.raises(ValueError, match="2 gating maps"):
        ShapeStream(16, (8, 8))
    with pytest.raises(ValueError, match="boundary_attention is missing"):
        BoundaryASPP(8, 8)(torch.randn(2, 8, 4, 4))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("small", "size", "stride"), [((7, 9), (26, 35), 2), ((6, 8), (46, 60), 3), ((5, 5), (5, 5), 2)]
)
def test_strided_resize_is_every_nth_pixel_of_the_whole(small, size, stride, align_corners):
    x = torch.randn(2, 3, *small)
    whole = resize(x, size, align_corners)
    torch.testing.assert_close(resize_strided(x, size, stride, align_corners), whole[..., ::stride, ::stride])
    torch.testing.assert_close(resize_strided(x, size, 1, align_corners), whole)
    half = resize_strided(x.bfloat16(), size, stride, align_corners)
    expected = resize_strided(x.bfloat16().float(), size, stride, align_corners)
    assert torch.equal(half, expected.bfloat16()), "rounded once, at the end"


@pytest.mark.parametrize("mode", ["train", "eval", "cumulative", "no statistics", "one place"])
def test_batch_norm_of_parts_is_that_of_the_whole(mode):
    whole = BatchNorm2d(5, momentum=None if mode == "cumulative" else 0.1, track_running_stats=mode != "no statistics")
    torch.nn.init.uniform_(whole.weight)
    torch.nn.init.uniform_(whole.bias)
    parts = copy.deepcopy(whole)
    for layer in (whole, parts):
        layer.train(mode != "eval")
    size = (1, 1) if mode == "one place" else (6, 7)
    for _ in range(2):
        x = torch.randn(1, 5, *size) * 3 + 1
        torch.testing.assert_close(parts.of_concatenated([x[:, :3], x[:, 3:]]), whole(x))
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


def test_memory_format_is_that_of_the_measurements(monkeypatch):
    wide, narrow = nn.Conv2d(512, 1024, 3), nn.Sequential(nn.Conv2d(512, 512, 3), nn.Conv2d(512, 2048, 1))
    depthwise = nn.Conv2d(1152, 1152, 5, groups=1152)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for capability, expected in (("AVX2", False), ("AVX512", True)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert trains_faster_channels_last(wide, cpu) == expected
        assert trains_faster_channels_last(wide, cuda)
        assert trains_faster_channels_last(narrow, cpu)
        assert trains_faster_channels_last(depthwise, cpu)


@pytest.mark.parametrize(("channels", "size"), [(2, (9, 7)), (3, (5, 1)), (4, (8, 8)), (7, (3, 5)), (8, (12, 10))])
def test_narrow_maps_are_normalised_as_by_torch(channels, size):
    """They have a formula of their own, of which torch's in double precision is the oracle."""
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(channels), nn.BatchNorm2d(channels).double()
    with torch.no_grad():
        ours.weight.uniform_(0.5, 2)
        ours.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    for _ in range(3):  # running statistics are means over several batches
        x = torch.randn(3, channels, *size) * 4 + 7
        by_result = torch.randn(3, channels, *size)
        results = []
        for norm, given in ((ours, x.to(memory_format=torch.channels_last)), (theirs, x.double())):
            norm.zero_grad()
            given = given.clone(memory_format=torch.preserve_format).requires_grad_()
            result = norm(given)
            result.backward(by_result.to(result.dtype))
            results.append([result, given.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
        for mine, right in zip(*results, strict=True):
            torch.testing.assert_close(mine.double(), right, rtol=2e-5, atol=2e-5)
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)
    assert ours.num_batches_tracked == 3


def test_all_maps_of_a_channels_last_network_are_channels_last():
    """Narrow convolutions take several times as long on contiguous maps, and those of one channel do not say."""
    torch.manual_seed(0)
    options = {"channels": 16, "skip_channels": 8, "shape_channels": 16, "output_stride": 16}
    net = GSCNN(5, "tf_efficientnet_lite0", pretrained=False, image_gradient="sobel", refine="convex", **options)
    set_memory_format(net, torch.channels_last)
    set_pointwise_dilation(net, 2)
    wrong = []

    def look(name, module, inputs, output):
        for what, x in (("in", inputs[0]), ("out", output)):
            if isinstance(x, torch.Tensor) and not x.is_contiguous(memory_format=torch.channels_last):
                wrong.append(f"{name} {what} {tuple(x.shape)}")

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(partial(look, name))
    net(torch.rand(2, 3, 64, 96).to(memory_format=torch.channels_last))
    assert wrong == []


def test_pointwise_convolutions_compute_the_same_whoever_does_it():
    torch.manual_seed(0)
    net = GSCNN(5, "test_resnet", pretrained=False, channels=16, skip_channels=8, shape_channels=16, output_stride=32)
    net.eval()
    image = torch.rand(1, 3, 64, 64)
    before = net(image)
    kept = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    set_pointwise_dilation(net, 2)
    ones = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride == (1, 1)]
    assert {conv.dilation for conv in ones} == {(2, 2)}
    after = net(image)
    torch.testing.assert_close(after.seg_logits, before.seg_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.boundary_logits, before.boundary_logits, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in net.state_dict().items())
    set_pointwise_dilation(net, 1)
    assert {conv.dilation for conv in ones} == {(1, 1)}
