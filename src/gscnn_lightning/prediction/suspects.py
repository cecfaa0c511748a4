"""The labels of a split under suspicion: every frame predicted, and what contradicts the labels as tables and sheet."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from rich.text import Text

from gscnn_lightning.data.base import SegmentationDataset, Split, nothing_but_void
from gscnn_lightning.data.pictures import told_once
from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.drawing.maps import Picture
from gscnn_lightning.drawing.sheets import SuspectCrop, suspect_sheet
from gscnn_lightning.errors import DataError
from gscnn_lightning.metrics.suspects import KINDS, Kind, Suspect, SuspectSearch, rank_frames
from gscnn_lightning.prediction.predictor import cannot_take
from gscnn_lightning.terminal import new_table

TABLE, FRAMES, SHEET = "suspects.csv", "suspect_frames.csv", "suspects.png"
"""Names of the files."""

TITLES: dict[Kind, str] = {"class": "class errors", "boundary": "displaced boundaries"}

# Pixels around a region on the sheet, as a share of its longer side and at least; and the shape of the pictures.
_MARGIN, _LEAST_MARGIN = 0.3, 24
_SHAPE = (3, 4)


@dataclass
class CheckedLabels:
    """What was found in a split.

    Attributes:
        names: of the frames that have labels; `Suspect.frame` counts them.
        suspects: those of kind "class" first, each kind by score.
        unlabelled: number of frames without labels, or with nothing but void.
        failed: one message for each frame that could not be read or predicted.
        notes: what was converted or left out when frames were read, and files without a partner.
    """

    names: list[str] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)
    unlabelled: int = 0
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _places: list[int] = field(default_factory=list)

    def of_kind(self, kind: Kind) -> list[Suspect]:
        """Suspects of a kind, by score."""
        return [suspect for suspect in self.suspects if suspect.kind == kind]


class LabelCheck:
    """A network that looks at the labels of a split; nothing of it is changed.

    Args:
        task: a `GSCNNTask` in evaluation mode; predicts with its own windows, scales and flips.
        data: a data module with the classes of the task.
        split: which frames, as they are, without augmentation.

    Raises:
        DataError: the data are missing or cannot be used.
    """

    def __init__(self, task: Any, data: Any, split: Split) -> None:  # noqa: ANN401
        self.task, self.data, self.split = task, data, split
        source = data.source(split)
        if not len(source):
            raise DataError(f"the {split} split of {type(data).__name__} is empty: check its path and settings")
        self.frames = SegmentationDataset(source)

    def run(self, advance: Callable[[], object] = lambda: None) -> CheckedLabels:
        """Predict every frame, and rank what contradicts the labels.

        Args:
            advance: called after every frame.

        Raises:
            DataError: no frame could be read or predicted, or none has labels.
        """
        source = self.frames.source
        checked = CheckedLabels()
        converted: list[tuple[str, Sequence[str]]] = []
        search = SuspectSearch(self.data.num_classes, self.data.ignore_index)
        for index in range(len(self.frames)):
            try:
                converted.append((source.name(index), source.check_frame(index) or ()))
                sample = self.frames[index]
            except DataError as error:
                checked.failed.append(str(error))
                continue
            finally:
                advance()
            labels = sample["mask"].numpy() if "mask" in sample else None
            if labels is None or (labels == self.data.ignore_index).all():
                checked.unlabelled += 1
                continue
            try:
                search.add(self._log_prob(sample), labels)
            except DataError as error:
                checked.failed.append(str(error))
                continue
            checked.names.append(sample["name"])
            checked._places.append(index)
        if not checked.names:
            if checked.failed:
                raise DataError(checked.failed[0])
            raise DataError(nothing_but_void(self.split, checked.unlabelled))
        checked.suspects = search.suspects()
        checked.notes = [*source.problems, *told_once(converted)]
        return checked

    def crops(self, checked: CheckedLabels, suspects: Sequence[Suspect]) -> list[SuspectCrop]:
        """Pictures of suspects for a sheet, with their frames predicted once more.

        Args:
            checked: what `run` found.
            suspects: some of it.
        """
        crops: dict[int, SuspectCrop] = {}
        ranks = {id(s): rank for kind in KINDS for rank, s in enumerate(checked.of_kind(kind), start=1)}
        for frame in sorted({suspect.frame for suspect in suspects}):
            sample = self.frames[checked._places[frame]]
            photo = np.ascontiguousarray(sample["image"].numpy().transpose(1, 2, 0))
            maps = photo, sample["mask"].numpy(), self._log_prob(sample).argmax(0).astype(np.int64)
            for place, suspect in enumerate(suspects):
                if suspect.frame == frame:
                    captions = self._captions(suspect, checked.names[frame], ranks[id(suspect)])
                    crops[place] = _crop(*maps, suspect, captions)
        return [crops[place] for place in range(len(suspects))]

    @torch.no_grad()
    def _log_prob(self, sample: dict[str, Any]) -> npt.NDArray[np.float32]:
        image = sample["image"][None].to(self.task.device)
        try:
            logits = self.task.predict_output(image, gates=False).seg_logits[0]
            return logits.float().log_softmax(0).cpu().numpy()
        except Exception as error:  # what networks and devices refuse they refuse each in its own way
            raise DataError(cannot_take(sample["name"], image.shape[2:], error)) from error

    def _captions(self, suspect: Suspect, name: str, rank: int) -> tuple[str, str, str]:
        classes = self.data.class_names
        if suspect.kind == "boundary":
            found = "predicted: {:+d} px right, {:+d} px down".format(*suspect.shift)
        else:
            found = f"predicted: {classes[suspect.predicted]}"
        label = f"{suspect.kind} {rank}, label: {classes[suspect.label]}"
        return name, label, f"{found}; score {suspect.score:.1f}"


def write_suspects(checked: CheckedLabels, class_names: Sequence[str], out: Path) -> None:
    """Write the tables: a row per suspect, by kind and rank, and a row per frame.

    Args:
        checked: what was found.
        class_names: K names.
        out: folder.
    """
    columns = ["rank", "kind", "frame", "label", "predicted", "score", "margin", "pixels", "x0", "y0", "x1", "y1"]
    rows = [
        [
            *(rank, kind, checked.names[s.frame], class_names[s.label], class_names[s.predicted]),
            *(f"{s.score:.4g}", f"{s.margin:.4g}", s.pixels, *s.box, *s.shift),
        ]
        for kind in KINDS
        for rank, s in enumerate(checked.of_kind(kind), start=1)
    ]
    _write(out / TABLE, [*columns, "dx", "dy"], rows)
    frames = [
        [
            *(rank, checked.names[one.frame]),
            *(f"{score:.4g}" for score in (one.score, one.class_score, one.boundary_score)),
            one.suspects,
        ]
        for rank, one in enumerate(rank_frames(checked.suspects), start=1)
    ]
    _write(out / FRAMES, ["rank", "frame", "score", "class_score", "boundary_score", "suspects"], frames)


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    # Names of files in another encoding are written as their bytes.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([columns, *rows])


def draw_suspects(check: LabelCheck, checked: CheckedLabels, suspects: Sequence[Suspect], path: Path) -> None:
    """Draw suspects on a sheet: photo, labels and prediction of each, with the region outlined.

    Args:
        check: what has found them.
        checked: what was found.
        suspects: some of it, one or more.
        path: picture to write, PNG or JPEG by its suffix.
    """
    data = check.data
    sheet: Picture = suspect_sheet(check.crops(checked, suspects), data.class_names, data.class_colors)
    write_picture(path, sheet, overwrite=True)


def suspects_table(checked: CheckedLabels, class_names: Sequence[str], kind: Kind, top: int) -> Table:
    """The strongest suspects of a kind as a table.

    Args:
        checked: what was found.
        class_names: K names.
        kind: which of them.
        top: number of rows at most.
    """
    found = checked.of_kind(kind)
    shown = found[:top]
    table = new_table(f"{TITLES[kind]}: the first {len(shown)} of {len(found)}")
    for heading in ("", "frame", "label", "predicted"):
        table.add_column(heading, justify="left" if heading else "right")
    for heading in ("score", "margin", "pixels", "x0,y0,x1,y1", *(["dx,dy"] if kind == "boundary" else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for rank, s in enumerate(shown, start=1):
        names = (checked.names[s.frame], class_names[s.label], class_names[s.predicted])
        cells = [f"{s.score:.1f}", f"{s.margin:.1f}", f"{s.pixels:,}", ",".join(map(str, s.box))]
        cells += ["{:+d},{:+d}".format(*s.shift)] if kind == "boundary" else []
        table.add_row(str(rank), *map(Text, names), *cells)
    return table


def _crop(
    photo: Picture,
    labels: npt.NDArray[np.integer],
    preds: npt.NDArray[np.integer],
    suspect: Suspect,
    captions: tuple[str, str, str],
) -> SuspectCrop:
    """A part of a frame around a suspect, of one shape wherever the frame has room for it."""
    x0, y0, x1, y1 = suspect.box
    margin = max(_LEAST_MARGIN, round(_MARGIN * max(x1 - x0, y1 - y0)))
    height, width = y1 - y0 + 2 * margin, x1 - x0 + 2 * margin
    unit = max(height / _SHAPE[0], width / _SHAPE[1])
    rows = _span(y0, y1, round(_SHAPE[0] * unit), photo.shape[0])
    columns = _span(x0, x1, round(_SHAPE[1] * unit), photo.shape[1])
    region = np.zeros(labels.shape, bool)
    region[y0:y1, x0:x1] = suspect.region
    here = rows, columns
    return SuspectCrop(photo[here], labels[here], preds[here], region[here], captions)


def _span(start: int, stop: int, length: int, most: int) -> slice:
    """Part of an axis of a length with another part in its middle, moved to where there is room.

    Example:
        >>> _span(10, 20, 30, 100), _span(2, 8, 30, 100), _span(10, 20, 30, 25)
        (slice(0, 30, None), slice(0, 30, None), slice(0, 25, None))
    """
    length = min(length, most)
    first = min(max(0, (start + stop - length) // 2), most - length)
    return slice(first, first + length)
