"""Every overlay after every base config: what the command line makes of them, and the network that comes of it."""

from pathlib import Path

import pytest
import torch
import yaml

from gscnn_lightning import GSCNNTask
from gscnn_lightning.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
BASES = sorted(p.stem for p in CONFIGS.glob("*.yaml"))


def parsed(capsys, *names, extra=()):
    """The configuration that `gscnn-fit --config NAME ...` would run."""
    files = [word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *files, *extra, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def task(config):
    """The task of a configuration, without memory for its weights."""
    optimizer = config["optimizer"]
    with torch.device("meta"):
        return GSCNNTask(**{**config["model"], "pretrained": False, "optimizer": optimizer})


def test_there_are_configs():
    assert BASES == ["camvid", "camvid_long", "cityscapes", "folder", "scenes", "shards"]


def test_long_config_is_the_short_one_with_more_epochs(capsys):
    short, long = parsed(capsys, "camvid"), parsed(capsys, "camvid_long")
    assert long["trainer"]["max_epochs"] > 3 * short["trainer"]["max_epochs"]
    differs = ("max_epochs", "check_val_every_n_epoch", "logger")
    assert {k for k in long["trainer"] if long["trainer"][k] != short["trainer"][k]} == set(differs)
    assert {**long, "trainer": None} == {**short, "trainer": None}


def test_ablation_rows_differ_in_what_they_say(capsys):
    rows = {p.stem: parsed(capsys, "cityscapes", f"ablation/{p.stem}") for p in (CONFIGS / "ablation").glob("*.yaml")}
    extensions = {"supervised", "refined", "control_refined", "two_stream"}
    assert set(rows) == {"control", "gated", "gradient", "dual_task", *extensions}
    switches = ("shape_stream", "image_gradient", "boundary_weight", "regularizer_weight", "attention_weight")
    switches += ("refine", "boundary_supervision", "stream_start")
    values = {name: tuple(row["model"][s] for s in switches) for name, row in rows.items()}
    assert values["control"][0] is False
    assert values["gated"] == (True, "none", 20.0, 0.0, 0.0, "none", False, "first")
    assert values["gradient"] == (True, "canny", 20.0, 0.0, 0.0, "none", False, "first")
    assert values["dual_task"] == (True, "canny", 20.0, 1.0, 1.0, "none", False, "first")
    assert values["refined"] == (*values["dual_task"][:5], "convex", False, "first")
    assert values["supervised"][0] is False
    assert values["supervised"][2:] == (20.0, 0.0, 0.0, "none", True, "first")
    assert values["control_refined"] == (*values["control"][:5], "convex", False, "first")
    assert rows["two_stream"] == parsed(capsys, "cityscapes")
    for row in rows.values():
        rest = {**row, "model": {k: v for k, v in row["model"].items() if k not in switches}}
        first = rows["control"]
        assert rest == {**first, "model": {k: v for k, v in first["model"].items() if k not in switches}}
    built = {name: task(row) for name, row in rows.items()}
    assert built["control"].network.shape_stream is None
    for name in ("gated", "gradient", "dual_task"):
        network, loss = built[name].network, built[name].loss
        assert network.image_gradient.kind == rows[name]["model"]["image_gradient"]
        assert (loss.weights["regularizer"] > 0) == (loss.weights["attention"] > 0) == (name == "dual_task")
    trunks = {n: sum(p.numel() for p in t.network.backbone.parameters()) for n, t in built.items()}
    assert len(set(trunks.values())) == 1


@pytest.mark.parametrize(
    ("base", "backbone", "channels", "strides"),
    [
        ("camvid", "resnet50", [64, 256, 512, 1024, 2048], [2, 4, 8, 8, 8]),
        ("scenes", "resnet101", [64, 256, 512, 1024, 2048], [2, 4, 8, 8, 8]),
        ("cityscapes", "wider_resnet38", [64, 128, 256, 512, 4096], [1, 2, 4, 8, 8]),
    ],
)
def test_overlay_makes_the_papers_network(base, backbone, channels, strides, capsys):
    if backbone == "wider_resnet38":
        config = parsed(capsys, base, "network/paper", "network/wider_resnet38")
    else:
        config = parsed(capsys, base, "network/paper", extra=["--model.backbone", backbone])
    network = task(config).network
    assert network.backbone.channels == channels
    assert network.backbone.strides == strides
    assert (network.arguments["refine"], network.arguments["stream_start"]) == ("none", "first")
    assert [b[0].dilation[0] for b in network.aspp.branches] == [1, 12, 24, 36]
    assert (network.aspp.out_channels, network.skip_project.out_channels) == (6 * 256, 48)
    assert network.shape_stream.boundary.in_channels == 8
    assert max(m.dilation[0] for m in network.backbone.modules() if isinstance(m, torch.nn.Conv2d)) == 4
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("overlay", "strides", "first"),
    [("convnext_dinov3", [4, 8, 16, 16], 0.9**19), ("vit_small_dinov3", [2, 4, 16, 16], 0.75**13)],
)
def test_overlay_makes_a_backbone_of_today(overlay, strides, first, capsys):
    config = parsed(capsys, "camvid", f"backbone/{overlay}")
    built = task(config)
    with torch.device("meta"):
        groups = built.configure_optimizers()["optimizer"].param_groups
    assert built.network.backbone.strides == strides
    assert all(p.requires_grad for p in built.network.parameters())
    assert min(g["initial_lr"] for g in groups) == pytest.approx(0.001 * 0.2 * first)
    assert groups[-1]["initial_lr"] == 0.001


def test_recipes_change_the_training_and_not_the_network(capsys):
    plain = parsed(capsys, "cityscapes")
    assert {p.stem for p in (CONFIGS / "recipe").glob("*.yaml")} == {"paper", "release", "one_gpu", "ema"}
    recipes = {
        "paper": parsed(capsys, "cityscapes", "recipe/paper"),
        "release": parsed(capsys, "cityscapes", "recipe/paper", "recipe/release"),
        "one_gpu": parsed(capsys, "cityscapes", "recipe/one_gpu"),
    }
    total = {
        name: r["trainer"]["devices"] * r["trainer"]["accumulate_grad_batches"] * r["data"]["init_args"]["batch_size"]
        for name, r in recipes.items()
    }
    assert total == {"paper": 16, "release": 8, "one_gpu": 16}
    for recipe in recipes.values():
        assert recipe["data"]["class_path"] == plain["data"]["class_path"]
        assert recipe["data"]["init_args"].keys() == plain["data"]["init_args"].keys()
        assert recipe["model"]["backbone"] == plain["model"]["backbone"]
    for name, crop, power in (("paper", 800, 0.9), ("release", 720, 1.0)):
        assert recipes[name]["data"]["init_args"]["crop_size"] == [crop, crop]
        assert recipes[name]["trainer"]["max_epochs"] == 175
        assert recipes[name]["model"]["poly_power"] == power
        assert recipes[name]["model"]["loss_variant"] == name
        # Extensions of small configs are no part of either.
        extensions = ("refine", "stream_start", "dice_weight", "edge_weight", "class_weights", "layer_decay")
        assert [recipes[name]["model"][k] for k in extensions] == ["none", "first", 0.0, 0.0, None, None]
        optimizer = recipes[name]["optimizer"]
        assert optimizer["class_path"] == "torch.optim.SGD"
        assert [optimizer["init_args"][k] for k in ("lr", "momentum", "weight_decay")] == [0.01, 0.9, 1e-4]
        assert "TimmSyncBatchNorm" in str(recipes[name]["trainer"]["plugins"])
    assert task(recipes["release"]).network.image_gradient.kind == "release"
    assert not recipes["one_gpu"]["trainer"]["plugins"]
    network = task(recipes["one_gpu"]).network
    assert network.shape_stream.grad_checkpointing
    assert network.backbone.freeze_norm
    assert isinstance(network.decoder[0][1], torch.nn.GroupNorm)


@pytest.mark.parametrize("base", BASES)
def test_overlays_stack_on_every_base(base, capsys):
    names = (base, "recipe/paper", "recipe/release", "network/wider_resnet38", "ablation/gated", "recipe/one_gpu")
    config = parsed(capsys, *names, extra=["--model.tau", "0.7"])
    built = task(config)
    assert built.network.backbone.name == "wider_resnet38_a2"
    assert built.network.image_gradient.kind == "none"
    assert built.loss.variant == "release"
    assert built.loss.dual_task.tau == 0.7
    assert config["trainer"]["accumulate_grad_batches"] == 8
    assert config["data"]["init_args"]["crop_size"] == [720, 720]
    assert config["data"]["class_path"].startswith("gscnn_lightning.data.")


def test_small_bases_take_the_ablation_rows(capsys):
    for base, row in (
        ("camvid", "dual_task"),
        ("camvid", "control_refined"),
        ("scenes", "gradient"),
        ("scenes", "control"),
    ):
        plain, changed = parsed(capsys, base), parsed(capsys, base, f"ablation/{row}")
        said = yaml.safe_load((CONFIGS / f"ablation/{row}.yaml").read_text())["model"]
        assert changed == {**plain, "model": {**plain["model"], **said}}
