"""A network that predicts pictures and videos, while others are read and written."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from gscnn_lightning.data.base import planes
from gscnn_lightning.drawing.maps import Picture
from gscnn_lightning.errors import DataError
from gscnn_lightning.inference import predict_logits
from gscnn_lightning.output import GSCNNOutput, Prediction, predictions
from gscnn_lightning.prediction.files import PredictionFiles
from gscnn_lightning.prediction.inputs import Input, read_frames, read_picture, video_properties
from gscnn_lightning.prediction.turns import Stopped, Turns
from gscnn_lightning.run_folder.score_files import write_json
from gscnn_lightning.terminal import progress, say

# Pictures with more pixels at their largest scale are predicted in windows: whole ones would take too much memory.
_LARGE = 2048 * 2048
_LARGE_WINDOW = (1024, 1024)

# Windows at once where a single one does not keep the device busy.
_WINDOW_BATCH = 4

# Threads that read, predict and write, at most.
_THREADS = 8


def predicted_sample(task: Any, data: Any, sample: Mapping[str, Any]) -> Prediction:  # noqa: ANN401
    """An image of a data set with its labels and all that a network says of it.

    Args:
        task: a `GSCNNTask` in evaluation mode, predicts with its own windows, scales and flips.
        data: the data module, whose rule makes the true boundary.
        sample: "image" (3, H, W) uint8, "mask" (H, W) and "name", as a data set has it.
    """
    image, labels = sample["image"][None], sample["mask"].numpy()
    found = predictions(task.predict_output(image.to(task.device)), {"name": [sample["name"]], "image": image})[0]
    return replace(found, labels=labels, boundary=data.boundaries(labels))


def spread_indices(length: int, number: int) -> list[int]:
    """Places of a number of images that are spread evenly over a set, fewer if it is smaller.

    Example:
        >>> spread_indices(101, 3), spread_indices(2, 4)
        ([0, 50, 100], [0, 1])
    """
    return np.unique(np.linspace(0, length - 1, number).round().astype(int)).tolist() if length else []


class Predictor:
    """A network and the files that it fills, several pictures at a time, each in a thread of its own.

    While some pictures pass the network, others are read, drawn and written. Files, messages and results are those of
    one picture after the other. Memory holds a fixed number of pictures, of which at most two pass the network.

    Args:
        task: a `GSCNNTask` in evaluation mode; its settings say how to predict.
        files: what is written.
    """

    def __init__(self, task: Any, files: PredictionFiles) -> None:  # noqa: ANN401
        self.task = task
        self.files = files
        self.shape_stream = bool(task.settings.shape_stream)

    def run(self, inputs: Sequence[Input]) -> list[str]:
        """Predict what is missing; returns one message for each input that failed."""
        pictures = [item for item in inputs if not item.is_video]
        missing = [item for item in pictures if not self.is_done(item.name)]
        failed: list[str] = []
        if len(missing) < len(pictures):
            say(f"{len(pictures) - len(missing)} of {len(pictures)} pictures were there already", stderr=True)
        with progress(len(missing), "pictures", disable=not missing) as advance:
            for message in self._all(((item.name, _reading(item)) for item in missing), len(missing)):
                failed += [] if message is None else [message]
                advance()
        for item in inputs:
            if item.is_video:
                self._predict_video(item, failed)
        return failed

    def is_done(self, name: str) -> bool:
        """Whether all files of a picture are there and may stay."""
        return not self.files.overwrite and all(path.exists() for path in self.files.paths(name, self.shape_stream))

    def _predict_video(self, item: Input, failed: list[str]) -> None:
        count, rate = video_properties(item.path)
        faults: list[str] = []
        wanted = [not self.is_done(_frame_name(item, index)) for index in range(count)]

        def frames() -> Iterator[tuple[str, Callable[[], Picture]]]:
            try:
                for index, frame in read_frames(item.path, wanted):
                    yield _frame_name(item, index), partial(_same, frame)
            except DataError as error:  # the frames before are predicted all the same
                faults.append(str(error))

        frame_faults: list[str] = []
        try:
            with progress(sum(wanted) or None, item.path.name) as advance:
                for message in self._all(frames()):
                    frame_faults += [] if message is None else [message]
                    advance()
        except DataError as error:
            faults.append(str(error))
        if frame_faults:
            faults.append(f"{item.path}: {len(frame_faults)} frames are missing, the first is {frame_faults[0]}")
        failed += ["; ".join(faults)] if faults else []
        for kind in ("overlay", "color"):
            if kind in self.files.formats:
                _join_frames(self.files.directory, item.name, kind, rate, self.files.overwrite)

    def _all(
        self, pictures: Iterable[tuple[str, Callable[[], Picture]]], number: int | None = None
    ) -> Iterator[str | None]:
        """Predict and write pictures, given by name and reading function; yields what kept each from it."""
        turns = Turns(self.task.device, _LARGE)
        if number == 1:
            turns.at_once = 1
        # A thread a core: more would push each other's maps out of the caches. Where an accelerator has the network,
        # others still read and write meanwhile. Memory holds one picture for each.
        threads = max(2, min(turns.cores, _THREADS))
        pool, pending = ThreadPoolExecutor(threads), deque[Future[str | None]]()
        try:
            for name, read in pictures:
                pending.append(pool.submit(self._one, turns, name, read))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # After an error or an interrupt nothing is begun anew; what is being written is completed.
            turns.stop()
            pool.shutdown(cancel_futures=True)
            turns.close()

    def _one(self, turns: Turns, name: str, read: Callable[[], Picture]) -> str | None:
        """From reading a picture to its files; returns what kept it from being read or predicted."""
        turns.check()
        try:
            picture = read()
        except DataError as error:
            return str(error)
        try:
            prediction = self._predict(turns, name, picture)
        except Stopped:
            raise
        except Exception as error:  # what networks and devices refuse they refuse each in its own way
            return f"{name}: the network cannot take its {picture.shape[0]}x{picture.shape[1]} pixels{_why(error)}"
        self.files.write(prediction, missing_only=not self.files.overwrite)
        return None

    @torch.inference_mode()
    def _predict(self, turns: Turns, name: str, picture: Picture) -> Prediction:
        settings = self.task.settings
        pixels = round(picture.shape[0] * picture.shape[1] * max(settings.scales) ** 2)
        window = _LARGE_WINDOW if settings.window is None and pixels > _LARGE else settings.window
        image, gates = planes(picture)[None], "gates" in self.files.formats

        def network(image: Tensor) -> GSCNNOutput:
            turns.check()
            output: GSCNNOutput = self.task(image)
            return output

        with turns.take(pixels):
            output = predict_logits(
                network,
                image.to(self.task.device),
                window,
                settings.overlap,
                settings.scales,
                settings.flip_average,
                gates=gates,
                window_batch=1 if self.task.device.type == "cpu" else _WINDOW_BATCH,
            )
            prediction = predictions(output, {"name": [name], "image": image}, with_gates=gates)[0]
        # The picture as it was read is in one piece, which drawing is faster with.
        return replace(prediction, photo=picture)


def _why(error: Exception) -> str:
    """Reason in brackets, and what helps where the memory did not suffice."""
    reason = " ".join(str(error).split()) or type(error).__name__
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in reason
    return f" ({reason})" + (": --window [512,512] takes less memory" if memory else "")


def _reading(item: Input) -> Callable[[], Picture]:
    return partial(read_picture, item.path)


def _same(picture: Picture) -> Picture:
    return picture


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


def check_same_run(note: Path, checkpoint: str, task: Any, overwrite: bool) -> None:  # noqa: ANN401
    """Refuse to complete predictions that were made with something else; note what these are made with.

    Args:
        note: file with the settings.
        checkpoint: that predicts.
        task: the task of the checkpoint.
        overwrite: everything is made again.

    Raises:
        DataError: what is there was made with another checkpoint or other settings.
    """
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
    write_json(note, made_with)


def _digest(path: Path) -> str:
    """What tells a file from others, wherever it lies."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
