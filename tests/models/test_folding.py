"""Batch normalisation folded into convolutions: the same numbers, and never where it would be wrong."""

import copy

import pytest
import torch
from torch import nn

from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.folding import folded


def with_statistics(network):
    """Batch normalisation that does something, as after a training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


def gscnn(backbone, **settings):
    torch.manual_seed(0)
    sizes = {"channels": 16, "skip_channels": 8, "shape_channels": 16, "output_stride": 16}
    return with_statistics(GSCNN(5, backbone, pretrained=False, **sizes | settings))


def norms(network):
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


@pytest.mark.parametrize(
    ("backbone", "settings", "left"),
    [
        ("test_resnet", {}, 3),  # those in front of a convolution in the gates
        ("test_resnet", {"shape_stream": False}, 0),
        ("tf_efficientnet_lite0", {"dilation": False}, 3),
        ("test_convnext", {}, 3),
        ("wider_resnet38_a2", {"shape_stream": False}, None),
    ],
)
def test_folded_network_says_the_same(backbone, settings, left):
    network = gscnn(backbone, **settings).double()  # rounding of single precision adds up to 1e-5 in deep networks
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = folded(network)
    assert norms(network) > 0
    assert norms(result) < norms(network) if left is None else norms(result) == left
    image = torch.rand(1, 3, 65, 98, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        expected, output = network(image), result(image)
    pairs = zip((*output[:2], *output.gates), (*expected[:2], *expected.gates), strict=True)
    for a, b in ((a, b) for a, b in pairs if b is not None):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in result.parameters())


def test_group_normalisation_stays():
    network = gscnn("test_convnext", norm="group")
    result = folded(network)
    assert [type(m) for m in result.modules()] == [type(m) for m in network.modules()]


class Odd(nn.Module):
    """A convolution and a normalisation, put together as told."""

    def __init__(self, forward):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.how = forward

    def forward(self, x):
        return self.how(self.conv, self.norm, x)


def both(conv, norm, x):
    y = conv(x)
    return norm(y) + y


def returned(conv, norm, x):
    y = conv(x)
    return y, norm(y)


@pytest.mark.parametrize(
    "how",
    [
        both,
        returned,
        lambda conv, norm, x: norm(conv(conv(x))),
        lambda conv, norm, x: norm(norm(conv(x))),
        lambda conv, norm, x: conv(norm(x)),
        lambda conv, norm, x: norm(conv(x).relu()),
    ],
)
def test_what_is_not_certain_stays(how):
    network = with_statistics(Odd(how))
    result = folded(network)
    assert norms(result) == 1
    image = torch.rand(2, 3, 8, 8)
    for a, b in zip(result(image), network(image), strict=True):
        assert a.equal(b)


def test_tied_weights_are_folded_apart():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    network[2].weight = network[0].weight
    with_statistics(network)
    result = folded(copy.deepcopy(network))
    assert norms(result) == 0
    image = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(result(image), network(image), rtol=1e-5, atol=1e-6)


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        folded(nn.Conv2d(3, 3, 3).train())
