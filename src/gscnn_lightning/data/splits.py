"""Which part of a data set is which split: by the names that it has for them, or by holding frames out."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.checks import is_number
from gscnn_lightning.classes import ClassTable
from gscnn_lightning.data.base import SegmentationDataModule, Split
from gscnn_lightning.data.files import FileSource, shown, user_path
from gscnn_lightning.errors import DataError, SettingError

_INSTEAD: dict[str, tuple[Split, ...]] = {"test": ("test", "val"), "predict": ("predict", "test", "val")}


class SplitDataModule(SegmentationDataModule):
    """What data modules share whose splits have a place of their own: a folder, a file, or a name.

    Without a `test` split, tests run on `val`; prediction runs on `predict`, else on `test` or `val`. A module defines
    `place` and `read`.

    Args:
        classes: class table.
        root: folder of the data.
        splits: what the data call train, val, test and predict, such as {val: validation}; of several names in a list
            the first that is there is taken. Splits that are not named have their own name.
        hold_out: share of the training frames to validate on where there is no val split, chosen by their names: always
            the same frames, and hardly others when some are added. 0 for none.
        skip_frames: names of frames that are to be left out.
        **kwargs: see `SegmentationDataModule`.

    Raises:
        SettingError: settings are of the wrong kind or out of range.
    """

    def __init__(
        self,
        classes: ClassTable,
        root: Path,
        splits: Mapping[str, str | list[str]] | None = None,
        hold_out: float = 0.0,
        skip_frames: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(classes, **kwargs)
        self.root = root
        self.splits = check_splits(splits)
        if not is_number(hold_out, 0) or hold_out >= 1:
            raise SettingError(f"hold_out must be a share from 0 to below 1, got {hold_out!r}")
        if isinstance(skip_frames, str):
            raise SettingError(f"skip_frames is {skip_frames!r}: give a list of names")
        self.hold_out = hold_out
        self.skip_frames = frozenset(skip_frames)

    @abstractmethod
    def place(self, name: str) -> object:
        """Where a split would be that the data call so, None if it is not there."""

    @abstractmethod
    def read(self, name: str, split: Split) -> FileSource:
        """Frames of what the data call `name`; for prediction, labels need not be there.

        Raises:
            DataError: something is missing or wrong.
        """

    def check_root(self) -> None:
        """Raise unless the data are there.

        Raises:
            DataError: there is no such folder.
        """
        if not self.root.is_dir():
            raise DataError(f"folder {self.root} does not exist: correct root (--data.root FOLDER)")

    def source(self, split: Split) -> FileSource:
        """Frames of a split; "test" and "predict" fall back on what there is.

        Raises:
            DataError: something is missing or wrong.
        """
        self.check_root()
        chosen = next((other for other in _INSTEAD.get(split, (split,)) if self._is_there(other)), split)
        if chosen != split:
            rank_zero_info(f"{self.root} has no {split} split: {split} uses {chosen}")
        holds_out = chosen in ("train", "val") and self._holds_out()
        source = self.read(self._name("train" if holds_out else chosen), split)
        source.frames = [frame for frame in source.frames if not self.is_skipped(frame.name)]
        if holds_out:
            held = held_out((frame.name for frame in source.frames), self.hold_out)
            if chosen == "val":
                rank_zero_info(
                    f"{self.root} has no val split: {split} uses {len(held)} of {len(source)} training frames, which "
                    f"are held out (hold_out {self.hold_out})"
                )
            source.frames = [frame for frame in source.frames if (frame.name in held) == (chosen == "val")]
        return source

    def is_skipped(self, name: str) -> bool:
        """Whether a frame is to be left out, by its name with or without folders."""
        return not self.skip_frames.isdisjoint((name, name.rpartition("/")[2]))

    def _name(self, split: str) -> str:
        """The first name of a split that is there, else the first name."""
        names = self.splits.get(split, [split])
        return next((name for name in names if self.place(name) is not None), names[0])

    def _is_there(self, split: Split) -> bool:
        return self._has_place(split) or (split == "val" and self._holds_out())

    def _has_place(self, split: Split) -> bool:
        """Whether a split has a place, and one that is not that of the training frames."""
        place = self.place(self._name(split))
        return place is not None and (split == "train" or place != self.place(self._name("train")))

    def _holds_out(self) -> bool:
        return self.hold_out > 0 and not self._has_place("val")


def check_splits(splits: Mapping[str, str | list[str]] | None) -> dict[str, list[str]]:
    """Names of each split, as lists.

    Raises:
        SettingError: a key is no split, or a value no name.
    """
    if splits is not None and not isinstance(splits, Mapping):
        raise SettingError(f"splits is {splits!r}: write what the data call each split, such as {{val: validation}}")
    listed: dict[str, list[str]] = {}
    for split, names in (splits or {}).items():
        if split not in ("train", "val", "test", "predict"):
            raise SettingError(f"splits has {split!r}: the splits are train, val, test and predict")
        listed[split] = [names] if isinstance(names, str) else list(names)
        if not listed[split] or not all(isinstance(name, str) for name in listed[split]):
            raise SettingError(f"splits has {names!r} for {split}: write a name, or a list of names to look for")
    return listed


def held_out(names: Iterable[str], share: float) -> frozenset[str]:
    """A share of names, at least one of them and never all, that depends on nothing but the names."""
    ordered = sorted(names, key=lambda name: hashlib.blake2b(name.encode(errors="surrogateescape")).digest())
    return frozenset(ordered[: min(max(1, round(share * len(ordered))), len(ordered) - 1)])


def split_path(root: Path, pattern: str, name: str, setting: str) -> Path:
    """Path below the root that a setting gives for a split.

    Args:
        root: folder of the data.
        pattern: {split} in it stands for the name of the split.
        name: what the data call the split.
        setting: name of the setting, for the message.

    Raises:
        DataError: no file can have the path.
    """
    return user_path(root / pattern.format(split=name), f"data.{setting}")


def check_patterns(patterns: Mapping[str, str]) -> None:
    """Raise if a setting has other braces than {split}.

    Args:
        patterns: by the names of their settings.

    Raises:
        SettingError: there are others.
    """
    for name, pattern in patterns.items():
        try:
            pattern.format(split="train")
        except (LookupError, ValueError) as error:
            raise SettingError(
                f"{name} is {pattern!r}: braces stand for {{split}}, the name of the split, and nothing else; write "
                "others twice"
            ) from error


def refuse_outside(file: Path, root: Path, where: str) -> None:
    """Raise if a file that another file names is not in the root, by ``..``, absolute or through links.

    Args:
        file: path as given.
        root: folder of the data.
        where: file and line that name it.

    Raises:
        DataError: it lies outside.
    """
    real = file.resolve()
    if not real.is_relative_to(root.resolve()):
        raise DataError(
            f"{where}: {shown(file)} is {shown(real)}, which is not in the root {root}: correct the list, or allow it "
            "with --data.lists_leave_root true"
        )
