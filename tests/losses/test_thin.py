import pytest
import torch
import torch.nn.functional as F

from gscnn_lightning.losses import GSCNNLoss
from gscnn_lightning.losses.thin import boundary_pixels_mean, soft_dice
from gscnn_lightning.output import GSCNNOutput

VOID = 255


def made(seed=0, size=(7, 9), classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *size, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes - 1, (2, *size), generator=generator)  # the last class never occurs
    labels[:, :2] = VOID
    boundaries = torch.randint(2, (2, 1, *size), generator=generator)
    return logits, labels, boundaries


def parts(logits, labels):
    log_probs = logits.log_softmax(1)
    return log_probs, F.nll_loss(log_probs, labels, ignore_index=VOID, reduction="none")


def test_soft_dice_is_that_of_loops_over_classes():
    logits, labels, _ = made()
    log_probs, nll = parts(logits, labels)
    prob, losses = log_probs.exp(), []
    for k in range(4):
        here = labels == k
        if here.any():
            seen = prob[:, k][labels != VOID].sum()
            losses.append(1 - 2 * prob[:, k][here].sum() / (seen + here.sum()))
    expected = sum(losses) / len(losses)
    assert soft_dice(log_probs, nll, labels).item() == pytest.approx(expected.item(), rel=1e-12)


def test_soft_dice_of_certain_predictions_and_of_void():
    _, labels, _ = made()
    logits = 1e3 * F.one_hot(labels.where(labels != VOID, 0), 4).permute(0, 3, 1, 2).double()
    assert soft_dice(*parts(logits, labels), labels).item() == pytest.approx(0, abs=1e-12)
    assert soft_dice(*parts(logits.roll(1, 1), labels), labels).item() == pytest.approx(1, abs=1e-12)
    void = torch.full_like(labels, VOID)
    assert soft_dice(*parts(logits, void), void).item() == 0
    assert boundary_pixels_mean(parts(logits, void)[1], void, torch.ones_like(void)).item() == 0


def test_every_class_counts_the_same_however_few_its_pixels():
    labels = torch.zeros(1, 20, 20, dtype=torch.long)
    labels[0, 0, 0] = 1
    logits = torch.zeros(1, 2, 20, 20, dtype=torch.float64)
    logits[:, 0] = 50  # the one pixel of class 1 is missed
    assert soft_dice(*parts(logits, labels), labels).item() == pytest.approx(0.5, abs=2e-3)


def test_boundary_pixels_mean_is_cross_entropy_with_all_else_void():
    logits, labels, boundaries = made()
    expected = F.cross_entropy(logits, labels.where(boundaries[:, 0] == 1, VOID), ignore_index=VOID)
    _, nll = parts(logits, labels)
    for given in (boundaries, boundaries[:, 0]):
        assert boundary_pixels_mean(nll, labels, given).item() == pytest.approx(expected.item(), rel=1e-12)


def test_gradients_and_void_without_influence():
    logits, labels, boundaries = made(size=(4, 3))

    def both(x):
        log_probs, nll = parts(x, labels)
        return soft_dice(log_probs, nll, labels), boundary_pixels_mean(nll, labels, boundaries)

    assert torch.autograd.gradcheck(both, logits.requires_grad_())
    (gradient,) = torch.autograd.grad(sum(both(logits)), logits)
    assert (gradient[:, :, :2] == 0).all()


@pytest.mark.parametrize("stream", [True, False])
def test_in_the_joint_loss_of_both_networks_and_off_by_default(stream):
    logits, labels, boundaries = made()
    output = GSCNNOutput(logits, logits[:, :1] if stream else None, ())
    plain = GSCNNLoss(4, regularizer=0.0)(output, labels, boundaries)
    assert not {"dice", "edge"} & set(plain)
    terms = GSCNNLoss(4, regularizer=0.0, dice=2.0, edge=0.5)(output, labels, boundaries)
    log_probs, nll = parts(logits, labels)
    assert terms["dice"].item() == pytest.approx(2 * soft_dice(log_probs, nll, labels).item())
    assert terms["edge"].item() == pytest.approx(0.5 * boundary_pixels_mean(nll, labels, boundaries).item())
    added = terms["loss"] - plain["loss"]
    assert added.item() == pytest.approx((terms["dice"] + terms["edge"]).item())
