"""What losses say to input that they are not made for: one message each, or the right number."""

import math
import warnings

import pytest
import torch

from gscnn_lightning.losses import (
    BoundaryBCE,
    DualTaskLoss,
    GSCNNLoss,
    ImageWeightedCrossEntropy,
    boundary_attention_loss,
    boundary_bce,
    boundary_potential,
    dual_task_loss,
    image_class_weights,
    image_weighted_cross_entropy,
    spatial_gradient,
    triangle_filter,
)
from gscnn_lightning.models import GSCNNOutput

Z = torch.randn(2, 4, 8, 10, generator=torch.Generator().manual_seed(0))
Y = (torch.arange(160).reshape(2, 8, 10) // 5 % 4).long()
B = torch.randn(2, 1, 8, 10, generator=torch.Generator().manual_seed(1))
EDGES = (Y[:, None] == 1).to(torch.uint8)
VOID = torch.zeros(2, 1, 8, 10, dtype=torch.bool)
PROB = torch.full((2, 1, 8, 10), 0.9)


def label(value):
    labels = Y.clone()
    labels[0, 2, 3] = value
    return labels


def joint(logits=Z, labels=Y, boundaries=EDGES, boundary_logits=B, noise=None, **settings):
    return GSCNNLoss(4, **settings)(GSCNNOutput(logits, boundary_logits, ()), labels, boundaries, noise)["loss"]


OUT_OF_RANGE = r"labels has values from {} to {}: .* 4 classes .* 0 to 3 or ignore_index, 255"
FLOATS = r"labels has data type torch.float32: give integers \(labels.long\(\)\)"
VARIANT = r"variant is 'papers': use 'paper' or 'release'"

BAD = {
    "CE, label K": (lambda: image_weighted_cross_entropy(Z, label(4)), OUT_OF_RANGE.format(0, 4)),
    "CE, label 200": (lambda: image_weighted_cross_entropy(Z, label(200).byte()), OUT_OF_RANGE.format(0, 200)),
    "CE, label -1": (lambda: image_weighted_cross_entropy(Z, label(-1)), OUT_OF_RANGE.format(-1, 3)),
    "CE module, label K": (lambda: ImageWeightedCrossEntropy()(Z, label(4)), OUT_OF_RANGE.format(0, 4)),
    "dual task, label K": (lambda: dual_task_loss(Z, label(4)), OUT_OF_RANGE.format(0, 4)),
    "dual task, label -1": (lambda: dual_task_loss(Z, label(-1)), OUT_OF_RANGE.format(-1, 3)),
    "dual task, release, label 200": (
        lambda: dual_task_loss(Z, label(200), variant="release"),
        OUT_OF_RANGE.format(0, 200),
    ),
    "dual task module, label 9": (lambda: DualTaskLoss()(Z, label(9)), OUT_OF_RANGE.format(0, 9)),
    "attention, label 9": (lambda: boundary_attention_loss(Z, label(9), PROB), OUT_OF_RANGE.format(0, 9)),
    "attention, label 9 where it is not sure": (
        lambda: boundary_attention_loss(Z, label(9), 0 * PROB),
        OUT_OF_RANGE.format(0, 9),
    ),
    "class weights, label 9": (lambda: image_class_weights(label(9), 4), OUT_OF_RANGE.format(0, 9)),
    "class weights, label -1": (lambda: image_class_weights(label(-1), 4), OUT_OF_RANGE.format(-1, 3)),
    "joint, label 9": (lambda: joint(labels=label(9)), OUT_OF_RANGE.format(0, 9)),
    "joint, label 9, segmentation off": (lambda: joint(labels=label(9), segmentation=0), OUT_OF_RANGE.format(0, 9)),
    "joint, another label of void": (lambda: joint(labels=label(255), ignore_index=200), "0 to 3 or ignore_index, 200"),
    "CE, float labels": (lambda: image_weighted_cross_entropy(Z, Y.float()), FLOATS),
    "dual task, float labels": (lambda: dual_task_loss(Z, Y + 0.5), FLOATS),
    "attention, float labels": (lambda: boundary_attention_loss(Z, Y.float(), PROB), FLOATS),
    "class weights, float labels": (lambda: image_class_weights(Y.float(), 4), FLOATS),
    "joint, float labels": (lambda: joint(labels=Y.float()), FLOATS),
    "CE, integer logits": (lambda: image_weighted_cross_entropy(Z.long(), Y), "logits has data type torch.int64: give"),
    "dual task, complex logits": (lambda: dual_task_loss(Z + 0j, Y), "logits has data type torch.complex64: give"),
    "CE, labels of NumPy": (
        lambda: image_weighted_cross_entropy(Z, Y.numpy()),
        r"labels is ndarray, no tensor: make one of it",
    ),
    "CE, logits of NumPy": (lambda: image_weighted_cross_entropy(Z.numpy(), Y), "logits is ndarray, no tensor"),
    "CE, flat logits": (lambda: image_weighted_cross_entropy(Z[:, :, 0], Y), r"logits have shape \(2, 4, 10\)"),
    "CE, labels with a channel": (lambda: image_weighted_cross_entropy(Z, Y[:, None]), r"labels \(2, 1, 8, 10\)"),
    "CE, one-hot labels": (lambda: image_weighted_cross_entropy(Z, (Z > 0).long()), r"labels \(2, 4, 8, 10\)"),
    "CE, no class": (lambda: image_weighted_cross_entropy(Z[:, :0], Y), r"\(2, 0, 8, 10\).*K of 1 or more"),
    "CE, other device": (lambda: image_weighted_cross_entropy(Z, Y.to("meta")), "logits are on cpu and labels on meta"),
    "CE, no ignore_index": (lambda: image_weighted_cross_entropy(Z, Y, None), "ignore_index is None: give a whole"),
    "joint, no ignore_index": (lambda: GSCNNLoss(4, ignore_index=None), "ignore_index is None: give a whole number"),
    "CE, variant": (lambda: image_weighted_cross_entropy(Z, Y, variant="papers"), VARIANT),
    "boundary, variant": (lambda: boundary_bce(B, EDGES, variant="papers"), VARIANT),
    "dual task, variant": (lambda: dual_task_loss(Z, Y, variant="papers"), VARIANT),
    "attention, variant": (lambda: boundary_attention_loss(Z, Y, PROB, variant="papers"), VARIANT),
    "CE module, variant": (lambda: ImageWeightedCrossEntropy(variant="papers"), VARIANT),
    "boundary module, variant": (lambda: BoundaryBCE("papers"), VARIANT),
    "dual task module, variant": (lambda: DualTaskLoss(variant="papers"), VARIANT),
    "joint, variant": (lambda: GSCNNLoss(4, variant="papers"), VARIANT),
    "joint, negative weight": (lambda: GSCNNLoss(4, edge=-1), "weight of the edge loss is -1: use 0 to switch it off"),
    "joint, NaN weight": (lambda: GSCNNLoss(4, boundary=math.nan), "weight of the boundary loss is nan: use 0"),
    "joint, infinite weight": (lambda: GSCNNLoss(4, dice=math.inf), "weight of the dice loss is inf: use 0"),
    "joint, weight None": (lambda: GSCNNLoss(4, attention=None), "weight of the attention loss is None: use 0"),
    "joint, K = 0": (lambda: GSCNNLoss(0), "num_classes is 0: give a whole number of 1 or more"),
    "joint, K = 4.5": (lambda: GSCNNLoss(4.5), "num_classes is 4.5: give a whole number of 1 or more"),
    "joint, other K": (lambda: joint(Z[:, :3]), "gives 3 classes, but the loss was built for 4"),
    "class weights, K = 0": (lambda: image_class_weights(Y, 0), "num_classes is 0: give a whole number"),
    "class weights, integer dtype": (lambda: image_class_weights(Y, 4, dtype=torch.int64), "dtype is torch.int64: use"),
    "dual task, tau 0": (lambda: dual_task_loss(Z, Y, tau=0), "tau is 0: the Gumbel softmax needs a temperature"),
    "dual task, tau NaN": (lambda: dual_task_loss(Z, Y, tau=math.nan), "tau is nan: the Gumbel softmax needs"),
    "dual task module, tau NaN": (lambda: DualTaskLoss(tau=math.nan), "tau is nan: the Gumbel softmax needs"),
    "joint, tau -1": (lambda: GSCNNLoss(4, tau=-1), "tau is -1: the Gumbel softmax needs"),
    "dual task, radius -1": (lambda: dual_task_loss(Z, Y, radius=-1), "radius is -1: give a whole number of 0 or more"),
    "dual task, radius 2.5": (lambda: dual_task_loss(Z, Y, radius=2.5), "radius is 2.5: give a whole number of 0"),
    "dual task module, radius -1": (lambda: DualTaskLoss(radius=-1), "radius is -1: give a whole number of 0 or more"),
    "triangle filter, radius -1": (lambda: triangle_filter(Z, -1), "radius is -1: give a whole number of 0 or more"),
    "triangle filter, integers": (lambda: triangle_filter(Y[:, None], 2), "x has data type torch.int64: give"),
    "triangle filter, three axes": (lambda: triangle_filter(Y.float(), 2), r"x has shape \(2, 8, 10\): give \(B, C,"),
    "gradient, one row": (lambda: spatial_gradient(Z[:, :, :1]), "maps are 1x10 pixels: give at least 2x2"),
    "gradient, three axes": (lambda: spatial_gradient(Z[0]), r"x has shape \(4, 8, 10\): give \(B, C, H, W\)"),
    "gradient, bytes": (lambda: spatial_gradient(EDGES), "x has data type torch.uint8: give floating-point numbers"),
    "potential, one column": (lambda: boundary_potential(Z[..., :1]), "maps are 8x1 pixels: give at least 2x2"),
    "potential, radius 1.5": (lambda: boundary_potential(Z, radius=1.5), "radius is 1.5: give a whole number"),
    "potential, validity of another shape": (
        lambda: boundary_potential(Z, VOID[..., :5]),
        r"valid has shape \(2, 1, 8, 5\): give .*\(2, 1, 8, 10\)",
    ),
    "potential, validity in floats": (lambda: boundary_potential(Z, VOID.float()), "valid has data type torch.float32"),
    "dual task, one row": (lambda: dual_task_loss(Z[:, :, :1], Y[:, :1]), "maps are 1x10 pixels: give at least 2x2"),
    "dual task, noise of one class": (
        lambda: dual_task_loss(Z, Y, noise=Z[:, :1]),
        r"noise has shape \(2, 1, 8, 10\): give .*\(2, 4, 8, 10\)",
    ),
    "joint, noise of one image": (lambda: joint(noise=Z[:1]), r"noise has shape \(1, 4, 8, 10\): give"),
    "attention, threshold NaN": (
        lambda: boundary_attention_loss(Z, Y, PROB, math.nan),
        "threshold is nan: give a probability, 0 to 1",
    ),
    "attention, threshold 80": (lambda: boundary_attention_loss(Z, Y, PROB, 80), "threshold is 80: give a probability"),
    "joint, threshold 80": (lambda: GSCNNLoss(4, boundary_threshold=80), "boundary_threshold is 80: give a probab"),
    "attention, map without channel": (
        lambda: boundary_attention_loss(Z, Y, PROB[:, 0]),
        r"boundary_prob has shape \(2, 8, 10\): give .*\(2, 1, 8, 10\)",
    ),
    "attention, logits": (
        lambda: boundary_attention_loss(Z, Y, 9 * B),
        r"boundary_prob has values from -.* to .*: give probabilities, logits after a sigmoid",
    ),
    "attention, NaN": (lambda: boundary_attention_loss(Z, Y, PROB * math.nan), "boundary_prob has values from nan"),
    "boundary, other way round": (
        lambda: boundary_bce(B, EDGES.mT.contiguous()),
        r"logits have shape \(2, 1, 8, 10\) and boundaries \(2, 1, 10, 8\)",
    ),
    "boundary, two channels": (lambda: boundary_bce(Z[:, :2], EDGES), r"\(2, 2, 8, 10\) .* expected \(B, 1, H, W\)"),
    "boundary, ignore of another shape": (
        lambda: boundary_bce(B, EDGES, VOID[..., :5]),
        r"ignore has shape \(2, 1, 8, 5\): give .*\(2, 1, 8, 10\)",
    ),
    "boundary, ignore in floats": (lambda: boundary_bce(B, EDGES, VOID.float()), "ignore has data type torch.float32"),
    "boundary, soft map": (
        lambda: boundary_bce(B, EDGES * 0.5),
        r"boundaries hold 0.5: .* 1 on boundaries, 0 elsewhere.*boundaries > 0.5",
    ),
    "boundary, NaN": (lambda: boundary_bce(B, EDGES * math.nan), "boundaries hold nan: .* 1 on boundaries"),
    "boundary, -1": (lambda: boundary_bce(B, -EDGES.int()), "boundaries hold -1: .* 1 on boundaries"),
    "boundary, complex": (lambda: boundary_bce(B, EDGES + 0j), "boundaries has data type torch.complex64"),
    "boundary, integer logits": (lambda: boundary_bce(Y[:, None], EDGES), "logits has data type torch.int64"),
    "boundary, list": (lambda: boundary_bce(B, EDGES.tolist()), "boundaries is list, no tensor"),
    "boundary, 0 and 255": (
        lambda: boundary_bce(B, EDGES * 255, VOID),
        r"boundaries hold 255 and no 1: .*\(boundaries == 255\)",
    ),
    "boundary, 0.0 and 255.0": (lambda: boundary_bce(B, EDGES * 255.0, VOID[:, 0]), "boundaries hold 255 and no 1"),
    "joint, boundaries of 0 and 255": (lambda: joint(boundaries=EDGES * 255), "boundaries hold 255 and no 1"),
    "joint, release, boundaries of 0 and 255": (
        lambda: joint(boundaries=EDGES * 255, variant="release"),
        "boundaries hold 255 and no 1",
    ),
    "joint, control, boundaries of 0 and 255": (
        lambda: joint(boundaries=EDGES * 255, boundary_logits=None, edge=1),
        "boundaries hold 255 and no 1",
    ),
    "joint, control, boundaries of another size": (
        lambda: joint(boundaries=EDGES[..., :5], boundary_logits=None, edge=1),
        r"boundaries \(2, 1, 8, 5\)",
    ),
    "joint, boundaries of another size": (lambda: joint(boundaries=EDGES[..., :5]), r"boundaries \(2, 1, 8, 5\)"),
    "joint, boundary logits of another size": (
        lambda: joint(boundary_logits=B[..., :5]),
        r"boundary_logits has shape \(2, 1, 8, 5\): give \(2, 1, 8, 10\)",
    ),
    "joint, a tensor": (lambda: GSCNNLoss(4)(Z, Y, EDGES), r"output is a Tensor: give GSCNNOutput\("),
    "joint, three images": (
        lambda: GSCNNLoss(4)(torch.cat([Z, Z[:1]]), torch.cat([Y, Y[:1]]), EDGES),
        r"output is a Tensor: give GSCNNOutput\(",
    ),
}


def void_everywhere():
    return joint(labels=torch.full_like(Y, 255))


def minus_one_in_bytes():
    labels = Y.clone()
    labels[:, :3] = -1
    sure = (labels >= 0)[:, None].float()
    return boundary_attention_loss(Z, labels, PROB, ignore_index=-1), boundary_attention_loss(
        Z, Y.byte(), sure, 0.5, -1
    )


def one_void():
    boundaries, void = EDGES.clone(), VOID.clone()
    boundaries[:, :, 0], void[:, :, 0] = 255, True
    return boundary_bce(B, boundaries), boundary_bce(B, EDGES, void)


RIGHT = {
    "bool boundaries": lambda: (boundary_bce(B, EDGES.bool()), boundary_bce(B, EDGES)),
    "bool boundaries and ignore": lambda: (boundary_bce(B, EDGES.bool(), VOID), boundary_bce(B, EDGES)),
    "float boundaries": lambda: (boundary_bce(B, EDGES[:, 0].double()), boundary_bce(B, EDGES)),
    "void in boundaries": one_void,
    "joint, bool boundaries": lambda: (joint(noise=Z, boundaries=EDGES.bool()), joint(noise=Z)),
    "bytes as labels": lambda: (image_weighted_cross_entropy(Z, Y.byte()), image_weighted_cross_entropy(Z, Y)),
    "int16 labels": lambda: (dual_task_loss(Z, Y.short(), noise=Z), dual_task_loss(Z, Y, noise=Z)),
    "bool labels": lambda: (
        image_weighted_cross_entropy(Z[:, :2], Y > 1),
        image_weighted_cross_entropy(Z[:, :2], (Y > 1).long()),
    ),
    "uint16 labels": lambda: (joint(labels=Y.to(torch.uint16), noise=Z), joint(noise=Z)),
    "void -1, not in bytes": minus_one_in_bytes,
    "void alone": lambda: (void_everywhere(), torch.tensor(0.0)),
    "void, all of it": lambda: (joint(labels=torch.full_like(Y, 255), boundaries=EDGES * 255), torch.tensor(0.0)),
    "no images": lambda: (joint(Z[:0], Y[:0], EDGES[:0], B[:0]), torch.tensor(0.0)),
    "control, boundaries not used": lambda: (joint(boundaries=None, boundary_logits=None), joint(boundary_logits=None)),
    "plain tuple": lambda: (GSCNNLoss(4)((Z, B, ()), Y, EDGES, Z)["loss"], joint(noise=Z)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", RIGHT)
def test_unusual_input_is_handled_right(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, expected = RIGHT[name]()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("boundaries", [EDGES * 255, EDGES * 255.0])
def test_maps_of_0_and_255_without_further_knowledge_are_warned_of(boundaries):
    """They may be void beside nothing, which is what 255 means."""
    with pytest.warns(UserWarning, match="boundaries hold 255 and no 1"):
        assert boundary_bce(B, boundaries) == 0
