"""A long training keeps neither memory, nor open files, nor shared memory."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from tests.tiny import write_config

EPOCHS = 30


class Footprint(pl.Callback):
    """Appends to footprint.csv, after every epoch, what this process and those that load for it hold."""

    def on_validation_epoch_end(self, trainer, pl_module):
        if trainer.sanity_checking:
            return
        family = [str(os.getpid()), *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
        status = [Path(f"/proc/{number}/status").read_text().splitlines() for number in family]
        resident = sum(int(line.split()[1]) for lines in status for line in lines if line.startswith("VmRSS:"))
        descriptors = sum(len(list(Path(f"/proc/{number}/fd").iterdir())) for number in family)
        shared = sum(path.stat().st_size for path in Path("/dev/shm").iterdir())
        with Path("footprint.csv").open("a") as file:
            file.write(f"{trainer.current_epoch + 1},{resident >> 10},{descriptors},{shared >> 10},{len(family)}\n")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_thirty_epochs_hold_what_five_hold(tmp_path):
    write_config(tmp_path / "tiny.yaml", epochs=EPOCHS)
    options = ["--data.num_workers=2", "--data.train_samples=40", "--trainer.enable_progress_bar=false"]
    command = [sys.executable, "-m", "gscnn_lightning", "fit", "--config", "tiny.yaml", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    told = [f"--trainer.callbacks+={__name__}.Footprint"]
    result = subprocess.run([*command, *told], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    with (tmp_path / "footprint.csv").open() as file:
        rows = {int(epoch): list(map(int, rest)) for epoch, *rest in csv.reader(file)}
    assert len(rows) == EPOCHS
    early, late = rows[5], rows[EPOCHS]  # MiB resident, descriptors, KiB of shared memory, processes
    assert late[0] <= 1.05 * early[0], (early, late)
    assert late[1] <= early[1]
    assert late[3] == early[3]
    assert late[2] <= early[2] + 1024  # of all programs of the machine
    assert (tmp_path / "runs/tiny/version_0/contact_sheet.png").is_file()
