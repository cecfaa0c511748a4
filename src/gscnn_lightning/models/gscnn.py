"""Gated-SCNN: regular stream, shape stream and fusion (Takikawa et al., ICCV 2019), and its matched control."""

from typing import Literal

import torch
from torch import Tensor, nn

from gscnn_lightning.checks import can_look, check_image, check_whole, is_whole
from gscnn_lightning.errors import SettingError
from gscnn_lightning.models.aspp import BoundaryASPP, JoiningConv2d
from gscnn_lightning.models.backbone import Backbone
from gscnn_lightning.models.boundary_head import BoundaryHead
from gscnn_lightning.models.image_gradient import GradientKind, ImageGradient
from gscnn_lightning.models.layers import (
    Norm,
    check_beside,
    concatenated,
    conv_norm,
    resize_by_area,
    resize_like,
    resize_strided,
)
from gscnn_lightning.models.pretrained import PretrainedMixin
from gscnn_lightning.models.refinement import ConvexUpsampling
from gscnn_lightning.models.shape_stream import ShapeStream
from gscnn_lightning.output import GSCNNOutput

Refine = Literal["none", "convex"]
StreamStart = Literal["first", "skip"]

# Float images of 0 to 255 are brighter; random numbers, on which networks are tried out, are not.
_BRIGHTEST = 16


class GSCNN(PretrainedMixin, nn.Module):
    """Gated-SCNN on any timm backbone that returns feature maps.

    Args:
        num_classes: number of classes K.
        backbone: timm model name of the regular stream.
        pretrained: start from ImageNet weights, of an installed package or from timm.
        output_stride: stride of the last map, 8, 16 or 32; backbones that cannot dilate keep their own.
        shape_stream: False gives the matched control: with `refine` "none", DeepLabv3+ on the same backbone.
        image_gradient: what the fusion sees beside the boundary map: "canny", "sobel", "none" or "release".
        backbone_weights: local file with weights of the backbone, used instead: of a classification network, or a
            checkpoint of a training, of other classes, too.
        dilation: False reaches the output stride without dilated convolutions, which are slow on CPUs if depthwise.
        shape_channels: width of the shape stream's first block, halved after each of the three; 64 in the paper.
        channels: width of the ASPP branches and of the decoder; 256 in the paper.
        skip_channels: width of the decoder's skip connection; 48 in the paper.
        freeze_stages: number of backbone maps, from the earliest, whose layers keep weights and statistics.
        norm: normalisation of everything but the backbone: "batch" or "group".
        grad_checkpointing: compute the activations of backbone and shape stream again in the backward pass, which
            costs a second forward pass, instead of keeping them.
        freeze_norm: batch normalisation of the backbone keeps its running statistics, in training too, for batches too
            small to have statistics of their own.
        separable: depthwise separable convolutions in ASPP and decoder, and one of the decoder's two blocks before the
            upsampling, which suits small backbones; the paper has full ones.
        refine: "convex" has the backbone's first map and the features of the shape stream, if there is one, steer the
            last upsampling, see `ConvexUpsampling`: an extension, not Gated-SCNN of the paper, which has "none".
        boundary_supervision: the control has a boundary head in training, see `BoundaryHead`, for the boundary losses;
            in evaluation it is the control as it is. What the supervision alone does, without the stream.
        stream_start: map of the backbone in which the shape stream begins, and whose resolution it keeps: "first", the
            finest, as in the paper, or "skip", that of the decoder's skip connection, mostly of stride 4. After a first
            map of stride 2 it has a quarter of the places to compute, and a boundary map as much coarser; where the
            first map has stride 4 they are the same.

    Attributes:
        arguments: all of the above by name, as given or by default.

    Raises:
        BackboneError: the backbone is unknown or cannot serve.
        WeightsError: pretrained weights cannot be fetched.
        ValueError: a size is not possible; the message says which.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        pretrained: bool = True,
        output_stride: Literal[8, 16, 32] = 8,
        shape_stream: bool = True,
        image_gradient: GradientKind = "canny",
        backbone_weights: str | None = None,
        dilation: bool = True,
        shape_channels: int = 64,
        channels: int = 256,
        skip_channels: int = 48,
        freeze_stages: int = 0,
        norm: Norm = "batch",
        grad_checkpointing: bool = False,
        freeze_norm: bool = False,
        separable: bool = False,
        refine: Refine = "none",
        boundary_supervision: bool = False,
        stream_start: StreamStart = "first",
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.arguments = given
        if refine not in ("none", "convex"):
            raise SettingError(f"refine is {refine!r}: use 'none' or 'convex'")
        if stream_start not in ("first", "skip"):
            raise SettingError(f"stream_start is {stream_start!r}: use 'first' or 'skip'")
        if not is_whole(num_classes, 2):
            raise SettingError(f"num_classes is {num_classes!r}: segmentation needs at least 2 classes")
        check_whole("channels", channels, 1)
        check_whole("skip_channels", skip_channels, 1)
        if boundary_supervision and shape_stream:
            raise SettingError(
                "boundary_supervision is for the control, and the shape stream is supervised in any case: give "
                "shape_stream false with it, or leave it out"
            )
        self.num_classes = num_classes
        self.backbone = Backbone(backbone, pretrained, output_stride, backbone_weights, dilation, freeze_norm)
        widths, strides = self.backbone.channels, self.backbone.strides
        self._start = self.backbone.skip_index if stream_start == "skip" else 0
        rates = (12, 24, 36) if strides[-1] <= 8 else (6, 12, 18)
        self.aspp = BoundaryASPP(widths[-1], channels, rates, shape_stream, norm, separable)
        self.aspp_project = JoiningConv2d(self.aspp.out_channels, channels)
        self.skip_project = nn.Conv2d(widths[self.backbone.skip_index], skip_channels, 1, bias=False)
        joined = conv_norm(skip_channels + channels, channels, 3, norm=norm, separable=separable)
        block = conv_norm(channels, channels, 3, norm=norm, separable=separable)
        classes = nn.Conv2d(channels, num_classes, 1, bias=False)
        # Where cost matters the second block works before the upsampling, at a sixteenth of the places.
        self.aspp_block = block if separable else None
        self.decoder = _Decoder(joined, classes) if separable else _Decoder(joined, block, classes)
        self.shape_stream: ShapeStream | None = None
        if shape_stream:
            gating = [widths[i] for i in self.backbone.gate_indices]
            self.image_gradient = ImageGradient(image_gradient, self.backbone.mean, self.backbone.std)
            self.shape_stream = ShapeStream(widths[self._start], gating, shape_channels, norm)
            self.boundary_fusion = nn.Conv2d(2, 1, 1, bias=False)
        self.refinement: ConvexUpsampling | None = None
        if refine == "convex":
            ratio = strides[self.backbone.skip_index] // strides[0]
            # The boundary logit is one channel more.
            shape = 0 if self.shape_stream is None else self.shape_stream.feature_channels + 1
            fine, coarse = (shape, 0) if self._start == 0 else (0, shape)
            self.refinement = ConvexUpsampling(num_classes, widths[0] + fine, channels + coarse, ratio, norm=norm)
        self.boundary_head: BoundaryHead | None = None
        self._seen = sorted({self._start, *self.backbone.gate_indices})
        if boundary_supervision:
            self.boundary_head = BoundaryHead([widths[i] for i in self._seen])
        supervised = shape_stream or boundary_supervision
        used = {self.backbone.skip_index, len(widths) - 1, *(self._seen if supervised else ())}
        used |= {0} if self.refinement is not None else set()
        self.backbone.freeze(freeze_stages, used)
        if grad_checkpointing:
            self.backbone.set_grad_checkpointing()
            if self.shape_stream is not None:
                self.shape_stream.grad_checkpointing = True
        self._initialise()

    def forward(self, image: Tensor, gradient: Tensor | None = None, stride: int = 1) -> GSCNNOutput:
        """Segment a batch of images.

        Args:
            image: (B, 3, H, W) RGB, float in [0, 1] of any precision or uint8, any size of at least 32 pixels a side.
                The network normalises it itself.
            gradient: (B, 1, H, W) replaces the computed image gradient.
            stride: give the logits at every n-th pixel of either axis only, for losses that need no more.

        Returns:
            Logits at input size and the attention maps; the same type in training and evaluation.

        Raises:
            ValueError: shape, data type or device of an argument are not these, or the image is smaller than 32 pixels.
                In evaluation on CPUs also if a float image is one of 0 to 255, or not finite; elsewhere that is not
                found out, as it would wait for the device in every step.
        """
        self._check(image, gradient, stride)
        if not image.is_floating_point():
            image = image.to(self.backbone.mean.dtype) / 255
        size = (image.shape[-2], image.shape[-1])
        maps = self.backbone(image)
        boundary_logits, attention, gates, shape = self._boundary(image, gradient, maps)
        # The 48-channel skip comes first, the upsampled ASPP after it: the order of the released weights.
        fused = self.aspp_project(self.aspp(maps[-1], attention, joined=False))
        if self.aspp_block is not None:
            fused = self.aspp_block(fused)
        skip = self.skip_project(maps[self.backbone.skip_index])
        seg_logits, features = self.decoder(torch.cat([skip, resize_like(fused, skip)], dim=1))
        if self.refinement is not None:
            fine = [maps[0]]
            if self._start == 0:
                fine += shape
            elif shape:
                features = concatenated([features, *shape], features)
            seg_logits = self.refinement(seg_logits, features, fine)
        seg_logits = resize_strided(seg_logits, size, stride, align_corners=False)
        if boundary_logits is not None:
            boundary_logits = resize_strided(boundary_logits, size, stride)
        return GSCNNOutput(seg_logits, boundary_logits, gates)

    def _check(self, image: Tensor, gradient: Tensor | None, stride: int) -> None:
        check_image(image)
        if min(image.shape[-2:]) < 32:
            raise SettingError(
                f"image is {image.shape[-2]}x{image.shape[-1]} pixels: pad it to at least 32x32, or train on crops of "
                "it (--data.crop_size)"
            )
        own = self.backbone.mean.device
        if image.device != own:
            raise ValueError(f"image is on {image.device} and the network on {own}: move one to the other")
        check_whole("stride", stride, 1)
        if gradient is not None:
            check_beside("gradient", gradient, image.shape[0])
        if not self.training and image.is_floating_point() and can_look(image):
            highest = float(image.detach().amax())
            if not highest <= _BRIGHTEST:
                raise ValueError(
                    f"image has values up to {highest:g}: give uint8, or floating-point numbers in [0, 1] (image / 255)"
                )

    def _boundary(
        self, image: Tensor, gradient: Tensor | None, maps: list[Tensor]
    ) -> tuple[Tensor | None, Tensor | None, tuple[Tensor, ...], list[Tensor]]:
        """Boundary logits at the shape stream's resolution, attention for the ASPP, gates, and the stream's features.

        Of the control they are None, None and empty, but for the logits of a boundary head in training.
        """
        if self.shape_stream is None:
            head = self.boundary_head if self.training else None
            return None if head is None else head([maps[i] for i in self._seen]), None, (), []
        gating = [maps[i] for i in self.backbone.gate_indices]
        logits, gates, features = self.shape_stream(maps[self._start], gating, with_features=True)
        gradient = self.image_gradient(image) if gradient is None else gradient.to(logits.dtype)
        if gradient.shape[-2:] != logits.shape[-2:]:
            # Where the shape stream runs below image size the gradient is averaged, so that no thin edge falls between.
            gradient = resize_by_area(gradient, (logits.shape[-2], logits.shape[-1]))
        evidence = concatenated([logits.sigmoid(), gradient.to(logits.dtype)], features[0])
        return logits, self.boundary_fusion(evidence).sigmoid(), gates, [*features, logits]

    def _initialise(self) -> None:
        """He initialisation outside the backbone; boundary logits near 0, as their loss has a large weight."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("backbone."):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.shape_stream is not None:
            nn.init.normal_(self.shape_stream.boundary.weight, std=0.01)
        if self.boundary_head is not None:
            self.boundary_head.start_near_zero()
        if self.refinement is not None:
            self.refinement.start_as_repetition()


class _Decoder(nn.Sequential):
    """Blocks and a classifier in a row."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores, and what the classifier made them of."""
        *blocks, classes = self
        for block in blocks:
            x = block(x)
        return classes(x), x
