import pytest
import torch

from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.models import GSCNN
from gscnn_lightning.models.cost import cost_table, network_cost
from gscnn_lightning.sync_batchnorm import TimmSyncBatchNorm


def test_published_network_costs_what_the_reference_says():
    with torch.device("meta"):
        net = GSCNN(19, "wider_resnet38_a2", pretrained=False)
    costs = {c.part: c for c in network_cost(net, (1024, 2048))}
    assert list(costs) == ["trunk", "shape stream", "ASPP", "decoder", "total"]
    # The published program projects what image pooling gives at each of 128x256 places, here that is done once.
    pooled = 2e-9 * 256 * 256 * (128 * 256 - 1)
    assert round(costs["total"].gflops + pooled) == 12_083
    # dsn1, saved with the published network, is never used; the shape stream here has no such layer.
    assert costs["total"].parameters == 137_278_190 - 65
    assert costs["trunk"].parameters == 105_062_720
    assert costs["ASPP"].parameters == 30_412_032
    assert round(100 * costs["shape stream"].gflops / costs["total"].gflops, 1) == 3.6


def test_operations_of_one_part_by_hand():
    net = GSCNN(5, "resnet18", pretrained=False, shape_channels=8, channels=16, skip_channels=4)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    costs = {c.part: c for c in network_cost(net.train(), (64, 96))}
    # Skip 1x1 at stride 4; ASPP to 16 channels at stride 8, pooling at one place; at stride 4 two 3x3 and the classes.
    places = 16 * 24
    products = places * (64 * 4 + 9 * (4 + 16) * 16 + 9 * 16 * 16 + 16 * 5) + places // 4 * (5 * 16 * 16) + 16 * 16
    assert costs["decoder"].gflops == pytest.approx(2e-9 * products)
    assert costs["decoder"].parameters == 64 * 4 + 96 * 16 + 9 * 20 * 16 + 9 * 16 * 16 + 4 * 16 + 16 * 5
    assert costs["total"].parameters == sum(p.numel() for p in net.parameters())
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_control_has_no_shape_stream():
    settings = {"pretrained": False, "channels": 16, "skip_channels": 4}
    control, both = (
        {c.part: c for c in network_cost(GSCNN(5, "resnet18", shape_stream=s, **settings), (64, 64))}
        for s in (False, True)
    )
    assert set(both) - set(control) == {"shape stream"}
    assert control["trunk"] == both["trunk"]
    assert control["total"].gflops < both["total"].gflops
    assert cost_table(list(control.values())).row_count == 4


def test_command_prints_a_table_of_80_columns(capsys):
    tools(["cost", "wider_resnet38_a2", "--size", "[1024,2048]"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "wider_resnet38_a2, strides 1/2/4/8/8, one image of 1024x2048 pixels"
    assert max(map(len, lines)) <= 80
    row = next(line.split() for line in lines if "shape stream" in line)
    assert row == ["shape", "stream", "107,885", "0.08", "429.6", "3.6"]
    assert next(line.split() for line in lines if "total" in line)[-2:] == ["12,079.1", "100.0"]
    with pytest.raises(SystemExit) as stop:
        tools(["cost", "--size", "[16,64]", "--backbone", "resnet18"])
    assert stop.value.code == 2
    assert "16x64 pixels is too small" in capsys.readouterr().err


def test_normalisation_over_several_devices_is_counted_and_stays_in_training(tmp_path):
    net = GSCNN(5, "test_resnet", pretrained=False, shape_channels=8, channels=16, skip_channels=4, freeze_norm=True)
    expected = network_cost(net.train(), (64, 96))
    modes = {name: module.training for name, module in net.named_modules()}
    assert len(set(modes.values())) == 2
    net = TimmSyncBatchNorm().apply(net)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert network_cost(net, (64, 96)) == expected
    finally:
        torch.distributed.destroy_process_group()
    assert {name: module.training for name, module in net.named_modules()} == modes
