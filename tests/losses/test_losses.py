from itertools import pairwise

import numpy as np
import pytest
import torch
from tests.losses import oracle
from torch.autograd import gradcheck

from gscnn_lightning.losses import (
    BoundaryBCE,
    DualTaskLoss,
    GSCNNLoss,
    ImageWeightedCrossEntropy,
    boundary_attention_loss,
    boundary_bce,
    dual_task_loss,
    image_class_weights,
    image_weighted_cross_entropy,
    spatial_gradient,
    triangle_filter,
)
from gscnn_lightning.models import GSCNNOutput


@pytest.fixture
def case():
    """Two small images, four classes (one absent), a void corner, void between classes."""
    rng = np.random.default_rng(7)
    labels = np.zeros((2, 11, 13), dtype=np.int64)
    labels[0, :, 6:] = 1
    labels[0, 5:, :4] = 3
    labels[1, 4:, :] = 3
    labels[:, :3, 10:] = 255
    labels[1, 3, :5] = 255
    logits = rng.normal(size=(2, 4, 11, 13))
    return {
        "logits": torch.tensor(logits),
        "labels": torch.tensor(labels),
        "boundary_logits": torch.tensor(rng.normal(size=(2, 1, 11, 13)) * 2),
        "boundaries": torch.tensor(rng.random((2, 1, 11, 13)) > 0.7).to(torch.uint8),
        "noise": torch.tensor(rng.gumbel(size=logits.shape)),
    }


def confident(labels, classes, scale=60.0):
    y = labels.where(labels != 255, 0)
    return torch.nn.functional.one_hot(y, classes).movedim(-1, 1).double() * scale


def test_image_weighted_ce_equals_the_oracle(case):
    loss = image_weighted_cross_entropy(case["logits"], case["labels"])
    assert loss.item() == pytest.approx(
        oracle.image_weighted_ce(case["logits"].numpy(), case["labels"].numpy()), rel=1e-12
    )


def test_boundary_bce_equals_the_oracle(case):
    ignore = case["labels"] == 255
    loss = boundary_bce(case["boundary_logits"], case["boundaries"], ignore)
    expected = oracle.boundary_bce(case["boundary_logits"].numpy(), case["boundaries"].numpy(), ignore.numpy())
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_dual_task_equals_the_oracle(case, tau):
    loss = dual_task_loss(case["logits"], case["labels"], tau=tau, noise=case["noise"])
    expected = oracle.dual_task(case["logits"].numpy(), case["labels"].numpy(), case["noise"].numpy(), tau)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_attention_equals_the_oracle(case):
    prob = case["boundary_logits"].sigmoid()
    loss = boundary_attention_loss(case["logits"], case["labels"], prob)
    expected = oracle.attention(case["logits"].numpy(), case["labels"].numpy(), prob.numpy())
    assert expected > 0
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_primitives_equal_the_published_ones(reference):
    arrays = reference("losses.npz")
    x = torch.tensor(arrays["prim/x"])
    for radius in (2, 4):
        np.testing.assert_allclose(
            triangle_filter(x, radius).numpy(), arrays[f"prim/convtri_r{radius}"], rtol=1e-5, atol=1e-6
        )
    dx, dy = spatial_gradient(x)
    np.testing.assert_allclose(dx.numpy(), arrays["prim/grad_np_x"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dy.numpy(), arrays["prim/grad_np_y"], rtol=1e-5, atol=1e-6)


RELEASE_CASES = ["n2_24x32", "n1_48x40", "n3_21x33_edge_ignore", "n1_40x40_noignore"]


@pytest.mark.parametrize("name", RELEASE_CASES)
def test_release_variants_equal_the_published_ones(name, reference):
    a = {
        k.removeprefix(f"{name}/"): torch.as_tensor(v) for k, v in reference("losses.npz").items() if k.startswith(name)
    }
    z, y = a["seg_logits"].clone().requires_grad_(), a["labels"]
    torch.testing.assert_close(
        image_class_weights(y.long(), 19), a["train/class_weights"].float(), rtol=1e-5, atol=1e-6
    )
    seg = image_weighted_cross_entropy(z, y, variant="release")
    assert seg.item() == pytest.approx(a["train/seg_loss"].item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(seg, z)[0], a["train/grad_seg"], rtol=1e-4, atol=1e-7)
    attention = boundary_attention_loss(z, y, a["edge_in"], variant="release")
    assert attention.item() == pytest.approx(a["train/att_loss"].item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(attention, z)[0], a["train/grad_att"], rtol=1e-4, atol=1e-7)
    # The published program hands a probability to a loss on logits: its sigmoid is the first, ours the second.
    e = a["edge_in"].clone().requires_grad_()
    edge = 20 * boundary_bce(e.logit(), a["edge_target"], variant="release")
    assert edge.item() == pytest.approx(a["train/edge_loss"].item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(edge, e)[0], a["train/grad_edge"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", RELEASE_CASES)
def test_release_dual_and_joint_loss_equal_the_published_ones(name, reference):
    a = {k.removeprefix(f"{name}/"): torch.as_tensor(v) for k, v in reference("losses.npz").items() if name in k}
    z, y, noise = a["seg_logits"].clone().requires_grad_(), a["labels"], a["gumbel_noise"]
    for tau in (0.5, 1.0):
        dual = dual_task_loss(z, y, tau=tau, noise=noise, variant="release")
        assert dual.item() == pytest.approx(a[f"dual/released_tau{tau}"].item(), rel=1e-5)
        gradient = torch.autograd.grad(dual, z)[0]
        torch.testing.assert_close(gradient, a[f"dual/released_tau{tau}_grad"], rtol=1e-4, atol=1e-7)
    e = a["edge_in"].clone().requires_grad_()
    terms = GSCNNLoss(19, variant="release")(GSCNNOutput(z, e.logit(), ()), y, a["edge_target"], noise)
    assert terms["loss"].item() == pytest.approx(a["train/total"].item(), rel=1e-5)
    by_logits, by_edge = torch.autograd.grad(terms["loss"], (z, e))
    torch.testing.assert_close(by_logits, a["train/grad_total_seg"], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(by_edge, a["train/grad_total_edge"], rtol=1e-4, atol=1e-7)


def test_gradients_are_right(case):
    small = {k: v[:, ..., :6, :7].contiguous() for k, v in case.items()}
    z, labels, noise = small["logits"].requires_grad_(), small["labels"], small["noise"]
    b = small["boundary_logits"].requires_grad_()
    assert gradcheck(lambda x: image_weighted_cross_entropy(x, labels), z)
    assert gradcheck(lambda x: boundary_bce(x, small["boundaries"], labels == 255), b)
    assert gradcheck(lambda x: boundary_attention_loss(x, labels, b.sigmoid()), z)
    assert gradcheck(lambda x: dual_task_loss(x, labels, noise=noise), z)


def test_perfect_prediction_is_the_minimum(case):
    labels = case["labels"]
    perfect, zeros = confident(labels, 4), torch.zeros_like(case["noise"])
    assert image_weighted_cross_entropy(perfect, labels) < 1e-20
    assert dual_task_loss(perfect, labels, noise=zeros) < 1e-20
    assert boundary_bce((case["boundaries"].double() - 0.5) * 80, case["boundaries"]) < 1e-16


def test_ignored_pixels_change_nothing(case):
    labels, void = case["labels"], (case["labels"] == 255)[:, None]
    other = torch.where(void, torch.randn_like(case["logits"]) * 50, case["logits"])
    boundary = torch.where(void, case["boundary_logits"] + 30, case["boundary_logits"])
    targets = torch.where(void, 1 - case["boundaries"], case["boundaries"])
    loss = GSCNNLoss(4)
    for first, second in zip(
        loss(
            GSCNNOutput(case["logits"], case["boundary_logits"], ()), labels, case["boundaries"], case["noise"]
        ).values(),
        loss(GSCNNOutput(other, boundary, ()), labels, targets, case["noise"]).values(),
        strict=True,
    ):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-14)


def test_classes_may_be_renamed_and_images_mirrored(case):
    order = torch.tensor([2, 0, 3, 1])
    renamed = torch.full_like(case["labels"], 255)
    for new, old in enumerate(order.tolist()):
        renamed[case["labels"] == old] = new
    loss = GSCNNLoss(4)

    def value(logits, boundary_logits, labels, boundaries, noise):
        return loss(GSCNNOutput(logits, boundary_logits, ()), labels, boundaries, noise)["loss"]

    c = case
    base = value(c["logits"], c["boundary_logits"], c["labels"], c["boundaries"], c["noise"])
    torch.testing.assert_close(
        value(c["logits"][:, order], c["boundary_logits"], renamed, c["boundaries"], c["noise"][:, order]), base
    )
    for axes in ((-1,), (-2,), (-2, -1)):
        mirrored = (c[k].flip(axes) for k in ("logits", "boundary_logits", "labels", "boundaries", "noise"))
        torch.testing.assert_close(value(*mirrored), base)


@pytest.mark.parametrize("labels", ["void", "one class", "one image void"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_and_differentiable_in_every_corner(labels, dtype):
    y = {"void": 255, "one class": 1, "one image void": 0}[labels] * torch.ones(2, 16, 16, dtype=torch.long)
    if labels == "one image void":
        y[0] = 255
    z = (torch.randn(2, 3, 16, 16) * 30).to(dtype).requires_grad_()
    b = torch.full((2, 1, 16, 16), -5.0).to(dtype).requires_grad_()
    terms = GSCNNLoss(3)(GSCNNOutput(z, b, ()), y, torch.zeros(2, 1, 16, 16))
    assert all(t.isfinite() and t.dtype == torch.float32 for t in terms.values())
    terms["loss"].backward()
    assert z.grad.isfinite().all()
    assert b.grad.isfinite().all()
    assert terms["attention"] == 0
    assert terms["boundary"] == 0
    if labels == "void":
        assert terms["loss"] == 0
        assert not z.grad.any()


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_gradients_are_finite_when_scaled_where_nothing_is_labelled(variant):
    """As half precision scales them, and sums over many processes; no boundary is sure when a training begins."""
    loss = GSCNNLoss(3, dice=1.0, edge=1.0, variant=variant)
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[1] = 255
    maps = [torch.zeros(2, channels, 8, 8, requires_grad=True) for channels in (3, 1)]
    terms = loss(GSCNNOutput(*maps, ()), labels, torch.zeros(2, 1, 8, 8))
    (2.0**16 * terms["loss"]).backward()
    assert all(each.grad.isfinite().all() for each in maps)


def test_autocast_changes_no_loss_and_no_gradient(case):
    def run(enabled):
        z, b = (case[k].float().requires_grad_() for k in ("logits", "boundary_logits"))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms = GSCNNLoss(4)(GSCNNOutput(z, b, ()), case["labels"], case["boundaries"], case["noise"].float())
        return terms, torch.autograd.grad(terms["loss"], (z, b))

    (inside, inside_gradient), (outside, outside_gradient) = run(True), run(False)
    torch.testing.assert_close(inside, outside, rtol=0, atol=0)
    torch.testing.assert_close(inside_gradient, outside_gradient, rtol=0, atol=0)


def test_paper_loss_does_not_grow_with_the_batch(case):
    twice = image_weighted_cross_entropy(case["logits"].repeat(2, 1, 1, 1), case["labels"].repeat(2, 1, 1))
    torch.testing.assert_close(twice, image_weighted_cross_entropy(case["logits"], case["labels"]))


def test_straight_through_sees_the_hard_sample(case):
    hard = dual_task_loss(case["logits"], case["labels"], hard=True, noise=case["noise"])
    sample = confident((case["logits"] + case["noise"]).argmax(1), 4)
    torch.testing.assert_close(hard, dual_task_loss(sample, case["labels"], noise=torch.zeros_like(sample)))
    z = case["logits"].requires_grad_()
    dual_task_loss(z, case["labels"], hard=True, noise=case["noise"]).backward()
    assert z.grad.abs().sum() > 0


def test_dual_loss_grows_with_the_displacement_of_a_boundary():
    def loss(shift):
        columns = torch.arange(40).expand(1, 30, 40)
        labels, predicted = (columns >= 20).long(), (columns >= 20 + shift).long()
        logits = confident(predicted, 2)
        return dual_task_loss(logits, labels, noise=torch.zeros_like(logits)).item()

    curve = [loss(s) for s in range(7)]
    assert curve[0] < 1e-12
    assert all(a < b for a, b in pairwise(curve))


def test_joint_loss_weighs_and_sums(case):
    output = GSCNNOutput(case["logits"], case["boundary_logits"], ())
    one = GSCNNLoss(4, 1, 1, 1, 1)(output, case["labels"], case["boundaries"], case["noise"])
    two = GSCNNLoss(4, 20, 2, 0.5, 0)(output, case["labels"], case["boundaries"], case["noise"])
    assert set(one) == {"loss", "boundary", "segmentation", "regularizer", "attention"}
    torch.testing.assert_close(
        one["loss"], one["boundary"] + one["segmentation"] + one["regularizer"] + one["attention"]
    )
    torch.testing.assert_close(two["loss"], 20 * one["boundary"] + 2 * one["segmentation"] + 0.5 * one["regularizer"])
    assert set(two) == {"loss", "boundary", "segmentation", "regularizer"}


def test_control_is_trained_on_the_segmentation_term(case):
    terms = GSCNNLoss(4)(GSCNNOutput(case["logits"], None, ()), case["labels"], case["boundaries"])
    assert set(terms) == {"loss", "segmentation"}
    torch.testing.assert_close(terms["loss"], image_weighted_cross_entropy(case["logits"], case["labels"]))


def test_modules_are_the_functions(case):
    z, y = case["logits"], case["labels"]
    assert ImageWeightedCrossEntropy()(z, y) == image_weighted_cross_entropy(z, y)
    assert BoundaryBCE()(case["boundary_logits"], case["boundaries"]) == boundary_bce(
        case["boundary_logits"], case["boundaries"]
    )
    assert DualTaskLoss()(z, y, case["noise"]) == dual_task_loss(z, y, noise=case["noise"])


def test_random_draw_is_seeded(case):
    values = []
    for _ in range(2):
        torch.manual_seed(3)
        values.append(dual_task_loss(case["logits"], case["labels"]).item())
    assert values[0] == values[1]
    assert values[0] != dual_task_loss(case["logits"], case["labels"]).item()


def test_what_does_not_belong_together_is_named(case):
    with pytest.raises(ValueError, match=r"logits have shape \(2, 4, 11, 13\) and labels \(2, 5, 13\)"):
        image_weighted_cross_entropy(case["logits"], case["labels"][:, :5])
    with pytest.raises(ValueError, match="expected \\(B, 1, H, W\\) both"):
        boundary_bce(case["boundary_logits"], case["boundaries"][..., :5])
    with pytest.raises(ValueError, match="gives 4 classes, but the loss was built for 7"):
        GSCNNLoss(7)(GSCNNOutput(case["logits"], None, ()), case["labels"], case["boundaries"])
    with pytest.raises(ValueError, match="the weight of the boundary loss is -1"):
        GSCNNLoss(4, boundary=-1)
    with pytest.raises(ValueError, match="tau is 0"):
        DualTaskLoss(tau=0)
