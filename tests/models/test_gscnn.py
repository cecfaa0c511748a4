import warnings

import pytest
import torch

from gscnn_lightning.errors import BackboneError, WeightsError
from gscnn_lightning.losses import GSCNNLoss
from gscnn_lightning.models import GSCNN, Backbone
from gscnn_lightning.models.cost import meta_network, network_cost

TINY = {"backbone": "test_resnet", "pretrained": False, "channels": 16, "skip_channels": 8, "shape_channels": 16}
FAMILIES = [
    "resnet18",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "tf_efficientnet_lite0",
    "mobilenetv3_large_100",
    "regnety_016",
    "convnext_tiny",
    "densenet121",
    "hrnet_w18",
    "swin_tiny_patch4_window7_224",
]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return GSCNN(5, **TINY).eval()


def batch(size=(64, 96), classes=5, n=2):
    labels = torch.randint(0, classes, (n, size[0] // 8, size[1] // 8))
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :4] = 255
    return torch.rand(n, 3, *size), labels, (torch.rand(n, 1, *size) > 0.8).to(torch.uint8)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains(family):
    torch.manual_seed(0)
    net = GSCNN(5, family, pretrained=False, channels=16, skip_channels=8, shape_channels=16)
    image, labels, boundaries = batch()
    output = net(image)
    assert output.seg_logits.shape == (2, 5, 64, 96)
    assert output.boundary_logits.shape == (2, 1, 64, 96)
    assert len(output.gates) == 3
    strides = net.backbone.strides
    assert strides[-1] <= 8 or family in {"densenet121", "hrnet_w18", "swin_tiny_patch4_window7_224"}
    GSCNNLoss(5)(output, labels, boundaries)["loss"].backward()
    # Distributed training waits for the gradient of every parameter that asks for one.
    without = [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("family", ["resnet18", "hrnet_w18"])
def test_control_has_no_shape_stream_and_no_idle_parameter(family):
    net = GSCNN(5, family, pretrained=False, shape_stream=False, channels=16, skip_channels=8)
    output = net(batch()[0])
    assert output.boundary_logits is None
    assert output.gates == ()
    output.seg_logits.sum().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not any("shape" in n or "boundary" in n for n, _ in net.named_parameters())


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 97), (61, 128)])
def test_any_size_in_same_size_out(tiny, size):
    output = tiny(torch.rand(1, 3, *size))
    assert output.seg_logits.shape == (1, 5, *size)
    assert output.boundary_logits.shape == (1, 1, *size)


def test_bytes_are_the_same_image(tiny):
    image = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8)
    for a, b in zip(tiny(image)[:2], tiny(image / 255)[:2], strict=True):
        torch.testing.assert_close(a, b)


def test_injected_gradient_replaces_the_computed_one(tiny):
    image = torch.rand(1, 3, 48, 64)
    own = tiny.image_gradient(image)
    torch.testing.assert_close(tiny(image, own).seg_logits, tiny(image).seg_logits)
    assert not torch.equal(tiny(image, 1 - own).seg_logits, tiny(image).seg_logits)
    torch.testing.assert_close(tiny(image, 1 - own).boundary_logits, tiny(image).boundary_logits)


def test_same_type_and_batch_of_one_in_training():
    net = GSCNN(3, **TINY).train()
    output = net(torch.rand(1, 3, 64, 64))
    assert type(output) is type(net.eval()(torch.rand(1, 3, 64, 64)))
    assert output.seg_logits.isfinite().all()


@pytest.mark.parametrize(("gradient", "backend"), [("canny", "aot_eager"), ("sobel", "eager"), ("none", "eager")])
def test_network_and_loss_compile_without_a_graph_break(gradient, backend):
    net, loss = GSCNN(5, image_gradient=gradient, **TINY), GSCNNLoss(5)
    image, labels, boundaries = batch((32, 64))
    noise = torch.zeros(2, 5, 32, 64)

    def step(image, labels, boundaries):
        return loss(net(image), labels, boundaries, noise)["loss"]

    eager = step(image, labels, boundaries)
    eager.backward()
    gradients = {n: p.grad.clone() for n, p in net.named_parameters()}
    net.zero_grad()
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler about itself
        compiled = torch.compile(step, fullgraph=True, backend=backend)(image, labels, boundaries)
        compiled.backward()
    torch.testing.assert_close(compiled, eager)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_network_and_loss_compile_to_machine_code():
    net, loss = GSCNN(5, **TINY), GSCNNLoss(5)
    image, labels, boundaries = batch((32, 64))
    noise = torch.zeros(2, 5, 32, 64)
    torch._dynamo.reset()

    def step(image, labels, boundaries):
        return loss(net(image), labels, boundaries, noise)["loss"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(step, fullgraph=True)(image, labels, boundaries)
        compiled.backward()
    torch.testing.assert_close(compiled, step(image, labels, boundaries), rtol=1e-4, atol=1e-4)


def test_half_precision_stays_finite_and_close(tiny):
    image = torch.rand(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        half = tiny(image)
    assert half.seg_logits.isfinite().all()
    full = tiny(image).seg_logits
    assert (half.seg_logits - full).abs().mean() < 0.05 * full.abs().mean() + 0.02


@pytest.mark.parametrize("stages", [1, 2])
def test_frozen_stages_keep_weights_and_statistics(stages):
    net = GSCNN(3, "resnet18", pretrained=False, channels=16, skip_channels=8, shape_channels=16, freeze_stages=stages)
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net.train()(torch.rand(2, 3, 64, 64)).seg_logits.square().mean().backward()
    optimizer.step()
    changed = {k.split(".")[1] for k, v in net.backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"layer1", "layer2", "layer3", "layer4"} - ({"layer1"} if stages == 2 else set())


def test_frozen_norm_keeps_the_statistics_of_the_backbone():
    net = GSCNN(3, "resnet18", pretrained=False, channels=16, skip_channels=8, shape_channels=16, freeze_norm=True)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()(torch.rand(2, 3, 64, 64)).seg_logits.square().mean().backward()
    moved = {k.split(".")[0] for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"aspp", "decoder", "shape_stream"}
    assert net.backbone.encoder.bn1.weight.grad.any()
    assert not any(m.training for m in net.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))


def saved_bytes(net, image):
    """Bytes that a forward pass keeps for the backward pass, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept = {}

    def keep(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        net(image)
    return sum(n for n, _ in kept.values())


@pytest.mark.parametrize("family", ["resnet18", "tf_efficientnet_lite0"])
def test_checkpointed_activations_give_the_same_gradients(family):
    nets, image = [], torch.rand(2, 3, 64, 96)
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        settings = {"pretrained": False, "channels": 16, "skip_channels": 8, "grad_checkpointing": grad_checkpointing}
        nets.append(GSCNN(3, family, **settings).train())
    for net in nets:
        torch.manual_seed(0)
        output = net(image)
        (output.seg_logits.square().mean() + output.boundary_logits.square().mean()).backward()
    for (name, plain), (_, again) in zip(*(n.named_parameters() for n in nets), strict=True):
        if plain.requires_grad:
            torch.testing.assert_close(again.grad, plain.grad, rtol=1e-3, atol=1e-5, msg=name)
    plain, again = (saved_bytes(net, image) for net in nets)
    assert again < 0.7 * plain


def test_backbone_that_cannot_checkpoint_is_named():
    with pytest.raises(BackboneError, match=r"'hrnet_w18' cannot checkpoint.*Set grad_checkpointing to false"):
        GSCNN(3, "hrnet_w18", pretrained=False, grad_checkpointing=True)


def test_overfits_two_images():
    torch.manual_seed(0)
    net = GSCNN(3, **TINY)
    loss = GSCNNLoss(3)
    image, labels, _ = batch(classes=3)
    image = image * 0.1 + labels.clamp(max=3)[:, None] / 4
    boundaries = torch.zeros(2, 1, 64, 96)
    boundaries[..., 7::8] = 1
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        output = net(image)
        loss(output, labels, boundaries)["loss"].backward()
        optimizer.step()
    labelled = labels != 255
    assert (output.seg_logits.argmax(1) == labels)[labelled].float().mean() > 0.9


def test_dilation_can_be_left_out():
    settings = {"pretrained": False, "output_stride": 16, "channels": 8, "shape_channels": 8}
    for family in ("tf_efficientnet_lite0", "resnet18"):
        net = GSCNN(3, family, dilation=False, **settings).eval()
        assert net.backbone.strides[-1] == 16
        assert {max(m.dilation) for m in net.backbone.modules() if isinstance(m, torch.nn.Conv2d)} == {1}
        assert net.backbone(torch.rand(1, 3, 64, 96))[-1].shape[-2:] == (4, 6)
        assert net.state_dict().keys() == GSCNN(3, family, **settings).state_dict().keys()


def test_channels_and_rates_follow_the_backbone():
    net = GSCNN(3, "densenet121", pretrained=False, output_stride=8, channels=8, shape_channels=8)
    assert net.backbone.strides == [2, 4, 8, 16, 32]
    assert [b[0].dilation[0] for b in net.aspp.branches] == [1, 6, 12, 18]
    net = GSCNN(3, "resnet18", pretrained=False, output_stride=8, channels=8, shape_channels=8)
    assert net.backbone.strides == [2, 4, 8, 8, 8]
    assert [b[0].dilation[0] for b in net.aspp.branches] == [1, 12, 24, 36]
    assert net.backbone.skip_index == 1


def test_full_resolution_maps_shift_what_is_read():
    with torch.device("meta"):
        read = {n: Backbone(n, pretrained=False) for n in ("cspdarknet53", "resnet50", "convnext_tiny", "hrnet_w18")}
    assert {n: (b.strides[b.skip_index], [b.strides[i] for i in b.gate_indices]) for n, b in read.items()} == {
        "cspdarknet53": (2, [4, 8, 8]),
        "resnet50": (4, [4, 8, 8]),
        "convnext_tiny": (4, [8, 8, 8]),
        "hrnet_w18": (4, [4, 8, 32]),
    }


@pytest.mark.parametrize(("start", "stride"), [("first", 2), ("skip", 4)])
def test_stream_starts_where_it_is_told(start, stride):
    net = GSCNN(5, "resnet18", pretrained=False, channels=16, skip_channels=8, shape_channels=16, stream_start=start)
    gates = net(torch.rand(2, 3, 64, 96)).gates
    assert [tuple(gate.shape) for gate in gates] == [(2, 1, 64 // stride, 96 // stride)] * 3
    output = net(torch.rand(2, 3, 71, 90))
    assert output.boundary_logits.shape == (2, 1, 71, 90)
    (output.boundary_logits.square().mean() + output.seg_logits.square().mean()).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_stream_costs_a_quarter_from_the_skip_connection_on():
    small = {"backbone": "resnet18", "channels": 16, "skip_channels": 8}  # both maps have 64 channels
    first, skip = (
        {c.part: c.gflops for c in network_cost(meta_network(5, stream_start=start, **small), (64, 64))}
        for start in ("first", "skip")
    )
    assert skip["shape stream"] == pytest.approx(first["shape stream"] / 4, rel=0.02)
    assert {p: g for p, g in skip.items() if p not in ("shape stream", "total")} == {
        p: g for p, g in first.items() if p not in ("shape stream", "total")
    }


def test_supervision_alone_reads_what_the_stream_would_read():
    control = {"shape_stream": False, "boundary_supervision": True, "pretrained": False}
    first, skip = (GSCNN(5, "resnet18", stream_start=start, **control) for start in ("first", "skip"))
    assert [len(net.boundary_head.sides) for net in (first, skip)] == [4, 3]
    assert skip(torch.rand(2, 3, 64, 64)).boundary_logits.shape == (2, 1, 64, 64)


def test_backbones_that_cannot_serve_are_named_with_some_that_can():
    with pytest.raises(BackboneError, match=r"unknown backbone 'resnet5O'.*Did you mean .*resnet50"):
        GSCNN(3, "resnet5O", pretrained=False)
    with pytest.raises(BackboneError, match="output_stride 4"):
        GSCNN(3, "resnet18", pretrained=False, output_stride=4)
    with pytest.raises(BackboneError, match="freeze_stages is 9"):
        GSCNN(3, "test_resnet", pretrained=False, freeze_stages=9)


def test_wrong_input_is_named(tiny):
    with pytest.raises(ValueError, match=r"shape \(3, 64, 64\)"):
        tiny(torch.rand(3, 64, 64))
    with pytest.raises(ValueError, match="16x64 pixels: pad it to at least 32x32"):
        tiny(torch.rand(1, 3, 16, 64))
    with pytest.raises(ValueError, match="num_classes is 1"):
        GSCNN(1, **TINY)


def test_missing_weight_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        GSCNN(3, "resnet18", backbone_weights=tmp_path / "none.pth")


@pytest.mark.parametrize("shape_stream", [True, False])
def test_separable_network_has_no_full_convolution_outside_backbone_and_shape_stream(shape_stream):
    settings = {"pretrained": False, "channels": 32, "skip_channels": 8, "shape_channels": 16}
    net = GSCNN(5, "resnet18", shape_stream=shape_stream, separable=True, **settings)
    convs = {n: m for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d) and max(m.kernel_size) > 1}
    mine = {n: m for n, m in convs.items() if not n.startswith(("backbone.", "shape_stream."))}
    assert len(mine) == 5  # three dilated branches, before and after the upsampling
    assert all(m.groups == m.in_channels == m.out_channels for m in mine.values())
    image = torch.rand(2, 3, 65, 97)
    output = net(image)
    assert output.seg_logits.shape == (2, 5, 65, 97)
    output.seg_logits.sum().backward()
    assert all(m.weight.grad.abs().sum() > 0 for m in mine.values())
    full = GSCNN(5, "resnet18", shape_stream=shape_stream, **settings)
    parameters, full_parameters = (sum(p.numel() for p in n.aspp.parameters()) for n in (net, full))
    assert parameters < full_parameters / 4
