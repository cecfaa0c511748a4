"""What the published program computes besides its training losses: validation, unreachable variants, corner cases."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gscnn_lightning.losses import (
    GSCNNLoss,
    boundary_attention_loss,
    boundary_bce,
    dual_task_loss,
    image_weighted_cross_entropy,
    spatial_gradient,
    triangle_filter,
)
from gscnn_lightning.losses.dual_task import one_hot
from gscnn_lightning.models import GSCNNOutput

CASES = ["n2_24x32", "n1_48x40", "n3_21x33_edge_ignore", "n1_40x40_noignore"]


def zero_padded_gradient(x):
    """Central differences of an image that is 0 outside."""
    return tuple(d[..., 1:-1, 1:-1] for d in spatial_gradient(F.pad(x, (1, 1, 1, 1))))


MAGNITUDES = {
    "released": lambda x: (x, x),
    "tri_zero": lambda x: zero_padded_gradient(triangle_filter(x, 4)),
    "tri_npgrad": lambda x: spatial_gradient(triangle_filter(x, 4)),
}


def magnitude(x, variant):
    x1, x2 = MAGNITUDES[variant](x)
    m = (x1.square() + x2.square() + 1e-6).sqrt()
    return m / m.max()


@pytest.fixture(params=CASES)
def case(request, reference):
    arrays = reference("losses.npz")
    return {k.removeprefix(f"{request.param}/"): torch.as_tensor(v) for k, v in arrays.items() if request.param in k}


def test_validation_losses_equal_the_published_ones(case):
    z, e = case["seg_logits"].clone().requires_grad_(), case["edge_in"].clone().requires_grad_()
    y = case["labels"].long()
    # In validation the published program weights no class: that form of the two cross-entropies is torch's own.
    seg = F.cross_entropy(z, y, ignore_index=255)
    attention = F.cross_entropy(z, y.where(case["edge_in"][:, 0] > 0.8, 255), ignore_index=255)
    edge = 20 * boundary_bce(e.logit(), case["edge_target"], variant="release")
    dual = dual_task_loss(z, y, noise=case["gumbel_noise"], variant="release")
    for name, loss in {"seg": seg, "att": attention, "edge": edge, "dual": dual}.items():
        assert loss.item() == pytest.approx(case[f"val/{name}_loss"].item(), rel=1e-5), name
    total = seg + attention + edge + dual
    assert total.item() == pytest.approx(case["val/total"].item(), rel=1e-5)
    for name, loss in {"seg": seg, "att": attention, "total_seg": total}.items():
        gradient = torch.autograd.grad(loss, z, retain_graph=True)[0]
        torch.testing.assert_close(gradient, case[f"val/grad_{name}"], rtol=1e-4, atol=1e-7, msg=name)
    torch.testing.assert_close(torch.autograd.grad(total, e)[0], case["val/grad_total_edge"], rtol=1e-4, atol=1e-7)


def test_noise_and_gradient_of_the_regularizer_in_training_equal_the_published_ones(case):
    noise = -torch.log(1e-10 - torch.log(case["gumbel_u"].double() + 1e-10))
    torch.testing.assert_close(noise.float(), case["gumbel_noise"].float(), rtol=1e-4, atol=1e-4)
    z = case["seg_logits"].clone().requires_grad_()
    dual = dual_task_loss(z, case["labels"], noise=case["gumbel_noise"], variant="release")
    assert dual.item() == pytest.approx(case["train/dual_loss"].item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(dual, z)[0], case["train/grad_dual"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("tau", [0.5, 1.0])
@pytest.mark.parametrize("variant", MAGNITUDES)
def test_regularizer_built_from_our_filter_and_gradient_equals_the_published_one(case, variant, tau):
    z = case["seg_logits"].clone().requires_grad_()
    valid = case["labels"] != 255
    soft = ((z.where(valid[:, None], 0) + case["gumbel_noise"]) / tau).softmax(dim=1)
    truth = one_hot(case["labels"].long().where(valid, 0), soft)
    loss = (magnitude(soft, variant) - magnitude(truth, variant)).abs().mean()
    assert loss.item() == pytest.approx(case[f"dual/{variant}_tau{tau}"].item(), rel=1e-5)
    expected = case[f"dual/{variant}_tau{tau}_grad"]
    atol = 1e-7 if variant == "released" else 1e-6 * float(expected.abs().max())
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], expected, rtol=1e-4, atol=max(atol, 1e-9))


def test_primitives_of_the_unreachable_variants_equal_the_published_ones(reference):
    arrays = {k.removeprefix("prim/"): v for k, v in reference("losses.npz").items() if k.startswith("prim/")}
    x = torch.tensor(arrays["x"])
    dx, dy = zero_padded_gradient(x)
    np.testing.assert_allclose(dx, arrays["grad_zero_x"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dy, arrays["grad_zero_y"], rtol=1e-5, atol=1e-6)
    for variant in MAGNITUDES:
        np.testing.assert_allclose(magnitude(x, variant), arrays[f"gradmag_{variant}"], rtol=1e-5, atol=1e-6)
    # The released smoothing and differences change nothing, as the released variant here has neither.
    assert all(arrays[f"identity_{name}_released"] == 0 for name in ("convtri", "grad"))


def test_corner_cases_are_finite_where_the_published_losses_are_not(reference_dir):
    stated = json.loads((reference_dir / "losses_degenerate.json").read_text())
    torch.manual_seed(0)
    z, prob = torch.randn(2, 19, 24, 32, requires_grad=True), torch.rand(2, 1, 24, 32) * 0.79
    labels = torch.randint(0, 19, (2, 24, 32))
    void, half_void = torch.full_like(labels, 255), labels.clone()
    half_void[0] = 255

    def edge(target):
        return boundary_bce(prob.logit(), torch.full_like(prob, target), variant="release")

    own = {
        "seg train all ignored": image_weighted_cross_entropy(z, void, variant="release"),
        "seg train one image of two all ignored": image_weighted_cross_entropy(z, half_void, variant="release"),
        "att no pixel above 0.8 (train)": boundary_attention_loss(z, labels, prob, variant="release"),
        "edge no positives": edge(0),
        "edge no negatives": edge(1),
        "edge all ignore(2)": edge(2),
        "dual all ignored": dual_task_loss(z, void, variant="release"),
    }
    one_of_two = torch.cat([prob[:1], prob[1:] + 0.2])
    own["att one of two images has no pixel above 0.8 (train)"] = boundary_attention_loss(
        z, labels, one_of_two, variant="release"
    )
    for name, value in own.items():
        assert value.isfinite(), name
        if stated[name] == "nan":
            gradient = torch.autograd.grad(value, z, retain_graph=True)[0]
            assert gradient.isfinite().all(), name
            # Images without a pixel to learn from contribute nothing; the others what they contribute alone.
            assert (value == 0) == ("one " not in name), name
        else:
            assert value.item() == pytest.approx(float(stated[name]), rel=0.02, abs=1e-12), name
    alone = image_weighted_cross_entropy(z[1:], labels[1:], variant="release")
    torch.testing.assert_close(own["seg train one image of two all ignored"], alone)
    # The published regularizer takes 19 classes and no others, and its labels may not reach 19.
    assert "must match" in stated["dual with 18 channels"]
    assert dual_task_loss(z[:, :18], labels.clamp(max=17), variant="release").isfinite()
    assert stated["seg label 19 present (train)"].startswith("IndexError")
    with pytest.raises(ValueError, match="labels has values from 19 to 19: with 19 classes"):
        image_weighted_cross_entropy(z, labels.clamp(max=0) + 19, variant="release")
    assert stated["att no pixel: grad has nan"] == "False"


def stripe(position, width=60, steepness=4.0):
    """Logits of two classes that meet at a column, which may lie between pixels."""
    columns = torch.arange(width, dtype=torch.float64)
    row = steepness * (columns - position)
    return torch.stack([torch.zeros_like(row), row])[None, :, None].expand(1, 2, 24, width)


def stripe_loss(position, variant, width=60):
    """The regularizer, without noise, of a boundary at a column where it should be between columns 29 and 30."""
    logits = stripe(position, width)
    labels = (torch.arange(width) >= 30).long().expand(1, 24, width)
    return dual_task_loss(logits, labels, noise=torch.zeros_like(logits), variant=variant)


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_regularizer_grows_with_every_pixel_of_displacement(variant):
    for side in (-1, 1):
        curve = [stripe_loss(29.5 + side * d, variant).item() for d in range(9)]
        assert all(a < b for a, b in pairwise(curve))
        assert curve[0] < 0.12 * curve[4]


def test_paper_regularizer_measures_boundaries_and_the_released_one_area():
    # Twice the picture around the same boundary: the paper's loss is about the boundary, which has not changed.
    paper, release = ([stripe_loss(32.5, v, width).item() for width in (60, 120)] for v in ("paper", "release"))
    assert paper[1] == pytest.approx(paper[0], rel=1e-3)
    assert release[1] == pytest.approx(release[0] / 2, rel=0.05)
    # No boundary at all, and a prediction of the right class everywhere with probability 0.7.
    flat = torch.tensor([0.7, 0.3], dtype=torch.float64).log().view(1, 2, 1, 1).expand(1, 2, 24, 60)
    labels, noise = torch.zeros(1, 24, 60, dtype=torch.long), torch.zeros(1, 2, 24, 60)
    assert dual_task_loss(flat, labels, noise=noise) == 0
    assert dual_task_loss(flat, labels, noise=noise, tau=1.0, variant="release") > 0.1


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("displacement", [-6, -2, 3, 6])
def test_gradient_moves_a_displaced_boundary_to_the_truth(displacement, variant):
    position = torch.tensor(29.5 + displacement, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([position], lr=0.25)
    track = []
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 0.25 * (1 - step / 80)
        optimizer.zero_grad()
        stripe_loss(position, variant).backward()
        optimizer.step()
        track.append(abs(position.item() - 29.5))
    assert track[-1] < 0.1
    assert track[4] < abs(displacement)


def test_joint_loss_moves_a_boundary_whatever_the_noise():
    """With the Gumbel noise of training, averaged over steps, and the other terms beside it."""
    torch.manual_seed(0)
    position = torch.tensor(35.0, requires_grad=True)
    optimizer = torch.optim.Adam([position], lr=0.2)
    labels = (torch.arange(60) >= 30).long().expand(1, 24, 60)
    loss = GSCNNLoss(2, boundary=0, segmentation=0, attention=0)
    for _ in range(100):
        optimizer.zero_grad()
        output = GSCNNOutput(stripe(position).float(), torch.zeros(1, 1, 24, 60), ())
        loss(output, labels, torch.zeros(1, 1, 24, 60))["loss"].backward()
        optimizer.step()
    assert abs(position.item() - 29.5) < 0.75
