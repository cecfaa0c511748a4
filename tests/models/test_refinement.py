from functools import partial

import pytest
import torch
import torch.nn.functional as F

from gscnn_lightning.errors import SettingError
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.cost import meta_network, network_cost
from gscnn_lightning.models.folding import folded
from gscnn_lightning.models.refinement import ConvexUpsampling, convex_combination

SMALL = {"pretrained": False, "channels": 16, "skip_channels": 8, "shape_channels": 16, "output_stride": 32}


@pytest.mark.parametrize(
    ("coarse", "fine", "ratio"),
    [
        ((3, 4), (6, 8), 2),
        ((3, 4), (5, 7), 2),
        ((3, 4), (7, 8), 2),  # sizes that were rounded down
        ((2, 2), (5, 6), 2),
        ((3, 4), (3, 4), 1),
        ((2, 3), (8, 12), 4),
        ((1, 5), (2, 9), 2),
    ],
)
def test_combination_is_that_of_loops(coarse, fine, ratio):
    torch.manual_seed(0)
    scores, weights = torch.randn(2, 3, *coarse, dtype=torch.float64), torch.rand(2, 9, *fine, dtype=torch.float64)
    expected = torch.zeros(2, 3, *fine, dtype=torch.float64)
    for y in range(fine[0]):
        for x in range(fine[1]):
            for n in range(9):
                row = min(max(y // ratio + n // 3 - 1, 0), coarse[0] - 1)
                column = min(max(x // ratio + n % 3 - 1, 0), coarse[1] - 1)
                expected[:, :, y, x] += scores[:, :, row, column] * weights[:, n, None, y, x]
    torch.testing.assert_close(convex_combination(scores, weights, ratio), expected)


def test_gradients_of_the_combination():
    scores = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 9, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(partial(convex_combination, ratio=2), (scores, weights))


def test_scores_of_half_precision_meet_weights_of_full():
    torch.manual_seed(0)
    scores, weights = torch.randn(2, 3, 4, 4), torch.rand(2, 9, 8, 8)
    halves = scores.bfloat16().requires_grad_()
    mixed = convex_combination(halves, weights.requires_grad_(), 2)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, convex_combination(halves.float(), weights, 2))
    mixed.sum().backward()
    assert halves.grad.dtype == torch.bfloat16
    assert weights.grad.abs().sum() > 0


def test_scores_stay_within_those_around_and_begin_as_a_repetition():
    torch.manual_seed(0)
    upsample = ConvexUpsampling(3, 5, 7)
    upsample.start_as_repetition()
    scores, features, fine = torch.randn(2, 3, 6, 8), torch.randn(2, 7, 6, 8), [torch.randn(2, 5, 12, 15)]
    found = upsample(scores, features, fine)
    repeated = scores.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :15]
    around = F.pad(scores, (1, 1, 1, 1), mode="replicate")
    highest = F.max_pool2d(around, 3, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :15]
    assert found.shape == repeated.shape
    assert (found <= highest + 1e-6).all()
    assert torch.corrcoef(torch.stack([found.flatten(), repeated.flatten()]))[0, 1] > 0.8


def test_what_is_too_thin_for_the_scores_is_added():
    """A line of one fine place, of which coarse scores and features show nothing, is learnt from a finer map."""
    torch.manual_seed(0)
    upsample = ConvexUpsampling(2, 1, 3)
    upsample.start_as_repetition()
    scores, features = torch.zeros(4, 2, 8, 8), torch.zeros(4, 3, 8, 8)
    scores[:, 0] = 1.0  # nothing but the first class
    labels = torch.zeros(4, 16, 16, dtype=torch.long)
    labels[torch.arange(4), :, torch.tensor([2, 5, 8, 13])] = 1
    fine = [labels.unsqueeze(1).float()]
    optimizer = torch.optim.Adam(upsample.parameters(), 0.05)
    for _ in range(60):
        loss = F.cross_entropy(upsample(scores, features, fine), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(upsample(scores, features, fine).argmax(dim=1), labels)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])  # first maps at strides 2 and 4
@pytest.mark.parametrize("stream", [{"shape_stream": True}, {"stream_start": "skip"}, {"shape_stream": False}])
@pytest.mark.parametrize("more", [{}, {"separable": True}, {"grad_checkpointing": True}, {"freeze_stages": 1}])
def test_networks_of_every_kind_train_and_segment_images_of_any_size(backbone, stream, more):
    net = GSCNN(5, backbone, image_gradient="sobel", refine="convex", **stream, **SMALL, **more)
    output = net(torch.rand(2, 3, 71, 90))
    assert output.seg_logits.shape == (2, 5, 71, 90)
    assert net(torch.rand(2, 3, 71, 90), stride=2).seg_logits.shape == (2, 5, 36, 45)
    output.seg_logits.square().mean().backward()
    assert net.refinement.conv.weight.grad.abs().sum() > 0
    net.eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(folded(net)(image).seg_logits, net(image).seg_logits, atol=1e-4, rtol=1e-4)


def test_it_is_off_by_default_and_adds_nothing_but_its_own_weights():
    torch.manual_seed(0)
    plain = GSCNN(5, "test_resnet", **SMALL)
    refined = GSCNN(5, "test_resnet", refine="convex", **SMALL)
    assert plain.refinement is None
    assert {n for n in refined.state_dict() if not n.startswith("refinement.")} == set(plain.state_dict())
    with pytest.raises(SettingError, match="refine is 'sharp': use 'none' or 'convex'"):
        GSCNN(5, "test_resnet", refine="sharp", **SMALL)


def test_its_cost_is_a_part_of_the_table():
    small = {key: value for key, value in SMALL.items() if key != "pretrained"}
    plain, refined = (meta_network(5, backbone="test_resnet", refine=kind, **small) for kind in ("none", "convex"))
    costs = {cost.part: cost for cost in network_cost(refined, (64, 64))}
    # 3x3 of the first map, 16 + 8 + 4 + 2 features and a boundary logit to 32 channels, then 9 weights and 5 classes,
    # at stride 2; and 1x1 of the decoder's 16 features at stride 4.
    seen = refined.backbone.channels[0] + 31
    expected = 2 * 32 * 32 * (9 * seen * 32 + 32 * (9 + 5)) + 2 * 16 * 16 * 16 * 32
    assert costs["refinement"].gflops == pytest.approx(expected / 1e9)
    assert costs["decoder"].gflops > 0
    assert "refinement" not in {cost.part for cost in network_cost(plain, (64, 64))}


def test_the_whole_is_one_graph():
    net = GSCNN(5, "test_resnet", image_gradient="sobel", refine="convex", **SMALL).eval()
    image = torch.rand(1, 3, 64, 64)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image).seg_logits, net(image).seg_logits)


def test_machine_code_of_it_takes_channels_last_scores():
    torch.manual_seed(0)
    features, weights = torch.randn(2, 16, 6, 7).to(memory_format=torch.channels_last), torch.rand(2, 9, 12, 14)
    classifier = torch.nn.Conv2d(16, 5, 3, padding=1).to(memory_format=torch.channels_last)

    def scores(features):
        return convex_combination(classifier(features), weights, 2)

    gradients = []
    for function in (scores, torch.compile(scores)):
        given = features.clone().requires_grad_()
        function(given).square().sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(gradients[1], gradients[0])
