"""A network that predicts pictures and videos, while others are read and written."""

import errno
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gscnn_lightning.data.base import planes
from gscnn_lightning.data.pictures import look, read_picture, told_once
from gscnn_lightning.drawing.maps import Picture
from gscnn_lightning.errors import DataError
from gscnn_lightning.inference import predict_logits
from gscnn_lightning.output import GSCNNOutput, Prediction, predictions
from gscnn_lightning.prediction.files import PredictionFiles
from gscnn_lightning.prediction.inputs import Input, read_frames, video_properties
from gscnn_lightning.prediction.turns import Stopped, Turns
from gscnn_lightning.terminal import progress, say

# Pictures with more pixels at their largest scale are predicted in windows: whole ones would take too much memory.
_LARGE = 2048 * 2048
_LARGE_WINDOW = (1024, 1024)

# Windows at once where a single one does not keep the device busy.
_WINDOW_BATCH = 4

# Scores of all pixels of a picture that memory may hold at once; larger ones pass the network in blocks.
_SCORE_BYTES = 2 << 30

# Pixels that a block sees at least beyond what it decides about.
_LEAST_MARGIN = 64

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
    one picture after the other. Memory holds a fixed number of pictures, of which at most two pass the network, and one
    at a time of those that are so large that the scores of all their pixels would take more than 2 GiB: these pass the
    network in overlapping blocks, and take about 16 bytes per pixel beside.

    Args:
        task: a `GSCNNTask` in evaluation mode; its settings say how to predict.
        files: what is written.

    Attributes:
        notes: what was converted or left out when pictures were read, one message each, after `run`.
    """

    def __init__(self, task: Any, files: PredictionFiles) -> None:  # noqa: ANN401
        self.task = task
        self.files = files
        self.shape_stream = bool(task.settings.shape_stream)
        self.notes: list[str] = []
        self._converted: dict[str, Sequence[str]] = {}
        self._most_pixels = max(_LARGE, _SCORE_BYTES // (4 * len(task.class_names)))
        self._large_one = Lock()

    def run(self, inputs: Sequence[Input]) -> list[str]:
        """Predict what is missing; returns one message for each input that failed."""
        pictures = [item for item in inputs if not item.is_video]
        missing = [item for item in pictures if not self.is_done(item.name)]
        failed: list[str] = []
        if len(missing) < len(pictures):
            say(f"{len(pictures) - len(missing)} of {len(pictures)} pictures were there already", stderr=True)
        with progress(len(missing), "pictures", disable=not missing) as advance:
            for message in self._all(((item.name, item.path) for item in missing), len(missing)):
                failed += [] if message is None else [message]
                advance()
        read = ((item.path, self._converted[item.name]) for item in missing if item.name in self._converted)
        self.notes = told_once(read)
        for item in inputs:
            if item.is_video:
                self._predict_video(item, failed)
        return failed

    def is_done(self, name: str) -> bool:
        """Whether all files of a picture are there and may stay."""
        return not self.files.overwrite and self.files.are_there(name, self.shape_stream)

    def _predict_video(self, item: Input, failed: list[str]) -> None:
        count, rate = video_properties(item.path)
        faults: list[str] = []
        wanted = [not self.is_done(_frame_name(item, index)) for index in range(count)]
        made = False

        def frames() -> Iterator[tuple[str, Picture]]:
            try:
                for index, frame in read_frames(item.path, wanted):
                    yield _frame_name(item, index), frame
            except DataError as error:  # the frames before are predicted all the same
                faults.append(str(error))

        frame_faults: list[str] = []
        try:
            with progress(sum(wanted) or None, item.path.name) as advance:
                for message in self._all(frames()):
                    frame_faults += [] if message is None else [message]
                    made = True
                    advance()
        except DataError as error:
            faults.append(str(error))
        if frame_faults:
            faults.append(f"{item.path}: {len(frame_faults)} frames are missing, the first is {frame_faults[0]}")
        failed += ["; ".join(faults)] if faults else []
        for kind in ("overlay", "color"):
            if kind in self.files.formats:
                _join_frames(self.files.directory, item.name, kind, rate, self.files.overwrite or made)

    def _all(self, pictures: Iterable[tuple[str, Path | Picture]], number: int | None = None) -> Iterator[str | None]:
        """Predict and write pictures, given by name and file or pixels; yields what kept each from being predicted."""
        turns = Turns(self.task.device, _LARGE)
        if number == 1:
            turns.at_once = 1
        # A thread a core: more would push each other's maps out of the caches. Where an accelerator has the network,
        # others still read and write meanwhile. Memory holds one picture for each.
        threads = max(2, min(turns.cores, _THREADS))
        pool, pending = ThreadPoolExecutor(threads), deque[Future[str | None]]()
        try:
            for name, source in pictures:
                pending.append(pool.submit(self._one, turns, name, source))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # After an error or an interrupt nothing is begun anew; what is being written is completed.
            turns.stop()
            pool.shutdown(cancel_futures=True)
            turns.close()

    def _one(self, turns: Turns, name: str, source: Path | Picture) -> str | None:
        """From reading a picture to its files; returns what kept it from being read or predicted."""
        turns.check()
        try:
            return self._read_and_write(turns, name, source)
        except (MemoryError, RuntimeError, cv2.error) as error:
            if not _is_out_of_memory(error):
                raise
            called = source if isinstance(source, Path) else name
            return f"{called}: it needs more memory than there is: cut it into tiles"

    def _read_and_write(self, turns: Turns, name: str, source: Path | Picture) -> str | None:
        if not isinstance(source, Path):
            return self._write(turns, name, name, source)
        try:
            header = look(source)
        except DataError as error:
            return str(error)
        pixels = self._scaled_pixels(header.size)
        with self._large_one if pixels > self._most_pixels else nullcontext():
            turns.check()
            try:
                picture = read_picture(source)
            except DataError as error:
                return str(error)
            self._converted[name] = header.converted
            return self._write(turns, name, str(source), picture)

    def _write(self, turns: Turns, name: str, called: str, picture: Picture) -> str | None:
        try:
            prediction = self._predict(turns, name, picture)
        except Stopped:
            raise
        except Exception as error:  # what networks and devices refuse they refuse each in its own way
            return cannot_take(name, picture.shape, error)
        try:
            self.files.write(prediction, missing_only=not self.files.overwrite)
        except DataError as error:
            # Whatever else keeps a file from being written, as a full disk, does so with the next one, too.
            if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                raise
            return f"{called}: its name is so long that those of its predictions are too long: give it a shorter one"
        return None

    @torch.inference_mode()
    def _predict(self, turns: Turns, name: str, picture: Picture) -> Prediction:
        pixels = self._scaled_pixels(picture.shape[:2])
        with turns.take(pixels):
            if pixels <= self._most_pixels:
                prediction = self._pass(turns, name, picture)
            else:
                prediction = self._in_blocks(turns, name, picture)
        # The picture as it was read is in one piece, which drawing is faster with.
        return replace(prediction, photo=picture)

    def _scaled_pixels(self, size: tuple[int, ...]) -> int:
        """Pixels of a picture at the largest scale that it is predicted at."""
        return round(math.prod(size) * max(self.task.settings.scales) ** 2)

    def _pass(self, turns: Turns, name: str, picture: Picture) -> Prediction:
        """What the network says of a picture, or a block of one."""
        settings, gates = self.task.settings, "gates" in self.files.formats

        def network(image: Tensor) -> GSCNNOutput:
            turns.check()
            output: GSCNNOutput = self.task(image)
            return output

        image = planes(picture)[None]
        output = predict_logits(
            network,
            image.to(self.task.device),
            self._window(self._scaled_pixels(picture.shape[:2])),
            settings.overlap,
            settings.scales,
            settings.flip_average,
            gates=gates,
            window_batch=1 if self.task.device.type == "cpu" else _WINDOW_BATCH,
        )
        return predictions(output, {"name": [name], "image": image}, gates, self.files.trust)[0]

    def _window(self, pixels: int) -> tuple[int, int] | None:
        window: tuple[int, int] | None = self.task.settings.window
        return _LARGE_WINDOW if window is None and pixels > _LARGE else window

    def _in_blocks(self, turns: Turns, name: str, picture: Picture) -> Prediction:
        """What the network says of a picture whose scores do not fit into memory at once.

        Blocks have as much in common as half of what windows have, on either side, and each says what is in its middle.
        """
        settings = self.task.settings
        window = self._window(self._most_pixels + 1)
        assert window is not None
        largest = max(settings.scales)
        margin = max(_LEAST_MARGIN, math.ceil(settings.overlap * max(window) / 2 / largest))
        side = max(int(math.sqrt(self._most_pixels) / largest), 4 * margin)
        others = (*(["boundary_prob"] if self.shape_stream else []), *self.files.trust)
        whole: list[npt.NDArray[Any]] = []
        for rows, columns in itertools.product(*(_blocks(length, side, margin) for length in picture.shape[:2])):
            block = self._pass(turns, name, np.ascontiguousarray(picture[rows.seen, columns.seen]))
            size = block.preds.shape
            maps = [block.preds, *(getattr(block, kind) for kind in others)]
            maps += [cv2.resize(gate, size[::-1]) for gate in block.gates]
            whole = whole or [np.empty(picture.shape[:2], part.dtype) for part in maps]
            for part, all_of_it in zip(maps, whole, strict=True):
                all_of_it[rows.middle, columns.middle] = part[rows.own, columns.own]
        preds, *maps = whole
        kept = dict(zip(others, maps, strict=False))
        return Prediction(name, picture, preds, gates=tuple(maps[len(others) :]), **kept)


class _Block(NamedTuple):
    """A part of an axis: with its margins, without them, and the latter as a part of the former."""

    seen: slice
    middle: slice
    own: slice


def _blocks(length: int, side: int, margin: int) -> list[_Block]:
    """Parts of an axis, no longer than a side, whose middles make up all of it.

    Example:
        >>> [(block.seen, block.middle) for block in _blocks(10, 7, 1)]
        [(slice(0, 6, None), slice(0, 5, None)), (slice(4, 10, None), slice(5, 10, None))]
    """
    number = 1 if length <= side else math.ceil(length / (side - 2 * margin))
    edges = [round(index * length / number) for index in range(number + 1)]
    blocks = []
    for start, stop in itertools.pairwise(edges):
        first, last = max(0, start - margin), min(length, stop + margin)
        blocks.append(_Block(slice(first, last), slice(start, stop), slice(start - first, stop - first)))
    return blocks


def cannot_take(name: str, size: Sequence[int], error: Exception) -> str:
    """What is said of a picture that a network fails at, and what helps where the memory did not suffice.

    Args:
        name: of the picture.
        size: height and width in pixels, and whatever else.
        error: what the network or the device raised.
    """
    reason = " ".join(str(error).split()) or type(error).__name__
    remedy = ": --window [512,512] takes less memory" if _is_out_of_memory(error) else ""
    return f"{name}: the network cannot take its {size[0]}x{size[1]} pixels ({reason}){remedy}"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an operation has failed for want of memory, on whatever device."""
    told = ("allocate memory", "not enough memory", "Insufficient memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in told)


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
