"""A training that is told to stop saves, says how to go on, and goes on to the same end."""

import os
import signal

import pytest
import pytorch_lightning as pl
from tests.test_resumed_run import QUIET, assert_same_end, end_of
from tests.tiny import write_config

from gscnn_lightning.cli import main


class Raised(pl.Callback):
    """Sends a signal to this process before the n-th batch, counted from 1, of a stage: "train" or "validation"."""

    def __init__(self, number: int, stage: str, batch: int, times: int = 1):
        self.number, self.stage, self.batch, self.times = number, stage, batch, times
        self.seen = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._count("train")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self._count("validation")

    def _count(self, stage):
        self.seen += stage == self.stage
        if stage == self.stage and self.seen == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


def raised(number, stage, batch, times=1):
    given = {"number": int(number), "stage": stage, "batch": batch, "times": times}
    path = f"--trainer.callbacks+={__name__}.Raised"
    return [path, *(f"--trainer.callbacks.{name}={value}" for name, value in given.items())]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / "tiny.yaml"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["fit", "--config", str(write_config(folder / "tiny.yaml")), *QUIET])
    return folder / "runs/tiny/version_0"


@pytest.mark.parametrize(
    ("number", "stage", "batch", "step"),
    [
        (signal.SIGTERM, "train", 2, 2),
        (signal.SIGUSR1, "train", 7, 7),
        (signal.SIGINT, "train", 4, 4),  # the last of an epoch, which is validated when the training goes on
        (signal.SIGTERM, "validation", 2, 4),
        (signal.SIGINT, "validation", 6, 8),
    ],
)
def test_signal_saves_and_the_training_goes_on_to_the_same_end(
    number, stage, batch, step, whole, config, tmp_path, capsys
):
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)]
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", config, *QUIET, *raised(number, stage, batch)])
    assert stop.value.code == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)] == handlers
    said = capsys.readouterr().err
    last = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    assert f"{number.name}: stopping after this step and saving" in said
    assert f"stopped after step {step}: saved up to step {step}; to go on: gscnn-fit fit --config" in said
    assert said.rstrip().endswith("--ckpt_path runs/tiny/version_0/checkpoints/last.ckpt")
    assert end_of(last.parents[1])["global_step"] == step
    main(["fit", "--config", config, *QUIET, "--ckpt_path", str(last)])
    resumed = tmp_path / "runs/tiny/version_1"
    assert_same_end(resumed, whole)
    assert (resumed / "scores_val.json").is_file()


def test_second_interrupt_stops_at_once(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", config, *QUIET, *raised(signal.SIGINT, "train", 2, times=2)])
    assert stop.value.code == 130
    assert not (tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_accumulated_gradients_are_stepped_with_before_saving(config, tmp_path):
    options = [*QUIET, "--trainer.accumulate_grad_batches", "2"]
    main(["fit", "--config", config, *options])
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, *options, *raised(signal.SIGTERM, "train", 1)])
    last = tmp_path / "runs/tiny/version_1/checkpoints/last.ckpt"
    assert end_of(last.parents[1])["global_step"] == 1
    main(["fit", "--config", config, *options, "--ckpt_path", str(last)])
    assert_same_end(tmp_path / "runs/tiny/version_2", tmp_path / "runs/tiny/version_0")


def test_averaged_weights_and_those_of_the_training_stay_apart(config, tmp_path):
    options = [*QUIET, "--config", "recipe/ema", "--trainer.callbacks.update_starting_at_step", "1"]
    main(["fit", "--config", config, *options])
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, *options, *raised(signal.SIGTERM, "validation", 2)])
    last = tmp_path / "runs/tiny/version_1/checkpoints/last.ckpt"
    content = end_of(last.parents[1])
    assert any(not value.equal(content["current_model_state"][name]) for name, value in content["state_dict"].items())
    main(["fit", "--config", config, *options, "--ckpt_path", str(last)])
    assert_same_end(tmp_path / "runs/tiny/version_2", tmp_path / "runs/tiny/version_0")
