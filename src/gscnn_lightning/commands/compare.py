"""``gscnn compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal


def compare(
    a: str,
    b: str,
    /,
    out: Path = Path("comparison"),
    split: Literal["val", "test"] = "test",
    resamples: int = 1000,
    seed: int = 0,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    device: str = "auto",
    others: Sequence[str] = (),
) -> None:
    """Score two checkpoints side by side on the same frames, such as Gated-SCNN and its matched control.

    Prints and saves every score of both, the difference B - A and its 95 % confidence interval over images (paired
    bootstrap: frames are drawn with replacement, the same ones for both). The data are those of A's run, unless
    --config or --data says otherwise; a data module of your own is imported only if one of them names it.

    Examples:
      gscnn compare control/checkpoints/best.ckpt gscnn/checkpoints/best.ckpt
      gscnn compare A.ckpt B.ckpt --config cityscapes --data.root PATH --out control_against_gscnn

    Args:
        a: checkpoint to compare with, such as the control's.
        b: checkpoint that is compared.
        out: folder for comparison.csv, comparison.json and distance_curve.png.
        split: which frames.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.
        window: height and width of sliding windows, None for whole images.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images as factors; probabilities are averaged.
        flip: average with the mirrored images, too.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.

    Raises:
        GSCNNError: a checkpoint or the data cannot be used, the two have other classes, or the config of A's run
            names a data module of someone else.
    """
    from gscnn_lightning.checkpoint import load_task, read_checkpoint
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.fit_settings import data_module
    from gscnn_lightning.parsing import option_values
    from gscnn_lightning.run_folder import run_of_checkpoint
    from gscnn_lightning.studies.comparison import compare_tasks, save_comparison, show_comparison
    from gscnn_lightning.terminal import say
    from gscnn_lightning.trust.settings import check_run_data

    if resamples < 1:
        raise SettingError(f"resamples is {resamples}: give 1 or more")
    for checkpoint in (a, b):
        read_checkpoint(checkpoint)
    out.mkdir(parents=True, exist_ok=True)  # found out before minutes of scoring, if it cannot be made
    arguments, run = list(others), run_of_checkpoint(a)
    if run is not None and not option_values(others, "--config"):
        if not option_values(others, "--data"):  # else the class is the user's choice
            check_run_data(run.config)
        arguments = ["--config", str(run.config), *arguments]
    elif run is None and not any(word.startswith(("--config", "--data")) for word in others):
        raise SettingError(f"which data? {a} lies in no run with a config.yaml: give --config or --data")
    data = data_module(arguments)
    how: dict[str, Any] = {"window": window, "overlap": overlap, "scales": scales, "flip_average": flip}
    tasks = [load_task(path, device, **how) for path in (a, b)]
    comparison = compare_tasks((a, b), tasks, data, split, resamples, seed)
    save_comparison(comparison, {"a": a, "b": b, "split": split, "resamples": resamples, **how}, out)
    show_comparison(comparison)
    say(f"saved in {out}: comparison.csv, comparison.json, distance_curve.png")
