"""Trainings on shards, by the real command: the same as on files, after real kills and in two processes, too."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import yaml
from tests.data import made
from tests.data.shards.stores import object_store
from tests.test_resumed_run import assert_same_end, rows_of
from tests.tiny import write_config

from gscnn_lightning.commands.main import main
from gscnn_lightning.run_folder import RunFolder

OPTIONS = ["--checkpoint_minutes=1e-9", "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=1"]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--model.sync_losses=true", "--data.batch_size=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve training and three validation frames as files, in shards, and these in an object store."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 3)):
        for index in range(count):
            picture = cv2.resize(rng.integers(0, 256, (8, 16, 3), dtype=np.uint8), (256, 128))
            picture ^= rng.integers(0, 64, picture.shape, dtype=np.uint8)  # PNG files of 80 KB
            made.save(root / f"files/images/{split}/{index}.png", picture)
            mask = np.kron(rng.choice([0, 7, 8, 255], (8, 16)), np.ones((16, 16))).astype(np.uint8)
            made.save(root / f"files/masks/{split}/{index}.png", mask)
    (root / "files/classes.yaml").write_text(made.CLASS_TABLE)
    files = {"root": str(root / "files"), "classes": "classes.yaml"}
    (root / "files.yaml").write_text(yaml.safe_dump({"data": {"class_path": "FolderDataModule", "init_args": files}}))
    with object_store():
        for place in (str(root / "shards"), "s3://bucket/shards"):
            main(["data", "pack", str(root / "files.yaml"), "--out", place, "--shard-mb", "1"])
        yield {
            "files": {"class_path": "gscnn_lightning.data.FolderDataModule", "init_args": files},
            "folder": {
                "class_path": "gscnn_lightning.data.ShardsDataModule",
                "init_args": {"root": str(root / "shards")},
            },
            "store": {
                "class_path": "gscnn_lightning.data.ShardsDataModule",
                "init_args": {"root": "s3://bucket/shards"},
            },
        }


def start(folder, data, *arguments):
    """The command on some data, with class-uniform sampling of half the crops over the data."""
    config = yaml.safe_load(write_config(folder / "tiny.yaml", epochs=2).read_text())
    common = {key: config["data"]["init_args"][key] for key in ("batch_size", "crop_size", "blur")}
    common |= {"num_workers": 2, "class_uniform": 0.5, "class_uniform_over": "data", "seed": 3}
    config["data"] = {**data, "init_args": {**common, **data["init_args"]}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "gscnn_lightning", "fit", "--config", "tiny.yaml", *OPTIONS, *arguments]
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder), "PYTHONPATH": path}
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def finish(folder, data, *arguments):
    assert start(folder, data, *arguments).wait() == 0, (folder / "log.txt").read_text()[-2000:]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, data):
    """Folder of a run on files that nobody disturbed, of one process or of two."""

    @functools.cache
    def run(*options):
        folder = tmp_path_factory.mktemp("whole")
        finish(folder, data["files"], *options)
        return folder / "runs/tiny/version_0"

    return run


class Kill(pl.Callback):
    """Kills all processes of the run, itself included, in front of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.killpg(0, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("place", "step"), [("folder", 2), ("folder", 6), ("store", 9)])
def test_killed_run_on_shards_ends_as_a_whole_one_on_files(place, step, processes, data, whole_run, tmp_path):
    options = TWO if processes == 2 else []
    kill = [f"--trainer.callbacks+={__name__}.Kill", f"--trainer.callbacks.step={step}"]
    assert start(tmp_path, data[place], *options, *kill).wait() == -signal.SIGKILL
    first = RunFolder(tmp_path / "runs/tiny/version_0")
    finish(tmp_path, data[place], *options, "--ckpt_path", str(first.last_checkpoint))
    resumed, whole = tmp_path / "runs/tiny/version_1", whole_run(*options)
    assert_same_end(resumed, whole)
    expected, found = rows_of(whole), rows_of(resumed)
    assert found == {at: value for at, value in expected.items() if at in found}
    assert min(at for at, _ in found) == step
