"""``gscnn sweep``."""

from collections.abc import Sequence
from pathlib import Path


def sweep(
    file: str = "",
    /,
    runs: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    storage: str | None = None,
    study: str | None = None,
    lost_after: float = 60.0,
    status: bool = False,
    others: Sequence[str] = (),
) -> int:
    """Run a W&B sweep file without its server or an account, on one machine or many.

    Each run is a gscnn-fit process with the command of the file, apart from its logger. Optuna draws the values: TPE
    for bayes, random or grid; early_terminate ends runs as W&B does, by successive halving over validations. A run that
    fails is noted with its message, and the sweep goes on. Runs are ranked by their best validation (W&B's server: by
    their last). The same command goes on where it was interrupted. The exit code is 1 if no run ended well.

    The same command once more, at the same time, is another worker: on this machine, or with --storage on any that
    reaches the database. Runs of a worker that is gone are made again by the others. docs/scaling.md tells more.

    Examples:
      gscnn sweep backbone_gradient
      gscnn sweep loss_weights --runs 20 --config camvid --data.root CamVid
      gscnn sweep my/sweep.yaml --runs 30 --trainer.max_epochs 2 --out runs/short_sweep
      gscnn sweep optimizer --runs 50 --storage postgresql://me@db.example.org/sweeps --study optimizer_2
      gscnn sweep --status --storage postgresql://me@db.example.org/sweeps --study optimizer_2

    Args:
        file: sweep file, or the name of a shipped one: loss_weights, optimizer, backbone_gradient.
        runs: runs in all, of all workers and with those of earlier calls; by default run_cap of the file, or the whole
            grid.
        out: folder for the runs of this worker, sweep.csv and sweep.json, and study.db without --storage; by default
            runs/sweep_ and the file's name, or the study's.
        seed: of the drawing; that of the first worker counts for all.
        storage: URL of a database that all workers use, such as postgresql://user@host/database, with the password in
            it or in PGPASSWORD; by default a file of SQLite in the folder.
        study: name of the study in the database; by default that of the file.
        lost_after: seconds without a sign of life after which workers on other machines take this one for lost.
        status: print how the study stands, in place of working at it.
        others: those of gscnn-fit; values of the sweep win over them, --config takes the place of the file's.

    Returns:
        Exit code: 0 if a run ended well, 1 if none did.

    Raises:
        SettingError: Optuna is not installed, the file or the database cannot be used, or the folder or the study has
            another sweep.
    """
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.studies.sweep import run_sweep, sweep_status

    if status:
        if others or runs is not None:
            raise SettingError(f"--status only looks: leave out {others[0] if others else '--runs'}")
        sweep_status(file, out, storage, study)
        return 0
    if not file:
        raise SettingError("which sweep? give its file: loss_weights, optimizer, backbone_gradient or one of your own")
    results = run_sweep(file, runs, out, others, seed, storage, study, lost_after)
    return 1 if all(run.state == "failed" for run in results) else 0
