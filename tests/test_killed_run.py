"""Real kills of the real command: whatever the moment, the run goes on from last.ckpt and ends the same."""

import functools
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from tests.test_resumed_run import assert_same_end, rows_of
from tests.tiny import write_config

from gscnn_lightning.run_folder import RunFolder

KILLS = 20
OPTIONS = [
    "--data.num_workers=2",
    "--data.train_samples=24",
    "--checkpoint_minutes=1e-9",
    "--trainer.enable_progress_bar=false",
    "--trainer.val_check_interval=5",
    "--model.dice_weight=1",
    "--model.edge_weight=1",
]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--model.sync_losses=true"]
AVERAGED = ["--config=recipe/ema", "--trainer.callbacks.update_starting_at_step=2"]


def start(folder, *arguments):
    command = [sys.executable, "-m", "gscnn_lightning", "fit", "--config", "tiny.yaml", *OPTIONS, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def finish(folder, *arguments):
    assert start(folder, *arguments).wait() == 0, (folder / "log.txt").read_text()[-2000:]


def seconds_until(condition, limit=120):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit
        time.sleep(0.01)
    return time.monotonic() - begin


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Folder of a run with some options that nobody disturbed, of 36 steps, or of 18 of two processes."""

    @functools.cache
    def run(*options):
        folder = tmp_path_factory.mktemp("whole")
        write_config(folder / "tiny.yaml", epochs=3)
        finish(folder, *options)
        return folder / "runs/tiny/version_0"

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "steps", "kills", "kill"),
    [
        *(pytest.param((), 36, KILLS, kill, id=f"one-{kill}") for kill in range(KILLS)),
        *(pytest.param(tuple(TWO), 18, 5, kill, id=f"two-{kill}") for kill in range(5)),
        *(pytest.param(tuple(AVERAGED), 36, 5, kill, id=f"averaged-{kill}") for kill in range(5)),
    ],
)
def test_killed_run_goes_on_to_the_same_end(options, steps, kills, kill, whole_run, tmp_path):
    whole = whole_run(*options)
    write_config(tmp_path / "tiny.yaml", epochs=3)
    process = start(tmp_path, *options)
    first = RunFolder(tmp_path / "runs/tiny/version_0")
    seconds_until(first.environment.exists)
    # Moments all over the run, counted in checkpoints, and anywhere within the step that follows.
    for _ in range((steps - 1) * kill // kills):
        before = _written(first.last_checkpoint)
        seconds_until(lambda before=before: _written(first.last_checkpoint) != before)
    time.sleep(random.Random(kill).uniform(0, 0.1))
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    last = first.last_checkpoint
    finish(tmp_path, *options, *(["--ckpt_path", str(last)] if last.exists() else []))
    resumed = tmp_path / "runs/tiny/version_1"
    assert_same_end(resumed, whole)
    expected, found = rows_of(whole), rows_of(resumed)
    assert found == {place: value for place, value in expected.items() if place in found}


def _written(path):
    try:
        return path.stat().st_ino  # every checkpoint is a file of its own that is moved into place
    except FileNotFoundError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], TWO], ids=["one", "two"])
def test_signal_from_outside_leaves_no_process_behind(options, whole_run, tmp_path):
    write_config(tmp_path / "tiny.yaml", epochs=3)
    process = start(tmp_path, *options)
    last = RunFolder(tmp_path / "runs/tiny/version_0").last_checkpoint
    seconds_until(last.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # the loading processes are gone, too
    finish(tmp_path, *options, "--ckpt_path", str(last))
    assert_same_end(tmp_path / "runs/tiny/version_1", whole_run(*options))
