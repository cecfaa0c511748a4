import json

import numpy as np
import pytest
import timm
import torch
from tests import published
from tests.models.test_layers import check_parameters, close, double, load

from gscnn_lightning import release
from gscnn_lightning.errors import WeightsError
from gscnn_lightning.models import GSCNN, Backbone, wider_resnet
from gscnn_lightning.models.wider_resnet import PreActivationBlock, WiderResNet, released_name

NAME = "wider_resnet38_a2"

BLOCKS = {
    "residual_plain_c12_stride2": (12, (16, 16), {"stride": 2}),
    "residual_plain_c16_dil2": (16, (16, 16), {"dilation": 2}),
    "residual_expand_c10_dil2": (10, (8, 20), {"dilation": 2}),
    "residual_bottleneck_dil4_nodrop": (16, (8, 16, 32), {"dilation": 4}),
}


def on_meta(**kwargs):
    with torch.device("meta"):
        return timm.create_model(NAME, **kwargs)


def block_name(key):
    """Name in our block of a published one, found by the mapping that loads the checkpoint."""
    own = {released_name(f"layer2.0.{k}").removeprefix("mod2.block1."): k for k in BLOCK_KEYS}
    return own[key]


BLOCK_KEYS = PreActivationBlock(4, (4, 4, 8)).state_dict().keys()


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", BLOCKS)
def test_block_equals_the_published_one(case, mode, reference):
    arrays = reference("layers.npz")
    in_channels, widths, settings = BLOCKS[case]
    block = load(PreActivationBlock(in_channels, widths, **settings), case, arrays, block_name).train(mode == "train")
    x = double(arrays[f"{case}/in0"]).requires_grad_()
    y = block(x)
    close(y, arrays[f"{case}/{mode}/out0"])
    (y * double(arrays[f"{case}/cotangent0"])).sum().backward()
    close(x.grad, arrays[f"{case}/{mode}/grad_in0"])
    check_parameters(block, case, mode, arrays, block_name)


def test_names_and_shapes_are_one_to_one_with_the_published_trunk(reference_dir):
    own = {released_name(k): tuple(v.shape) for k, v in on_meta().state_dict().items()}
    assert own == published.shapes(reference_dir, "wider_resnet38_a2_imagenet")
    assert sum(p.numel() for p in on_meta().parameters()) == 109_167_912
    features = on_meta(features_only=True, output_stride=8).state_dict()
    listed = json.loads((reference_dir / "state_dict_keys.json").read_text())
    assert sorted(map(released_name, features)) == sorted(listed["trunk_keys_in_gscnn"])


def test_convolutions_norms_and_dropout_are_the_published_ones(reference_dir):
    stated = json.loads((reference_dir / "layer_hyperparameters.json").read_text())
    with torch.device("meta"):
        net = GSCNN(19, NAME, pretrained=False)
    checked = set()
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            key = release.released_name(f"{name}.weight").removesuffix(".weight")
            have = {k: list(getattr(module, k)) for k in ("stride", "padding", "dilation")}
            have |= {"kernel": list(module.kernel_size), "groups": module.groups, "bias": module.bias is not None}
            assert have == stated["convs"][key], name
            checked.add(key)
        if isinstance(module, torch.nn.BatchNorm2d):
            assert {k: getattr(module, k) for k in ("eps", "momentum")} == stated["batchnorm"]
    assert set(stated["convs"]) - checked == {"dsn1"}
    encoder = net.backbone.encoder
    for block, rate in (("layer6_0", 0.3), ("layer7_0", 0.5)):
        assert isinstance(encoder[block].dropout, torch.nn.Dropout2d)
        assert encoder[block].dropout.p == rate == stated["dropout"][f"mod{block[5]}.block1.convs.dropout"]["p"]
    assert sum(isinstance(m, torch.nn.Dropout2d) for m in net.modules()) == 2


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_are_listed_as_they_are(output_stride):
    model = on_meta(features_only=True, output_stride=output_stride)
    assert model.feature_info.channels() == [64, 128, 256, 512, 4096]
    assert model.feature_info.reduction() == [1, 2, 4, 8, output_stride]
    for size in ((64, 96), (65, 99)):
        maps = model(torch.empty(1, 3, *size, device="meta"))
        assert [m.shape[1] for m in maps] == model.feature_info.channels()
        assert [tuple(m.shape[2:]) for m in maps] == [
            tuple(-(-n // r) for n in size) for r in model.feature_info.reduction()
        ]


def test_output_strides_compute_the_same_at_fewer_places(monkeypatch):
    narrow = tuple((n, tuple(w // 32 for w in widths), *rest) for n, widths, *rest in wider_resnet._LAYERS)
    monkeypatch.setattr(wider_resnet, "_LAYERS", narrow)
    torch.manual_seed(0)
    models = {s: WiderResNet(num_classes=7, output_stride=s).eval().double() for s in (8, 16, 32)}
    x = torch.randn(1, 3, 96, 160, dtype=torch.float64)
    with torch.no_grad():
        dense = models[8].forward_features(x)
        assert dense.std() > 0.1
        for stride, step in ((16, 2), (32, 4)):
            models[stride].load_state_dict(models[8].state_dict())
            torch.testing.assert_close(models[stride].forward_features(x), dense[..., ::step, ::step])
        assert models[8](x).shape == (1, 7)


def test_timm_conventions():
    config = timm.get_pretrained_cfg(NAME)
    assert config.mean == (0.485, 0.456, 0.406)
    assert config.classifier == "fc"
    assert timm.is_model(NAME)
    model = on_meta(num_classes=10)
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 10)
    assert model.get_classifier() is model.fc
    model.reset_classifier(0)
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 4096)
    with pytest.raises(NotImplementedError, match="output_stride 4"):
        on_meta(output_stride=4)


def test_network_reads_the_maps_of_the_paper():
    with torch.device("meta"):
        backbone = Backbone(NAME, pretrained=False)
    assert backbone.strides == [1, 2, 4, 8, 8]
    assert backbone.skip_index == 1
    assert [backbone.channels[i] for i in backbone.gate_indices] == [256, 512, 4096]


def test_pretrained_start_without_a_file_is_refused_with_the_remedy():
    with pytest.raises(WeightsError, match=r"no pretrained weights of 'wider_resnet38_a2'.*--model\.backbone_weights"):
        GSCNN(11, NAME)


def test_dropout_takes_whole_channels():
    torch.manual_seed(0)
    block = PreActivationBlock(8, (8, 64, 8), drop_rate=0.5).train()
    seen = []
    block.expand.register_forward_hook(lambda m, inputs, y: seen.append(inputs[0]))
    block(torch.randn(2, 8, 6, 6))
    dropped = (seen[0] == 0).all(dim=(2, 3))
    assert 0.3 < dropped.float().mean() < 0.7
    assert np.unique((seen[0][~dropped] == 0).all(dim=-1).numpy()).tolist() in ([False], [False, True])
