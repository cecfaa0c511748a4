"""A user's own images and masks, in folders or listed in files."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gscnn_lightning.data.base import Split
from gscnn_lightning.data.files import LABEL_SUFFIXES, FileSource, Frame, find_files, pair_files, user_path
from gscnn_lightning.data.mask_classes import classes_file, read_classes
from gscnn_lightning.data.splits import SplitDataModule, check_patterns, refuse_outside, split_path
from gscnn_lightning.errors import DataError


class FolderDataModule(SplitDataModule):
    """Images and masks of one's own, with a class table in YAML (the shipped one called "camvid" is an example).

    Images are PNG, JPEG, BMP, TIFF, WebP or PPM, read as `pictures.read_picture` says; masks PNG, BMP, TIFF or PGM,
    8- or 16-bit ids, palette or RGB colours, as they are stored.
    A mask has the name of its image apart from suffix and ending. Folders may have folders in them. Without a `test`
    split, tests run on `val`; prediction runs on `predict`, else on `test` or `val`, and needs no masks. The configs
    called `data/...` have the settings for public data sets and annotation tools.

    Args:
        root: folder that all other paths start from.
        classes: class table, see `mask_classes.read_classes`; a file below `root` or the working directory, or the
            name of a shipped one.
        images: folder of the images of a split, {split} standing for train, val, test or predict, or what `splits` has
            in their place.
        masks: folder of the masks of a split.
        image_ending: end of the images' names, without suffix, that is no part of the frame's name, such as "_rgb".
        mask_ending: the same for masks, such as "_mask".
        lists: files with one "image mask" per line instead of folders, such as "{split}.txt"; columns are separated by
            commas in files called .csv, elsewhere by tabs or else spaces. Prediction lists may have images only.
        lists_leave_root: whether files in lists may lie outside of `root`, by ``..``, as absolute paths or through
            links; else such a list is refused.
        names: files with the name of one frame per line, without suffix and ending, such as
            "ImageSets/Segmentation/{split}.txt": these frames of the folders are the split, and others are no mistake.
        void_classes: names of classes of the table that are void here.
        **kwargs: see `SplitDataModule` (splits, hold_out, skip_frames) and `SegmentationDataModule`.

    Raises:
        DataError: the class table cannot be used.
        SettingError: settings are of the wrong kind or do not go together.
    """

    def __init__(
        self,
        root: str | Path,
        classes: str | Path,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        image_ending: str = "",
        mask_ending: str = "",
        lists: str | None = None,
        lists_leave_root: bool = False,
        names: str | None = None,
        void_classes: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        folder = user_path(root, "data.root")
        mask_classes = read_classes(classes_file(folder, classes)).without(void_classes)
        check_patterns({"images": images, "masks": masks, "lists": lists or "", "names": names or ""})
        super().__init__(mask_classes.classes, folder, **kwargs)
        self.table = mask_classes.table
        self.images = images
        self.masks = masks
        self.image_ending = image_ending
        self.mask_ending = mask_ending
        self.lists = lists
        self.lists_leave_root = lists_leave_root
        self.names = names

    def place(self, name: str) -> Path | None:
        """Folder of the images, or list, of a split, None if it is not there."""
        path = self._place(name)
        return path if path.exists() else None

    def read(self, name: str, split: Split) -> FileSource:
        """Frames of what the data call `name`; for prediction, there need be no masks.

        Raises:
            DataError: a folder or list is missing, empty or wrong.
        """
        return self._found(name, split) if self.lists is None else self._listed(name, split)

    def _place(self, name: str) -> Path:
        settings = {"lists": self.lists, "names": self.names, "images": self.images}
        setting, pattern = next((setting, pattern) for setting, pattern in settings.items() if pattern is not None)
        return split_path(self.root, pattern, name, setting)

    def _found(self, name: str, split: Split) -> FileSource:
        images = split_path(self.root, self.images, name, "images")
        masks = split_path(self.root, self.masks, name, "masks")
        for folder, setting in ((images, "images"), (masks, "masks")):
            if not folder.is_dir() and not (split == "predict" and setting == "masks"):
                raise DataError(
                    f"{folder} is missing: create it, or say where the {setting} of a split are "
                    f"(--data.{setting} 'FOLDER/{{split}}')"
                )
        pictures = find_files(images, ending=self.image_ending)
        labels = find_files(masks, LABEL_SUFFIXES, self.mask_ending)
        if pictures and not labels and (lossy := find_files(masks, {".jpg", ".jpeg", ".webp"}, self.mask_ending)):
            raise DataError(
                f"{next(iter(lossy.values()))} is a mask in a format that changes pixels: masks must be PNG, BMP, TIFF "
                "or PGM, made from the original annotations"
            )
        masks_found = set(labels.values())  # where images and masks share a folder and differ in their endings
        pictures = {name: path for name, path in pictures.items() if path not in masks_found}
        if self.names is not None:
            pictures, labels = self._named_only(name, split, pictures, labels, images, masks)
        pictures, labels = (
            {name: path for name, path in found.items() if not self.is_skipped(name)} for found in (pictures, labels)
        )
        if split == "predict" and not masks.is_dir():
            return FileSource([Frame(name, path) for name, path in pictures.items()], self.table)
        paired = pair_files(pictures, labels, f"{images} and {masks}")
        return FileSource(paired.frames, self.table, paired.problems)

    def _named_only(
        self,
        name: str,
        split: Split,
        pictures: dict[str, Path],
        labels: dict[str, Path],
        images: Path,
        masks: Path,
    ) -> tuple[dict[str, Path], dict[str, Path]]:
        """Files of the frames that a file of names has."""
        path = self._place(name)
        chosen: dict[str, int] = {}
        for line, columns in _rows(path, "names", separated=False):
            if columns[0] in chosen:
                raise DataError(f"{path}, line {line}: {columns[0]} is there twice: remove one")
            chosen[columns[0]] = line
        for frame, line in chosen.items():
            for found, folder, ending in ((pictures, images, self.image_ending), (labels, masks, self.mask_ending)):
                if frame not in found and (folder.is_dir() or split != "predict") and not self.is_skipped(frame):
                    missing = f"there is no {frame}{ending} in {folder}"
                    raise DataError(f"{path}, line {line}: {missing}: add the file, or remove the line")
        kept = ({frame: found[frame] for frame in chosen if frame in found} for found in (pictures, labels))
        return next(kept), next(kept)

    def _listed(self, name: str, split: Split) -> FileSource:
        path = self._place(name)
        frames: dict[str, Frame] = {}
        for line, columns in _rows(path):
            if len(columns) > 2 or (len(columns) < 2 and split != "predict"):
                raise DataError(
                    f"{path}, line {line} has {len(columns)} columns: write the image and its mask, separated by "
                    f"{'a comma' if path.suffix == '.csv' else 'a tab or a space'}"
                )
            files = [self.root / column for column in columns]
            for file in files:
                if not file.is_file():  # opening a pipe would wait for ever
                    raise DataError(f"{path}, line {line}: {file} is no file; paths start from {self.root}")
                if not self.lists_leave_root:
                    refuse_outside(file, self.root, f"{path}, line {line}")
            frame = _frame_name(columns[0])
            if frame in frames:
                raise DataError(f"{path}, line {line}: {columns[0]} is the same frame as an earlier line: remove one")
            frames[frame] = Frame(frame, *files)
        return FileSource(frames.values(), self.table)


def _rows(path: Path, setting: str = "lists", separated: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Line number and columns of the lines of a list that are neither empty, a comment nor a header."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the list {path} ({error}): correct {setting} (--data.{setting} '{{split}}.txt')"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if not separated:
            columns = [line]
        elif path.suffix == ".csv":
            columns = next(csv.reader([line]))
        else:
            columns = line.split("\t") if "\t" in line else line.split()
        columns = [column.strip() for column in columns]
        if separated and number == 1 and columns[0].lower() == "image":
            continue
        yield number, columns


def _frame_name(path: str) -> str:
    """Path of an image without suffix, and without what leads out of the folder that predictions go to."""
    return Path(
        *(part for part in Path(path).with_suffix("").parts if part not in ("..", Path(path).anchor))
    ).as_posix()
