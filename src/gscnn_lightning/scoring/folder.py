"""A folder of label maps, measured frame by frame: every file is read, decoded, scored and forgotten."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gscnn_lightning.data.base import begin_work
from gscnn_lightning.data.pictures import read_map
from gscnn_lightning.errors import DataError
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.scores import ImageScores, Scores
from gscnn_lightning.scoring.codings import Coding, Codings, Finder, check_coding
from gscnn_lightning.scoring.names import Matched, listed, match_boundary_maps, match_files
from gscnn_lightning.scoring.prediction_files import is_array, read_label_file
from gscnn_lightning.scoring.probabilities import ProbabilityFolder, probabilities
from gscnn_lightning.scoring.truth import Truth
from gscnn_lightning.terminal import progress

_LOOKED_AT = 8
_TINY = torch.finfo(torch.float32).tiny
State = dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class FrameScores:
    """What one frame gives.

    Attributes:
        index: its place among the frames.
        state: sums of the metrics by name; None if it was not measured.
        values: scores of the frame by itself.
        problem: why it could not be measured, "" if it could.
        resized: whether the prediction was.
        note: what is to be said of its probabilities, "" if nothing.
        read_seconds: time that reading and decoding its files took.
        seconds: time that everything took.
    """

    index: int
    state: State | None
    values: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    resized: bool = False
    note: str = ""
    read_seconds: float = 0.0
    seconds: float = 0.0


@dataclass
class FolderScores:
    """Scores of a folder.

    Attributes:
        scores: of all frames that could be measured; None if they are not to be had.
        frames: number of frames of the data.
        measured: number of frames measured.
        problems: why others could not be, one message each.
        notes: what was converted, left out or found out, one message each.
        coding: what the values of the files are.
        read_seconds: time that reading and decoding files took, of all processes.
        seconds: time that all frames took, of all processes.
    """

    scores: Scores | None
    frames: int
    measured: int
    problems: list[str]
    notes: list[str]
    coding: Coding
    read_seconds: float
    seconds: float


class PredictedFolder:
    """Label maps of a folder, beside the labels of the same frames.

    Args:
        folder: where the label maps are, through all folders in it.
        truth: the frames with their labels.
        coding: what the values are, found out by default.
        resize: bring predictions of other sizes to that of the labels, by nearest neighbour.
        boundary_maps: folder of boundary maps, 8- or 16-bit grey pictures of the probability.
        probability_maps: folder with the probabilities of the classes, see `ProbabilityFolder`; by default those that
            the predictions are themselves.
        without: folders in it to leave out.

    Attributes:
        coding: what the values are.
        notes: what was found out or left out, one message each.
        problems: frames without a file, as one message per kind of file.

    Raises:
        DataError: a folder cannot be used, no file in it is of a frame, or it cannot be told which is, or what the
            values mean.
        SettingError: there is no such coding for these classes.
    """

    def __init__(
        self,
        folder: Path,
        truth: Truth,
        coding: Coding | None = None,
        resize: bool = False,
        boundary_maps: Path | None = None,
        probability_maps: Path | None = None,
        without: Sequence[Path] = (),
    ) -> None:
        self.folder, self.truth, self.resize = folder, truth, resize
        self.codings = Codings(truth)
        check_coding(coding, self.codings)
        self.notes: list[str] = []
        self.problems: list[str] = []
        self.files = self._matched(match_files(folder, truth, coding, without), folder, "prediction")
        self.boundary_files: dict[int, Path] | None = None
        if boundary_maps is not None:
            matched = match_boundary_maps(boundary_maps, truth)
            self.boundary_files = self._matched(matched, boundary_maps, "boundary map")
        self.probability_files = None if probability_maps is None else ProbabilityFolder(probability_maps, truth)
        self.is_given = coding is not None
        self._only_scores = False
        self.coding = coding or self._found_coding()

    def measurable(self) -> list[int]:
        """Indices of the frames that have all files that are asked for."""
        return [i for i in self.files if self.boundary_files is None or i in self.boundary_files]

    def prediction(
        self, index: int, size: tuple[int, int] | None = None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any] | None]:
        """Predicted train ids (H, W) of a frame, 255 where no class is; scores (K, H, W) if it is made of such.

        Args:
            index: of the frame.
            size: height and width of its labels.

        Raises:
            DataError: there is no file, or it cannot be read, or has values that mean nothing.
        """
        path = self.files[index]
        file = read_label_file(path, len(self.truth.classes), size)
        if self._only_scores and not file.is_color and not file.from_scores:
            raise DataError(
                f"{path} is a label map among scores of the classes, which do not tell what its values are: say it by "
                "--coding"
            )
        coding = self.coding if self.is_given or not file.is_color else "colors"
        return self.codings.decode(file, coding, path), file.scores

    def boundary_prob(self, index: int) -> npt.NDArray[np.float32] | None:
        """Boundary probability (H, W) in [0, 1] of a frame; None if no boundary maps were given.

        Raises:
            DataError: the file cannot be read, or is no grey picture.
        """
        if self.boundary_files is None:
            return None
        path = self.boundary_files[index]
        pixels = read_map(path)
        if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"{path} has shape {pixels.shape} and type {pixels.dtype}: boundary maps are 8- or 16-bit pictures "
                "with one channel, the probability times the largest value"
            )
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)

    def _matched(self, matched: Matched, folder: Path, kind: str) -> dict[int, Path]:
        """Files by frame; says what is left out."""
        names = self.truth.names()
        if not matched.files:
            lossy = f"; {matched.lossy[0]} is in a format that changes pixels" if matched.lossy else ""
            found = f"{listed(matched.surplus, 2)} are of other frames" if matched.surplus else "it has no such files"
            raise DataError(
                f"no {kind} in {folder} is of one of the {len(names)} frames ({listed(names, 2)}): {found}{lossy}. "
                "Files are named as the frames, their images or their labels"
            )
        if matched.left_out:
            endings = ", ".join(f"{count} *{ending}" for ending, count in sorted(matched.left_out.items()))
            self.notes.append(f"left out in {folder}: {endings}")
        if matched.lossy:
            self.notes.append(
                f"left out in {folder}: {len(matched.lossy)} pictures in formats that change pixels, the first is "
                f"{matched.lossy[0]}"
            )
        if matched.surplus:
            self.notes.append(
                f"surplus in {folder}: {len(matched.surplus)} files are of no frame: {listed(matched.surplus)}"
            )
        if matched.missing:
            self.problems.append(
                f"{len(matched.missing)} of {len(names)} frames have no {kind} in {folder}: "
                f"{listed(names[index] for index in matched.missing)}"
            )
        return matched.files

    def _found_coding(self) -> Coding:
        """What the values of the files are: of some files, and of more where these do not tell."""
        finder = Finder(self.codings)
        order = list(self.files)
        first = order[:: math.ceil(len(order) / _LOOKED_AT)]
        for count, index in enumerate(dict.fromkeys([*first, *order]), start=1):
            try:
                path = self.files[index]
                size = self._size(index) if is_array(path) else None  # tells axes of scores apart
                finder.add(read_label_file(path, len(self.truth.classes), size))
            except DataError:
                continue  # named when it is measured
            if count >= len(first) and (coding := finder.coding()) is not None:
                self._only_scores = finder.scores == finder.files
                if not self._only_scores:
                    self.notes.append(
                        f"coding of {self.folder} found out from {finder.files} of {len(order)} files: {coding}"
                        + (f" (values {finder.values()})" if coding != "colors" else "")
                    )
                return coding
        if not finder.files:
            return "trainids"  # nothing can be read, as will be said of each file
        raise finder.refuse(self.folder)

    def _size(self, index: int) -> tuple[int, int] | None:
        labels = self.truth.source.load_labels(index)
        return None if labels is None else (labels.shape[0], labels.shape[1])


class Frames(Dataset[FrameScores]):
    """The frames of a folder, measured when asked for, in this process or another.

    Args:
        predicted: the folder.
        evaluation: the metrics.
        indices: which frames.
        stop_at_problems: once a frame cannot be measured, read the others without measuring them.
    """

    def __init__(
        self, predicted: PredictedFolder, evaluation: Evaluation, indices: Sequence[int], stop_at_problems: bool
    ) -> None:
        self.predicted, self.evaluation, self.indices = predicted, evaluation, indices
        self.stops = stop_at_problems
        self.stopped = torch.zeros(1, dtype=torch.uint8).share_memory_()  # seen by all processes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> FrameScores:
        """What a frame gives; never an exception for a file that cannot be used."""
        index, start = self.indices[place], time.perf_counter()
        try:
            return self._measured(index, start)
        except DataError as error:
            if self.stops:
                self.stopped[0] = 1
            return FrameScores(index, None, problem=f"{self.predicted.truth.source.name(index)}: {error}")

    def _measured(self, index: int, start: float) -> FrameScores:
        source = self.predicted.truth.source
        labels = source.load_labels(index)
        if labels is None:
            raise DataError("the frame has no labels to measure with: give data with labels")
        pred, stored = self.predicted.prediction(index, labels.shape)
        prob = self.predicted.boundary_prob(index)
        resized = pred.shape != labels.shape or (prob is not None and prob.shape != labels.shape)
        pred = self._fitting(pred, labels, self.predicted.files[index], cv2.INTER_NEAREST_EXACT)
        trusted, note = None, ""
        if self.predicted.probability_files is not None:
            trusted = self.predicted.probability_files.of(index, labels.shape)
        elif stored is not None and stored.shape[1:] == labels.shape:
            trusted, note = probabilities(stored)
        if prob is not None and self.predicted.boundary_files is not None:
            prob = self._fitting(prob, labels, self.predicted.boundary_files[index], cv2.INTER_LINEAR)
        batch: dict[str, Any] = {"mask": torch.from_numpy(np.array(labels))[None], "name": [source.name(index)]}
        if (instances := source.load_instances(index)) is not None:
            batch["instances"] = torch.from_numpy(instances)[None]
        read = time.perf_counter() - start
        if self.stopped[0]:
            return FrameScores(index, None, resized=resized)
        if prob is not None:
            batch["boundary"] = self.predicted.truth.boundaries(batch["mask"]).unsqueeze(1)
        self.evaluation.reset()
        boundary = None if prob is None else torch.from_numpy(prob)[None, None]
        # Of these, the softmax are the probabilities again.
        logits = None if trusted is None else torch.from_numpy(trusted).clamp(min=_TINY).log()[None]
        self.evaluation.update(torch.from_numpy(pred)[None], boundary, batch, logits)
        return FrameScores(
            index,
            {name: state.numpy() for name, state in self.evaluation.state().items()},
            self.evaluation.images[0][1],
            resized=resized,
            note=note,
            read_seconds=read,
            seconds=time.perf_counter() - start,
        )

    def _fitting(self, found: Any, labels: npt.NDArray[np.uint8], path: Path, how: int) -> Any:  # noqa: ANN401
        """A map at the size of the labels."""
        if found.shape == labels.shape:
            return found
        height, width = labels.shape
        if not self.predicted.resize:
            raise DataError(
                f"{path} is {found.shape[1]}x{found.shape[0]} pixels, its labels {width}x{height}: predict at that "
                "size, or give --resize true"
            )
        return cv2.resize(found, (width, height), interpolation=how)


def frame_scores(
    predicted: PredictedFolder, evaluation: Evaluation, workers: int = 1, stop_at_problems: bool = False
) -> Iterator[FrameScores]:
    """Measure the frames of a folder one by one, in their order.

    Args:
        predicted: the folder.
        evaluation: the metrics.
        workers: number of processes; with 1, everything happens in this one.
        stop_at_problems: once a frame cannot be measured, only look whether the others can be.

    Raises:
        DataError: a process was ended by the system.
    """
    frames = Frames(predicted, evaluation, predicted.measurable(), stop_at_problems)
    frames.stopped[0] = stop_at_problems and bool(predicted.problems)
    loader: DataLoader[FrameScores] = DataLoader(
        frames,
        batch_size=None,
        num_workers=workers if workers > 1 else 0,
        collate_fn=_as_it_is,
        worker_init_fn=begin_work,
    )
    try:
        with progress(len(frames), "frames") as advance:
            for frame in loader:
                advance()
                yield frame
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            "a process that measures frames was ended by the system, mostly for lack of memory: give fewer --workers"
        ) from error


def score_folder(
    predicted: PredictedFolder,
    tolerances: Sequence[float],
    workers: int = 1,
    allow_missing: bool = False,
) -> FolderScores:
    """All scores of a folder of label maps, those of ``gscnn-fit test`` on the same predictions to the last bit.

    Only sums are kept, so that memory does not depend on the number of frames, but for two numbers per frame and score.

    Args:
        predicted: the folder.
        tolerances: of the boundary F-score, in pixels, or fractions of the diagonal below 1.
        workers: number of processes; the scores do not depend on it.
        allow_missing: make scores of the frames that can be measured, if others cannot be.

    Raises:
        DataError: a process was ended by the system.
    """
    truth = predicted.truth
    evaluation = Evaluation(truth.classes.names, truth.ignore_index, tolerances, everything=True)
    problems, notes = list(predicted.problems), list(predicted.notes)
    total: State = {}
    images: list[ImageScores] = []
    read = seconds = 0.0
    resized = 0
    first_resized = ""
    said: dict[str, int] = {}
    stop = not allow_missing
    for frame in frame_scores(predicted, evaluation, workers, stop):
        if frame.problem:
            problems.append(frame.problem)
        name = truth.source.name(frame.index)
        resized += frame.resized
        if frame.note:
            said[frame.note] = said.get(frame.note, 0) + 1
        first_resized = first_resized or (name if frame.resized else "")
        if frame.state is None:
            continue
        for key, state in frame.state.items():
            total[key] = total[key] + state if key in total else state
        images.append(ImageScores(frame.index, name, dict(frame.values)))
        read, seconds = read + frame.read_seconds, seconds + frame.seconds
    if resized:
        notes.append(f"resized: {resized} predictions, the first is {first_resized}")
    notes += [f"of {count} frames, {note}" for note, count in said.items()]
    if total and (unpredicted := int(total["scores.unpredicted"].sum())):
        share = unpredicted / (unpredicted + int(total["scores.confmat"].sum()))
        notes.append(f"no class is predicted for {100 * share:.2f} % of the labelled pixels, which are missed")
    scores = None
    if total and (allow_missing or not problems):
        evaluation.reset()
        scores = evaluation.compute_from({key: torch.from_numpy(value) for key, value in total.items()})
        scores = replace(scores, images=images)
    return FolderScores(scores, len(truth.source), len(images), problems, notes, predicted.coding, read, seconds)


def folder_states(predicted: PredictedFolder, evaluation: Evaluation, workers: int = 1) -> list[dict[str, Tensor]]:
    """Sums of the metrics of every single frame of a folder, in the order of the data.

    Args:
        predicted: the folder.
        evaluation: the metrics.
        workers: number of processes.

    Raises:
        DataError: a frame cannot be measured; the message names the first, and how many there are.
    """
    problems = list(predicted.problems)
    states: list[dict[str, Tensor]] = []
    if not problems:
        for frame in frame_scores(predicted, evaluation, workers, stop_at_problems=True):
            if frame.problem:
                problems.append(frame.problem)
            elif frame.state is not None:
                states.append({key: torch.from_numpy(value) for key, value in frame.state.items()})
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{predicted.folder} cannot be compared, which takes all frames: {problems[0]}{more}")
    return states


def _as_it_is(frame: Any) -> Any:  # noqa: ANN401
    return frame
