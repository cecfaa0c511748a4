"""Jobs of SLURM: told that their time is over, they save, ask to be started again, and go on to the same end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.test_interrupted_run import raised
from tests.test_resumed_run import QUIET, assert_same_end
from tests.tiny import write_config

OF_STEP = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train"}


@pytest.fixture
def cluster(tmp_path):
    """Environment of a job, with a program in place of SLURM's that notes what it is asked for."""
    program = tmp_path / "bin/scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        **OF_STEP,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }


def start(folder, environment, *arguments, rank=0, ranks=1):
    of_rank = {"SLURM_NTASKS": ranks, "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0}
    command = [sys.executable, "-m", "gscnn_lightning", "fit", "--config", "tiny.yaml", *QUIET, *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, **{name: str(value) for name, value in of_rank.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def without_slurm(environment):
    return {name: value for name, value in environment.items() if not name.startswith("SLURM")}


@pytest.mark.slow  # three trainings of the command
def test_job_is_started_again_and_goes_on_to_the_same_end(cluster, tmp_path):
    write_config(tmp_path / "tiny.yaml")
    assert start(tmp_path, without_slurm(cluster), "--trainer.logger.name=whole").wait(120) == 0
    job, asked = tmp_path / "runs/tiny/slurm_4711_0", tmp_path / "asked"
    told = raised(signal.SIGUSR1, "train", 3)  # of 8, the same in every turn as SLURM knows one command
    for turn, step in enumerate((3, 6)):
        process = start(tmp_path, cluster, *told)
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 128 + signal.SIGUSR1, said
        assert asked.read_text() == (turn + 1) * "requeue 4711\n"
        assert sorted(path.name for path in job.iterdir()) == [f"hpc_ckpt_{n + 1}.ckpt" for n in range(turn + 1)]
        assert ("goes on from" in said) == (turn > 0)
        assert torch.load(job / f"hpc_ckpt_{turn + 1}.ckpt", weights_only=True)["global_step"] == step
    process = start(tmp_path, cluster, *told)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "goes on from runs/tiny/slurm_4711_0/hpc_ckpt_2.ckpt" in said
    assert_same_end(tmp_path / "runs/tiny/version_2", tmp_path / "runs/whole/version_0")
    assert not job.exists()  # or another training of this job would go on from there
    assert not list(tmp_path.glob("*.ckpt"))


@pytest.mark.slow
def test_job_of_two_tasks_of_which_one_is_told(cluster, tmp_path):
    write_config(tmp_path / "tiny.yaml")
    environment = {**cluster, "MASTER_ADDR": "127.0.0.1", "SLURM_NTASKS_PER_NODE": "2"}
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]

    def run(*arguments):
        tasks = [start(tmp_path, environment, *two, *arguments, rank=rank, ranks=2) for rank in range(2)]
        said = [task.communicate(timeout=180)[0] for task in tasks]
        return [task.returncode for task in tasks], said

    codes, said = run("--trainer.logger.name=whole")
    assert codes == [0, 0], said
    codes, said = run(*raised(signal.SIGUSR1, "train", 2))
    assert codes == [128 + signal.SIGUSR1] * 2, said
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    codes, said = run()
    assert codes == [0, 0], said
    assert_same_end(tmp_path / "runs/tiny/version_1", tmp_path / "runs/whole/version_0")
