"""``gscnn data``: commands that take the same config as ``gscnn-fit`` and look at its data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

_SHOWN = 20


def check(splits: Sequence[Literal["train", "val", "test", "predict"]] = (), others: Sequence[str] = ()) -> int:
    """Read a whole data set and report what is in it and what is wrong with it.

    Exits with 0 if nothing is wrong, with 1 if something is, and with 2 if there was nothing to read. What is converted
    or left out in reading, such as 16 bits or transparency, is a note, not a problem.

    Examples:
      gscnn data check --config camvid --data.root CamVid
      gscnn data check --data CityscapesDataModule --data.root cityscapes --splits [val]

    Args:
        splits: what to read, all by default.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.

    Returns:
        Exit code.
    """
    from gscnn_lightning.data.check import check_data, classes_table, frames_table
    from gscnn_lightning.errors import DataError
    from gscnn_lightning.fit_settings import data_module
    from gscnn_lightning.terminal import progress, say

    data = data_module(others)
    with progress(None, "reading") as move:
        reports = check_data(
            data,
            tuple(splits) or ("train", "val", "test", "predict"),
            lambda split, done, total: move(done, total, f"reading {split}"),
        )
    problems = [problem for report in reports for problem in report.problems]
    if not any(report.found for report in reports):
        raise DataError("; ".join(problems))
    say(frames_table(reports))
    say(classes_table(reports, data.class_names))
    for report in reports:
        for note in report.notes:
            say(f"note: {report.split}: {note}")
    for problem in problems[:_SHOWN]:
        say(f"problem: {problem}")
    if problems:
        rest = f", the first {_SHOWN} of them above" if len(problems) > _SHOWN else ""
        say(f"{len(problems)} problem{'s' * (len(problems) > 1)}{rest}")
        return 1
    say("no problems")
    return 0


def preview(
    out: Path = Path("data_preview.png"), samples: int = 12, epoch: int = 0, others: Sequence[str] = ()
) -> None:
    """Draw training samples as the network gets them, with their boundaries, on a contact sheet.

    Examples:
      gscnn data preview --config camvid --data.root CamVid
      gscnn data preview --config camvid --data.scale [0.25,4] --out wide.png

    Args:
        out: picture to write, PNG or JPEG by its suffix.
        samples: number of samples, those a training starts with.
        epoch: number of the epoch to begin with.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.
    """
    from gscnn_lightning.data.check import training_samples
    from gscnn_lightning.drawing.files import write_picture
    from gscnn_lightning.drawing.sheets import TrainingSample, sample_sheet
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.fit_settings import data_module
    from gscnn_lightning.terminal import say

    if samples < 1:
        raise SettingError(f"samples must be 1 or more, got {samples}")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg") or not out.absolute().parent.is_dir():
        raise SettingError(f"cannot write {out}: --out is a .png or .jpg file in a folder that exists")
    data = data_module(others)
    drawn = [
        TrainingSample(name, photo, labels, data.boundaries(labels))
        for name, photo, labels in training_samples(data, samples, epoch)
    ]
    write_picture(out, sample_sheet(drawn, data.class_names, data.class_colors), overwrite=True)
    say(f"{samples} training samples are drawn in {out}")


def suspects(
    checkpoint: str,
    /,
    out: Path = Path("suspects"),
    split: Literal["train", "val", "test"] = "val",
    top: int = 12,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    device: str = "auto",
    runtime: Literal["onnxruntime", "openvino", "tensorrt"] | None = None,
    others: Sequence[str] = (),
) -> int:
    """Find labels that may be wrong: where a trained network contradicts them most confidently.

    Class errors are regions that are labelled as one class and predicted as another, away from the boundary of the two;
    what the network confuses in other frames, too, counts for less. Displaced boundaries are those of labelled segments
    whose outline the predicted one parallels at a distance of 3 to 10 pixels. Scores are multiples of that of the
    strongest suspect in a usual frame. The frames are only read. Of the training split, a network that has learned the
    errors by heart does not find them all. The data are those of the checkpoint's run, unless --config or --data says
    otherwise.

    Examples:
      gscnn data suspects best.ckpt
      gscnn data suspects best.ckpt --config camvid --data.root CamVid --split train --top 30 --out suspects

    Args:
        checkpoint: best.ckpt or last.ckpt of a run, or a .onnx or .pt2 file of gscnn export.
        out: folder for suspects.csv, suspect_frames.csv and suspects.png.
        split: which frames.
        top: number of suspects of either kind that are printed and drawn in suspects.png; the tables have all.
        window: height and width of sliding windows, None for whole images.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images as factors; probabilities are averaged.
        flip: average with the mirrored images, too.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is; exported networks run on the CPU.
        runtime: that runs .onnx files: onnxruntime, openvino or tensorrt, where they are installed.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.

    Returns:
        Exit code: 0, or 1 if a frame could not be read or predicted.

    Raises:
        GSCNNError: the checkpoint or the data cannot be used; the message says why.
    """
    from gscnn_lightning.agreement import check_classes
    from gscnn_lightning.checkpoint import load_predictor, saved_classes
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.fit_settings import arguments_for_checkpoint, data_module
    from gscnn_lightning.inference import check_settings
    from gscnn_lightning.metrics.suspects import KINDS
    from gscnn_lightning.prediction.files import output_folder
    from gscnn_lightning.prediction.suspects import (
        FRAMES,
        SHEET,
        TABLE,
        LabelCheck,
        draw_suspects,
        suspects_table,
        write_suspects,
    )
    from gscnn_lightning.terminal import progress, say

    if top < 1:
        raise SettingError(f"top is {top}: give a number of suspects of 1 or more")
    check_settings(window, overlap, scales)
    saved_classes(checkpoint, 0)  # whether it can be read, before the data are
    data = data_module(arguments_for_checkpoint(checkpoint, others))
    how: dict[str, Any] = {"window": window, "overlap": overlap, "scales": scales, "flip_average": flip}
    task = load_predictor(checkpoint, device, fold=True, runtime=runtime, **how)
    check_classes(task.class_names, data.class_names, f"checkpoint {checkpoint}", "the data")
    check = LabelCheck(task, data, split)
    out = output_folder(out)  # before minutes of predicting, if it cannot be one
    with progress(len(check.frames), "frames") as advance:
        checked = check.run(advance)
    write_suspects(checked, data.class_names, out)
    for kind in KINDS:
        if checked.of_kind(kind):
            say(suspects_table(checked, data.class_names, kind, top))
    worst = [suspect for kind in KINDS for suspect in checked.of_kind(kind)[:top]]
    if worst:
        draw_suspects(check, checked, worst, out / SHEET)
    for note in checked.notes:
        say(f"note: {split}: {note}", stderr=True)
    if checked.unlabelled:
        say(f"note: {split}: {checked.unlabelled} frames have no labels, and were left out", stderr=True)
    for message in checked.failed:
        say(f"not checked: {message}", stderr=True)
    suspicious = len({suspect.frame for suspect in checked.suspects})
    files = ", ".join([TABLE, FRAMES, *([SHEET] if worst else [])])
    found = f"{len(checked.suspects)} suspects in {suspicious} of {len(checked.names)} frames"
    say(f"{found}; saved in {out}: {files}")
    return 1 if checked.failed else 0


def pack(
    config: str,
    /,
    out: str,
    splits: Sequence[Literal["train", "val", "test", "predict"]] = ("train", "val", "test"),
    images: Literal["own", "png"] = "own",
    shard_mb: int = 64,
    others: Sequence[str] = (),
) -> None:
    """Write the frames of a data set as litdata shards, for --config shards.

    A shard set is a folder, or a folder in a bucket of an object store, with all that a training needs: images as they
    are, or as PNG; labels as train ids; classes; an index for class-uniform sampling; checksums. Nothing that is there
    is touched. A call that was interrupted is continued by the same one.

    Examples:
      gscnn data pack cityscapes --data.root CITYSCAPES --out shards
      gscnn data pack my/own.yaml --out s3://bucket/shards
      gscnn data pack folder --data.root PATH --splits [train,val] --images png --out shards

    Args:
        config: config of gscnn-fit that names the data, or the name of a shipped one.
        out: folder that is empty or not there, or s3://BUCKET/FOLDER, written with the keys and the endpoint of the
            AWS tools' variables (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL ...).
        splits: what to pack; splits that are the same frames are stored once.
        images: own, the bytes of PNG and JPEG files as they are, and PNG of what else there is; or png, all images
            decoded once, and written without loss.
        shard_mb: size of a shard in 10^6 bytes.
        others: those of gscnn-fit that are about data, such as --data.root PATH.
    """
    from pytorch_lightning.cli import instantiate_class

    from gscnn_lightning.data.shards.pack import pack as pack_data
    from gscnn_lightning.data.shards.places import place_of
    from gscnn_lightning.fit_settings import data_settings
    from gscnn_lightning.terminal import progress, say

    place = place_of(out, "--out")
    settings = data_settings(["--config", config, *others])
    data = instantiate_class((), settings)
    with progress(None, "packing") as move:
        packed = pack_data(
            data,
            place,
            splits,
            images,
            shard_mb,
            settings,
            lambda split, done, total: move(done, total, f"packing {split}"),
        )
    for split, about in packed.manifest["splits"].items():
        if "same_as" in about:
            say(f"{split}: the frames of {about['same_as']}")
        else:
            size = f"{about['frames']} frames in {about['shards']} shards, {about['bytes'] / 1e6:.0f} MB"
            say(f"{split}: {size}")
    if not packed.made:
        say(f"{place.address} was complete before: nothing was written")
    elif packed.found:
        say(f"{packed.found} shards were there from an interrupted call, and {packed.made} were added")
    say(f"saved in {place.address}; train on it by gscnn-fit --config shards --data.root {place.address}")
