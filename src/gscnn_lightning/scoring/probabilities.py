"""Probabilities of the classes as programs store them: one array, or a picture of 16 bits for each class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.files import user_path, walk
from gscnn_lightning.data.pictures import read_map
from gscnn_lightning.errors import DataError
from gscnn_lightning.scoring.names import listed
from gscnn_lightning.scoring.prediction_files import class_scores, is_array
from gscnn_lightning.scoring.truth import Truth

Scores = npt.NDArray[np.float32]

SOFTMAX = "scores of the classes are taken for logits, whose softmax is the probability"
UNKNOWN = "scores of the classes are between 0 and 1 and do not add up to 1: no calibration is measured"

_SUM = 0.02
_PICTURES = (".png", ".tif", ".tiff", ".pgm")


def probabilities(scores: npt.NDArray[Any]) -> tuple[Scores | None, str]:
    """Probabilities of the classes from what a program has stored, and what has to be said about it.

    Numbers that add up to 1 are probabilities, and so are whole numbers that add up to the largest of their type. Other
    floating-point numbers are logits unless all are between 0 and 1.

    Args:
        scores: (K, H, W) numbers.

    Returns:
        (K, H, W) float32 with sum 1, None where these are no probabilities; and "", `SOFTMAX` or `UNKNOWN`.

    Example:
        >>> probabilities(np.array([0, 16383, 49152], np.uint16).reshape(3, 1, 1))[0].ravel().round(2).tolist()
        [0.0, 0.25, 0.75]
        >>> probabilities(np.zeros((4, 1, 1)) + [[[2.0]]])[0].ravel().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    values = scores.astype(np.float32)
    if scores.dtype.kind in "iu":
        values /= np.float32(np.iinfo(scores.dtype).max)
    total = values.sum(0)
    if values.min(initial=0) >= 0 and np.abs(total - 1).max(initial=0) <= _SUM:
        return values / total, ""
    if scores.dtype.kind != "f" or (values.min() >= 0 and values.max() <= 1):
        return None, UNKNOWN
    values -= values.max(0)
    np.exp(values, out=values)
    return values / values.sum(0), SOFTMAX


class ProbabilityFolder:
    """Probabilities of the classes of every frame, in a folder.

    Of a frame there is NAME.npy or NAME.npz, (K, H, W) or (H, W, K), or a grey picture for each class whose largest
    value stands for 1: NAME_0.png ... or NAME_road.png ..., or the same in a folder NAME.

    Args:
        folder: where they are, through all folders in it.
        truth: the frames.

    Raises:
        DataError: the folder cannot be used, or frames have no probabilities in it.
    """

    def __init__(self, folder: Path, truth: Truth) -> None:
        folder = user_path(folder, "--probabilities")
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder: give the folder of the probabilities (--probabilities FOLDER)")
        self._truth = truth
        named: dict[str, Path] = {}
        for path in sorted(walk(folder)):
            if is_array(path) or path.suffix.lower() in _PICTURES:
                named.setdefault(f"{path.parent.name}_{path.stem}", path)
                named[path.stem] = path
        names = truth.classes.names
        tokens = [(str(k), f"{k:02d}", f"class{k}", name, name.replace(" ", "_")) for k, name in enumerate(names)]
        self._files: list[Sequence[Path]] = [self._of_frame(index, named, tokens) for index in range(len(truth.source))]
        missing = [truth.source.name(index) for index, files in enumerate(self._files) if not files]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self._files)} frames have no probabilities in {folder}: {listed(missing)}. "
                f"Give NAME.npy or .npz, or NAME_0.png to NAME_{len(names) - 1}.png with 16 bits, for each of them"
            )

    def of(self, index: int, size: tuple[int, int]) -> Scores:
        """Probabilities (K, H, W) of a frame.

        Args:
            index: of the frame.
            size: height and width of its labels.

        Raises:
            DataError: a file cannot be read, has another size, or holds no probabilities.
        """
        files = self._files[index]
        number = len(self._truth.classes)
        if is_array(files[0]):
            scores = class_scores(files[0], number, size)
        else:
            scores = np.stack([self._grey(path) for path in files])
        found = None if scores is None else probabilities(scores)[0]
        if found is None or found.shape[1:] != size:
            shape = "no scores" if scores is None else f"shape {scores.shape} and type {scores.dtype}"
            raise DataError(
                f"{files[0]} has {shape}: give probabilities of the {number} classes, which add up to 1, or logits, in "
                f"the size of the labels ({size[1]}x{size[0]} pixels)"
            )
        return found

    def _of_frame(self, index: int, named: dict[str, Path], tokens: Sequence[Sequence[str]]) -> Sequence[Path]:
        for name in self._truth.file_names(index):
            stem = name.rpartition("/")[2]
            if stem in named and is_array(named[stem]):
                return [named[stem]]
            keys = [[f"{stem}{between}{word}" for between in "_-." for word in words] for words in tokens]
            files = [next((named[key] for key in words if key in named), None) for words in keys]
            if all(files):
                return [path for path in files if path is not None]
        return []

    @staticmethod
    def _grey(path: Path) -> npt.NDArray[Any]:
        pixels = read_map(path)
        if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
            raise DataError(
                f"{path} has shape {pixels.shape} and type {pixels.dtype}: the probability of a class is a grey "
                "picture with 16 bits, or 8, whose largest value stands for 1"
            )
        return pixels
