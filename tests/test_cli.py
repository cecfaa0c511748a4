"""The command line: in this process where that is enough, in real processes where it is not."""

import csv
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from tests.data import made

from gscnn_lightning import GSCNN, GSCNNTask
from gscnn_lightning.cli import default_precision, main
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.data import ScenesDataModule

CONFIGS = Path(__file__).parent.parent / "configs"

SETTINGS = """
--model.pretrained false --model.channels 16 --model.skip_channels 8 --model.shape_channels 16
--model.output_stride 32 --model.boundary_tolerances [1,3] --data.num_workers 0
--trainer.accelerator cpu --trainer.precision 32-true --trainer.enable_progress_bar false
--trainer.log_every_n_steps 1
"""
TINY = [*SETTINGS.split(), "--model.backbone", "test_resnet"]
SCENES = ["--data.size", "[64,128]", "--data.train_samples", "8", "--data.val_samples", "5", "--data.batch_size", "2"]
CROP = ["--data.crop_size", "[64,64]", "--data.color_jitter", "0", "--data.blur", "0"]


def scores(folder, stage="val"):
    return json.loads((folder / f"scores_{stage}.json").read_text())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run: `gscnn-fit` without a subcommand and without a config."""
    folder = tmp_path_factory.mktemp("run")
    before = Path.cwd()
    os.chdir(folder)
    try:
        main([*TINY, *SCENES, *CROP, "--trainer.max_epochs", "2"])
    finally:
        os.chdir(before)
    return folder / "runs/default/version_0"


def errors(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    captured = capsys.readouterr().err
    assert "Traceback" not in captured
    return captured


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (("--data.batch_size", "0"), "batch_size must be 1 or more, got 0"),
        (("--data.cache_gb", "-1"), "cache_gb must be a number of 0 or more, got -1.0"),
        (("--data.train_samples", "0"), "train_samples and val_samples must be 1 or more, got 0 and 64"),
        (("--model.shape_channels", "7"), "shape_channels"),
    ],
)
def test_values_out_of_range_are_said_in_one_line(setting, words, capsys):
    message = errors([*TINY, "--data", "ScenesDataModule", *setting], capsys)
    assert message.count("\n") == 1
    assert message.startswith(f"gscnn-fit: error: {words}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--trainer.accelerator", "nosuch"], ["trainer.accelerator is nosuch", "Correct --trainer.accelerator"]),
        (["--trainer.devices", "0"], ["trainer.devices is 0"]),
        (["--trainer.strategy", "nosuch"], ["trainer.strategy is nosuch"]),
        (
            ["--trainer.strategy", "fsdp"],
            ["trainer.strategy is fsdp, which spreads the weights", "--trainer.strategy ddp"],
        ),
        (["--trainer.strategy", "FSDPStrategy"], ["FSDPStrategy, which spreads", "--trainer.strategy ddp"]),
        (
            ["--trainer.strategy", '{"class_path": "pytorch_lightning.strategies.FSDPStrategy"}'],
            ["Strategy, which spreads"],
        ),
        (["--trainer.strategy", "deepspeed_stage_2"], ["trainer.strategy is deepspeed_stage_2, which spreads"]),
        (["--trainer.max_epochs", "-5"], ["trainer.max_epochs is -5", "non-negative integer or -1"]),
        (["--trainer.max_epochs", "0"], ["trainer.max_epochs is 0, which trains nothing"]),
        (["--trainer.max_time", "1:2"], ["trainer.max_time is 1:2", "DD:HH:MM:SS"]),
        (["--trainer.val_check_interval", "0"], ["trainer.val_check_interval is 0"]),
        (["--trainer.val_check_interval", "100"], ["trainer.val_check_interval is 100", "training batches (4)"]),
        (["--trainer.check_val_every_n_epoch", "0"], ["trainer.check_val_every_n_epoch is 0"]),
        (["--trainer.accumulate_grad_batches", "0"], ["trainer.accumulate_grad_batches is 0"]),
        (["--trainer.enable_checkpointing", "false"], ["trainer.enable_checkpointing is False"]),
        (["--trainer.precision", "bf16-true"], ["trainer.precision is bf16-true", "bf16-mixed"]),
        (["--trainer.callbacks+=LearningRateFinder"], ["callback LearningRateFinder of trainer.callbacks"]),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.mode=x", "--trainer.callbacks.monitor=a"],
            ["trainer.callbacks.mode is x"],
        ),
        (["--trainer.callbacks+=Pictures", "--trainer.callbacks.num_images=0"], ["trainer.callbacks.num_images is 0"]),
        (["--seed_everything", "-5"], ["seed_everything is -5"]),
        (["--checkpoint.mode", "x"], ["checkpoint.mode is x"]),
        (["--checkpoint.save_top_k", "-5"], ["checkpoint.save_top_k is -5"]),
        (["--checkpoint.dirpath", "file"], ["cannot write", "file (File exists): choose another --checkpoint.dirpath"]),
        (["--trainer.logger.save_dir", "file"], ["Not a directory", "choose another --trainer.logger.save_dir"]),
        (["--model.channels", "0"], ["channels is 0", "(--model.channels)"]),
        (["--model.skip_channels", "-3"], ["skip_channels is -3"]),
        (["--model.poly_power", "-1"], ["poly_power is -1.0: give a number of 0 or more (--model.poly_power)"]),
        (["--model.boundary_tolerances", "[]"], ["boundary_tolerances is []", "(--model.boundary_tolerances)"]),
        (["--model.boundary_tolerances", "[-1]"], ["boundary_tolerances is [-1.0]"]),
        (["--data.num_workers", "-1"], ["num_workers must be 0 or more, got -1 (--data.num_workers)"]),
        (["--data.seed", "-1"], ["seed must be 0 or more, got -1 (--data.seed)"]),
        (["--optimizer", "SGD", "--optimizer.lr", "-1"], ["lr is -1.0: give a number of 0 or more (--optimizer.lr)"]),
        (["--optimizer", "LBFGS"], ["optimizer is torch.optim.LBFGS"]),
        (["--checkpoint.monitor", "val/mIoU"], ["checkpoint.monitor is val/mIoU", "did you mean val/miou"]),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
            ["trainer.callbacks.monitor of EarlyStopping is val_loss", "did you mean val/loss_segmentation"],
        ),
    ],
    ids=lambda part: part[-1] if part[0].startswith("-") else "",
)
def test_what_lightning_and_torch_refuse_is_said_before_an_epoch_is_spent(settings, words, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main([*TINY, *SCENES, *CROP, "--trainer.max_epochs", "1", *settings])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    said = err[err.index("gscnn-fit: error: ") :]
    assert said.count("\n") == 1
    assert "epoch 1/1" not in out
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["--epochs", "3"], "--trainer.max_epochs"),
        (["--trainer.gpus", "2"], "--trainer.devices"),
        (["--work-dir", "x"], "--trainer.logger.save_dir"),
        (["--config", "{resume-from-checkpoint: x.ckpt}"], "--ckpt_path"),
    ],
)
def test_names_that_other_tools_have_for_a_setting_are_understood(given, meant, capsys):
    assert f"Did you mean {meant}?" in errors([*TINY, *given], capsys)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Path of a checkpoint of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    main([*TINY, *SCENES, *CROP, "--trainer.max_epochs", "1", "--trainer.logger.save_dir", str(folder)])
    (found,) = folder.rglob("last.ckpt")
    return str(found)


def with_classes(checkpoint, path, names):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["class_names"] = names
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_a_checkpoint_of_other_classes_is_refused_in_every_command(subcommand, checkpoint, tmp_path, capsys):
    names = list(ScenesDataModule().class_names)
    swapped = [names[1], names[0], *names[2:]]
    path = with_classes(checkpoint, tmp_path / "other.ckpt", swapped)
    message = errors([subcommand, *TINY, *SCENES, *CROP, "--ckpt_path", path], capsys)
    assert f"checkpoint {path} has 19 classes (sidewalk, road," in message
    assert "the data 19 classes (road, sidewalk," in message
    assert "class 0 is sidewalk there and road here, the same names in another order" in message
    assert ("--model.backbone_weights" in message) == (subcommand == "fit")


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_scores_and_pictures_of_random_weights_are_refused(subcommand, capsys):
    message = errors([subcommand, *TINY, *SCENES, *CROP], capsys)
    assert f"ckpt_path is missing: {subcommand} needs a trained network" in message
    assert not list(Path.cwd().rglob("version_*"))


@pytest.mark.parametrize("subcommand", ["fit", "validate"])
def test_a_checkpoint_of_another_network_or_optimizer_is_refused(subcommand, checkpoint, tmp_path, capsys):
    args = [subcommand, *TINY, *SCENES, *CROP, "--ckpt_path", checkpoint]
    message = errors([*args, "--model.channels", "24"], capsys)
    assert "has model.channels 16 and not 24 as on the command line" in message
    if subcommand == "fit":
        assert "goes on with optimizer.lr" in errors([*args, "--optimizer.lr", "0.5"], capsys)
        assert "has 1 epochs and trainer.max_epochs is 1" in errors([*args, "--trainer.max_epochs", "1"], capsys)
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["network.decoder.0.0.weight"]
    torch.save(content, tmp_path / "cut.ckpt")
    message = errors([*args[:-1], str(tmp_path / "cut.ckpt")], capsys)
    assert "does not fit its network" in message
    assert "1 are missing (network.decoder.0.0.weight)" in message


def test_bugs_keep_their_traceback(monkeypatch):
    def broken(self, stage):
        return [][0]

    monkeypatch.setattr(GSCNNTask, "setup", broken)
    with pytest.raises(IndexError):
        main([*TINY, *SCENES, *CROP])


def test_names_that_can_be_monitored_are_those_that_are_logged():
    data = ScenesDataModule(size=(64, 128), train_samples=2, val_samples=1, batch_size=2, num_workers=0)
    settings = {"shape_channels": 16, "channels": 16, "output_stride": 32, "pretrained": False}
    names = {"num_classes": 19, "class_names": data.class_names}
    for weights in ({}, {"shape_stream": False}, {"attention_weight": 0.0}):
        task = GSCNNTask(backbone="test_resnet", boundary_tolerances=[1, 3], **settings, **weights, **names)
        trainer = pl.Trainer(fast_dev_run=1, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(task, data)
        assert set(task.logged_names()) == set(trainer.callback_metrics)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00binary", "config c.yaml cannot be read (byte 0 is not UTF-8)"),
        ("data: {init_args: {root: caf\xe9}}".encode("latin-1"), "config c.yaml cannot be read (byte 28 is not UTF-8)"),
        (b"trainer: [1", "config c.yaml is not valid YAML"),
        (b"- 1", "config c.yaml holds a list: write keys with values"),
        (b"", "config c.yaml holds nothing"),
        (b"trainer: 3", "config c.yaml: trainer is 3: write its settings below it, or leave it out"),
        (b"trainer:", "config c.yaml: trainer is None"),
        (b"model:", "config c.yaml: model is None"),
        (b"optimizer: [a]", "config c.yaml: optimizer is ['a']: write the name of a class"),
        (b"trainer: &a {callbacks: [*a]}", "config c.yaml contains itself"),
    ],
)
def test_configs_that_cannot_be_used_are_named(content, words, tmp_path, capsys):
    (tmp_path / "c.yaml").write_bytes(content)
    message = errors([*TINY, "--config", "c.yaml"], capsys)
    assert words in message
    assert message.count("\n") == 1


def test_run_folder_has_everything(run):
    names = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "metrics.csv",
        "learning_curves.png",
        "contact_sheet.png",
        "scores_val.json",
        "classes.json",
        "environment.json",
        "image_scores.csv",
        "confusion_matrix.csv",
        "confusion_matrix.png",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
    } <= names


def test_linked_settings_reach_the_checkpoint(run):
    task = GSCNNTask.load_from_checkpoint(run / "checkpoints/best.ckpt", map_location="cpu")
    assert task.hparams.num_classes == 19
    assert task.class_names[0] == "road"
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


def test_validation_of_the_checkpoint_gives_the_runs_scores(run, tmp_path, capsys):
    main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/best.ckpt")])
    again = scores(tmp_path / "runs/default/version_0")
    assert again["means"] == pytest.approx(scores(run)["means"], rel=1e-6)
    assert "F 1 px" in capsys.readouterr().out


def test_test_and_predict_need_only_the_config_that_ran(run, tmp_path, capsys):
    common = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/best.ckpt")]
    main(["test", *common])
    folder = tmp_path / "runs/default/version_0"
    saved = scores(folder, "test")
    assert list(saved["crops"]) == ["0", "100", "200", "300", "400"]
    assert saved["categories"]["flat"]["category_iou"] > 0
    with (folder / "scores_test.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert float(rows["road"]["boundary_iou"]) == saved["classes"]["road"]["boundary_iou"]
    assert (folder / "distance_curve.png").is_file()
    out = capsys.readouterr().out
    assert "BIoU" in out
    assert re.search(r"mIoU at crop 0/100/200/300/400 +\d", out)
    main(["predict", *common])
    written = sorted((tmp_path / "runs/default/version_1/predictions").rglob("*_labels.png"))
    assert len(written) == 5


def test_scales_and_windows_are_chosen_when_a_checkpoint_is_used(run, tmp_path):
    common = ["validate", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/best.ckpt")]
    main([*common, "--model.window", "[48,64]", "--model.scales", "[0.5,1]", "--model.flip_average", "true"])
    again = scores(tmp_path / "runs/default/version_0")["means"]
    assert again["accuracy"] != pytest.approx(scores(run)["means"]["accuracy"], rel=1e-3)


def test_run_can_be_started_again_from_its_config(run, tmp_path):
    main(["fit", "--config", str(run / "config.yaml")])
    again = tmp_path / "runs/default/version_0"
    assert yaml.safe_load((again / "config.yaml").read_text()) == yaml.safe_load((run / "config.yaml").read_text())
    for part in ("means", "classes"):
        assert scores(again)[part] == scores(run)[part]  # the same seed gives the same digits


def test_optimizer_is_replaced_from_the_command_line(tmp_path):
    main([*TINY, *SCENES, *CROP, "--trainer.max_epochs", "1", "--optimizer", "AdamW", "--optimizer.lr", "0.003"])
    path = tmp_path / "runs/default/version_0/checkpoints/last.ckpt"
    optimizer = torch.load(path, weights_only=True)["hyper_parameters"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.AdamW"
    assert optimizer["init_args"]["lr"] == 0.003


def folder_of_ones_own(root):
    """A tiny data set for the shipped class table, and the settings that name both."""
    for split in ("train", "val"):
        for i in range(2):
            made.save(root / "images" / split / f"{i}.png", made.picture(i, (64, 96)))
            made.save(
                root / "masks" / split / f"{i}.png", np.repeat(np.arange(12, dtype=np.uint8), 8 * 64).reshape(96, 64).T
            )
    return ["--data.root", str(root), "--data.classes", str(CONFIGS / "classes/camvid.yaml")]


def shards_of_ones_own(root):
    """The same data set in shards."""
    tools(["data", "pack", "folder", *folder_of_ones_own(root / "data"), "--out", str(root / "shards")])
    return ["--data.root", str(root / "shards")]


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_config_runs(config, request, tmp_path):
    name = yaml.safe_load(config.read_text())["data"]["class_path"].rpartition(".")[2]
    data = {
        "ScenesDataModule": lambda: ["--data.size", "[64,128]", "--data.samples_per_epoch", "8"],
        "CamVidDataModule": lambda: ["--data.root", str(request.getfixturevalue("camvid_root"))],
        "CityscapesDataModule": lambda: ["--data.root", str(request.getfixturevalue("cityscapes_root"))],
        "FolderDataModule": lambda: folder_of_ones_own(tmp_path / "data"),
        "ShardsDataModule": lambda: shards_of_ones_own(tmp_path),
    }[name]()
    small = ["--data.crop_size", "[64,64]", "--data.batch_size", "2", "--trainer.fast_dev_run", "1"]
    main(["fit", "--config", str(config), *TINY, *data, *small])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--model.backbonne", "resnet18"],
            ["unrecognized arguments: --model.backbonne", "Did you mean --model.backbone"],
        ),
        (["--model.num_classes", "5"], ["--model.num_classes follows from the data: leave it out", "--data.classes\n"]),
        (["--model.class_colors", "[[1,2,3]]"], ["--model.class_colors follows from the data: leave it out"]),
        (
            ["--config", "model: {num_classes: 5}"],
            ["config model: {num_classes: 5}: model.num_classes follows from the data: leave it out"],
        ),
        (["--trainer.max_epoch", "3"], ["--trainer.max_epoch", "Did you mean --trainer.max_epochs"]),
        (["--data.crop_sise", "[64,64]"], ["'crop_sise' is not accepted", "--data.crop_size"]),
        (["--model.channels", "many"], ["fit: error: model.channels is many: it takes a whole number\n"]),
        (["--trainer.max_epochs", "[1]"], ["trainer.max_epochs is [1]: it takes a whole number or null\n"]),
        (["--data.crop_size", "[a,b]"], ["data.crop_size is ['a', 'b']: it takes a list [int, int] or null\n"]),
        (["--model.loss_variant", "x"], ["model.loss_variant is x: it takes paper or release\n"]),
        (["--optimizer", "Adamw"], ["optimizer is Adamw: it takes the name of a class", "Did you mean AdamW?"]),
        (["--optimizer", "SGD", "--optimizer.lr", "fast"], ["optimizer.lr is fast: it takes a number\n"]),
        (["--config", "none.yaml"], ["there is no file 'none.yaml'", "configs are camvid, camvid_long, cityscapes"]),
        (["--data", "CamVidDataModule"], ["where is CamVid?", "--data.root", "GSCNN_CAMVID_ROOT"]),
        (["--data", "CamVidDataModule", "--data.root", "nowhere"], ["nowhere does not exist"]),
        (["--data", "CityscapesDataModule", "--data.root", "nowhere"], ["nowhere does not exist"]),
        (
            ["--data", "FolderDataModule", "--data.root", ".", "--data.classes", "none.yaml"],
            ["cannot read the class table none.yaml", "correct --data.classes"],
        ),
        (["--model.backbone", "resnet5O", "--model.pretrained", "false"], ["unknown backbone 'resnet5O'", "resnet50"]),
        (["--model.backbone_weights", "none.pth"], ["weight file none.pth does not exist"]),
        (["validate", "--ckpt_path", "none.ckpt"], ["checkpoint none.ckpt does not exist"]),
    ],
)
def test_mistakes_get_one_message_with_a_remedy(args, words, capsys, monkeypatch):
    for variable in ("GSCNN_CAMVID_ROOT", "CITYSCAPES_DATASET"):
        monkeypatch.delenv(variable, raising=False)
    command = [a for a in args[:1] if not a.startswith("-")]
    args = args[len(command) :]
    backbone = [] if "--model.backbone" in args else ["--model.backbone", "test_resnet"]
    message = errors([*command, *SETTINGS.split(), *backbone, *args], capsys)
    for word in words:
        assert word in message
    assert len(message.splitlines()) <= 2


@pytest.mark.parametrize("content", [b"junk", b""])
def test_unreadable_checkpoint_is_named(content, tmp_path, capsys):
    (tmp_path / "bad.ckpt").write_bytes(content)
    assert "checkpoint bad.ckpt cannot be read" in errors(["test", "--ckpt_path", "bad.ckpt"], capsys)


def test_file_that_is_no_checkpoint_is_named(tmp_path, capsys):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.ckpt")
    assert "is no checkpoint of gscnn-fit" in errors(["test", "--ckpt_path", "other.ckpt"], capsys)


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "gscnn-fit --config camvid" in capsys.readouterr().out


def test_a_transformer_trains_in_mixed_precision_on_images_of_odd_sizes():
    odd = [*SCENES, "--data.size", "[70,131]", *CROP, "--data.crop_size", "[49,67]"]
    settings = ["--model.backbone", "test_vit", "--trainer.precision", "bf16-mixed", "--model.layer_decay", "0.75"]
    main([*TINY, *odd, *settings, "--trainer.max_epochs", "1"])
    folder = Path("runs/default/version_0")
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    losses = [float(row[name]) for row in rows for name in row if "loss" in name and row[name]]
    assert len(losses) > 4
    assert np.isfinite(losses).all()
    assert scores(folder)["means"]["miou"] > 0


def test_precision_is_what_the_processor_multiplies():
    assert default_precision() in {"32-true", "bf16-mixed", "16-mixed"}


def test_scenes_are_written_and_read_back_by_the_real_data_module(tmp_path, capsys):
    tools(["scenes", "--out", "street", "--train", "4", "--val", "2", "--size", "[64,128]"])
    assert "4 training and 2 validation scenes are in street" in capsys.readouterr().out
    data = ["--data", "CityscapesDataModule", "--data.root", "street", "--data.batch_size", "2"]
    main([*data, *CROP, *TINY, "--trainer.max_epochs", "1"])
    assert scores(tmp_path / "runs/default/version_0")["means"]
    with pytest.raises(SystemExit) as stop:
        tools(["scenes", "--out", "street"])
    assert stop.value.code == 2
    assert "street is not an empty folder" in capsys.readouterr().err


DISTRIBUTED = ("--trainer.devices", "2", "--trainer.strategy", "ddp")


def call(folder, *args):
    """The command in a process of its own, which may start others; its output."""
    result = subprocess.run(
        [sys.executable, "-m", "gscnn_lightning", *args],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def best_of(run):
    return "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints/best.ckpt")


def test_two_processes_train_and_score_like_one(run, tmp_path, monkeypatch):
    """The same command with two gloo processes; validation has an odd number of frames."""
    out = call(tmp_path, "fit", *TINY, *SCENES, *CROP, "--trainer.max_epochs", "1", *DISTRIBUTED)
    folder = tmp_path / "runs/default/version_0"
    assert sorted(p.name for p in (tmp_path / "runs/default").iterdir()) == ["version_0"]
    assert out.count("best checkpoint") == 1
    assert (folder / "contact_sheet.png").is_file()
    call(tmp_path, "validate", *best_of(run), *DISTRIBUTED)
    two = scores(tmp_path / "runs/default/version_1")
    monkeypatch.chdir(tmp_path)
    main(["validate", *best_of(run)])
    one = scores(tmp_path / "runs/default/version_2")
    assert two == one
    for name in ("image_scores.csv", "confusion_matrix.csv"):
        single, double = ((tmp_path / f"runs/default/version_{version}" / name).read_text() for version in (2, 1))
        assert double == single
    assert len(list((tmp_path / "runs/default/version_1/pictures/worst").iterdir())) == 5


@pytest.mark.slow
def test_two_processes_test_like_one(run, tmp_path):
    """The test split has an odd number of frames, so the processes have unequal numbers of batches."""
    for distributed in ((), DISTRIBUTED):
        call(tmp_path, "test", *best_of(run), *distributed)
    one, two = (scores(tmp_path / f"runs/default/version_{version}", "test") for version in (0, 1))
    assert two == one


@pytest.mark.slow
def test_two_processes_predict_every_frame_once(run, tmp_path):
    call(tmp_path, "predict", *best_of(run), *DISTRIBUTED)
    assert len(list((tmp_path / "runs/default/version_0/predictions").rglob("*_labels.png"))) == 5


def printed_config(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_configs_are_found_by_name_from_anywhere_and_may_be_written_out(capsys):
    config = printed_config(
        capsys, "--config", "scenes", "--config=ablation/control", "--config", "trainer: {max_epochs: 7}"
    )
    assert config["trainer"]["logger"]["class_path"].endswith("CSVLogger")
    assert config["trainer"]["logger"]["init_args"]["name"] == "scenes"
    assert config["trainer"]["max_epochs"] == 7
    assert config["model"]["shape_stream"] is False
    assert config["model"]["backbone"] == "tf_efficientnet_lite0"


def test_settings_of_the_network_are_those_of_the_network_and_reach_the_checkpoint(run, capsys):
    """They are written once, in the signature of GSCNN, and the task hands them on."""
    named = {name for name in inspect.signature(GSCNN).parameters if name != "num_classes"}
    config = printed_config(capsys, "--model.norm", "group")
    assert named <= set(config["model"])
    assert config["model"]["norm"] == "group"
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    assert named <= set(kept), "defaults included"
    assert not named & set(inspect.signature(GSCNNTask).parameters), "none is written twice"
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "width of the shape stream's first block" in " ".join(capsys.readouterr().out.split())
