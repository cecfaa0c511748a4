"""WideResNet-38 (A2), the strongest trunk of the paper, as timm model ``wider_resnet38_a2``."""

import re
from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

# layer2 ... layer7: blocks, widths (three make a bottleneck), stride of an undilated network, and the distance in image
# pixels between the taps of the 3x3 kernels.
_LAYERS: tuple[tuple[int, tuple[int, ...], int, int], ...] = (
    (3, (128, 128), 1, 2),
    (3, (256, 256), 1, 4),
    (6, (512, 512), 2, 4),
    (3, (512, 1024), 2, 16),
    (1, (512, 1024, 2048), 2, 32),
    (1, (1024, 2048, 4096), 1, 32),
)

default_cfgs = generate_default_cfgs(
    {
        "wider_resnet38_a2.untrained": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


class PreActivationBlock(nn.Module):
    """Residual block with normalisation and ReLU in front of every convolution (He et al., ECCV 2016).

    ``y = convs(r) + shortcut`` with ``r = relu(norm(x))``; the shortcut is ``x`` itself, or a 1x1 convolution of ``r``
    where stride or width change.

    Args:
        in_channels: channels of the input.
        widths: two for 3x3 and 3x3, three for a bottleneck of 1x1, 3x3, 1x1.
        stride: of the first convolution and of the shortcut.
        dilation: of the 3x3 convolutions.
        first_dilation: of the first convolution if that is a 3x3; as ``dilation`` by default.
        drop_rate: probability that a whole channel is dropped in front of the last 1x1 convolution of a bottleneck.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        stride: int = 1,
        dilation: int = 1,
        first_dilation: int | None = None,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        bottleneck = len(widths) == 3
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = _conv(in_channels, widths[0], 1 if bottleneck else 3, stride, first_dilation or dilation)
        self.norm2 = nn.BatchNorm2d(widths[0])
        self.conv2 = _conv(widths[0], widths[1], 3, dilation=dilation)
        self.expand: nn.Module | None = None
        if bottleneck:
            self.norm3 = nn.BatchNorm2d(widths[1])
            self.dropout = nn.Dropout2d(drop_rate)
            self.expand = _conv(widths[1], widths[2], 1)
        changes = stride != 1 or in_channels != widths[-1]
        self.shortcut = _conv(in_channels, widths[-1], 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) in, (B, widths[-1], h / stride, w / stride) out, rounded up."""
        r = F.relu(self.norm1(x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(r)
        y = self.conv2(F.relu(self.norm2(self.conv1(r)), inplace=True))
        if self.expand is not None:
            y = self.expand(self.dropout(F.relu(self.norm3(y), inplace=True)))
        return y + shortcut


class WiderResNet(nn.Module):
    """Model A2 of Wu, Shen and van den Hengel, "Wider or Deeper", 2016, with an ImageNet head.

    At every output stride the network computes the same numbers, at more or fewer places: the taps of all kernels keep
    their distance in image pixels, which is that of the published, dilated weights (output stride 8).

    Args:
        num_classes: classes of the head, 0 for pooled features.
        in_chans: channels of the image.
        output_stride: stride of the last map, 8, 16 or 32.
        drop_rates: probability of dropping whole channels in the last two blocks.

    Raises:
        NotImplementedError: another output stride.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        drop_rates: tuple[float, float] = (0.3, 0.5),
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise NotImplementedError(f"output_stride {output_stride} is not possible: use 8, 16 or 32")
        self.num_classes = num_classes
        self.grad_checkpointing = False
        self.feature_info = [{"num_chs": 64, "reduction": 1, "module": "conv1"}]
        self.conv1 = _conv(in_chans, 64, 3)
        channels, reduction = 64, 1
        for number, (blocks, widths, stride, spacing) in enumerate(_LAYERS, start=2):
            if number in (2, 3):
                self.add_module(f"pool{number}", nn.MaxPool2d(3, stride=2, padding=1))
                reduction *= 2
            stride = stride if reduction * stride <= output_stride else 1
            first_dilation, dilation = (max(1, spacing // r) for r in (reduction, reduction * stride))
            drop_rate = drop_rates[number - 6] if number >= 6 else 0.0
            layer = [PreActivationBlock(channels, widths, stride, dilation, first_dilation, drop_rate)]
            channels, reduction = widths[-1], reduction * stride
            layer += [PreActivationBlock(channels, widths, dilation=dilation) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))
            if number in (2, 3, 4, 7):
                last = f"layer{number}.{blocks - 1}"
                self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": last})
        self.num_features = self.head_hidden_size = channels
        self.norm = nn.BatchNorm2d(channels)
        self.fc = _classifier(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no activations inside the blocks for the backward pass, but compute them again."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer for a number of classes; 0 leaves pooled features. The pooling is always the mean."""
        self.num_classes = num_classes
        self.fc = _classifier(self.num_features, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 4096, H / stride, W / stride) map of a normalised image (B, 3, H, W)."""
        x = self.conv1(x)
        for name, module in self.named_children():
            if name.startswith("pool"):
                x = module(x)
            elif name.startswith("layer"):
                x = checkpoint_seq(module, x) if self.grad_checkpointing and self.training else module(x)
        return F.relu(self.norm(x), inplace=True)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Class logits (B, K) of the last map, or its mean over all places."""
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K) of a normalised image (B, 3, H, W)."""
        return self.forward_head(self.forward_features(x))


@register_model
def wider_resnet38_a2(pretrained: bool = False, **kwargs: Any) -> nn.Module:  # noqa: ANN401
    """WideResNet-38 (A2): maps of 64, 128, 256, 512 and 4096 channels at strides 1, 2, 4, 8 and ``output_stride``."""
    # The blocks become modules of their own, so that timm's activation checkpointing works block by block.
    features = {"flatten_sequential": True}
    return build_model_with_cfg(WiderResNet, "wider_resnet38_a2", pretrained, feature_cfg=features, **kwargs)


def released_name(name: str) -> str:
    """Name that the published weight files give to a parameter or buffer of this network.

    Args:
        name: as in ``state_dict()`` of the classification model or of its ``features_only`` form.

    Example:
        >>> released_name("layer6.0.norm3.bias"), released_name("layer6_0.shortcut.weight")
        ('mod6.block1.convs.bn3.0.bias', 'mod6.block1.proj_conv.weight')
    """
    module, _, leaf = name.rpartition(".")
    block = re.fullmatch(r"layer(\d)[._](\d)\.(\w+?)(\d?)", module)
    if block is None:
        outer = {"conv1": "mod1.conv1", "norm": "bn_out.0", "fc": "classifier.fc"}[module]
        return f"{outer}.{leaf}"
    layer, index, kind, number = block.groups()
    inner = {
        "norm": "bn1.0" if number == "1" else f"convs.bn{number}.0",
        "conv": f"convs.conv{number}",
        "expand": "convs.conv3",
        "shortcut": "proj_conv",
    }[kind]
    return f"mod{layer}.block{int(index) + 1}.{inner}.{leaf}"


def _conv(in_channels: int, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Convolution without bias whose output is as large as its input over the stride."""
    dilation = dilation if kernel > 1 else 1
    padding = dilation * (kernel // 2)
    return nn.Conv2d(in_channels, channels, kernel, stride, padding, dilation, bias=False)


def _classifier(channels: int, num_classes: int) -> nn.Module:
    return nn.Linear(channels, num_classes) if num_classes else nn.Identity()
