"""Families of timm as regular stream: image sizes, memory formats, refusals."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from gscnn_lightning import GSCNNTask
from gscnn_lightning.errors import BackboneError, SettingError
from gscnn_lightning.models import GSCNN, Backbone
from gscnn_lightning.models.backbone import SUGGESTIONS, _step_before_convolving
from gscnn_lightning.models.input_sizes import InputSizes

SMALL = {"pretrained": False, "channels": 16, "skip_channels": 8, "shape_channels": 8, "image_gradient": "sobel"}
ODD = ((90, 120), (97, 131))


def train_and_predict(name, sizes=ODD, shape_stream=True, channels_last=False, **settings):
    """A training step and a prediction of images of each size; the network, for more."""
    torch.manual_seed(0)
    task = GSCNNTask(3, backbone=name, shape_stream=shape_stream, channels_last=channels_last, **{**SMALL, **settings})
    for size in sizes:
        labels = torch.randint(0, 3, (2, *size))
        boundary = (torch.rand(2, 1, *size) > 0.8).to(torch.uint8)
        image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
        task.zero_grad()
        task.train().training_losses({"image": image, "mask": labels, "boundary": boundary})["loss"].backward()
        asked = {n: p.grad for n, p in task.network.named_parameters() if p.requires_grad}
        assert [n for n, gradient in asked.items() if gradient is None] == []
        assert all(gradient.isfinite().all() for gradient in asked.values())
        output = task.eval().predict_output(image[:1])
        assert output.seg_logits.shape == (1, 3, *size)
        assert output.seg_logits.isfinite().all()
        assert (output.boundary_logits is not None) == shape_stream
    return task.network


@pytest.mark.parametrize("shape_stream", [True, False])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("test_resnet", (1, 32)),
        ("test_efficientnet", (1, 32)),
        ("test_byobnet", (1, 32)),
        ("test_convnext", (1, 32)),
        ("test_nfnet", (1, 32)),
        ("test_mambaout", (1, 32)),
        ("test_maxvit", (160, 32)),
    ],
)
def test_images_of_any_size(name, sizes, shape_stream):
    network = train_and_predict(name, shape_stream=shape_stream, channels_last=True)
    assert network.backbone.input_sizes == sizes


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_images_of_any_size_at_any_output_stride(output_stride):
    train_and_predict("test_byobnet", output_stride=output_stride)
    train_and_predict("test_resnet", output_stride=output_stride, dilation=False)


@pytest.mark.parametrize("name", SUGGESTIONS)
def test_every_suggested_backbone_trains_on_frames_that_do_not_divide(name):
    train_and_predict(name, ODD[:1])


def test_what_fits_is_not_padded_and_what_does_not_is_cut_back():
    backbone = Backbone("test_maxvit", pretrained=False).eval()
    image = torch.rand(1, 3, 160, 320)
    normalised = (image - backbone.mean) / backbone.std
    with torch.no_grad():
        for found, expected in zip(backbone(image), backbone.encoder(normalised), strict=True):
            assert torch.equal(found, expected)
        padded = F.pad(normalised[..., :97, :131], (0, 29, 0, 63), mode="replicate")
        shapes = [(49, 66), (25, 33), (13, 17), (7, 9), (4, 5)]
        for found, whole, (h, w) in zip(backbone(image[..., :97, :131]), backbone.encoder(padded), shapes, strict=True):
            assert torch.equal(found, whole[..., :h, :w])


def test_padded_network_compiles_without_a_graph_break():
    network = GSCNN(3, "test_resnet", **SMALL)
    network.backbone.input_sizes = InputSizes(64, 96)
    image = torch.rand(1, 3, 65, 97)
    eager = network.eval()(image).seg_logits
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")(image).seg_logits
    torch.testing.assert_close(compiled, eager)
    network.backbone.input_sizes = InputSizes()
    assert not torch.allclose(network(image).seg_logits, eager)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_coatnet", r"takes images of 160x160 pixels only \(The size of tensor a"),
        ("coat_lite_tiny", r"takes images of 224x224 pixels only \(Input width \(448\) doesn't match model \(224\)\)"),
        ("efficientformerv2_s0", r"takes images of 224x224 pixels only \(shape"),
        ("resnet_of_two_maps", r"it has maps of strides \[2, 4\] alone, and 3 or more are needed"),
        ("cait_xxs24_224", r"takes images of 224x224 pixels only \(Input width"),
        ("resnet_without_maps", "it breaks at every size"),
        ("resnet_with_other_maps", r"its maps have \[32, 32\] channels in place of \[32, 32, 48, 192, 96\]"),
        ("broken_at_once", r"cannot return feature maps: timm refuses \(no such luck\)"),
    ],
)
def test_families_that_cannot_serve_are_refused_in_one_line(name, reason):
    with pytest.raises(BackboneError, match=rf"^backbone '{name}' .*{reason}.*such as resnet50, ") as refused:
        Backbone(name, pretrained=False)
    assert "\n" not in str(refused.value)


@timm.models.register_model
def resnet_without_maps(pretrained=False, **kwargs):
    def broken(image):
        raise IndexError("it breaks\nat every size.")

    model = timm.create_model("test_resnet", pretrained=pretrained, **kwargs)
    model.forward = broken
    return model


@timm.models.register_model
def resnet_with_other_maps(pretrained=False, **kwargs):
    model = timm.create_model("test_resnet", pretrained=pretrained, **kwargs)
    forward = model.forward
    model.forward = lambda image: forward(image)[:2]
    return model


@timm.models.register_model
def resnet_of_two_maps(pretrained=False, **kwargs):
    return timm.create_model("test_resnet", pretrained=pretrained, **{**kwargs, "out_indices": (0, 1)})


@timm.models.register_model
def broken_at_once(pretrained=False, **kwargs):
    raise ValueError("no such\nluck")


def test_a_costly_multiple_is_said(caplog):
    Backbone("test_maxvit", pretrained=False)
    assert "'test_maxvit' works on heights and widths that are multiples of 160 pixels" in caplog.text
    caplog.clear()
    Backbone("test_resnet", pretrained=False)
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext2", "densenet121", "test_maxvit"])
def test_maps_depend_on_the_parameters_that_they_have_gradients_of(name):
    backbone = Backbone(name, pretrained=False)
    reached = backbone._dependencies()
    names, parameters = zip(*backbone.encoder.named_parameters(), strict=True)
    side = backbone.input_sizes.fitting(64)
    maps = backbone.eval()(torch.rand(1, 3, side, side))
    for m, found in zip(maps, reached, strict=True):
        gradients = torch.autograd.grad(m.sum(), parameters, retain_graph=True, allow_unused=True)
        assert found == {n for n, gradient in zip(names, gradients, strict=True) if gradient is not None}


@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_a0", "fastvit_t8"])
def test_strided_convolutions_on_the_image_leave_out_pixels_first(name):
    backbone = Backbone(name, pretrained=False, output_stride=32).eval()
    plain = timm.create_model(name, features_only=True).eval()
    plain.load_state_dict(backbone.encoder.state_dict())
    image = torch.rand(1, 3, 97, 131)
    normalised = (image - backbone.mean) / backbone.std
    with torch.no_grad():
        for found, expected in zip(copy.deepcopy(backbone)(image), plain(normalised), strict=True):
            assert torch.equal(found, expected)
    strided = [
        conv
        for model in (backbone, plain)
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.groups, conv.in_channels) == ((1, 1), 1, 3)
        and conv.stride != (1, 1)
    ]
    assert len(strided) == 1


def test_strided_convolutions_of_few_channels_have_the_same_gradients():
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 1, stride=(2, 3)), nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(8, 16, 1, stride=2)
    )
    mended = copy.deepcopy(plain)
    _step_before_convolving(mended)
    assert [conv.stride for conv in mended] == [(1, 1), (2, 2), (1, 1)]
    image = torch.rand(2, 3, 45, 62)
    gradients = []
    for network in (plain, mended):
        leaf = image.clone().requires_grad_()
        network(leaf).square().sum().backward()
        gradients.append([leaf.grad, *(p.grad for p in network.parameters())])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_weights_of_three_dimensions_do_not_hinder_the_memory_format():
    network = train_and_predict("lambda_resnet26t", ODD[:1], channels_last=True)
    assert network.decoder[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    assert any(p.ndim == 5 for p in network.parameters())


def test_frames_too_small_for_any_backbone_are_an_error_of_the_settings():
    with pytest.raises(SettingError, match=r"24x120 pixels: pad it to at least 32x32, or train on crops .*crop_size"):
        GSCNN(3, "test_resnet", **SMALL)(torch.rand(1, 3, 24, 120))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobileone_s0", "repvgg_b0", "fastvit_t8"])
def test_training_in_channels_last_does_not_end_the_interpreter(name):
    program = f"import tests.models.test_backbone as t; t.train_and_predict({name!r}, channels_last=True)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


OTHERS = """
caformer_s18 convnext_atto cs3darknet_focus_s cspdarknet53 davit_tiny densenet121 dla34 dpn48b edgenext_xx_small
efficientvit_b0 efficientvit_l1 ese_vovnet19b_slim_dw fasternet_t0 fastvit_t8 focalnet_tiny_srf gcresnet33ts
ghostnet_050 halonet26t hgnetv2_b0 hieradet_small hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2
inception_v3 inception_v4 lcnet_035 legacy_seresnet18 legacy_xception lowformer_b0 maxvit_pico_rw_256
maxxvitv2_nano_rw_256 mobileone_s0 mobilenetv3_large_100 mobilenetv4_hybrid_medium mobilevit_xxs mvitv2_tiny
nextvit_small nfnet_l0 poolformer_s12 pvt_v2_b0 rdnet_tiny regnety_002 regnetz_b16 repghostnet_050 repvgg_b0 repvit_m1
res2next50 resnest14d resnetaa34d resnetv2_18 rexnet_100 sam2_hiera_tiny selecsls42 skresnet18 starnet_s050
swiftformer_xs swin_s3_tiny_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 tf_efficientnet_b0 tiny_vit_5m_224
tresnet_m twins_svt_small vgg11_bn xception41p
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS.split())
def test_other_families_of_timm(name):
    train_and_predict(name, channels_last=True)
    train_and_predict(name, ODD[:1], shape_stream=False, output_stride=32)


# Without a map of stride 4: a stem gives it.
PLAIN = """
convmixer_768_32 deit3_small_patch16_224 deit_tiny_distilled_patch16_224 eva02_tiny_patch14_224 flexivit_small
vit_base_patch32_224 vit_pe_core_tiny_patch16_384 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2
vit_small_patch16_dinov3 vit_small_patch16_rope_224 vit_small_patch8_224 vit_small_r26_s32_224 vit_tiny_patch16_224
vit_wee_patch16_reg1_gap_256 vitamin_small_224 xcit_nano_12_p16_224
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN.split())
def test_plain_families_of_timm(name):
    train_and_predict(name, channels_last=True)
    train_and_predict(name, ODD[:1], shape_stream=False, output_stride=32)


ONE_SIZE = """
beit_base_patch16_224 cait_xxs24_224 coat_tiny coatnet_nano_rw_224 efficientformer_l1 gcvit_xxtiny hiera_tiny_224
nest_tiny
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_SIZE.split())
def test_other_families_that_take_one_size_only(name):
    with pytest.raises(BackboneError, match=rf"'{name}' .* it takes images of 224x224 pixels only .* such as resnet50"):
        Backbone(name, pretrained=False)
