"""The regularizer's operator on processors against the same formula as a chain of torch operations."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from tests.losses import oracle
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from gscnn_lightning.losses import (
    boundary_potential,
    dual_task_cpu,
    dual_task_loss,
    spatial_gradient,
    triangle_filter,
)
from gscnn_lightning.losses.dual_task import dual_task_of_log_probs, gumbel_noise, plain_dual_task


def made_case(shape, void=True, seed=0, dtype=torch.float64):
    """Logits, labels in vertical and horizontal bars with one class in a corner alone, noise."""
    batch, classes, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=dtype) * 2
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    labels = ((rows // 5 + columns // 7) % max(classes - 2, 1)).repeat(batch, 1, 1)
    labels[:, :2, :3] = classes - 1
    if void:
        labels[0, height // 2, : width // 2] = 255
        labels[-1, :, -2:] = 255
    return logits.requires_grad_(), labels, gumbel_noise(logits.detach())


def both_ways(logits, labels, noise, tau=1.0, radius=4, hard=False, ignore_index=255):
    """Value and gradient by the operator and by plain operations."""
    results = []
    for function in (
        lambda: dual_task_of_log_probs(logits.log_softmax(1), labels, ignore_index, tau, radius, hard, noise),
        lambda: plain_dual_task(logits.log_softmax(1), labels, noise, ignore_index, tau, radius, hard),
    ):
        value = function()
        results.append((value.detach(), torch.autograd.grad(value, logits)[0]))
    return results


@pytest.mark.parametrize("void", [True, False])
@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((2, 5, 23, 31), {}),
        ((1, 3, 2, 2), {}),
        ((1, 4, 3, 40), {"radius": 2}),
        ((2, 5, 23, 31), {"tau": 0.5}),
        ((2, 5, 23, 31), {"radius": 1, "tau": 2.0}),
        ((1, 2, 300, 301), {}),
    ],
)
def test_operator_equals_plain_operations(shape, settings, void):
    (value, gradient), (expected, expected_gradient) = both_ways(*made_case(shape, void), **settings)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("classes", "ignore_index"), [(5, 0), (5, 2), (5, -1), (5, -100), (5, 1000), (130, 255), (260, 255), (260, -1)]
)
def test_any_label_may_be_void(classes, ignore_index):
    logits, labels, noise = made_case((2, classes, 12, 17))
    labels[labels == 255] = ignore_index
    labels[0, 5, 5:9] = 258 if classes == 5 else 3  # neither class nor void, or a class
    (value, gradient), (expected, expected_gradient) = both_ways(logits, labels, noise, ignore_index=ignore_index)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-15)


def test_extreme_noise_and_vanishing_probabilities():
    """A class that noise forces, and one that is nowhere."""
    logits, labels, noise = made_case((1, 3, 16, 18), dtype=torch.float32)
    noise[:, 1] += 100
    (value, gradient), (expected, expected_gradient) = both_ways(logits, labels, noise)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    slope = torch.linspace(0, 5e-4, 48)
    logits = torch.stack([torch.zeros(48), torch.zeros(48), slope - 38]).view(1, 3, 1, 48).repeat(1, 1, 48, 1)
    labels = (torch.arange(48) > 23).long().mul(2).expand(1, 48, 48)
    (_, gradient), (_, expected_gradient) = both_ways(
        logits.requires_grad_(), labels, torch.zeros_like(logits.detach())
    )
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-12)


def test_noise_has_the_gradient_of_the_logarithms():
    logits, labels, noise = made_case((1, 3, 9, 8))
    noise.requires_grad_()
    (by_noise,) = torch.autograd.grad(dual_task_loss(logits, labels, noise=noise), noise)
    plain = plain_dual_task(logits.log_softmax(1), labels, noise, 255, 1.0, 4, False)
    torch.testing.assert_close(by_noise, torch.autograd.grad(plain, noise)[0], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_any_memory_format(dtype):
    logits, labels, noise = made_case((2, 5, 23, 31), dtype=torch.float32)
    half = logits.detach().to(dtype)
    expected = dual_task_loss(half.float(), labels, noise=noise)
    assert dual_task_loss(half, labels, noise=noise) == expected
    last = torch.channels_last
    other = dual_task_loss(half.contiguous(memory_format=last), labels, noise=noise.contiguous(memory_format=last))
    torch.testing.assert_close(other, expected)


def test_maps_without_neighbours_are_refused():
    with pytest.raises(ValueError, match="maps are 5x1 pixels"):
        dual_task_loss(torch.zeros(1, 3, 5, 1), torch.zeros(1, 5, 1, dtype=torch.long))


def test_hard_samples_equal_plain_operations():
    logits, labels, noise = made_case((2, 5, 23, 31))
    assert both_ways(logits, labels, noise, hard=True)[0][0] == pytest.approx(
        both_ways(logits, labels, noise, hard=True)[1][0].item(), rel=1e-12
    )
    # Where hard samples and labels have the same potential the sign of their difference is one of rounding: without a
    # true boundary there is no such place.
    (_, gradient), (_, expected) = both_ways(logits, labels.clamp(max=0), noise, hard=True)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(("piece", "group"), [(1, 1), (40, 1), (150, 1), (40, 1500), (150, 10**6)])
def test_pieces_and_groups_meet_without_a_seam(piece, group, monkeypatch):
    monkeypatch.setattr(dual_task_cpu, "_PIECE", piece)
    monkeypatch.setattr(dual_task_cpu, "_GROUP", group)
    (value, gradient), (expected, expected_gradient) = both_ways(*made_case((2, 5, 23, 31)))
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-15)


def test_gradient_is_that_of_finite_differences():
    logits, labels, noise = made_case((1, 3, 6, 9))
    assert gradcheck(lambda x: dual_task_loss(x, labels, noise=noise), logits)
    assert gradcheck(lambda x: dual_task_loss(x, labels, noise=noise, tau=0.5, radius=2), logits)


@pytest.mark.parametrize("shape", [(2, 7, 97, 131), (4, 3, 160, 220), (1, 3, 260, 270)])
def test_numbers_depend_neither_on_threads_nor_on_where_memory_lies(shape):
    """A resumed training ends bit for bit as an undisturbed one; images are shared out by their size."""
    logits, labels, _ = made_case(shape, dtype=torch.float32)
    found, kept = set(), []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3, 1, 2, 3, 1, 2, 3):
            torch.set_num_threads(number)
            torch.manual_seed(5)
            kept.append(np.empty(17 * len(kept) + 5, np.uint8))  # shifts what is allocated next
            value = dual_task_loss(logits, labels)
            (gradient,) = torch.autograd.grad(value, logits)
            found.add((value.item(), gradient.numpy().tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_that_of_a_gumbel_distribution(dtype):
    like = np.empty((3, 150, 200), dtype)
    negative = dual_task_cpu._Draw((1, 0))(slice(0, 150), like)
    torch.manual_seed(2)
    plain = gumbel_noise(torch.from_numpy(like))
    assert plain.numpy().dtype == dtype
    for gumbel in (-np.log(-negative.ravel().astype(np.float64)), plain.numpy().ravel()):
        assert stats.kstest(gumbel, "gumbel_r").pvalue > 0.01
        assert gumbel.mean() == pytest.approx(np.euler_gamma, abs=4 * math.pi / math.sqrt(6 * gumbel.size))
        assert np.isfinite(gumbel).all()
    others = [dual_task_cpu._Draw(seed)(slice(0, 150), like) for seed in ((1, 1), (2, 0))]
    assert all(abs(np.corrcoef(negative.ravel(), other.ravel())[0, 1]) < 0.02 for other in others)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [0, 2**64 - 1])
def test_extreme_random_bits_give_finite_noise(dtype, bits, monkeypatch):
    """The uniform numbers behind the noise are neither 0 nor 1."""

    class Extreme:
        def __init__(self, generator):
            pass

        def integers(self, high, size, dtype):
            return np.full(size, bits, dtype)

    monkeypatch.setattr(np.random, "Generator", Extreme)
    negative = dual_task_cpu._Draw((1, 0))(slice(0, 3), np.empty((2, 3, 5), dtype))
    assert np.isfinite(negative).all()
    assert (negative < 0).all()


def test_second_derivatives_are_refused():
    logits, labels, noise = made_case((1, 3, 8, 9))
    value = dual_task_loss(logits, labels, noise=noise)
    (gradient,) = torch.autograd.grad(value, logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        gradient.sum().backward()


def test_without_gradient_the_value_is_the_same():
    logits, labels, noise = made_case((2, 5, 23, 31))
    with torch.no_grad():
        value = dual_task_loss(logits, labels, noise=noise)
    assert value == dual_task_loss(logits, labels, noise=noise)
    assert not value.requires_grad


def test_operator_is_well_formed():
    """Schema, fake tensors, autograd registration and compilation, as torch checks them."""
    logits, labels, noise = made_case((1, 3, 8, 9))
    arguments = (logits.detach().log_softmax(1), noise, torch.tensor(3), labels, 255, 1.0, 4, False, 1e-3, True)
    torch.library.opcheck(dual_task_cpu.dual_task, arguments)


@pytest.mark.parametrize("given", [True, False])
def test_compiles_as_one_graph(given):
    logits, labels, noise = made_case((1, 3, 24, 33), dtype=torch.float32)
    compiled = torch.compile(dual_task_loss, fullgraph=True, backend="aot_eager")
    torch.manual_seed(1)
    value = compiled(logits, labels, noise=noise if given else None)
    (gradient,) = torch.autograd.grad(value, logits)
    torch.manual_seed(1)
    expected = dual_task_loss(logits, labels, noise=noise if given else None)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])


@pytest.mark.parametrize("radius", [0, 1, 4, 5])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (3, 4), (9, 11)])
def test_filter_is_mirrored_at_frames_of_any_size(height, width, radius):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = [[oracle.smooth(one, one == one, radius) for one in image] for image in x.numpy()]
    np.testing.assert_allclose(triangle_filter(x, radius).numpy(), expected, rtol=1e-12, atol=1e-14)


def test_plain_steps_have_first_and_second_derivatives():
    x = torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    valid = torch.ones(1, 1, 5, 3, dtype=torch.bool)
    valid[..., 1:, 0] = False
    for step in (triangle_filter, spatial_gradient, boundary_potential, lambda x: boundary_potential(x, valid, 1)):
        assert gradcheck(step, x)
        assert gradgradcheck(step, x)


def test_plain_operations_take_a_class_that_cannot_be_drawn():
    logits, labels, noise = made_case((1, 3, 16, 18), dtype=torch.float32)
    noise[0, 1, 4:9, 5] = -torch.inf
    value = plain_dual_task(logits.log_softmax(1), labels, noise, 255, 1.0, 4, False)
    noise[0, 1, 4:9, 5] = -200
    torch.testing.assert_close(value, plain_dual_task(logits.log_softmax(1), labels, noise, 255, 1.0, 4, False))
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.isfinite().all()
    assert gradient.any()


def test_autocast_rounds_no_plain_operation():
    logits, labels, noise = made_case((2, 5, 23, 31), dtype=torch.float32)
    found = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = plain_dual_task(logits.log_softmax(1), labels, noise, 255, 1.0, 4, False)
        found += [value, *torch.autograd.grad(value, logits)]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


def test_plain_operations_compile_as_one_graph():
    logits, labels, noise = made_case((2, 5, 23, 31))
    compiled = torch.compile(plain_dual_task, fullgraph=True, dynamic=False, backend="aot_eager")
    found = []
    for function in (plain_dual_task, compiled):
        value = function(logits.log_softmax(1), labels, noise, 255, 1.0, 4, False)
        found += [value, *torch.autograd.grad(value, logits)]
    torch.testing.assert_close(found[2:], found[:2], rtol=1e-12, atol=1e-15)


class Kernels(TorchDispatchMode):
    """Counts operations that allocate or compute something; views do neither."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += not func.is_view
        return func(*args, **(kwargs or {}))


def test_plain_operations_are_few():
    """Each is a kernel to start on a GPU, where the time of small maps is that of starting them."""
    logits, labels, _ = made_case((1, 19, 23, 31), dtype=torch.float32)
    with Kernels() as kernels:
        plain_dual_task(logits.log_softmax(1), labels, gumbel_noise(logits), 255, 1.0, 4, False).backward()
    assert kernels.number < 95
