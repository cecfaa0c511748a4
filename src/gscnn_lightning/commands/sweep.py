"""``gscnn sweep``."""

from collections.abc import Sequence
from pathlib import Path


def sweep(
    file: str,
    /,
    runs: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    others: Sequence[str] = (),
) -> int:
    """Run a W&B sweep file on this machine, without a server or an account.

    Each run is a gscnn-fit process with the command of the file, apart from its logger. Optuna draws the values: TPE
    for bayes, random or grid; early_terminate ends runs as W&B does, by successive halving over validations. A run that
    fails is noted with its message, and the sweep goes on. Runs are ranked by their best validation (W&B's server: by
    their last). The same command goes on where it was interrupted. The exit code is 1 if no run ended well.

    Examples:
      gscnn sweep backbone_gradient
      gscnn sweep loss_weights --runs 20 --config camvid --data.root CamVid
      gscnn sweep my/sweep.yaml --runs 30 --trainer.max_epochs 2 --out runs/short_sweep

    Args:
        file: sweep file, or the name of a shipped one: loss_weights, optimizer, backbone_gradient.
        runs: runs in all, those of earlier calls included; by default run_cap of the file, or the whole grid.
        out: folder for the runs, study.db, sweep.csv and sweep.json; by default runs/sweep_ and the file's name.
        seed: of the drawing.
        others: those of gscnn-fit; values of the sweep win over them, --config takes the place of the file's.

    Returns:
        Exit code: 0 if a run ended well, 1 if none did.

    Raises:
        SettingError: Optuna is not installed, the file cannot be used, or the folder has another sweep.
    """
    from gscnn_lightning.studies.sweep import run_sweep

    results = run_sweep(file, runs, out, others, seed)
    return 1 if all(run.state == "failed" for run in results) else 0
