"""Plain transformers as regular stream: maps, positions, weights, training."""

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tests.models.test_backbone import ODD, SMALL, train_and_predict
from tests.models.tiny_vits import NAMES, PATCHES

from gscnn_lightning import GSCNNTask, ScenesDataModule
from gscnn_lightning.errors import BackboneError, WeightsError
from gscnn_lightning.losses import GSCNNLoss
from gscnn_lightning.models import GSCNN, Backbone
from gscnn_lightning.models.input_sizes import InputSizes


@pytest.fixture(scope="module")
def backbones():
    torch.manual_seed(0)
    return {name: Backbone(name, pretrained=False).eval() for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_pyramid_is_that_of_other_backbones(name, backbones):
    backbone, patch = backbones[name], PATCHES[name]
    assert backbone.strides == [2, 4, patch, patch]
    assert backbone.input_sizes == InputSizes(patch, 32)
    assert (backbone.skip_index, backbone.gate_indices) == (1, (1, 2, 3))
    with torch.no_grad():
        maps = backbone(torch.rand(2, 3, 90, 131))
    expected = [(45, 66), (23, 33), *[(-(-90 // patch), -(-131 // patch))] * 2]
    assert [tuple(m.shape) for m in maps] == [
        (2, c, *size) for c, size in zip(backbone.channels, expected, strict=True)
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(3, 5), (16, 2)])
def test_positions_are_those_that_timm_makes_for_a_size(name, size, backbones):
    """A model that timm builds for this very size, from the same weights, gives the same maps."""
    backbone, patch = backbones[name], PATCHES[name]
    height, width = (n * patch for n in size)
    trunk = backbone.encoder.trunk
    fixed = timm.create_model(name, img_size=(height, width), num_classes=0).eval()
    module = __import__(type(fixed).__module__, fromlist=["checkpoint_filter_fn"])
    state = module.checkpoint_filter_fn(dict(trunk.model.state_dict()), fixed)
    missing = fixed.load_state_dict(state, strict=False).missing_keys
    assert all(n.startswith(("norm", "fc_norm", "head", "rope")) for n in missing)
    image = torch.rand(1, 3, height, width)
    with torch.no_grad():
        expected = fixed.forward_intermediates(image, indices=trunk.out_indices, intermediates_only=True)
        for found, whole in zip(trunk(image), expected, strict=True):
            torch.testing.assert_close(found, whole)


def test_positions_are_interpolated_bicubically(backbones):
    trunk = backbones["test_vit"].encoder.trunk
    model, seen = trunk.model, []
    hook = model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 3, 48, 80)
    with torch.no_grad():
        trunk(image)
    hook.remove()
    side = int((model.pos_embed.shape[1] - 1) ** 0.5)
    grid = model.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(3, 5), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    patches = F.conv2d(image, model.patch_embed.proj.weight, model.patch_embed.proj.bias, stride=16)
    expected = torch.cat([model.cls_token + model.pos_embed[:, :1], patches.flatten(2).transpose(1, 2) + grid], dim=1)
    torch.testing.assert_close(seen[0], expected)


def test_depths_are_a_quarter_a_half_and_all_of_the_blocks(backbones):
    assert {n: b.encoder.trunk.out_indices for n, b in backbones.items()} == {
        **{name: [0, 1, 3] for name in NAMES},
        "test_vit": [0, 2, 5],
    }


def test_the_first_maps_see_single_pixels(backbones):
    backbone = backbones["test_vit"]
    image = torch.rand(1, 3, 64, 96)
    other = image.clone()
    other[..., 31, 47] = 1 - other[..., 31, 47]
    with torch.no_grad():
        for stride, a, b in zip((2, 4), backbone(image), backbone(other), strict=False):
            changed = (a - b).abs().sum(1)[0]
            y, x = divmod(int(changed.argmax()), changed.shape[1])
            assert abs(y * stride - 31) <= 2 * stride
            assert abs(x * stride - 47) <= 2 * stride


@pytest.mark.parametrize("shape_stream", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_images_of_any_size(name, shape_stream):
    train_and_predict(name, ODD, shape_stream, channels_last=True)


@pytest.mark.parametrize("name", ["tiny_dinov2", "tiny_dinov3"])
def test_mixed_precision_is_finite(name):
    torch.manual_seed(0)
    network, size = GSCNN(3, name, **SMALL), (65, 97)
    image, labels = torch.rand(2, 3, *size), torch.randint(3, (2, *size))
    with torch.autocast("cpu", torch.bfloat16):
        output = network(image)
        loss = GSCNNLoss(3)(output, labels, (torch.rand(2, 1, *size) > 0.8).float())["loss"]
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    exact = network(image).seg_logits
    assert (output.seg_logits - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("name", ["test_vit", "tiny_dinov3"])
def test_network_and_losses_are_one_graph(name):
    torch._dynamo.reset()
    network, loss = GSCNN(3, name, **SMALL), GSCNNLoss(3)
    size = (49, 81)
    image, labels, boundaries = torch.rand(2, 3, *size), torch.randint(3, (2, *size)), torch.zeros(2, 1, *size)

    def step(image):
        return loss(network(image), labels, boundaries, torch.zeros(2, 3, *size))["loss"]

    compiled = torch.compile(step, fullgraph=True, backend="eager")(image)
    torch.testing.assert_close(compiled, step(image))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiled_network_and_losses_give_the_same_gradients(name):
    """In double precision: in single, a last bit of the image moves gradients of such a network by 1e-3 of them."""
    torch._dynamo.reset()
    network, loss = GSCNN(3, name, **SMALL).double(), GSCNNLoss(3)
    size = (65, 97)
    image, labels = torch.rand(2, 3, *size, dtype=torch.float64), torch.randint(3, (2, *size))
    boundaries, noise = (torch.zeros(2, k, *size, dtype=torch.float64) for k in (1, 3))

    def step(image):
        return loss(network(image), labels, boundaries, noise)["loss"]

    step(image).backward()
    eager = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    torch.compile(step, fullgraph=True)(image).backward()
    for p, gradient in zip(network.parameters(), eager, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("freeze_stages", [0, 2])
@pytest.mark.parametrize("name", ["test_vit", "tiny_dinov3"])
def test_checkpointed_activations_give_the_same_gradients(name, freeze_stages):
    image, gradients, calls = torch.rand(2, 3, 48, 80), [], []
    for grad_checkpointing in (False, True):
        torch.manual_seed(0)
        settings = {**SMALL, "grad_checkpointing": grad_checkpointing, "freeze_stages": freeze_stages}
        network = GSCNN(3, name, **settings)
        count = []
        network.backbone.encoder.trunk.model.blocks[-1].register_forward_pre_hook(lambda *_, c=count: c.append(1))
        output = network(image)
        (output.seg_logits.square().mean() + output.boundary_logits.square().mean()).backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.requires_grad})
        calls.append(len(count))
    assert calls == [1, 2]
    for parameter, gradient in gradients[0].items():
        assert gradient is not None
        torch.testing.assert_close(gradients[1][parameter], gradient, rtol=1e-4, atol=1e-6, msg=parameter)


@pytest.mark.parametrize(
    ("stages", "frozen"), [(0, set()), (1, set()), (2, {"patch_embed", "0"}), (3, set("0") | set("12"))]
)
def test_frozen_stages_are_blocks_and_never_the_stem(stages, frozen):
    network = GSCNN(3, "test_vit", **SMALL, freeze_stages=stages)
    names = [n.removeprefix("backbone.encoder.") for n, p in network.named_parameters() if not p.requires_grad]
    assert all(n.startswith("trunk.model.") for n in names)
    blocks = {n.split(".")[3] for n in names if n.startswith("trunk.model.blocks.")}
    assert blocks == frozen - {"patch_embed"}
    assert any(n.startswith("trunk.model.patch_embed") for n in names) == (stages > 1)


@pytest.mark.parametrize("form", ["timm", "other size", "safetensors", "checkpoint"])
@pytest.mark.parametrize("name", ["test_vit", "tiny_deit", "tiny_dinov2"])
def test_local_weights(name, form, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
    size = {"img_size": 6 * PATCHES[name]} if form == "other size" else {}
    whole = timm.create_model(name, num_classes=7, **size)
    state = whole.state_dict()
    if form == "safetensors":
        save_file(state, path)
    elif form == "checkpoint":
        first = GSCNN(5, name, **SMALL)
        state = first.backbone.encoder.state_dict()
        torch.save({"state_dict": {f"network.backbone.encoder.{n}": v for n, v in state.items()}}, path)
    else:
        torch.save({"model": state}, path)
    found = GSCNN(3, name, **SMALL, backbone_weights=str(path)).backbone.encoder
    if form == "checkpoint":
        assert all(torch.equal(value, state[n]) for n, value in found.state_dict().items())
        return
    model = found.trunk.model
    side = model.patch_embed.grid_size[0]
    for key, value in model.state_dict().items():
        if key == "pos_embed" and form == "other size":
            assert value.shape[1] == side**2 + value.shape[1] - side**2
            assert value.shape != state[key].shape
        else:
            assert torch.equal(value, state[key]), key


def test_weights_of_another_transformer_are_refused_with_names(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("tiny_dinov3").state_dict(), path)
    with pytest.raises(WeightsError, match=r"weights\.pth does not fit backbone 'test_vit': \d+ names missing"):
        GSCNN(3, "test_vit", **SMALL, backbone_weights=str(path))


@pytest.mark.parametrize("shape_stream", [True, False])
def test_the_loss_falls_on_scenes(shape_stream):
    torch.manual_seed(0)
    data = ScenesDataModule(size=(64, 128), train_samples=2, batch_size=2, num_workers=0, crop_size=(48, 64), seed=0)
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    task = GSCNNTask(
        19, backbone="test_vit", shape_stream=shape_stream, regularizer_weight=0.0, **{**SMALL, "channels": 32}
    )
    optimizer = torch.optim.AdamW(task.parameters(), 5e-3)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        terms = task.training_losses(batch)
        terms["loss"].backward()
        optimizer.step()
        losses.append({name: term.item() for name, term in terms.items()})
    assert losses[-1]["segmentation"] < 0.5 * losses[0]["segmentation"]
    if shape_stream:
        assert losses[-1]["boundary"] < 0.9 * losses[0]["boundary"]


GOLDEN = {
    "test_vit": {"patch_embed.proj.weight": 7, "pos_embed": 7, "blocks.0.attn.qkv.weight": 6, "blocks.5.norm2.bias": 1},
    "tiny_dinov3": {"reg_token": 5, "blocks.0.mlp.fc1.weight": 4, "blocks.3.mlp.fc2.weight": 1},
    "test_resnet": {"conv1.0.weight": 5, "layer1.0.conv1.weight": 4, "layer4.0.bn1.bias": 1},
    "test_convnext": {"stem_0.weight": 10, "stages_0.blocks.0.conv_dw.weight": 9, "stages_3.blocks.1.conv_dw.bias": 1},
    "test_efficientnet": {"conv_stem.weight": 6, "blocks.0.0.conv.weight": 5},
}


@pytest.mark.parametrize("name", GOLDEN)
def test_layers_have_the_rates_that_timm_gives_them(name):
    backbone = Backbone(name, pretrained=False)
    scales = backbone.layer_scales(0.5)
    assert scales.keys() == {n for n, _ in backbone.named_parameters()}
    prefix = "encoder.trunk.model." if "vit" in name or "dino" in name else "encoder."
    assert {own: scales[f"{prefix}{own}"] for own in GOLDEN[name]} == {
        own: 0.5**layers for own, layers in GOLDEN[name].items()
    }
    assert all(scales[n] == 1 for n in backbone.fresh_parameters())


def test_layers_that_timm_does_not_know_are_refused():
    backbone = Backbone("test_resnet", pretrained=False)
    backbone.encoder.register_parameter("odd", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(BackboneError, match=r"layer_decay does not work with backbone 'test_resnet': .* layer of odd"):
        backbone.layer_scales(0.75)
