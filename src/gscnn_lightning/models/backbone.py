"""The regular stream: any timm model that returns feature maps of images of any size."""

import difflib
import functools
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from gscnn_lightning.checks import is_whole
from gscnn_lightning.errors import BackboneError, WeightsError
from gscnn_lightning.models.input_sizes import SMALLEST, InputSizes, crop, find_input_sizes, pad
from gscnn_lightning.models.vit_pyramid import ViTPyramid
from gscnn_lightning.models.weights import check_fit, installed_weights, read_backbone_weights, read_encoder_weights

SUGGESTIONS = (
    "resnet50",
    "resnet101",
    "convnext_tiny",
    "tf_efficientnet_lite0",
    "hrnet_w18",
    "swin_tiny_patch4_window7_224",
)

# What families want to be told so that they take any input size; the first set that the constructor accepts is used.
# Dilation comes first: a backbone that cannot dilate raises and keeps its own strides.
_CONSTRUCTOR_VARIANTS: tuple[dict[str, Any], ...] = ({"strict_img_size": False}, {"dynamic_img_size": True}, {})

# Images are padded to multiples of more than this many pixels only after it has been said.
_COSTLY = 64

_log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A timm feature extractor that normalises its own input and says which map serves which part of the network.

    Args:
        name: timm model name.
        pretrained: as for `GSCNN`; an installed package is found by `gscnn_lightning.models.weights`.
        output_stride: as for `GSCNN`.
        weights: local weight file, used instead of any other.
        dilation: as for `GSCNN`. Without it kernels see less far.
        freeze_norm: as for `GSCNN`. Scales and shifts are trained all the same.

    Attributes:
        channels: channels of every map, the earliest first.
        strides: stride of every map with respect to the image; models without a map of stride 4 or finer, such as plain
            transformers, get two from a stem, see `ViTPyramid`.
        skip_index: the map that the decoder reads: stride 4, or the closest that there is.
        gate_indices: the three maps that the gates of the shape stream read: the second, the third and the last.
        input_sizes: heights and widths that the family takes. Images of other sizes are padded by repeating their last
            row and column, and the maps are cut back.

    Where the first map is at full resolution, as in WideResNet-38, the second is only half a step away from it: the
    decoder then reads stride 2, and the gates the third, the fourth and the last map, which have the strides that the
    gates read elsewhere.

    Raises:
        BackboneError: the name is unknown to timm, the model has no usable pyramid of maps, or it takes images of one
            size only.
        WeightsError: the pretrained weights cannot be fetched, read or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        pretrained: bool = True,
        output_stride: int = 8,
        weights: str | Path | None = None,
        dilation: bool = True,
        freeze_norm: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise BackboneError(f"backbone is {name!r}: give the name of a timm model, such as {SUGGESTIONS[0]}")
        if output_stride not in (8, 16, 32):
            raise BackboneError(f"output_stride {output_stride} is not possible: use 8, 16 or 32")
        self.name = name
        self.freeze_norm = freeze_norm
        own = {} if weights is None else read_encoder_weights(weights)
        self.encoder = _create_features(name, pretrained and not own, output_stride, None if own else weights)
        self._check_maps()
        if self.encoder.feature_info.reduction()[0] > 4:  # type: ignore[union-attr, operator]
            self.encoder = ViTPyramid(self.encoder)
        if own:
            check_fit(own, self.encoder.state_dict(), str(weights), f"backbone {name!r}")
            self.encoder.load_state_dict(own, strict=False)  # batch counters may be missing
        if not dilation:
            _remove_dilation(self.encoder)
        _step_before_convolving(self.encoder)
        self.channels_last = getattr(self.encoder, "output_fmt", None) == "NHWC"
        if isinstance(self.encoder, ViTPyramid):
            self.channels, self.strides = self.encoder.channels, self.encoder.strides
        else:
            info: Any = self.encoder.feature_info
            self.channels, self.strides = list(info.channels()), list(info.reduction())
        self.input_sizes = self._find_input_sizes()
        full_resolution = self.strides[0] == 1
        skip_stride, first_gate = (2, 2) if full_resolution else (4, 1)
        self.skip_index = min(range(len(self.strides)), key=lambda i: abs(self.strides[i] - skip_stride))
        self.gate_indices = (first_gate, first_gate + 1, len(self.strides) - 1)
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        self.register_buffer("mean", torch.tensor(config.mean if config else (0.485, 0.456, 0.406)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std if config else (0.229, 0.224, 0.225)).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps of an image.

        Args:
            image: (B, 3, H, W) float RGB in [0, 1], of at least 32 pixels a side.

        Returns:
            One (B, C, h, w) map per stage, the earliest first.
        """
        padded = pad((image.to(self.mean.dtype) - self.mean) / self.std, self.input_sizes)
        size, padded_size = ((x.shape[-2], x.shape[-1]) for x in (image, padded))
        maps = self._maps(padded)
        return maps if padded_size == size else [crop(m, size, padded_size) for m in maps]

    def _maps(self, image: Tensor) -> list[Tensor]:
        """Maps of a normalised image of a size that the family takes."""
        maps = self.encoder(image)
        return [m.permute(0, 3, 1, 2).contiguous() for m in maps] if self.channels_last else list(maps)

    def freeze(self, stages: int, used: Collection[int]) -> None:
        """Freeze what the first maps depend on, and what no used map depends on.

        Frozen weights keep their values and frozen normalisation its statistics. Freezing what is never used lets
        distributed training know that no gradient will come. The stem of a plain transformer, whose weights come with
        no file, is always trained.

        Args:
            stages: number of maps to freeze, 0 to all of them.
            used: indices of the maps that the network reads.

        Raises:
            BackboneError: there are fewer maps.
        """
        if not is_whole(stages, 0) or stages > len(self.channels):
            raise BackboneError(f"freeze_stages is {stages}, but backbone {self.name!r} has {len(self.channels)} maps")
        reached = self._dependencies()
        frozen = set().union(*reached[:stages]) - self._fresh_parameters()
        trained = set().union(*(reached[i] for i in used)) - frozen
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(name in trained)
        self.train()

    def set_grad_checkpointing(self) -> None:
        """Compute activations again in the backward pass instead of keeping them.

        Batch normalisation in training then sees every batch twice, so that its running statistics move almost twice as
        fast; gradients are the same.

        Raises:
            BackboneError: the timm model does not offer it.
        """
        # timm's feature wrappers have the switch themselves, or hold the model that has it.
        inner: Any = getattr(self.encoder, "model", None)
        switch = getattr(self.encoder, "set_grad_checkpointing", getattr(inner, "set_grad_checkpointing", None))
        try:
            if switch is None:
                raise AssertionError("it has no set_grad_checkpointing")
            switch(True)
        except (AssertionError, NotImplementedError) as error:
            raise BackboneError(
                f"backbone {self.name!r} cannot checkpoint its activations: {str(error) or 'timm does not offer it'}. "
                "Set grad_checkpointing to false, or use a backbone such as resnet50 or wider_resnet38_a2"
            ) from error

    def layer_scales(self, decay: float) -> dict[str, float]:
        """Factors of the learning rate by layer, as timm's ``param_groups_layer_decay`` has them for the whole model.

        A layer has ``decay`` times the rate of the one behind it; the classifier, in whose place is the rest of the
        network here, has 1. Source: Bao et al., "BEiT", ICLR 2022, after Clark et al., "ELECTRA", ICLR 2020.

        Args:
            decay: factor from layer to layer, in (0, 1].

        Returns:
            Names of parameters in this module, and factors in (0, 1].

        Raises:
            BackboneError: timm does not know to which layer a parameter belongs.
        """
        with torch.device("meta"):
            # With a classifier, or the last layer of models that come without would be taken for one.
            whole = timm.create_model(self.name, pretrained=False, num_classes=1)
        names = {id(parameter): name for name, parameter in whole.named_parameters()}
        groups = param_groups_layer_decay(whole, layer_decay=decay)
        known = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
        # Extractors put underscores in place of the first dots: "stages_0.blocks.1.weight".
        spelt = {name.replace(".", "_", dots): scale for name, scale in known.items() for dots in range(3)}
        scales, fresh = {}, self._fresh_parameters()
        for name, _ in self.encoder.named_parameters():
            own = name.removeprefix("trunk.").removeprefix("model.")
            if name not in fresh and own not in spelt:
                raise BackboneError(
                    f"layer_decay does not work with backbone {self.name!r}: timm does not tell the layer of {own}. "
                    "Leave --model.layer_decay out, and use --model.backbone_lr_scale"
                )
            scales[f"encoder.{name}"] = 1.0 if name in fresh else spelt[own]
        return scales

    def fresh_parameters(self) -> set[str]:
        """Names of parameters in this module that belong to no timm model, and never have pretrained weights."""
        return {f"encoder.{name}" for name in self._fresh_parameters()}

    def without_decay(self) -> set[str]:
        """Names of parameters in this module that weight decay is not meant for, though they are no vectors."""
        listed = self.encoder.without_decay() if isinstance(self.encoder, ViTPyramid) else set()
        return {f"encoder.{name}" for name in listed}

    def _fresh_parameters(self) -> set[str]:
        return self.encoder.fresh_parameters() if isinstance(self.encoder, ViTPyramid) else set()

    def _dependencies(self) -> list[set[str]]:
        """Names of the parameters that every map depends on; autograd knows in any family, module names do not tell."""
        names: dict[Tensor, str] = {
            parameter: name for name, parameter in self.encoder.requires_grad_().named_parameters()
        }
        self.eval()
        side = self.input_sizes.fitting(SMALLEST)
        with torch.enable_grad():
            maps = self._maps(torch.zeros(1, 3, side, side))
        return [{names[leaf] for leaf in _leaves(m) if leaf in names} for m in maps]

    def _find_input_sizes(self) -> InputSizes:
        """The heights and widths that the family takes, found out by trying.

        Raises:
            BackboneError: it works on one size only, or on none.
        """
        config = timm.get_pretrained_cfg(self.name, allow_unregistered=True)
        native = max(config.input_size[1:]) if config else 224
        self.encoder.eval()
        sizes = find_input_sizes(lambda height, width: self._fault(height, width) is None, native, self.strides[-1])
        fault = None if sizes else self._fault(native, native)
        other = None if sizes else self._fault(native, 2 * native)
        self.encoder.train()
        if sizes is None:
            raise BackboneError(
                f"backbone {self.name!r} cannot be the regular stream: "
                + (f"it takes images of {native}x{native} pixels only ({other})" if fault is None else fault)
                + f". Use a backbone for images of any size such as {', '.join(SUGGESTIONS)}"
            )
        if sizes.multiple > _COSTLY:
            _log.warning(
                "backbone %r works on heights and widths that are multiples of %d pixels: images and crops of other "
                "sizes are padded for it, which takes time",
                *(self.name, sizes.multiple),
            )
        return sizes

    @torch.no_grad()
    def _fault(self, height: int, width: int) -> str | None:
        """What is wrong with the maps of an image of a size, None if nothing is."""
        try:
            maps = self._maps(torch.zeros(1, 3, height, width))
        except Exception as error:  # families assert, index, reshape and add, each in its own way
            return _in_one_line(error)
        found = [m.shape[1] if m.ndim == 4 else 0 for m in maps]
        return None if found == self.channels else f"its maps have {found} channels in place of {self.channels}"

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the frozen normalisation layers."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                own = list(module.parameters(recurse=False))
                if self.freeze_norm or (own and not any(p.requires_grad for p in own)):
                    module.eval()
        return self

    def _check_maps(self) -> None:
        info: Any = self.encoder.feature_info
        strides = list(info.reduction())
        fewest = 2 if strides[0] > 4 else 3 + (strides[0] == 1)
        if len(strides) < fewest:
            raise BackboneError(
                f"backbone {self.name!r} cannot be the regular stream: it has maps of strides {strides} alone, and "
                f"{fewest} or more are needed. Use one such as {', '.join(SUGGESTIONS)}"
            )


def _create_features(name: str, pretrained: bool, output_stride: int, weights: str | Path | None) -> nn.Module:
    """The timm feature extractor, dilated to ``output_stride`` where the family can."""
    if not timm.is_model(name):
        close = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=4) or list(SUGGESTIONS)
        raise BackboneError(f"unknown backbone {name!r}: timm has no such model. Did you mean {', '.join(close)}?")
    local = weights or (installed_weights(name) if pretrained else None)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if pretrained and not local and not (config and config.has_weights):
        raise WeightsError(
            f"there are no pretrained weights of {name!r} to fetch: give a local file (--model.backbone_weights FILE) "
            "or start from random weights (--model.pretrained false)"
        )
    source: dict[str, Any] = {"pretrained": pretrained or local is not None}
    if local:
        # Their fit has been checked; timm would warn of the layers behind the last map, which no pyramid has.
        logging.getLogger("timm.models._builder").setLevel(logging.ERROR)
        source["pretrained_cfg_overlay"] = {"state_dict": read_backbone_weights(local, name)}
    dilated: tuple[dict[str, Any], ...] = ({"output_stride": output_stride},) if output_stride < 32 else ()
    refusal: BaseException | None = None
    for variant in (*dilated, *_CONSTRUCTOR_VARIANTS):
        try:
            return timm.create_model(name, features_only=True, **source, **variant)
        except (TypeError, AssertionError, NotImplementedError) as error:
            refusal = error  # this family does not take the argument, or cannot dilate: try the next variant
        except Exception as error:
            if pretrained and not local and _is_download_error(error):
                raise WeightsError(
                    f"cannot fetch the pretrained weights of {name!r} ({type(error).__name__}). Without network, "
                    "give a local file (--model.backbone_weights FILE) or start from random weights "
                    "(--model.pretrained false)"
                ) from error
            refusal = error
            break
    assert refusal is not None
    raise BackboneError(
        f"backbone {name!r} cannot return feature maps: timm refuses ({_in_one_line(refusal)}). "
        f"Use one such as {', '.join(SUGGESTIONS)}"
    ) from refusal


def _remove_dilation(model: nn.Module) -> None:
    """Set every dilation to 1 and the padding to what keeps the size then."""
    for conv in model.modules():
        if isinstance(conv, nn.Conv2d) and max(conv.dilation) > 1:
            if not isinstance(conv.padding, str) and any(conv.padding):
                conv.padding = tuple((k - 1) // 2 for k in conv.kernel_size)
            conv.dilation = (1,) * len(conv.dilation)


def _step_before_convolving(model: nn.Module) -> None:
    """Let strided 1x1 convolutions of few channels leave out pixels first, and then convolve without stride.

    That is the same sum. oneDNN (3.12, in torch 2.14) writes past its workspace when it computes the weight gradient of
    such a convolution in channels-last memory, which ends the interpreter: of fewer than 16 channels with AVX-512, 8
    with AVX2. MobileOne, RepVGG and FastViT have one on the image.
    """
    for conv in model.modules():
        if (
            isinstance(conv, nn.Conv2d)
            and (conv.kernel_size, conv.groups) == ((1, 1), 1)
            and conv.padding in ((0, 0), "valid")
            and conv.in_channels < 16
            and max(conv.stride) > 1
        ):
            conv.register_forward_pre_hook(functools.partial(_step, conv.stride))
            conv.stride = (1, 1)


def _step(stride: tuple[int, ...], conv: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return inputs[0][..., :: stride[0], :: stride[1]]


def _leaves(tensor: Tensor) -> set[Tensor]:
    """The tensors of autograd's graph that a tensor is computed from."""
    seen: set[Any] = {None}
    found, todo = set(), [tensor.grad_fn]
    while todo:
        node: Any = todo.pop()
        if node not in seen:
            seen.add(node)
            found |= {node.variable} if hasattr(node, "variable") else set()
            todo += [before for before, _ in node.next_functions]
    return found


def _in_one_line(error: BaseException) -> str:
    """What an exception of a foreign program says; often an assertion says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _is_download_error(error: BaseException) -> bool:
    """Whether an exception from timm stems from the network or the hub rather than from the model."""
    module = type(error).__module__
    return isinstance(error, OSError) or module.startswith(("huggingface_hub", "requests", "urllib", "httpx"))
