"""``gscnn predict``: pictures, folders and videos to label maps, overlays and boundary maps."""

import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from tqdm import tqdm  # type: ignore[import-untyped]

from gscnn_lightning.checkpoint import load_task
from gscnn_lightning.data.base import planes
from gscnn_lightning.drawing import Picture
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.inference import check_settings, predict_logits
from gscnn_lightning.inputs import Input, find_inputs, read_frames, read_picture, video_properties
from gscnn_lightning.prediction_files import DEFAULT_FORMATS, Format, Prediction, PredictionFiles
from gscnn_lightning.submission import CITIES, check_submission, submission_inputs
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.tool_parser import HelpFormatter, underscored

DESCRIPTION = """Predict images, folders, patterns and videos with a checkpoint of gscnn-fit.

Every image gets NAME_labels.png (train ids), NAME_color.png, NAME_overlay.png and, from a network with shape stream,
NAME_boundary.png. Pictures that cannot be read are named at the end, and the exit code is 1. What exists is kept: a
second call with the same settings makes what is missing.

examples:
  gscnn predict best.ckpt street.jpg --out predictions
  gscnn predict best.ckpt photos/ 'more/**/*.png' drive.mp4 --out predictions --formats [overlay,boundary,gates]
  gscnn predict best.ckpt photos/ --out finer --scales [0.5,1,2] --flip true --window [1024,1024]
  gscnn predict best.ckpt CITYSCAPES --cityscapes-submission test --out submission
"""

# Pictures with more pixels at their largest scale are predicted in windows: whole ones would take too much memory.
_LARGE = 2048 * 2048
_LARGE_WINDOW = (1024, 1024)


def predict(
    checkpoint: str,
    inputs: Sequence[str],
    out: Path = Path("predictions"),
    formats: Sequence[Format] = DEFAULT_FORMATS,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    cityscapes_submission: str | None = None,
) -> int:
    """Predict pictures and videos.

    Args:
        checkpoint: best.ckpt or last.ckpt of a run.
        inputs: images, folders, patterns and videos; for a submission the folder of Cityscapes.
        out: folder to write to.
        formats: what to write: labels (train ids), ids (official Cityscapes ids), color, overlay, boundary, gates.
        window: height and width of sliding windows; by default whole images, and 1024x1024 for pictures of more than
            4 megapixels at their largest scale.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images as factors; probabilities are averaged.
        flip: average with the mirrored images, too.
        overwrite: make everything again.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is.
        cityscapes_submission: train, val or test: official ids of all frames of this split under the names that the
            evaluation server and script look for, and nothing else; says what is missing.

    Returns:
        Exit code: 0 if everything was predicted, 1 if something could not be.

    Raises:
        GSCNNError: a setting or an input cannot be used; the message says which.
    """
    check_settings(window, overlap, scales)
    if cityscapes_submission is not None:
        if len(inputs) > 1 or cityscapes_submission not in CITIES:
            raise SettingError(
                f"a submission is made of one split, {', '.join(CITIES)}, of one folder of Cityscapes: got split "
                f"{cityscapes_submission!r} and {len(inputs)} inputs"
            )
        formats = ("ids",)
        found, others = submission_inputs(inputs, cityscapes_submission), list[Path]()
    elif not inputs:
        raise SettingError("nothing to predict: give images, folders, patterns or videos after the checkpoint")
    else:
        found, others = find_inputs(inputs)
    task = load_task(checkpoint, device, window=window, overlap=overlap, scales=scales, flip_average=flip)
    files = PredictionFiles(out, task.class_names, task.class_colors, formats, overwrite)
    # A submission holds nothing but its pictures.
    note = out / "predictions.json" if cityscapes_submission is None else out.with_name(f"{out.name}.json")
    _check_same_run(note, checkpoint, task, overwrite)
    failed = _Predictor(task, files).run(found)
    return _report(found, failed, others, out, cityscapes_submission)


class _Predictor:
    """A network and the files that it fills; one picture is being read and two written while one is predicted."""

    def __init__(self, task: GSCNNTask, files: PredictionFiles) -> None:
        self.task = task
        self.files = files
        self.shape_stream = bool(task.settings.shape_stream)

    def run(self, inputs: Sequence[Input]) -> list[str]:
        """Predict what is missing; returns one message for each input that failed."""
        pictures = [item for item in inputs if not item.is_video]
        missing = [item for item in pictures if not self.is_done(item.name)]
        failed: list[str] = []
        if len(missing) < len(pictures):
            sys.stderr.write(f"{len(pictures) - len(missing)} of {len(pictures)} pictures were there already\n")
        with tqdm(total=len(missing), unit="img", disable=not missing) as bar:
            self._write_all(((item.name, picture) for item, picture in _readable(missing, failed, bar.update)), bar)
        for item in inputs:
            if item.is_video:
                self._predict_video(item, failed)
        return failed

    def is_done(self, name: str) -> bool:
        """Whether all files of a picture are there and may stay."""
        return not self.files.overwrite and all(path.exists() for path in self.files.paths(name, self.shape_stream))

    def _predict_video(self, item: Input, failed: list[str]) -> None:
        count, rate = video_properties(item.path)
        wanted = [not self.is_done(_frame_name(item, index)) for index in range(count)]
        try:
            with tqdm(total=sum(wanted) or None, unit="frame", desc=item.path.name) as bar:
                frames = read_frames(item.path, wanted)
                self._write_all(((_frame_name(item, index), frame) for index, frame in frames), bar)
        except DataError as error:
            failed.append(str(error))
        for kind in ("overlay", "color"):
            if kind in self.files.formats:
                _join_frames(self.files.directory, item.name, kind, rate, self.files.overwrite)

    def _write_all(self, pictures: Iterable[tuple[str, Picture]], bar: tqdm) -> None:
        with ThreadPoolExecutor(1) as pool:
            pending: deque[Future[None]] = deque()
            for name, picture in pictures:
                prediction = self._predict(name, picture)
                pending.append(pool.submit(self.files.write, prediction, not self.files.overwrite))
                if len(pending) > 2:
                    pending.popleft().result()
                bar.update()
            for future in pending:
                future.result()

    def _predict(self, name: str, picture: Picture) -> Prediction:
        settings = self.task.settings
        window, pixels = settings.window, picture.shape[0] * picture.shape[1]
        if window is None and pixels * max(settings.scales) ** 2 > _LARGE:
            window = _LARGE_WINDOW
        image = planes(picture)[None].to(self.task.device)
        output = predict_logits(self.task, image, window, settings.overlap, settings.scales, settings.flip_average)
        prob = output.boundary_logits
        return Prediction(
            name,
            picture,
            output.seg_logits[0].argmax(0).to(torch.uint8).cpu().numpy(),
            None if prob is None else prob[0, 0].float().sigmoid().cpu().numpy(),
            tuple(gate[0, 0].float().cpu().numpy() for gate in output.gates) if "gates" in self.files.formats else (),
        )


def _readable(items: Sequence[Input], failed: list[str], skip: Callable[[], object]) -> Iterator[tuple[Input, Picture]]:
    """Pictures in order, the next one being read meanwhile; messages of those that cannot be read go to `failed`."""
    with ThreadPoolExecutor(1) as pool:
        following = [pool.submit(read_picture, item.path) for item in items[:1]]
        for index, item in enumerate(items):
            future = following.pop()
            following += [pool.submit(read_picture, other.path) for other in items[index + 1 : index + 2]]
            try:
                picture = future.result()
            except DataError as error:
                failed.append(str(error))
                skip()
                continue
            yield item, picture


def _frame_name(item: Input, index: int) -> str:
    return f"{item.name}/{index:06}"


def _join_frames(directory: Path, name: str, kind: str, rate: float, overwrite: bool) -> None:
    """The frames of a video as a video again, beside the folder of the frames."""
    path = directory / f"{name}_{kind}.mp4"
    frames = sorted((directory / name).glob(f"*_{kind}.png"))
    if not frames or (path.exists() and not overwrite):
        return
    first = cv2.imread(str(frames[0]))
    assert first is not None
    part = path.with_name(f".{path.name}.part.mp4")
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*"mp4v"), rate, (first.shape[1], first.shape[0]))
    for frame in frames:
        picture = cv2.imread(str(frame))
        assert picture is not None
        writer.write(picture)
    writer.release()
    if not part.exists():
        raise DataError(f"cannot write {path}: this build of OpenCV has no MPEG-4 encoder; the frames are in {name}/")
    part.replace(path)


def _check_same_run(note: Path, checkpoint: str, task: GSCNNTask, overwrite: bool) -> None:
    """Refuse to complete predictions that were made with something else; note what these are made with."""
    h = task.settings
    made_with: dict[str, Any] = {
        "checkpoint": _digest(Path(checkpoint)),
        "window": None if h.window is None else list(h.window),
        "overlap": h.overlap,
        "scales": list(h.scales),
        "flip": h.flip_average,
    }
    try:
        before = json.loads(note.read_text()) if note.exists() else made_with
    except (OSError, ValueError) as error:
        raise DataError(f"{note} cannot be read ({error}): choose another --out, or remove it") from error
    differing = [key for key in made_with if before.get(key) != made_with[key]]
    if differing and not overwrite:
        key = differing[0]
        raise DataError(
            f"{note} says that what is there was made with {key} {before.get(key)}, and this would be made with "
            f"{made_with[key]}: choose another --out, or make everything again with --overwrite true"
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(made_with, indent=2) + "\n")


def _digest(path: Path) -> str:
    """What tells a file from others, wherever it lies."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _report(inputs: Sequence[Input], failed: list[str], others: list[Path], out: Path, split: str | None) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for path in others:
        console.print(f"not predicted: {path}: neither image nor video by its name", markup=False)
    for message in failed:
        console.print(f"not predicted: {message}", markup=False)
    complaints = [] if split is None else check_submission(out, split, inputs)
    for complaint in complaints:
        console.print(f"submission: {complaint}", markup=False)
    done = len(inputs) - len(failed)
    console.print(f"{done} of {len(inputs)} inputs predicted into {out}", markup=False)
    return 1 if failed or complaints else 0


def main(args: list[str]) -> None:
    """Run ``gscnn predict``.

    Args:
        args: arguments after ``gscnn predict``.
    """
    parser = ArgumentParser(prog="gscnn predict", description=DESCRIPTION, formatter_class=HelpFormatter)
    parser.add_argument("checkpoint", help="best.ckpt or last.ckpt of a run")
    parser.add_argument("inputs", nargs="*", help="images, folders, patterns, videos; for a submission Cityscapes")
    parser.add_function_arguments(predict, as_group=False, skip={"checkpoint", "inputs"})
    code = predict(**parser.parse_args(underscored(args)).as_dict())
    if code:
        sys.exit(code)
