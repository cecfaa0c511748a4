"""Transformers of each plain family, as small as they go, under names that timm knows once this is imported."""

import timm

SMALL = {"depth": 4, "embed_dim": 32, "num_heads": 2}


@timm.models.register_model
def tiny_dinov2(pretrained=False, **kwargs):
    return timm.create_model("vit_small_patch14_reg4_dinov2", pretrained=pretrained, **{**SMALL, **kwargs})


@timm.models.register_model
def tiny_dinov3(pretrained=False, **kwargs):
    return timm.create_model("vit_small_patch16_dinov3", pretrained=pretrained, **{**SMALL, **kwargs})


@timm.models.register_model
def tiny_eva(pretrained=False, **kwargs):
    return timm.create_model("eva02_tiny_patch14_224", pretrained=pretrained, **{**SMALL, **kwargs})


@timm.models.register_model
def tiny_deit(pretrained=False, **kwargs):
    return timm.create_model("deit_tiny_distilled_patch16_224", pretrained=pretrained, **{**SMALL, **kwargs})


NAMES = ("test_vit", "tiny_deit", "tiny_dinov2", "tiny_dinov3", "tiny_eva")
PATCHES = {"test_vit": 16, "tiny_deit": 16, "tiny_dinov2": 14, "tiny_dinov3": 16, "tiny_eva": 14}
