"""What ``gscnn predict`` is given: images, folders, patterns and videos, each picture under a name of its own."""

import glob
import os
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gscnn_lightning.data.files import IMAGE_SUFFIXES, user_path
from gscnn_lightning.data.pictures import MOST_PIXELS
from gscnn_lightning.drawing.maps import Picture
from gscnn_lightning.errors import DataError

SUFFIXES = IMAGE_SUFFIXES | {".pgm", ".jp2"}
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


@dataclass(frozen=True)
class Input:
    """A picture or a video to predict.

    Attributes:
        path: the file.
        name: unique among all inputs, relative, without suffix; may contain "/".
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the file is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


class Found(NamedTuple):
    """What `find_inputs` found.

    Attributes:
        inputs: pictures and videos.
        others: files in folders that are neither by their suffix.
        made: files that are left out, as earlier calls have made them.
    """

    inputs: list[Input]
    others: list[Path]
    made: list[Path]


def find_inputs(inputs: Sequence[str], made: Container[Path] = ()) -> Found:
    """Pictures and videos that are meant, each once, in order.

    A folder means everything below it, under names relative to it; a pattern with ``*``, ``?`` or ``**`` what it
    matches. Names that would be equal get the folders in which their files differ in front, or the suffix at the end.

    Args:
        inputs: files, folders and patterns.
        made: what is no input, wherever it lies: predictions of earlier calls.

    Raises:
        DataError: an input does not exist, or nothing is left.
    """
    found: dict[Path, Input] = {}
    others: list[Path] = []
    left_out: list[Path] = []
    for given in inputs:
        for path in _matches(given):
            for file, name in _files(path):
                real = file.resolve()
                if file in made:
                    left_out += [file] if file.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES else []
                    continue
                # A file that was named is tried whatever its suffix; a folder's odd files are only reported.
                if path.is_dir() and file.suffix.lower() not in SUFFIXES | VIDEO_SUFFIXES:
                    others.append(file)
                elif real not in found:
                    found[real] = Input(file, name)
    if not found:
        beside = f" beside predictions of earlier calls, such as {left_out[0]}" if left_out else ""
        raise DataError(f"no images or videos in {', '.join(inputs)}{beside}: check the path")
    return Found(_with_unique_names(list(found.values())), others, left_out)


def read_frames(path: Path, wanted: Sequence[bool] | None = None) -> Iterator[tuple[int, Picture]]:
    """Frames of a video, one after the other.

    Args:
        path: the video.
        wanted: frames that are False are passed over without decoding; those beyond the end are wanted.

    Yields:
        Number and picture (H, W, 3) uint8 RGB of each frame.

    Raises:
        DataError: the file is no video, has frames of more than `MOST_PIXELS`, or ends before its own index says.
    """
    video = cv2.VideoCapture(str(path))
    try:
        width, height = (int(video.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MOST_PIXELS:
            raise DataError(
                f"{path}: has frames of {width}x{height} pixels, more than the {MOST_PIXELS // 10**6} million that are "
                "read: make it smaller"
            )
        promised, index = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0
        while video.grab():
            if wanted is None or index >= len(wanted) or wanted[index]:
                ok, frame = video.retrieve()
                if not ok:
                    break
                yield index, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            index += 1
        if index == 0:
            raise DataError(f"{path}: is no video that can be decoded")
        if index < promised:
            raise DataError(f"{path}: ends after {index} of {promised} frames")
    finally:
        video.release()


def video_properties(path: Path) -> tuple[int, float]:
    """Number of frames by the video's own index, 0 if it has none, and frames per second."""
    video = cv2.VideoCapture(str(path))
    try:
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        # No frame is less than a byte, whatever the index says.
        return max(0, min(frames, path.stat().st_size)), video.get(cv2.CAP_PROP_FPS) or 25.0
    finally:
        video.release()


def _matches(given: str) -> list[Path]:
    path = user_path(given, "input")
    if path.exists():
        return [path]
    # A folder that is there is meant as it is called, even if that has brackets in it.
    there = next(parent for parent in path.parents if parent.exists())
    pattern = Path(glob.escape(str(there))) / path.relative_to(there)
    # Path.glob takes no absolute patterns.
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207
    if not matches:
        raise DataError(f"{given} does not exist and matches nothing: check the path")
    return matches


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Files that a path means, with names."""
    if not path.is_dir():
        yield path, path.stem
        return
    for file in sorted(path.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield file, file.relative_to(path).with_suffix("").as_posix()


def _with_unique_names(inputs: list[Input]) -> list[Input]:
    """The same inputs, renamed where two had one name."""
    for rename in (_by_folder, _by_suffix, _by_number):
        counts = Counter(item.name for item in inputs)
        inputs = [item if counts[item.name] == 1 else rename(item, inputs) for item in inputs]
    return inputs


def _by_folder(item: Input, inputs: list[Input]) -> Input:
    """Name with the folders below the last one that all inputs of this name share."""
    rivals = [other.path.resolve().parent for other in inputs if other.name == item.name]
    common = Path(os.path.commonpath(rivals))
    folder = item.path.resolve().parent.relative_to(common).as_posix()
    return item if folder == "." else replace(item, name=f"{folder}/{item.path.stem}")


def _by_suffix(item: Input, inputs: list[Input]) -> Input:
    return replace(item, name=f"{item.name}_{item.path.suffix[1:].lower()}")


def _by_number(item: Input, inputs: list[Input]) -> Input:
    rivals = [other for other in inputs if other.name == item.name]
    return replace(item, name=f"{item.name}_{rivals.index(item) + 1}")
