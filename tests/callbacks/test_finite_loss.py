"""Trainings that go astray, through the command."""

import pytest
import pytorch_lightning as pl
import torch
from tests.tiny import write_config

from gscnn_lightning.cli import main

QUIET = ["--trainer.enable_progress_bar", "false", "--data.num_workers", "0"]


class Poison(pl.Callback):
    """Makes a weight of the decoder NaN before a batch of the second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 1:
            with torch.no_grad():
                pl_module.network.decoder[-1].weight[0, 0] = float("nan")


class Late(pl.Callback):
    """Makes it NaN after the last step."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and trainer.is_last_batch:
            with torch.no_grad():
                pl_module.network.decoder[-1].weight[0, 0] = float("nan")


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / "tiny.yaml"))


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return " ".join(said.split())


def checkpoints(tmp_path):
    found = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.rglob("*.ckpt")}
    for content in found.values():
        assert all(torch.isfinite(value).all() for value in content["state_dict"].values())
    return {name: content["global_step"] for name, content in found.items()}


def test_loss_that_is_not_finite_stops_the_training(config, tmp_path, capsys):
    said = refused(["fit", "--config", config, *QUIET, f"--trainer.callbacks+={__name__}.Poison"], capsys)
    assert "gscnn-fit: error: the loss of step 6 is not finite (segmentation nan, regularizer nan" in said
    assert "boundary" not in said.partition("(")[2].partition(",")[0]
    assert "frames scene" in said
    assert "--optimizer.lr" in said
    assert checkpoints(tmp_path) == {"best": 4, "last": 4}


def test_weights_that_are_not_finite_are_not_saved(config, tmp_path, capsys):
    said = refused(["fit", "--config", config, *QUIET, f"--trainer.callbacks+={__name__}.Late"], capsys)
    assert "weights of the network are not finite after step 8 and are not saved" in said
    assert checkpoints(tmp_path) == {"best": 4, "last": 4}


def test_learning_rate_that_destroys_the_weights(config, tmp_path, capsys):
    said = refused(["fit", "--config", config, *QUIET, "--optimizer.lr", "1e30"], capsys)
    assert "is not finite" in said
    assert "--optimizer.lr" in said
    assert checkpoints(tmp_path) == {}
