"""Predictions as image files: the one place that knows their names, their contents and when a file may be written."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import get_args

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.checks import is_number
from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_TRAIN_ID_TO_ID, IGNORE_INDEX
from gscnn_lightning.data.files import shown
from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.drawing.maps import Color, colorize_labels, gate_map, overlay_boundaries, overlay_labels
from gscnn_lightning.errors import SettingError
from gscnn_lightning.output import TRUST, Prediction
from gscnn_lightning.prediction import DEFAULT_FORMATS, Format
from gscnn_lightning.prediction.coding import Coding

_NUM_GATES = 3

ENDINGS = (
    *("labels", "ids", "color", "overlay", "boundary"),
    *(f"gate{index + 1}" for index in range(_NUM_GATES)),
    *TRUST,
)
"""What the names of all files end in, behind the name of the image and an underscore."""


class PredictionFiles:
    """Files of predicted images in a folder.

    For an image called NAME, by format:

    - "labels": ``NAME_labels.png``, train ids, uint8, or what `coding` makes of them;
    - "ids": ``NAME_ids.png``, official Cityscapes ids, uint8, as the evaluation server and script read them;
    - "color": ``NAME_color.png``, class colours;
    - "overlay": ``NAME_overlay.png``, photo tinted with class colours, class outlines in white;
    - "boundary": ``NAME_boundary.png``, boundary probability times 255, uint8;
    - "gates": ``NAME_gate1.png`` to ``NAME_gate3.png``, attention of the gated convolutions in false colours, each
      stretched to its own range;
    - "confidence": ``NAME_confidence.png``, probability of the predicted class times 255, uint8;
    - "entropy": ``NAME_entropy.png``, entropy of the probabilities as a share of log K, times 255, uint8.

    Boundary and gates come only from a network with shape stream. A file appears under its name when it is complete, so
    what an interrupted run leaves behind is usable.

    Args:
        directory: folder to write to; made when needed.
        class_names: K names of the classes.
        class_colors: one RGB colour (0 to 255) per class.
        formats: what to write.
        overwrite: replace files that exist, instead of raising.
        confident: pixels whose class has a smaller probability become void; None to keep all.
        coding: how classes and void are written in "labels"; train ids and 255 by default.

    Attributes:
        counted: (K, 2) pixels of each class, all of them and those kept, of what was written; for `confident` only.

    Raises:
        SettingError: a format is unknown, official ids are asked of classes that are not those of Cityscapes, or the
            probability is out of range.
    """

    def __init__(
        self,
        directory: str | Path,
        class_names: Sequence[str],
        class_colors: Sequence[Color],
        formats: Sequence[Format] = DEFAULT_FORMATS,
        overwrite: bool = False,
        confident: float | None = None,
        coding: Coding | None = None,
    ) -> None:
        if confident is not None and not (is_number(confident, 0) and confident <= 1):
            raise SettingError(f"confident must be a probability from 0 to 1, such as 0.9, got {confident!r}")
        if confident is not None and len(class_names) > IGNORE_INDEX:
            raise SettingError(f"confident needs a value for void, and {len(class_names)} classes leave none of 256")
        unknown = [name for name in formats if name not in get_args(Format)]
        if unknown or not formats:
            raise SettingError(f"unknown formats {unknown}: choose from {', '.join(get_args(Format))}")
        if "ids" in formats and tuple(class_names) != CITYSCAPES.names:
            raise SettingError(
                f"official ids need the {len(CITYSCAPES)} Cityscapes classes, and the {len(class_names)} classes "
                f"{', '.join(class_names[:3])}, ... are others: leave the format 'ids' out"
            )
        self.directory = Path(directory)
        self.class_colors = class_colors
        self.formats = tuple(dict.fromkeys(formats))
        self.overwrite = overwrite
        self.confident = confident
        self.coding = coding
        self.counted = np.zeros((len(class_names), 2), np.int64)
        self._counting = Lock()

    @property
    def trust(self) -> tuple[str, ...]:
        """Which of confidence and entropy a prediction needs for what is written."""
        needed = ("confidence",) if self.confident is not None else ()
        return tuple(name for name in TRUST if name in (*self.formats, *needed))

    def paths(self, name: str, shape_stream: bool) -> list[Path]:
        """Files that an image has when it is done.

        Args:
            name: of the image.
            shape_stream: whether the network has one.
        """
        endings: list[str] = []
        for kind in self.formats:
            if kind == "gates":
                endings += [f"gate{index + 1}" for index in range(_NUM_GATES)] if shape_stream else []
            elif kind != "boundary" or shape_stream:
                endings.append(kind)
        return [self.directory / f"{name}_{ending}.png" for ending in endings]

    def are_there(self, name: str, shape_stream: bool) -> bool:
        """Whether an image has all files that it has when it is done.

        Args:
            name: of the image.
            shape_stream: whether the network has one.
        """
        return all(map(_is_there, self.paths(name, shape_stream)))

    def write(self, prediction: Prediction, missing_only: bool = False) -> None:
        """Write the files of an image.

        Args:
            prediction: what is known about it.
            missing_only: leave files that exist, instead of raising.

        Raises:
            DataError: a file exists and is not to be overwritten, or cannot be written.
            ValueError: confidence or entropy is to be written and was not asked for when the record was made.
        """
        if lacking := [name for name in self.trust if getattr(prediction, name) is None]:
            raise ValueError(
                f"{prediction.name} has no {' and no '.join(lacking)}: make its record with trust={self.trust}"
            )
        pictures = self._pictures(self._confident(prediction))
        for path in self.paths(prediction.name, prediction.boundary_prob is not None):
            kind = path.name.rpartition("_")[2].removesuffix(".png")
            if not (missing_only and _is_there(path)):
                write_picture(path, pictures[kind](), self.overwrite, photo=kind == "overlay")

    def _confident(self, prediction: Prediction) -> Prediction:
        """The same with void where the network is not sure enough."""
        if self.confident is None:
            return prediction
        assert prediction.confidence is not None
        kept = prediction.confidence >= self.confident
        preds = np.where(kept, prediction.preds, np.uint8(IGNORE_INDEX))
        number = len(self.counted)
        counts = [np.bincount(labels.ravel(), minlength=number)[:number] for labels in (prediction.preds, preds)]
        with self._counting:  # several pictures at a time
            self.counted += np.stack(counts, axis=1)
        return replace(prediction, preds=preds)

    def _pictures(self, prediction: Prediction) -> dict[str, Callable[[], npt.NDArray[np.uint8]]]:
        """How to make the picture of each file ending."""
        labels, prob = prediction.preds, prediction.boundary_prob
        pictures: dict[str, Callable[[], npt.NDArray[np.uint8]]] = {
            "labels": lambda: labels if self.coding is None else self.coding.raw(labels),
            "ids": lambda: official_ids(labels),
            "color": lambda: colorize_labels(labels, self.class_colors),
            "overlay": lambda: overlay_boundaries(
                overlay_labels(prediction.photo, labels, self.class_colors),
                label_boundaries(labels, radius=1),
                color=(255, 255, 255),
            ),
        }
        shares = {"boundary": prob, **{name: getattr(prediction, name) for name in TRUST}}
        for kind, share in shares.items():
            if share is not None:
                pictures[kind] = lambda share=share: _bytes(share)  # type: ignore[misc]
        for index, gate in enumerate(prediction.gates):
            pictures[f"gate{index + 1}"] = lambda gate=gate: gate_map(gate, labels.shape)[0]  # type: ignore[misc]
        return pictures


def _bytes(share: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Numbers in [0, 1] times 255; OpenCV rounds as NumPy does, without maps of real numbers in between."""
    return cv2.convertScaleAbs(share.astype(np.float32, copy=False), alpha=255).astype(np.uint8, copy=False)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have
        return False


def output_folder(path: Path) -> Path:
    """A folder to write to, made if it is not there, with the user's own in place of ~.

    Raises:
        SettingError: it cannot be one.
    """
    try:
        folder = path.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(f"--out {shown(path)} cannot be a folder ({reason}): give another") from error
    return folder


def official_ids(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Cityscapes train ids as official ids; anything that is no class becomes 0, "unlabeled".

    Example:
        >>> official_ids(np.array([[0, 18, 255]])).tolist()
        [[7, 33, 0]]
    """
    table = np.zeros(256, np.uint8)
    for train_id, official in CITYSCAPES_TRAIN_ID_TO_ID.items():
        table[train_id] = official
    return table[labels]
