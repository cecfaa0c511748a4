"""``gscnn-fit`` on two machines of two devices each: two of torchrun's agents, here on one machine over loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytorch_lightning.utilities import rank_zero_only
from tests.test_interrupted_run import raised
from tests.test_resumed_run import QUIET, assert_same_end, rows_of
from tests.test_troubles import FOLDER, LAST, Run, refused
from tests.tiny import write_config

OPTIONS = [
    "--trainer.num_nodes=2",
    "--trainer.devices=2",
    "--trainer.strategy=ddp_find_unused_parameters_true",  # whose sums are in the same order from the first step on
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.num_sanity_val_steps=0",
    "--checkpoint_minutes=1e-9",
    "--model.sync_losses=true",
    "--data.val_samples=5",  # which four processes cannot share evenly
    "--data.train_samples=24",
]
RUN, SECOND = FOLDER, FOLDER.with_name("version_1")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Node(Run):
    """What runs on one of the machines: torchrun's agent, two processes, and those that load for them."""

    def __init__(self, number, folder, port, *arguments, subcommand="fit", epochs=3):
        self.number = number
        agent = ["torch.distributed.run", "--nnodes=2", "--nproc-per-node=2", f"--node-rank={number}"]
        before = [*agent, "--master-addr=127.0.0.1", f"--master-port={port}", "-m"]
        folder.mkdir(exist_ok=True)
        super().__init__(folder, *OPTIONS, *arguments, before=before, epochs=epochs, subcommand=subcommand)

    @property
    def log(self):
        return self.folder / f"log_{self.number}.txt"

    def kill(self):
        """The whole machine at once."""
        for number in (signal.SIGSTOP, signal.SIGKILL):  # so that none of them can tell of another's end
            for pid in self.members():
                os.kill(pid, number)

    def said(self):
        return self.log.read_text()


def both(folders, *arguments, **settings):
    """Two nodes that run the same command to its end."""
    port = free_port()
    nodes = [Node(number, folder, port, *arguments, **settings) for number, folder in enumerate(folders)]
    codes = [node.end(400) for node in nodes]
    assert codes == [0, 0], [node.said()[-3000:] for node in nodes]
    return nodes


@pytest.mark.parametrize(
    ("started", "settings", "words"),
    [
        ((2, 2, 1), (2, 2), "trainer.num_nodes is 2, so that 2 x 2 processes are to train (nodes x devices), and "
         "torchrun has started 2 processes on 1 node: give --trainer.num_nodes 1 --trainer.devices 2"),
        ((4, 2, 2), (1, 2), "trainer.num_nodes is 1, so that 1 x 2 processes are to train (nodes x devices), and "
         "torchrun has started 4 processes on 2 nodes: give --trainer.num_nodes 2 --trainer.devices 2"),
        ((4, 2, 2), (2, 1), "trainer.devices is 1, so that 2 x 1 processes"),
        ((2, 2, 1), (1, 1), "trainer.devices is 1, so that 1 x 1 processes"),  # each would train on its own
    ],
)  # fmt: skip
@pytest.mark.parametrize("launcher", ["torchrun", "SLURM"])
def test_another_number_of_processes_than_were_started_is_refused(
    launcher, started, settings, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = str(write_config(tmp_path / "tiny.yaml"))
    world, each, nodes = started
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    names = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": each, "RANK": 0, "LOCAL_RANK": 0}
    if launcher == "SLURM":
        names = {"SLURM_NTASKS": world, "SLURM_NTASKS_PER_NODE": each, "SLURM_NNODES": nodes}
        names |= {"SLURM_PROCID": 0, "SLURM_LOCALID": 0, "SLURM_NODEID": 0, "SLURM_JOB_NAME": "train"}
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    given = ["--trainer.num_nodes", str(settings[0]), "--trainer.devices", str(settings[1])]
    line = refused(["--config", config, *QUIET, *given], capsys)
    assert words.replace("torchrun", launcher) in line
    assert not files_of(tmp_path / "runs")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"NODE_RANK": "1"}, "NODE_RANK in the environment is 1, and MASTER_ADDR and MASTER_PORT are not there"),
        ({"NODE_RANK": "1", "MASTER_ADDR": "127.0.0.1"}, "NODE_RANK in the environment is 1, and MASTER_PORT is not"),
        ({"NODE_RANK": "2"}, "NODE_RANK in the environment is 2, and trainer.num_nodes is 2: nodes count from 0 to 1"),
    ],
)
def test_node_that_cannot_find_the_first_one_is_refused(environment, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = str(write_config(tmp_path / "tiny.yaml"))
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # which Lightning sets once it has seen the variables
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # of trainings that other tests have run in this process
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words in refused(["--config", config, *QUIET, "--trainer.num_nodes=2", "--trainer.devices=2"], capsys)


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of two machines without a common one, after a training that nobody disturbed."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    nodes = both(folders)
    return folders, [node.said() for node in nodes]


@pytest.mark.slow
def test_only_the_first_process_of_all_writes_and_speaks(whole):
    (first, second), (said, other) = whole
    assert files_of(second) == ["log_1.txt", "tiny.yaml"]
    assert {path.split("/")[0] for path in files_of(first)} == {"log_0.txt", "tiny.yaml", "runs"}
    names = {path.removeprefix(f"{RUN}/") for path in files_of(first)}
    assert names >= {"config.yaml", "metrics.csv", "environment.json", "classes.json", "scores_val.json"}
    assert names >= {"contact_sheet.png", "learning_curves.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert json.loads((first / RUN / "environment.json").read_text())["devices"] == 4
    assert "in 0.00079 GB of memory that 4 processes of a machine share" in said  # both nodes are this machine
    for line in ("epoch 1/3 ", "epoch 3/3 ", "Best epoch", "best checkpoint", "frames are kept", "GFLOP"):
        assert said.count(line) == 1, line
        assert line not in other


@pytest.mark.slow
def test_undisturbed_trainings_are_the_same_to_the_bit_in_one_folder_or_two(whole, tmp_path):
    both([tmp_path, tmp_path])
    assert_same_end(tmp_path / RUN, whole[0][0] / RUN)
    assert rows_of(tmp_path / RUN) == rows_of(whole[0][0] / RUN)
    assert [path.name for path in (tmp_path / RUN).parent.iterdir()] == ["version_0"]
    assert files_of(tmp_path / RUN) == files_of(whole[0][0] / RUN)


@pytest.mark.slow
def test_scores_of_four_processes_are_those_of_one(whole, tmp_path):
    run = whole[0][0] / RUN
    given = [f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"]
    both([tmp_path / "four", tmp_path / "nothing"], *given, subcommand="validate")
    alone = ["--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
    (tmp_path / "one").mkdir()
    one = Run(tmp_path / "one", *OPTIONS, *given, *alone, subcommand="validate")
    assert one.end(200) == 0, one.log.read_text()[-3000:]
    for name in ("scores_val.json", "image_scores.csv", "confusion_matrix.csv"):
        assert (tmp_path / "four" / RUN / name).read_text() == (tmp_path / "one" / RUN / name).read_text()
    assert files_of(tmp_path / "nothing") == ["log_1.txt", "tiny.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0])
def test_when_a_machine_is_lost_the_other_ends_and_the_same_command_goes_on(lost, whole, tmp_path):
    port = free_port()
    nodes = [Node(number, tmp_path, port) for number in range(2)]
    for _ in range(2):
        before = _written(tmp_path / LAST)
        nodes[0].until(lambda before=before: _written(tmp_path / LAST) != before, 400)
    nodes[lost].kill()
    began = time.monotonic()
    left = nodes[1 - lost]
    assert left.end(90) != 0
    assert time.monotonic() - began < 60
    assert nodes[lost].end(1) == -signal.SIGKILL
    (line,) = {line for line in left.said().splitlines() if "gscnn-fit: error: " in line}
    assert "another process of this training is gone, or does not answer" in line
    assert line.endswith(f"to go on: gscnn-fit fit --config {RUN}/config.yaml --ckpt_path {LAST}")
    both([tmp_path, tmp_path], f"--ckpt_path={LAST}")
    assert_same_end(tmp_path / SECOND, whole[0][0] / RUN)
    expected, found = rows_of(whole[0][0] / RUN), rows_of(tmp_path / SECOND)
    assert found == {place: value for place, value in expected.items() if place in found}


def _written(path):
    try:
        return path.stat().st_ino  # every checkpoint is a file of its own that is moved into place
    except FileNotFoundError:
        return None


PAGE = Path(__file__).parents[1] / "docs/scaling.md"
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_STEP_ID=0 SLURM_PROCID=$rank SLURM_LOCALID=$((rank % SLURM_NTASKS_PER_NODE)) \\
        SLURM_NODEID=$((rank / SLURM_NTASKS_PER_NODE)) "$@" &
    started+=($!)
done
for process in "${started[@]}"; do wait $process || code=$?; done
exit ${code:-0}
"""


def batch_script():
    (script,) = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```$", PAGE.read_text(), re.M | re.S)
    return script


def test_batch_script_is_one_and_asks_for_what_it_trains_with():
    script = batch_script()
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script, re.M))
    assert asked["signal"] == "SIGUSR1@90"
    assert "requeue" in asked
    (call,) = [line for line in script.replace("\\\n", "").splitlines() if line.startswith("srun ")]
    assert f"--trainer.num_nodes {asked['nodes']} --trainer.devices {asked['ntasks-per-node']} " in call
    assert asked["gpus-per-node"] == asked["ntasks-per-node"]


@pytest.mark.slow
def test_batch_script_is_started_again_and_goes_on_to_the_same_end(whole, tmp_path):
    """With programs in place of SLURM's, and a tiny training in place of the script's, of two tasks per node."""
    write_config(tmp_path / "tiny.yaml", epochs=3)
    programs = {"srun": SRUN, "scontrol": f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'}
    training = f"{sys.executable} -m gscnn_lightning fit --config tiny.yaml {' '.join(OPTIONS)}"
    programs["gscnn-fit"] = f'#!/bin/sh\necho "$@" >> given\nexec {training} $MORE\n'
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    paths = [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    job = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "gscnn", "SLURM_NODELIST": "127.0.0.1", "SLURM_NNODES": "2"}
    job |= {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "PYTHONPATH": os.pathsep.join(paths)}
    job |= {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    told = " ".join(raised(signal.SIGUSR1, "train", 2))
    codes = []
    for more in (told, ""):
        done = subprocess.run(
            ["bash"], input=batch_script(), cwd=tmp_path, env={**os.environ, **job, "MORE": more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400, check=False,
        )  # fmt: skip
        codes.append(done.returncode)
        assert "Traceback" not in done.stdout, done.stdout[-3000:]
    assert codes == [128 + signal.SIGUSR1, 0], done.stdout[-3000:]
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert len((tmp_path / "given").read_text().splitlines()) == 8
    assert done.stdout.count("goes on from") == 1
    assert_same_end(tmp_path / SECOND, whole[0][0] / RUN)
