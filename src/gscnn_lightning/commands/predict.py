"""``gscnn predict``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gscnn_lightning.prediction import DEFAULT_FORMATS, Format

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def predict(
    checkpoint: str,
    inputs: Sequence[str],
    /,
    out: Path = Path("predictions"),
    formats: Sequence[Format] = DEFAULT_FORMATS,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    runtime: Literal["onnxruntime", "openvino", "tensorrt"] | None = None,
    cityscapes_submission: str | None = None,
    confident: float | None = None,
    classes: str | None = None,
) -> int:
    """Predict images, folders, patterns and videos with a checkpoint of gscnn-fit, or a network exported from one.

    Every image gets NAME_labels.png (train ids), NAME_color.png, NAME_overlay.png and, from a network with shape
    stream, NAME_boundary.png. Pictures that cannot be read or predicted are named at the end, and the exit code is 1. A
    second call with the same settings makes what is missing: what exists is kept if it was made of the same file, made
    again if that has changed since, and not touched if it was made of another file. OUT/predictions.json tells which it
    was. Predictions are never inputs, wherever they lie.

    Examples:
      gscnn predict best.ckpt street.jpg --out predictions
      gscnn predict best.ckpt photos/ 'more/**/*.png' drive.mp4 --out predictions --formats [overlay,boundary,gates]
      gscnn predict best.ckpt photos/ --out finer --scales [0.5,1,2] --flip true --window [1024,1024]
      gscnn predict best.ckpt unlabelled/ --out drafts --formats [labels,overlay] --confident 0.9
      gscnn predict model.onnx photos/ --out predictions --runtime openvino
      gscnn predict best.ckpt CITYSCAPES --cityscapes-submission test --out submission

    Args:
        checkpoint: best.ckpt or last.ckpt of a run, or a .onnx or .pt2 file of gscnn export.
        inputs: images, folders, patterns and videos; for a submission the folder of Cityscapes.
        out: folder to write to.
        formats: what to write: labels (train ids), ids (official Cityscapes ids), color, overlay, boundary, gates,
            confidence (probability of the predicted class) and entropy (0 where one class is certain, 1 where all K
            classes have the same probability), both times 255.
        window: height and width of sliding windows; by default whole images, and 1024x1024 for pictures of more than
            4 megapixels at their largest scale.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images as factors; probabilities are averaged.
        flip: average with the mirrored images, too.
        overwrite: make everything again.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is; exported networks run on the CPU.
        runtime: that runs .onnx files: onnxruntime, openvino or tensorrt, where they are installed.
        cityscapes_submission: train, val or test: official ids of all frames of this split under the names that the
            evaluation server and script look for, and nothing else; says what is missing.
        confident: least probability of a pixel's class; others become void, which is 255 in labels, so that these can
            be corrected or trained on. OUT/classes.yaml is their class table.
        classes: class table in whose coding labels are written, a file or the name of a shipped one, so that they are
            as the masks of the training; by default train ids.

    Returns:
        Exit code: 0 if everything was predicted, 1 if something could not be.

    Raises:
        GSCNNError: a setting or an input cannot be used; the message says which.
    """
    from gscnn_lightning.checkpoint import load_predictor
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.exporting.network import ExportedNetwork
    from gscnn_lightning.inference import check_settings
    from gscnn_lightning.prediction.coding import Coding, write_table
    from gscnn_lightning.prediction.files import PredictionFiles, output_folder
    from gscnn_lightning.prediction.inputs import Found, find_inputs
    from gscnn_lightning.prediction.note import NOTE, MadeFiles, made_with, settle
    from gscnn_lightning.prediction.predictor import Predictor
    from gscnn_lightning.prediction.submission import CITIES, check_submission, submission_inputs
    from gscnn_lightning.terminal import say

    check_settings(window, overlap, scales)
    split = cityscapes_submission
    if split is not None:
        if len(inputs) > 1 or split not in CITIES:
            raise SettingError(
                f"a submission is made of one split, {', '.join(CITIES)}, of one folder of Cityscapes: got split "
                f"{split!r} and {len(inputs)} inputs"
            )
        formats, found = ("ids",), Found(submission_inputs(inputs, split), [], [])
    elif not inputs:
        raise SettingError("nothing to predict: give images, folders, patterns or videos after the checkpoint")
    else:
        found = find_inputs(inputs, MadeFiles())
    how: dict[str, Any] = {"window": window, "overlap": overlap, "scales": scales, "flip_average": flip}
    task = load_predictor(checkpoint, device, fold=True, runtime=runtime, **how)
    if "gates" in formats and isinstance(task, ExportedNetwork) and task.facts.shape_stream and not task.facts.gates:
        raise SettingError(
            f"{checkpoint} was exported without gates: export it with --gates true, or leave gates out of --formats"
        )
    out = output_folder(out)
    coding = None if classes is None else Coding(classes, task.class_names)
    files = PredictionFiles(out, task.class_names, task.class_colors, formats, overwrite, confident, coding)
    # A submission holds nothing but its pictures.
    note = out / NOTE if split is None else out.with_name(f"{out.name}.json")
    if found.made:
        say(f"left out: {len(found.made)} predictions of earlier calls, the first is {found.made[0]}", stderr=True)
    table = None if coding is None else coding.path
    settled = settle(note, out, made_with(checkpoint, task, confident, table), found.inputs, overwrite)
    if "labels" in formats and (confident is not None or coding is not None):
        write_table(out, coding, task.class_names, task.class_colors)
    if settled.changed:
        say(f"{settled.changed} of {len(found.inputs)} inputs have changed since, and are predicted anew", stderr=True)
    predictor = Predictor(task, files)
    failed = [*settled.refused, *predictor.run(settled.inputs)]
    for text in predictor.notes:
        say(f"note: {text}", stderr=True)
    for path in found.others:
        say(f"not predicted: {path}: neither image nor video by its name", stderr=True)
    for message in failed:
        say(f"not predicted: {message}", stderr=True)
    if confident is not None and files.counted.any():
        say(_kept(confident, files.counted, task.class_names), stderr=True)
    complaints = [] if split is None else check_submission(out, split, found.inputs)
    for complaint in complaints:
        say(f"submission: {complaint}", stderr=True)
    say(f"{len(found.inputs) - len(failed)} of {len(found.inputs)} inputs predicted into {out}", stderr=True)
    return 1 if failed or complaints else 0


def _kept(confident: float, counted: "npt.NDArray[np.int64]", names: Sequence[str]) -> str:
    """What is said of the pixels that a network is sure of."""
    predicted, kept = counted.T
    shares = [(k / n, name) for n, k, name in zip(predicted, kept, names, strict=True) if n]
    least = ", ".join(f"{name} {share:.1%}" for share, name in sorted(shares)[:3])
    return (
        f"confident {confident}: {kept.sum() / predicted.sum():.1%} of the pixels keep their class, others are void; "
        f"least of {least}"
    )
