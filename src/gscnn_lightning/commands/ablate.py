"""``gscnn ablate``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def ablate(
    seeds: str = "0,1",
    rows: str = "control,gated,gradient,dual_task",
    out: Path = Path("runs/ablation"),
    equal: Literal["epochs", "time"] = "epochs",
    block: int = 1,
    others: Sequence[str] = (),
) -> int:
    """Train the rows of the paper's ablation with one budget, and compare them in one table.

    Every row is trained once per seed, each as a gscnn-fit process of its own, with the same config; what a row changes
    comes last. A seed decides the initial weights, and the order and augmentation of the samples. Scores are those of
    the best checkpoint on the validation split. With equal epochs all rows take the same number of steps, and the table
    says how long each row trained. With equal time the steps of all rows are measured first, in turns on this machine;
    the slowest row is given the epochs of the config, and the others more or longer ones, as they are faster, each with
    its whole schedule of learning rates, and as many validations, of which the best counts. Differences from the first
    row have 95 % intervals over frames and seeds.

    The same command goes on where it was interrupted, and repeats nothing that is finished. The exit code is 1 if a row
    failed.

    Examples:
      gscnn ablate --config scenes
      gscnn ablate --config camvid --data.root CamVid --seeds 0,1,2 --out runs/camvid_ablation
      gscnn ablate --config camvid --data.root CamVid --seeds 0,1,2 --equal time --block 10 --out runs/time
      gscnn ablate --config camvid --data.root CamVid --rows control,control_refined,two_stream --equal time
      gscnn ablate --config scenes --rows control,dual_task --trainer.max_epochs 8
      gscnn ablate --config scenes --rows control,my/sobel.yaml    rows of your own are configs, too

    Args:
        seeds: seeds, separated by commas.
        rows: rows, separated by commas; shipped ones (also supervised, refined, control_refined and
            two_stream, the config as it is) by their name, others are configs.
        out: folder for a run per row and seed, ablation.csv, ablation.json, ablation.md, curves.png,
            contact_sheets.png and gains_and_losses.png: frames in which the last row differs most from the first.
        equal: what the rows have in common, epochs or time.
        block: number of neighbouring frames that are drawn together for the intervals, as frames of a drive resemble
            each other.
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
    if block < 1:
        raise SettingError(f"block is {block}: give the number of neighbouring frames, 1 or more")
    measure = step_seconds if equal == "time" else None
    results = run_ablation(others, chosen, rows.strip("[] ").split(","), out, measure, block)
    return 1 if any(result.failure for result in results) else 0
