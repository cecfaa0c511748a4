"""``gscnn ablate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def ablate(
    seeds: str = "0,1",
    rows: str = "control,gated,gradient,dual_task",
    out: Path = Path("runs/ablation"),
    equal: Literal["epochs", "time"] = "epochs",
    others: Sequence[str] = (),
) -> int:
    """Train the rows of the paper's ablation with one budget, and compare them in one table.

    Every row is trained once per seed, each as a gscnn-fit process of its own, with the same config; what a row changes
    comes last. A seed decides the initial weights, and the order and augmentation of the samples. Scores are those of
    the best checkpoint on the validation split. With equal epochs all rows take the same number of steps, and the table
    says how long each row trained. With equal time the steps of all rows are measured first, in turns on this machine;
    the slowest row is given the epochs of the config, and the others as many more as they are faster, each with its
    whole schedule of learning rates.

    The same command goes on where it was interrupted, and repeats nothing that is finished. The exit code is 1 if a row
    failed.

    Examples:
      gscnn ablate --config scenes
      gscnn ablate --config camvid --data.root CamVid --seeds 0,1,2 --out runs/camvid_ablation
      gscnn ablate --config camvid --data.root CamVid --seeds 0,1,2 --equal time --out runs/camvid_time
      gscnn ablate --config scenes --rows control,dual_task --trainer.max_epochs 8
      gscnn ablate --config scenes --rows control,my/sobel.yaml    rows of your own are configs, too

    Args:
        seeds: seeds, separated by commas.
        rows: rows, separated by commas; shipped ones (also supervised, refined, control_refined) by their name, others
            are configs.
        out: folder for a run per row and seed, ablation.csv, ablation.json, ablation.md, curves.png and
            contact_sheets.png.
        equal: what the rows have in common, epochs or time.
        others: those of gscnn-fit, such as --config FILE.

    Returns:
        Exit code: 0 if every row was trained, 1 if one failed.

    Raises:
        SettingError: a row, a seed or an argument cannot be used, or the folder has an ablation with other settings.
    """
    from gscnn_lightning.bench.step import step_seconds
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.studies.ablation import run_ablation

    numbers = seeds.strip("[] ").split(",")
    if not all(number.strip().isdecimal() for number in numbers):
        raise SettingError(f"seeds are {seeds}: give whole numbers from 0 on, such as 0,1,2")
    chosen = [int(number) for number in numbers]
    results = run_ablation(others, chosen, rows.strip("[] ").split(","), out, step_seconds if equal == "time" else None)
    return 1 if any(result.failure for result in results) else 0
