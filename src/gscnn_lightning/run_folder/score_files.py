"""Scores as files, and back: what a run leaves, and tables that other programs read."""

import csv
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml

from gscnn_lightning.errors import DataError
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.scores import ImageScores, Scores

T = TypeVar("T")

_NAMES = "surrogateescape"
"""How names of files in another encoding are written, and read back: as their bytes."""


def write_scores(run: RunFolder, stage: str, scores: Scores) -> None:
    """Write the scores of a stage as JSON, which knows no NaN: null stands for what could not be scored.

    Args:
        run: where to write; its folder is made.
        stage: "val" or "test".
        scores: with the names of the classes.
    """
    record: dict[str, Any] = {
        "stage": stage,
        "epoch": None if scores.epoch is None else scores.epoch - 1,  # in files as in Lightning's, from 0
        "means": scores.means,
        "classes": dict(scores.rows()),
    }
    record |= {part: found for part in ("categories", "crops") if (found := getattr(scores, part))}
    if scores.training_seconds is not None:
        record["training_seconds"] = round(scores.training_seconds, 3)
    write_json(run.scores(stage), record)


def read_scores(run: RunFolder, stage: str) -> Scores:
    """Scores of a stage, as `write_scores` wrote them.

    Raises:
        DataError: the file cannot be read or is damaged.
    """
    return read_file(run.scores(stage), _scores)


def _scores(path: Path) -> Scores:
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = {str(name): _floats(values) for name, values in record["classes"].items()}
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    epoch, seconds = record.get("epoch"), record.get("training_seconds")
    return Scores(
        means=_floats(record["means"]),
        classes={column: [row.get(column, math.nan) for row in rows.values()] for column in columns},
        class_names=tuple(rows),
        categories={str(name): _floats(values) for name, values in record.get("categories", {}).items()},
        crops=_floats(record.get("crops", {})),
        epoch=None if epoch is None else int(epoch) + 1,
        training_seconds=None if seconds is None else float(seconds),
    )


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): math.nan if value is None else float(value) for name, value in values.items()}


def write_image_scores(run: RunFolder, images: Sequence[ImageScores]) -> None:
    """Write the scores of single images as CSV: a row per image, a column per score; NaN stays empty.

    Args:
        run: where to write.
        images: the images, all with the same scores.
    """
    with run.image_scores.open("w", newline="", encoding="utf-8", errors=_NAMES) as file:
        writer = csv.writer(file)
        writer.writerow(["name", "index", *(images[0].values if images else ())])
        writer.writerows([image.name, image.index, *map(_cell, image.values.values())] for image in images)


def read_image_scores(run: RunFolder) -> list[ImageScores]:
    """Scores of single images; empty if there are none.

    Raises:
        DataError: the file cannot be read or is damaged.
    """
    return read_file(run.image_scores, _image_scores) if run.image_scores.is_file() else []


def _image_scores(path: Path) -> list[ImageScores]:
    with path.open(newline="", encoding="utf-8", errors=_NAMES) as file:
        rows = list(csv.DictReader(file))
    return [
        ImageScores(int(row.pop("index")), row.pop("name"), {key: float(v or "nan") for key, v in row.items()})
        for row in rows
    ]


def write_confusion(run: RunFolder, counts: npt.NDArray[np.integer], class_names: Sequence[str]) -> None:
    """Write a confusion matrix as CSV: a row per true class, a column per predicted class.

    Args:
        run: where to write.
        counts: (K, K) pixels, rows are true classes.
        class_names: K names.
    """
    with run.confusion.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["truth", *class_names])
        writer.writerows([name, *row] for name, row in zip(class_names, counts.tolist(), strict=True))


def read_confusion(run: RunFolder, class_names: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Confusion matrix (K, K) of a run; None if there is none.

    Args:
        run: where to read.
        class_names: what the classes have to be; empty if they are not known.

    Raises:
        DataError: the file cannot be read, is damaged, or is about other classes.
    """
    return read_file(run.confusion, lambda path: _confusion(path, class_names)) if run.confusion.is_file() else None


def _confusion(path: Path, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = [row for row in csv.reader(file) if row]
    if header[1:] != [row[0] for row in rows] or (class_names and tuple(header[1:]) != tuple(class_names)):
        raise ValueError("its rows and columns are not the classes of the run")
    return np.array([[int(float(cell)) for cell in row[1:]] for row in rows], np.int64).reshape(len(rows), len(rows))


def write_reliability(run: RunFolder, regions: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Write accuracy by confidence as CSV: a row per region and bin; what a bin without pixels lacks stays empty.

    Args:
        run: where to write.
        regions: as in `Scores.reliability`.
    """
    with run.reliability.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["region", "from", "to", "pixels", "confidence", "accuracy"])
        for region, bins in regions.items():
            rows = list(zip(bins["pixels"], bins["confidence"], bins["accuracy"], strict=True))
            for index, (pixels, *shares) in enumerate(rows):
                ends = (round(place / len(rows), 6) for place in (index, index + 1))
                writer.writerow([region, *ends, int(pixels), *map(_cell, shares)])


def write_table(path: Path, rows: Mapping[str, Mapping[str, float | None]], first: str) -> None:
    """Write a table as CSV; what is missing or NaN stays empty.

    Args:
        path: file to write; an existing one is replaced.
        rows: {row name: {column name: value}}.
        first: heading of the row names.
    """
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    with path.open("w", newline="", encoding="utf-8", errors=_NAMES) as file:
        writer = csv.writer(file)
        writer.writerow([first, *columns])
        for name, row in rows.items():
            writer.writerow([name, *(_cell(row.get(column)) for column in columns)])


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as JSON, all of it or nothing; NaN and infinity become null.

    Args:
        path: file to write; an existing one is replaced, and its folder is made.
        content: anything that JSON can say.
    """
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def read_file(path: Path, reader: Callable[[Path], T]) -> T:
    """What a reader makes of a file of a run.

    Raises:
        DataError: the file cannot be read or is damaged; the message names it.
    """
    try:
        return reader(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, csv.Error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path} is damaged ({reason}): remove it to go on without it") from error


def _cell(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else repr(float(value))
