"""``gscnn compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal


def compare(
    sides: Sequence[str],
    /,
    out: Path = Path("comparison"),
    labels: Path | None = None,
    classes: str | None = None,
    split: Literal["val", "test"] = "test",
    resamples: int = 1000,
    block: int = 1,
    seed: int = 0,
    tolerances: Sequence[float] | None = None,
    coding: Literal["trainids", "ids", "colors"] | None = None,
    resize: bool = False,
    workers: int = 1,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    device: str = "auto",
    runtime: Literal["onnxruntime", "openvino", "tensorrt"] | None = None,
    others: Sequence[str] = (),
) -> None:
    """Score two or more sides on the same frames: checkpoints, exported networks, runs, folders of label maps.

    Prints and saves every score of all sides, the differences B - A, C - A, ... and their 95 % confidence intervals
    (paired bootstrap: frames are drawn with replacement, the same ones for all sides). With --block, blocks of
    neighbouring frames are drawn, as the frames of a drive resemble each other. A side may be several seeds, separated
    by commas: its scores are the means, and seeds are drawn, too. The data are those of the first checkpoint's run,
    unless --config, --data or --labels says otherwise; a data module of your own is imported only if one of them
    names it.

    Examples:
      gscnn compare control/checkpoints/best.ckpt gscnn/checkpoints/best.ckpt
      gscnn compare A.ckpt B.ckpt theirs/predictions --config cityscapes --data.root PATH --block 10
      gscnn compare best.ckpt model.onnx --config camvid --data.root CamVid --split val
      gscnn compare control0,control1,control2 gscnn0,gscnn1,gscnn2 --out control_against_gscnn

    Args:
        sides: checkpoints, .onnx or .pt2 files of gscnn export, folders of runs (their best checkpoint), or folders of
            label maps that any program wrote, as for gscnn score; several of one side separated by commas. The others
            are compared with the first.
        out: folder for comparison.csv, comparison.json and distance_curve.png.
        labels: folder of the true label maps, in place of a config, where all sides are folders of label maps.
        classes: class table of --labels, a file or the name of a shipped one, such as cityscapes and camvid.
        split: which frames.
        resamples: number of bootstrap samples.
        block: number of neighbouring frames, by their names, that are drawn together.
        seed: of the bootstrap.
        tolerances: of the boundary F-score, in pixels, or fractions of the diagonal below 1; by default those of the
            first checkpoint, or of the config.
        coding: what the values of label maps are: trainids, ids or colors; found out by default.
        resize: bring label maps of another size to that of the labels, by nearest neighbour.
        workers: number of processes that measure label maps.
        window: height and width of sliding windows, None for whole images.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images as factors; probabilities are averaged.
        flip: average with the mirrored images, too.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is; exported networks run on the CPU.
        runtime: that runs .onnx files: onnxruntime, openvino or tensorrt, where they are installed.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.

    Raises:
        GSCNNError: a side or the data cannot be used, a side has other classes, or the config of a run names a data
            module of someone else.
    """
    from gscnn_lightning.agreement import check_classes
    from gscnn_lightning.checkpoint import load_predictor, saved_classes
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.fit_settings import arguments_for_checkpoint, data_module
    from gscnn_lightning.inference import check_settings
    from gscnn_lightning.metrics.evaluation import Evaluation
    from gscnn_lightning.scoring.truth import truth_of_data
    from gscnn_lightning.studies.comparison import compare_sides, save_comparison, show_comparison
    from gscnn_lightning.studies.measured_data import boundary_tolerances, find_truth
    from gscnn_lightning.studies.sides import is_network, make_side, members_of
    from gscnn_lightning.terminal import say

    if not 2 <= len(sides) <= 26:
        raise SettingError(f"{len(sides)} sides: give 2 to 26 checkpoints, runs or folders of label maps")
    for name, value in {"resamples": resamples, "block": block, "workers": workers}.items():
        if value < 1:
            raise SettingError(f"{name} is {value}: give 1 or more")
    check_settings(window, overlap, scales)
    members = [members_of(side) for side in sides]
    checkpoints = [member for side in members for member in side if is_network(member)]
    arguments: list[str] = list(others)
    data: Any = None
    if labels is not None or classes is not None or not checkpoints:
        if checkpoints and (labels is not None or classes is not None):
            raise SettingError(
                f"checkpoint {checkpoints[0]} needs images: give --config or --data in place of --labels and --classes"
            )
        truth = find_truth(labels, classes, arguments, split)
    else:
        arguments = arguments_for_checkpoint(checkpoints[0], others)
        data = data_module(arguments)
        data.setup("validate" if split == "val" else "test")
        truth = truth_of_data(data, split)
    out.mkdir(parents=True, exist_ok=True)  # found out before minutes of scoring, if it cannot be made
    how: dict[str, Any] = {"window": window, "overlap": overlap, "scales": scales, "flip_average": flip}
    for path in checkpoints:
        named = saved_classes(path, len(truth.classes))
        check_classes(named, truth.classes.names, f"checkpoint {path}", "the data")
    # One and the same set of tolerances, whatever the checkpoints were trained with.
    chosen = boundary_tolerances(tolerances, arguments)
    if checkpoints and tolerances is None:
        chosen = load_predictor(checkpoints[0], "cpu", **how).settings.boundary_tolerances
    evaluation = Evaluation(truth.classes.names, truth.ignore_index, chosen, everything=True)
    made = [make_side(side, truth, data, split, how, device, runtime, coding, resize, workers) for side in members]
    comparison = compare_sides(made, evaluation, truth.names(), resamples, seed, block)
    named_sides = {
        letter: side[0] if len(side) == 1 else list(side)
        for letter, side in zip("abcdefghijklmnopqrstuvwxyz", members, strict=False)
    }
    made_with = {**named_sides, "split": split, "resamples": resamples, "block": block, **how}
    save_comparison(comparison, made_with, out)
    show_comparison(comparison)
    say(f"saved in {out}: comparison.csv, comparison.json, distance_curve.png")
