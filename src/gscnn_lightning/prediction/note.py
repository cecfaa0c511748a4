"""What the predictions in a folder were made with, and each of which picture: the file that says so."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from gscnn_lightning.errors import DataError
from gscnn_lightning.hub_files import CONFIG, WEIGHTS, is_hub_model, model_folder
from gscnn_lightning.prediction.coding import TABLE
from gscnn_lightning.prediction.files import ENDINGS
from gscnn_lightning.prediction.inputs import VIDEO_SUFFIXES, Input
from gscnn_lightning.run_folder.score_files import write_json

NOTE = "predictions.json"
"""Name of the note in the folder of the predictions."""

_SOURCES = "inputs"


class Origin(NamedTuple):
    """What tells the file of a picture from others and from its own earlier states, without reading it.

    Attributes:
        path: as seen from the folder of the note.
        size: in bytes.
        time: of the latest change, in nanoseconds.
    """

    path: str
    size: int
    time: int


class Settled(NamedTuple):
    """What is to be done with inputs.

    Attributes:
        inputs: those to predict, or to complete.
        refused: one message for each of the others.
        changed: how many of the inputs were others when they were predicted.
    """

    inputs: list[Input]
    refused: list[str]
    changed: int


class MadeFiles:
    """Tells the files that earlier calls have made, by the notes in their folder and in those above it."""

    def __init__(self) -> None:
        self._sources: dict[Path, dict[str, Origin]] = {}

    def __contains__(self, path: object) -> bool:
        real = Path(str(path)).resolve()
        if real.name in (NOTE, TABLE) and self._noted(real.parent):
            return True
        return any(_is_made(real, folder, self._noted(folder)) for folder in real.parents)

    def _noted(self, folder: Path) -> dict[str, Origin]:
        if folder not in self._sources:
            try:
                self._sources[folder] = _origins(_load(folder / NOTE))
            except DataError:  # somebody else's file
                self._sources[folder] = {}
        return self._sources[folder]


def made_with(
    checkpoint: str,
    task: Any,  # noqa: ANN401
    confident: float | None = None,
    classes: Path | None = None,
) -> dict[str, Any]:
    """What predictions are made with.

    Args:
        checkpoint: that predicts.
        task: the task of the checkpoint.
        confident: least probability of the classes that are written, None for any.
        classes: class table of the labels, None for train ids.
    """
    h = task.settings
    return {
        "checkpoint": _digest_of_network(checkpoint),
        "window": None if h.window is None else list(h.window),
        "overlap": h.overlap,
        "scales": list(h.scales),
        "flip": h.flip_average,
        "confident": confident,
        "classes": None if classes is None else _digest(classes),
    }


def settle(
    note: Path, directory: Path, settings: Mapping[str, Any], inputs: Sequence[Input], overwrite: bool
) -> Settled:
    """Note what predictions are made with and of, after a look at what is there.

    What is there of an input stays if it was made of the very same file: with its path, size and time of change. Of a
    file that has changed since, it is removed. What was made of another file, or of who knows what, is not touched, and
    the input is refused.

    Args:
        note: file with the settings and the inputs.
        directory: folder of the predictions.
        settings: see `made_with`.
        inputs: what is to be predicted.
        overwrite: everything is made again.

    Raises:
        DataError: what is there was made with another checkpoint or other settings; or the note cannot be read.
    """
    with _alone(note.parent):
        content = _load(note)
        if content:  # of versions that had no such settings
            content = {"confident": None, "classes": None, **content}
        differing = [key for key in settings if content.get(key, settings[key]) != settings[key]]
        if differing and not overwrite:
            key = differing[0]
            raise DataError(
                f"{note} says that what is there was made with {key} {content[key]}, and this would be made with "
                f"{settings[key]}: choose another --out, or make everything again with --overwrite true"
            )
        # Of inputs that were predicted with other settings, nobody knows any more what there is.
        known = {} if differing else _origins(content)
        settled = _settled(note, directory, known, inputs, overwrite)
        write_json(note, {**settings, _SOURCES: known})
    return settled


def _settled(
    note: Path, directory: Path, known: dict[str, Origin], inputs: Sequence[Input], overwrite: bool
) -> Settled:
    """Decide about every input; `known` then has their present states."""
    there = _files_by_name(directory)
    sources = {item.path.resolve() for item in inputs}
    going_on: list[Input] = []
    refused: list[str] = []
    changed = 0
    for item in inputs:
        before, files = known.get(item.name), there.get((item.name, item.is_video), [])
        try:
            now = _origin(item.path, note.parent)
        except OSError:  # gone, which is said when it is to be read
            going_on.append(item)
            continue
        reason = _reason_against(note.parent, files, before, now, overwrite)
        if own := next((file for file in files if file.resolve() in sources), None):
            reason = f"{own} is an input, too, and would be written over: give another --out"
        if reason:
            refused.append(f"{item.path}: {reason}")
            continue
        has_changed = before is not None and before[1:] != now[1:]
        if overwrite or has_changed:
            changed += bool(files) and not overwrite
            for file in files:
                file.unlink(missing_ok=True)
        known[item.name] = now
        going_on.append(item)
    return Settled(going_on, refused, changed)


def _reason_against(folder: Path, files: Sequence[Path], before: Origin | None, now: Origin, overwrite: bool) -> str:
    """Why an input is not to be predicted where there are files of its name already; "" if it may be."""
    if overwrite or not files or (before is not None and before.path == now.path):
        return ""
    remedy = "give another --out, or replace it with --overwrite true"
    if before is None:
        return f"{files[0]} is there, and nothing says that it was made of this file: {remedy}"
    if before[1:] == now[1:] and not _exists(folder / before.path):
        return ""  # the same file in another place
    return f"{files[0]} was made of {_plain(folder / before.path)}: {remedy}"


def _plain(path: Path) -> Path:
    """A path without ways up and down again, as seen from the working directory if it lies there."""
    path, here = Path(os.path.normpath(path.absolute())), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _origin(path: Path, folder: Path) -> Origin:
    status, real = path.stat(), path.resolve()
    try:
        # So a note stays true when the folders of pictures and predictions are moved together.
        told = Path(os.path.relpath(real, folder.resolve()))
    except ValueError:  # on another drive
        told = real
    return Origin(told.as_posix(), status.st_size, status.st_mtime_ns)


def _origins(content: Mapping[str, Any]) -> dict[str, Origin]:
    return {name: Origin(*origin) for name, origin in content.get(_SOURCES, {}).items()}


def _files_by_name(directory: Path) -> dict[tuple[str, bool], list[Path]]:
    """Files that are called like predictions, by the name of their input and whether that is a video."""
    found: dict[tuple[str, bool], list[Path]] = {}
    for path in sorted(directory.rglob("*_*.*")):
        for key in _inputs_of(path.relative_to(directory)):
            found.setdefault(key, []).append(path)
    return found


def _is_made(path: Path, directory: Path, sources: Mapping[str, Origin]) -> bool:
    """Whether a file is called like a prediction of one of the inputs that a note tells of."""
    keys = _inputs_of(path.relative_to(directory)) if sources else []
    return any(name in sources and is_video == _is_video(sources[name].path) for name, is_video in keys)


def _inputs_of(relative: Path) -> list[tuple[str, bool]]:
    """Inputs that a file in a folder of predictions can be of by its name: their names, and whether they are videos.

    Example:
        >>> _inputs_of(Path("drive/000001_color.png")), _inputs_of(Path("drive_color.mp4")), _inputs_of(Path("a.png"))
        ([('drive/000001', False), ('drive', True)], [('drive', True)], [])
    """
    name, _, ending = relative.with_suffix("").as_posix().rpartition("_")
    if not name or ending not in ENDINGS or relative.suffix not in (".png", ".mp4"):
        return []
    if relative.suffix == ".mp4":
        return [(name, True)]
    video, _, frame = name.rpartition("/")
    return [(name, False), *([(video, True)] if video and frame.isdigit() else [])]


def _is_video(path: str) -> bool:
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _load(note: Path) -> dict[str, Any]:
    """Content of a note; nothing if there is none."""
    try:
        content = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
        _origins(content)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{note} cannot be read ({error}): choose another --out, or remove it") from error
    return content


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other call looks at a note in this folder, where system and file system can do that."""
    handle = None
    with suppress(ImportError, OSError):
        import fcntl  # of Unix

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _digest_of_network(checkpoint: str) -> str:
    """What tells a checkpoint from others; of a network of a hub, its weights and its config."""
    if not is_hub_model(checkpoint):
        return _digest(Path(checkpoint))
    folder = model_folder(checkpoint)
    return f"{_digest(folder / WEIGHTS)} {_digest(folder / CONFIG)}"


def _digest(path: Path) -> str:
    """What tells a file from others, wherever it lies."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
