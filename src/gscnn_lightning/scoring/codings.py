"""What the values of predicted label maps mean: train ids, raw ids of the data set, or colours of the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_COLORS, IGNORE_INDEX
from gscnn_lightning.data.files import UNKNOWN, color_table, label_table, listed_values, translate
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.scoring.prediction_files import LabelFile
from gscnn_lightning.scoring.truth import Truth

Bytes = npt.NDArray[np.uint8]
Coding = Literal["trainids", "ids", "colors"]

_IDS = 1 << 16
_MOSTLY = 0.5


class Codings:
    """The codings of a set of classes.

    Args:
        truth: the classes, and what their labels are called in the data set.

    Attributes:
        tables: train id of each value (65536) or colour (2^24) by coding.
    """

    def __init__(self, truth: Truth) -> None:
        self.classes = truth.classes
        number = len(truth.classes)
        self.tables: dict[str, Bytes] = {
            "trainids": label_table({**{i: i for i in range(number)}, truth.ignore_index: IGNORE_INDEX}),
        }
        if truth.table is not None and len(truth.table) == _IDS:
            self.tables["ids"] = truth.table
        self.tables["colors"] = _colors(truth)

    def decode(self, file: LabelFile, coding: Coding, called: object) -> Bytes:
        """Train ids (H, W) uint8 of a file, 255 where no class is predicted.

        Args:
            file: its pixels; those that come from scores of the classes are train ids, whatever the coding.
            coding: what its values are.
            called: what messages call it.

        Raises:
            DataError: a value means nothing in the coding, or the pixels are not of its kind.
        """
        chosen = "trainids" if file.from_scores else coding
        if chosen != "colors" and file.is_color:
            hint = ", or keep one of its channels, which are all the same" if file.is_grey else ""
            raise DataError(f"{called} is a picture of colours, not of {_CALLED[chosen]}: give --coding colors{hint}")
        raw = file.in_colors() if chosen == "colors" else file.pixels
        if raw is None:
            raise DataError(f"{called} has values and no colours: leave --coding colors out, or give files of one kind")
        labels = translate(raw, self.tables[chosen])
        assert labels is not None
        unknown = labels == UNKNOWN
        if unknown.any():
            hint = ", which are the same in all channels: keep one of them" if file.is_color and file.is_grey else ""
            raise DataError(
                f"{called} has values that are no {_CALLED[chosen]}: {listed_values(raw[unknown])} "
                f"({np.count_nonzero(unknown)} pixels){hint}"
            )
        return labels


_CALLED = {"trainids": "train ids", "ids": "ids of the data set", "colors": "colours of the classes"}


@dataclass
class Finder:
    """Finds out what coding label maps are in, from the values of some of them.

    Args:
        codings: those there are.

    Attributes:
        counts: pixels by value of all files with values so far.
        files: number of files so far.
        colors: those of them that are pictures of colours.
        palettes: those with values that have a palette, so that they may be colours, too.
        scores: those with the scores of the classes.
    """

    codings: Codings
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_IDS, np.int64))
    files: int = 0
    colors: int = 0
    palettes: int = 0
    scores: int = 0

    def add(self, file: LabelFile) -> None:
        """Look at the values of a file."""
        self.files += 1
        self.colors += file.is_color
        self.scores += file.from_scores
        self.palettes += file.path is not None
        if not file.is_color and not file.from_scores:
            self.counts += np.bincount(file.pixels.ravel(), minlength=_IDS)

    def coding(self) -> Coding | None:
        """The coding of the files so far; None if it cannot be told."""
        values = np.flatnonzero(self.counts)
        possible = self.possible()
        if self.scores == self.files:
            return "trainids"
        if self.colors + self.scores == self.files or (not possible and self.palettes + self.scores == self.files):
            return "colors"
        if not possible or self._is_binary(values):
            return None
        first, *others = possible
        if all((self._meant(first, values) == self._meant(other, values)).all() for other in others):
            return first
        # Void of the data set is what no network predicts, but for a value or two that stand for all of it.
        for coding in possible:
            rest = [other for other in possible if other != coding]
            if all(self._is_void_instead(coding, other, values) for other in rest):
                return coding
        return None

    def possible(self) -> list[Coding]:
        """Codings in which all values of the files so far mean something."""
        values = np.flatnonzero(self.counts)
        coded: list[Coding] = [name for name in get_args(Coding) if name != "colors" and name in self.codings.tables]
        return [name for name in coded if not (self._meant(name, values) == UNKNOWN).any()]

    def values(self) -> str:
        """The values of the files so far, as text."""
        found = np.flatnonzero(self.counts).tolist()
        return ", ".join(map(str, found[:12])) + (f" and {len(found) - 12} more" if len(found) > 12 else "")

    def refuse(self, folder: object) -> DataError:
        """What to say if the coding cannot be told."""
        possible = self.possible()
        if not possible:
            return DataError(
                f"the predictions in {folder} have values that mean nothing with these classes: {self.values()} "
                f"(train ids are 0 to {len(self.codings.classes) - 1} and {IGNORE_INDEX}): give predictions of the "
                "same classes, or the data that they are of"
            )
        either = " or ".join(_CALLED[name] for name in possible)
        remedy = " or ".join(f"--coding {name}" for name in possible)
        if len(possible) == 1:
            return DataError(
                f"the predictions in {folder} have no values but {self.values()}, which may be a mask of one class in "
                f"black and white: if they are {either}, give {remedy}"
            )
        return DataError(
            f"the predictions in {folder} can be {either}: they have the values {self.values()}, which mean something "
            f"else in each. Say which they are: {remedy}"
        )

    def _meant(self, coding: str, values: npt.NDArray[np.integer]) -> Bytes:
        return self.codings.tables[coding][values]

    def _is_binary(self, values: npt.NDArray[np.integer]) -> bool:
        """Whether there is nothing but black and white, where white would be void."""
        return set(values.tolist()) == {0, 255} and self.codings.tables["trainids"][255] == IGNORE_INDEX

    def _is_void_instead(self, coding: str, other: str, values: npt.NDArray[np.integer]) -> bool:
        """Whether most pixels, which are classes in one coding, would be without a class in the other."""
        here, there = self._meant(coding, values), self._meant(other, values)
        is_class = here != IGNORE_INDEX
        void = is_class & (there == IGNORE_INDEX)
        counts = self.counts[values]
        # 0 is "unlabeled" in many data sets and is used for pixels without a class, as 255 is: it tells nothing.
        return bool(void[values != 0].any()) and bool(counts[void].sum() > _MOSTLY * counts[is_class].sum())


def check_coding(coding: str | None, codings: Codings) -> None:
    """Raise unless there is such a coding.

    Raises:
        SettingError: there is none.
    """
    if coding is not None and coding not in codings.tables:
        raise SettingError(
            f"coding is {coding}, and the labels of these data have train ids: give --coding trainids or colors"
        )


def _colors(truth: Truth) -> Bytes:
    """Train id of every colour: display colours, and those that the label maps themselves have."""
    owners: dict[tuple[int, int, int], int] = {}
    if truth.classes.names == CITYSCAPES.names:
        owners.update(CITYSCAPES_COLORS)
    owners.update(_unique(dict(enumerate(truth.classes.colors))))
    table = color_table(owners)
    if truth.table is not None and len(truth.table) > _IDS:
        known = truth.table != UNKNOWN
        differ = known & (table != UNKNOWN) & (table != truth.table)
        table = np.where(known, truth.table, table)
        table[differ] = UNKNOWN  # shown in the colour of one class, stored as that of another
    return table


def _unique(colors: Mapping[int, Sequence[int]]) -> dict[tuple[int, int, int], int]:
    """Colours by class, turned around; one that several classes share tells none of them."""
    owners: dict[tuple[int, int, int], int] = {}
    for train_id, (red, green, blue) in colors.items():
        color = (red, green, blue)
        owners[color] = UNKNOWN if color in owners else train_id
    return owners
