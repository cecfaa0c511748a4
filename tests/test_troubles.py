"""Troubles in the middle of a training: one message with what was saved and how to go on, and nobody left behind."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
from tests.test_resumed_run import QUIET, assert_same_end, end_of, rows_of
from tests.tiny import write_config

from gscnn_lightning.cli import main

FOLDER = Path("runs/tiny/version_0")
LAST = FOLDER / "checkpoints/last.ckpt"
GO_ON = f"to go on: gscnn-fit fit --config {FOLDER}/config.yaml --ckpt_path {LAST}"


class At(pl.Callback):
    """Does something to the folder of the run before batches of the training, counted from 1."""

    def __init__(self, what: dict[int, str]):
        self.what, self.seen = what, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen += 1
        if self.seen in self.what:
            globals()[self.what[self.seen]]()


def folder_deleted():
    shutil.rmtree(FOLDER)


def config_deleted():
    (FOLDER / "config.yaml").unlink()


def checkpoints_blocked():
    (FOLDER / "checkpoints").write_text("in the way")


def metrics_blocked():
    (FOLDER / "metrics.csv").mkdir()


def metrics_given_back():
    (FOLDER / "metrics.csv").rmdir()


def pictures_blocked():
    (FOLDER / "pictures").write_text("in the way")
    for name in ("image_scores.csv", "confusion_matrix.png", "learning_curves.png"):
        (FOLDER / name).symlink_to("/dev/full")


def memory_spent():
    raise MemoryError


def scores_blocked():
    (FOLDER / "scores_val.json").mkdir()


def at(*batches_and_what):
    what = dict(zip(batches_and_what[::2], batches_and_what[1::2], strict=True))
    return [f"--trainer.callbacks+={__name__}.At", f"--trainer.callbacks.what={json.dumps(what)}"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / "tiny.yaml"))


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("gscnn-fit: error: ")]
    assert said.rstrip().endswith(line)
    return line


@pytest.mark.parametrize(
    ("batch", "ending"),
    [(2, ". Nothing was saved yet"), (6, f". Saved up to step 4; {GO_ON}")],
    ids=["before a checkpoint", "after one"],
)
def test_messages_say_what_was_saved_and_how_to_go_on(batch, ending, config, capsys):
    line = refused(["--config", config, *QUIET, *at(batch, "memory_spent")], capsys)
    assert line.startswith("gscnn-fit: error: the memory of the machine did not suffice")
    assert line.endswith(ending)
    if batch == 6:
        main(["fit", "--config", f"{FOLDER}/config.yaml", "--ckpt_path", str(LAST), "--trainer.callbacks", "[]"])
        assert end_of(Path("runs/tiny/version_1"))["global_step"] == 8


def test_training_that_went_on_from_elsewhere_names_that_checkpoint(config, capsys):
    main(["fit", "--config", config, *QUIET, "--trainer.max_epochs", "1"])
    line = refused(["--config", config, *QUIET, "--ckpt_path", str(LAST), *at(2, "memory_spent")], capsys)
    second = "runs/tiny/version_1/config.yaml"
    assert line.endswith(f"Nothing was saved since; to go on: gscnn-fit fit --config {second} --ckpt_path {LAST}")


def test_deleted_folder_is_written_anew_and_the_training_goes_on(config, caplog):
    main(["fit", "--config", config, *QUIET])
    assert Path(FOLDER).rename("whole")
    main(["fit", "--config", config, *QUIET, *at(6, "folder_deleted")])
    assert caplog.text.count(f"{FOLDER} has been deleted") == 1
    assert_same_end(FOLDER, Path("whole"))
    names, expected = ({path.name for path in run.iterdir()} for run in (FOLDER, Path("whole")))
    assert names == expected - {"hparams.yaml"}  # which nothing here reads
    assert (FOLDER / "checkpoints/best.ckpt").exists()
    assert re.search(r"^epoch,|,epoch,", (FOLDER / "metrics.csv").read_text())


def test_deleted_config_alone_does_not_disturb(config, caplog):
    main(["fit", "--config", config, *QUIET, *at(6, "config_deleted")])
    assert "deleted" not in caplog.text


def test_checkpoint_that_cannot_be_written_ends_the_training(config, capsys):
    line = refused(["--config", config, *QUIET, *at(2, "checkpoints_blocked")], capsys)
    assert f"checkpoint {FOLDER}/checkpoints/" in line
    assert "cannot be written (File exists): make room" in line
    assert line.endswith("Nothing was saved yet")


def test_metrics_that_cannot_be_written_are_tried_again_until_the_end(config, capsys):
    options = [*QUIET, "--trainer.logger.flush_logs_every_n_steps", "1"]
    line = refused(["--config", config, *options, *at(1, "metrics_blocked")], capsys)
    assert f"metrics {FOLDER}/metrics.csv cannot be written (Is a directory)" in line
    assert "The training is complete" in line
    assert f"--ckpt_path {FOLDER}/checkpoints/best.ckpt" in line
    assert end_of(FOLDER)["global_step"] == 8


def test_metrics_lose_nothing_where_they_cannot_be_written_for_a_while(config, caplog):
    options = [*QUIET, "--trainer.logger.flush_logs_every_n_steps", "1"]
    main(["fit", "--config", config, *options])
    whole = rows_of(FOLDER)
    shutil.rmtree(FOLDER)
    main(["fit", "--config", config, *options, *at(1, "metrics_blocked", 6, "metrics_given_back")])
    assert caplog.text.count("cannot be written (Is a directory): make room") == 1
    assert rows_of(FOLDER) == whole


def test_pictures_that_cannot_be_written_are_left_out(config, caplog):
    main(["fit", "--config", config, *QUIET, *at(2, "pictures_blocked"), "--trainer.max_epochs", "3"])
    for what in ("pictures", "scores of images and confusion matrix", "learning curves"):
        assert caplog.text.count(f"The run goes on without {what}: ") == 1
    assert (FOLDER / "scores_val.json").exists()
    assert end_of(FOLDER)["global_step"] == 12


def test_scores_that_cannot_be_written_are_an_error_of_a_complete_training(config, capsys):
    line = refused(["--config", config, *QUIET, *at(8, "scores_blocked")], capsys)
    assert f"cannot write {FOLDER}/scores_val.json (Is a directory)" in line
    assert f"The training is complete; to score it: gscnn-fit validate --config {FOLDER}/config.yaml" in line


@pytest.mark.parametrize(("name", "value"), [("MASTER_PORT", "abc"), ("MASTER_PORT", "70000"), ("NODE_RANK", "first")])
def test_environment_that_is_no_number_is_refused(name, value, config, capsys, monkeypatch):
    monkeypatch.setenv(name, value)
    line = refused(["--config", config, *QUIET], capsys)
    assert f"{name} in the environment is {value}: give a number" in line


# Two processes

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.enable_progress_bar=false"]
TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2", "-m"]


class Run:
    """The real command in a folder, with all processes that come of it."""

    def __init__(self, folder, *arguments, before=(), environment=None, epochs=200, subcommand="fit"):
        write_config(folder / "tiny.yaml", epochs=epochs)
        self.folder, self.mark = folder, f"{folder}-{time.time()}"
        command = [sys.executable, "-m", *before, "gscnn_lightning", subcommand, "--config", "tiny.yaml", *arguments]
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "TROUBLE": self.mark, **(environment or {})}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log)

    @property
    def log(self):
        return self.folder / "log.txt"

    def members(self):
        """Environments of the processes that are there, by pid."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes().decode(errors="replace").split("\0")
                is_there = (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except OSError:
                continue
            values = dict(word.split("=", 1) for word in environment if "=" in word)
            if values.get("TROUBLE") == self.mark and is_there:
                found[int(path.name)] = values
        return found

    def rank(self, number, torchrun=False):
        """Pid of a process of the training; loading processes come later."""
        found = {}
        for pid, values in sorted(self.members().items()):
            if not torchrun or "LOCAL_RANK" in values:
                found.setdefault(int(values.get("LOCAL_RANK", 0)), pid)
        return found[number]

    def until(self, condition, limit=120):
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < limit, self.log.read_text()[-3000:]
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def end(self, limit=60):
        """Exit code, once all processes are gone."""
        begin = time.monotonic()
        try:
            code = self.process.wait(limit)
            while self.members():
                assert time.monotonic() - begin < limit
                time.sleep(0.05)
        finally:
            for pid in self.members():
                os.kill(pid, signal.SIGKILL)
        return code

    def error(self):
        """The one line that says what was wrong."""
        (line,) = [line for line in self.log.read_text().splitlines() if "gscnn-fit: error: " in line]
        return line


VALIDATION = ["--data.val_samples=200", "--trainer.num_sanity_val_steps=0"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 0])
@pytest.mark.parametrize("options", [(), VALIDATION], ids=["training", "validation"])
@pytest.mark.parametrize("workers", [0, 2])
def test_when_one_process_is_killed_the_other_says_so_and_ends(rank, options, workers, tmp_path):
    often = ["--checkpoint_minutes=1e-9", f"--data.num_workers={workers}"]
    run = Run(tmp_path, *TWO, *often, *options)
    run.until((tmp_path / LAST).exists)
    time.sleep(2 if options else 0)
    os.kill(run.rank(rank), signal.SIGKILL)
    assert run.end() in (2, -signal.SIGKILL)
    assert "Traceback" not in run.log.read_text()
    expected = "was ended by SIGKILL" if rank == 1 else "which has started this one, is gone"
    assert f"process {rank}" in run.error()
    assert expected in run.error()
    assert run.error().endswith(GO_ON)
    assert end_of(tmp_path / FOLDER)["global_step"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 0, None], ids=["1", "0", "torchrun"])
def test_under_torchrun_too(rank, tmp_path):
    run = Run(tmp_path, *TWO, "--checkpoint_minutes=1e-9", "--data.num_workers=0", before=TORCHRUN)
    run.until((tmp_path / LAST).exists)
    os.kill(run.process.pid if rank is None else run.rank(rank, torchrun=True), signal.SIGKILL)
    assert run.end() != 0
    expected = "torchrun (pid" if rank is None else "another process of this training is gone"
    assert expected in run.error()
    assert run.error().endswith(GO_ON)


@pytest.mark.slow
def test_port_that_is_taken_is_named_and_both_end(tmp_path):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = str(other.getsockname()[1])
        run = Run(tmp_path, *TWO, environment={"MASTER_PORT": port})
        assert run.end() == 2
    assert f"MASTER_PORT is {port}, which another program of this machine uses" in run.error()
    assert "Traceback" not in run.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "options", "both"),
    [(signal.SIGTERM, (), False), (signal.SIGINT, ["--data.val_samples=60"], False), (signal.SIGINT, (), True)],
)
def test_signal_stops_both_and_the_training_goes_on_to_the_same_end(number, options, both, tmp_path):
    often = ["--checkpoint_minutes=1e-9", "--data.num_workers=0", *options]
    run = Run(tmp_path, *TWO, *often, epochs=2)
    run.until((tmp_path / LAST).exists)
    time.sleep(0.5 if options else 0)
    for rank in (0, 1) if both else (0,):
        os.kill(run.rank(rank), number)
    assert run.end() == 128 + number
    said = run.log.read_text()
    assert said.count("stopped after step ") == 1
    assert said.rstrip().endswith(GO_ON)
    assert "Traceback" not in said
    resumed = Run(tmp_path, *TWO, *often, f"--ckpt_path={LAST}", epochs=2)
    assert resumed.end(120) == 0
    whole = Run(tmp_path, *TWO, *often, epochs=2)
    assert whole.end(120) == 0
    assert_same_end(tmp_path / "runs/tiny/version_1", tmp_path / "runs/tiny/version_2")
