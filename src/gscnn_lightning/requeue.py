"""Jobs that SLURM stops and starts again: where Lightning keeps the checkpoint that such a job goes on from."""

import os
import re
from pathlib import Path

from lightning_fabric.plugins.environments import SLURMEnvironment


def job_folder(root: str | Path) -> Path | None:
    """Folder for the checkpoints of this very job; None outside of SLURM, and in its interactive mode.

    Lightning would take the working directory, in which any other job would find them and go on from them.

    Args:
        root: folder of the runs of one name.
    """
    if not SLURMEnvironment.detect() or SLURMEnvironment.job_id() is None:
        return None
    # The commands of a batch script that srun starts are counted anew when the job is started again.
    steps = os.environ.get("SLURM_STEP_ID")
    return Path(root) / f"slurm_{SLURMEnvironment.job_id()}{'' if steps is None else '_' + steps}"


def job_checkpoint(folder: Path) -> Path | None:
    """The last of the checkpoints that Lightning wrote before it had the job started again; None before that."""
    found = {int(name[1]): path for path in folder.glob("*.ckpt") if (name := _NAME.fullmatch(path.name))}
    return found[max(found)] if found else None


def clear(folder: Path) -> None:
    """Remove the checkpoints of a job that has come to its end, which a further training of it would go on from."""
    for path in folder.glob("*.ckpt"):
        if _NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


_NAME = re.compile(r"hpc_ckpt_(\d+)\.ckpt")
