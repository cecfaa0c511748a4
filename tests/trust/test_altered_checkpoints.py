"""Altered checkpoints through every door: each ends in one line that names file and reason, and nothing runs."""

import io
import shutil
import sys
import zipfile

import pytest
import torch
import yaml
from tests.tiny import write_checkpoint, write_config
from tests.trust import hostile

from gscnn_lightning import GSCNNTask
from gscnn_lightning.checkpoint import load_task
from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.cli import main as fit
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.errors import SettingError, WeightsError
from gscnn_lightning.plain import fits

RUN = ["--config", "tiny.yaml", "--data.train_samples", "2", "--data.val_samples", "1"]
RUN += ["--trainer.enable_progress_bar", "false", "--trainer.logger.save_dir", "runs"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The last checkpoint of a training of one step."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_config(folder / "tiny.yaml")
        fit(["fit", *RUN, "--trainer.max_epochs", "1"])
    return folder / "runs/tiny/version_0/checkpoints/last.ckpt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    hostile.plant(tmp_path, monkeypatch)
    write_config(tmp_path / "tiny.yaml")
    return tmp_path


def refused(command, args, capsys):
    """The last line of a command that exits with 2."""
    with pytest.raises(SystemExit) as stop:
        command(args)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in said
    return said.rstrip().splitlines()[-1]


@pytest.mark.parametrize(("change", "words"), hostile.NETWORKS.values(), ids=hostile.NETWORKS)
def test_the_library_makes_nothing_of_an_altered_checkpoint(change, words, folder, whole):
    hostile.write("bad.ckpt", whole, change)
    for load in (load_task, GSCNNTask.load_from_checkpoint):
        with pytest.raises(WeightsError) as error:
            load("bad.ckpt")
        assert "bad.ckpt" in str(error.value)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    assert hostile.nothing_ran(folder)


DOORS = {
    "fit": (fit, ["fit", *RUN, "--ckpt_path", "bad.ckpt"]),
    "validate": (fit, ["validate", *RUN, "--ckpt_path", "bad.ckpt"]),
    "gscnn-fit predict": (fit, ["predict", *RUN, "--ckpt_path", "bad.ckpt"]),
    "gscnn predict": (tools, ["predict", "bad.ckpt", "tiny.png"]),
    "compare": (tools, ["compare", "bad.ckpt", "bad.ckpt", "--config", "tiny.yaml"]),
}
SHOWN = ("payload in the file", "_instantiator", "_class_path", "import with an effect", "num_classes huge", "meta")


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("door", DOORS)
def test_no_command_takes_an_altered_checkpoint(door, kind, folder, whole, capsys):
    change, words = hostile.NETWORKS[kind]
    hostile.write("bad.ckpt", whole, change)
    (folder / "tiny.png").touch()
    message = refused(*DOORS[door], capsys)
    assert "error: checkpoint bad.ckpt" in message
    assert words in message
    assert hostile.nothing_ran(folder)


@pytest.mark.parametrize(("change", "words"), hostile.TRAININGS.values(), ids=hostile.TRAININGS)
def test_no_training_goes_on_from_an_altered_state(change, words, folder, whole, capsys):
    hostile.write("bad.ckpt", whole, change)
    message = refused(fit, ["fit", *RUN, "--ckpt_path", "bad.ckpt"], capsys)
    assert "gscnn-fit: error: checkpoint bad.ckpt" in message
    assert words in message
    assert hostile.nothing_ran(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (hostile.NETWORKS["payload in the file"][0], "it holds Python objects, "),
        (hostile.NETWORKS["meta"][0], "is a tensor that is without numbers (meta)"),
        (hostile.NETWORKS["no tensor"][0], "holds no mapping of names to tensors"),
    ],
)
def test_other_weight_files_are_read_as_carefully(change, words, folder, whole, capsys):
    hostile.write("bad.ckpt", whole, change)
    message = refused(tools, ["import-release", "bad.ckpt", "--out", "out.ckpt"], capsys)
    assert "weight file bad.ckpt" in message
    assert words in message
    assert hostile.nothing_ran(folder)


def test_a_compressed_file_is_no_checkpoint(folder, whole):
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile("bad.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    with pytest.raises(WeightsError, match=r"checkpoint bad\.ckpt (is compressed|cannot be read)"):
        load_task("bad.ckpt")


def test_whole_checkpoints_name_nothing_to_call_and_load_from_wherever_they_are(whole):
    content = torch.load(whole, weights_only=True)
    assert "_instantiator" not in content["hyper_parameters"]
    task = GSCNNTask.load_from_checkpoint(io.BytesIO(whole.read_bytes()), window=(64, 64))
    again = GSCNNTask.load_from_checkpoint(f"file://{whole}")
    assert task.settings.window == (64, 64)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in task.state_dict().items())
    # What Lightning's command line has put into checkpoints before.
    content["hyper_parameters"]["_instantiator"] = "pytorch_lightning.cli.instantiate_module"
    again.on_load_checkpoint(content)


@pytest.mark.parametrize("argument", [{"weights_only": False}, {"hparams_file": "hparams.yaml"}])
def test_arguments_of_lightning_that_trust_a_file_are_refused(argument, whole):
    with pytest.raises(SettingError, match=next(iter(argument))):
        GSCNNTask.load_from_checkpoint(whole, **argument)


OWN = "from torch.optim import SGD\n\nclass Own(SGD):\n    pass\n"


def test_an_optimizer_of_ones_own_is_imported_if_the_user_names_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_optimizer.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_optimizer", raising=False)
    own = {"class_path": "own_optimizer.Own", "init_args": {"lr": 0.1}}
    write_checkpoint(tmp_path / "own.ckpt", CITYSCAPES, optimizer=own)
    with pytest.raises(WeightsError, match=r"names 'own_optimizer\.Own' .* GSCNN_TRUSTED_OPTIMIZERS, or trusted_opt"):
        load_task("own.ckpt")
    task = load_task("own.ckpt", trusted_optimizers=["own_optimizer.Own"])
    assert "own_optimizer" not in sys.modules
    optimizer = task.train().configure_optimizers()["optimizer"]
    assert type(optimizer).__name__ == "Own"
    monkeypatch.setenv("GSCNN_TRUSTED_OPTIMIZERS", "other.One, own_optimizer.Own")
    assert load_task("own.ckpt").settings.optimizer == own
    monkeypatch.delenv("GSCNN_TRUSTED_OPTIMIZERS")
    # The command line, and a config that it names, are the user's word.
    write_config(tmp_path / "tiny.yaml")
    args = ["fit", *RUN, "--ckpt_path", "own.ckpt"]
    assert "own_optimizer.Own" in refused(fit, args, capsys)
    own_args = ["--optimizer", "own_optimizer.Own", "--optimizer.lr", "0.1"]
    assert "has weights alone" in refused(fit, [*args, *own_args], capsys)


@pytest.mark.parametrize(
    "data",
    [
        "evil.Data",
        {"class_path": "evil.Data"},
        {"class_path": "gscnn_lightning.data.evil.Data"},
        {"class_path": "ScenesDataModule", "init_args": {"size": {"class_path": "evil.Data"}}},
        {"class_path": ["evil.Data"]},
    ],
)
def test_a_run_folder_names_no_data_module_of_somebody_else(data, folder, capsys):
    config = write_config(folder / "run/config.yaml")
    text = {"data": data, "trainer": {"logger": "evil.Data", "callbacks": [{"class_path": "evil.Data"}]}}
    config.write_text(yaml.safe_dump(text))
    write_checkpoint(folder / "run/checkpoints/best.ckpt", CITYSCAPES)
    message = refused(tools, ["compare", *["run/checkpoints/best.ckpt"] * 2], capsys)
    assert "run/config.yaml names" in message
    assert "If you trust it, say so: --config" in message
    shutil.copy(config, folder / "run/metrics.csv")  # any file makes it a run
    (folder / "run/metrics.csv").write_text("step,epoch,val/miou\n1,0,0.5\n")
    tools(["report", "run"])  # shows the config, and makes nothing of it
    assert hostile.nothing_ran(folder)


def test_loggers_and_callbacks_of_a_runs_config_are_not_made(folder, capsys):
    config = write_config(folder / "run/config.yaml")
    settings = yaml.safe_load(config.read_text())
    settings["trainer"] |= {"logger": {"class_path": "evil.Data"}, "callbacks": [{"class_path": "evil.Data"}]}
    config.write_text(yaml.safe_dump(settings))
    write_checkpoint(folder / "run/checkpoints/best.ckpt", CITYSCAPES)
    tools(
        ["compare", *["run/checkpoints/best.ckpt"] * 2, "--split", "val", "--resamples", "1", "--data.val_samples", "1"]
    )
    assert hostile.nothing_ran(folder)


def test_values_are_of_a_type_or_not():
    assert fits({"a": [1, 2.5]}, dict[str, list[float]])
    assert not fits({1: []}, dict[str, list[float]])
    assert not fits((1, 2, 3), tuple[int, int])
    assert not fits(1.0, int)
