"""The searches for a learning rate and a batch size."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from tests.test_cli import CROP, SCENES, TINY, errors

from gscnn_lightning import GSCNNTask
from gscnn_lightning.cli import main
from gscnn_lightning.data import ScenesDataModule
from gscnn_lightning.errors import SettingError
from gscnn_lightning.finders import found_batch_size, found_learning_rate

SETTINGS = {"accelerator": "cpu", "precision": "32-true", "enable_progress_bar": False}
NETWORK = {"backbone": "test_resnet", "pretrained": False, "channels": 16, "skip_channels": 8, "shape_channels": 16}
RUN = [*TINY, *SCENES, *CROP, "--trainer.max_epochs", "1"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def task_and_data(**settings):
    data = ScenesDataModule(
        size=(64, 128), train_samples=8, val_samples=2, batch_size=2, crop_size=(64, 64), num_workers=0
    )
    torch.manual_seed(0)
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002}}
    return GSCNNTask(data.num_classes, optimizer=optimizer, output_stride=32, **NETWORK, **settings), data


def test_a_training_with_the_rate_that_was_found(capsys, caplog):
    caplog.set_level("INFO")
    main([*RUN, "--find_lr", "true"])
    told = capsys.readouterr()
    run = Path("runs/default/version_0")
    config = yaml.safe_load((run / "config.yaml").read_text())
    rate = config["optimizer"]["init_args"]["lr"]
    assert rate != 0.01
    assert f"find_lr: optimizer.lr {rate} in place of 0.01" in caplog.text
    assert config["find_lr"] is False
    assert (run / "lr_search.png").stat().st_size > 5000
    assert "learning rates  " in told.out
    # It is the training that the rate alone would have begun.
    main([*RUN, "--optimizer.lr", str(rate)])
    first, second = (
        torch.load(Path(f"runs/default/version_{n}/checkpoints/last.ckpt"), weights_only=True) for n in (0, 1)
    )
    assert first["hyper_parameters"]["optimizer"] == second["hyper_parameters"]["optimizer"]
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])


def test_a_search_leaves_everything_as_it_was_and_keeps_proportions(monkeypatch):
    task, data = task_and_data(backbone_lr_scale=0.25)
    before, random = copy.deepcopy(task.state_dict()), torch.get_rng_state()
    rates = []
    usual = torch.optim.AdamW.step
    monkeypatch.setattr("gscnn_lightning.finders._STEPS", 20)

    def step(self, closure=None):
        rates.append([group["lr"] for group in self.param_groups])
        return usual(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    found = found_learning_rate(task, data, SETTINGS, Path("runs/new/plot.png"))
    assert 1e-6 <= found <= 1
    assert Path("runs/new/plot.png").is_file()
    groups = task.configure_optimizers()["optimizer"].param_groups
    shares = [group["lr"] / 0.002 for group in groups]
    assert sorted(set(shares)) == [0.25, 1.0]
    for row in rates:
        assert [rate / max(row) for rate in row] == pytest.approx(shares)
    assert rates[0][-1] < rates[-1][-1]
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not data.datasets


@pytest.mark.parametrize(("memory", "samples", "expected"), [(5, 100, 4), (99, 6, 4), (1, 100, 1), (0, 9, 0)])
def test_the_largest_batch_that_memory_holds(memory, samples, expected, monkeypatch):
    task, data = task_and_data()

    def step(self, batch, batch_idx):
        if len(batch["image"]) > memory:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return next(self.parameters()).sum()

    monkeypatch.setattr(GSCNNTask, "training_step", step)
    if not expected:
        with pytest.raises(SettingError, match="memory does not suffice for one sample"):
            found_batch_size(task, data, SETTINGS, samples)
        return
    assert found_batch_size(task, data, SETTINGS, samples) == expected
    assert data.batch_size == 2
    assert data.samples_per_epoch is None


REFUSED = {
    "batch size on a processor": (
        ["--find_batch_size", "true"],
        "find_batch_size fills the memory of a GPU until it does not suffice, and the device is cpu",
    ),
    "fast_dev_run": (["--find_lr", "true", "--trainer.fast_dev_run", "true"], "trainer.fast_dev_run is on"),
}


@pytest.mark.parametrize("kind", ["batch size on a processor", "fast_dev_run"])
def test_searches_that_cannot_be(kind, capsys):
    args, message = REFUSED[kind]
    told = errors([*RUN, *args], capsys)
    assert f"gscnn-fit: error: {message}" in told or message in told
    assert not Path("runs/default/version_0/checkpoints").exists()
