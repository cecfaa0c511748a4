"""The control with boundary supervision is, after training, the control."""

import pytest
import torch

from gscnn_lightning import GSCNNTask
from gscnn_lightning.errors import SettingError
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.cost import meta_network, network_cost

SMALL = {"pretrained": False, "channels": 16, "skip_channels": 8, "shape_channels": 16, "output_stride": 32}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_head_is_there_in_training_alone(backbone):
    supervised = GSCNN(5, backbone, shape_stream=False, boundary_supervision=True, **SMALL)
    control = GSCNN(5, backbone, shape_stream=False, **SMALL)
    missing, unexpected = control.load_state_dict(supervised.state_dict(), strict=False)
    assert not missing
    assert {name.split(".")[0] for name in unexpected} == {"boundary_head"}
    image = torch.rand(2, 3, 64, 96)
    output = supervised.train()(image)
    assert output.boundary_logits.shape == (2, 1, 64, 96)
    assert output.boundary_logits.abs().max() < 2, "near zero at first, as the loss of boundaries has a large weight"
    assert output.gates == ()
    evaluated = supervised.eval()(image)
    assert evaluated.boundary_logits is None
    control.load_state_dict(supervised.state_dict(), strict=False)
    assert evaluated.seg_logits.equal(control.eval()(image).seg_logits)


def test_boundary_loss_reaches_the_maps_that_a_shape_stream_would_read():
    task = GSCNNTask(
        5, backbone="test_resnet", shape_stream=False, boundary_supervision=True, segmentation_weight=0.0, **SMALL
    ).train()
    assert "train/loss_boundary" in task.logged_names()
    batch = {"image": torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8), "mask": torch.randint(5, (2, 64, 64))}
    losses = task.training_losses({**batch, "boundary": torch.randint(2, (2, 1, 64, 64), dtype=torch.uint8)})
    losses["boundary"].backward()
    moved = {n for n, p in task.network.backbone.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any("layer1" in name for name in moved)
    assert any("layer4" in name for name in moved)


def test_shape_stream_has_a_supervision_of_its_own():
    with pytest.raises(SettingError, match="give shape_stream false with it"):
        GSCNN(5, "test_resnet", boundary_supervision=True, **SMALL)


def test_cost_of_the_head_is_that_of_training_alone():
    small = {name: value for name, value in SMALL.items() if name != "pretrained"}
    network = meta_network(5, backbone="test_resnet", shape_stream=False, boundary_supervision=True, **small)
    costs = {cost.part: cost for cost in network_cost(network, (64, 64))}
    head = costs["boundary head, in training"]
    assert head.gflops == 0
    assert head.parameters == sum(
        c + 1 for c in (network.backbone.channels[i] for i in (0, *network.backbone.gate_indices))
    )
