"""A user's own images and masks, in folders or listed in files."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.data.base import SegmentationDataModule, Split
from gscnn_lightning.data.files import LABEL_SUFFIXES, FileSource, Frame, find_files, pair_files, shown, user_path
from gscnn_lightning.data.mask_classes import read_classes
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.shipped_configs import find_config


class FolderDataModule(SegmentationDataModule):
    """Images and masks of one's own, with a class table in YAML (the shipped one called "camvid" is an example).

    Images are PNG, JPEG, BMP, TIFF, WebP or PPM, read as `pictures.read_picture` says; masks PNG, BMP, TIFF or PGM,
    8- or 16-bit ids, palette or RGB colours, as they are stored.
    A mask has the name of its image apart from suffix and ending. Folders may have folders in them. Without a `test`
    split, tests run on `val`; prediction runs on `predict`, else on `test` or `val`, and needs no masks.

    Args:
        root: folder that all other paths start from.
        classes: class table, see `mask_classes.read_classes`; a file below `root` or the working directory, or the
            name of a shipped one.
        images: folder of the images of a split, {split} standing for train, val, test or predict.
        masks: folder of the masks of a split.
        image_ending: end of the images' names, without suffix, that is no part of the frame's name, such as "_rgb".
        mask_ending: the same for masks, such as "_mask".
        lists: files with one "image mask" per line instead of folders, such as "{split}.txt"; columns are separated by
            commas in files called .csv, elsewhere by tabs or else spaces. Prediction lists may have images only.
        lists_leave_root: whether files in lists may lie outside of `root`, by ``..``, as absolute paths or through
            links; else such a list is refused.
        **kwargs: see `SegmentationDataModule`.

    Raises:
        DataError: the class table cannot be used.
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
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        folder, classes = user_path(root, "data.root"), str(user_path(classes, "data.classes"))
        inside = folder / classes
        try:
            mask_classes = read_classes(inside if inside.is_file() else find_config(str(classes), "classes"))
        except SettingError as error:
            raise DataError(f"cannot read the class table {classes} ({error}): correct --data.classes") from error
        for name, pattern in (("images", images), ("masks", masks), ("lists", lists or "")):
            try:
                pattern.format(split="train")
            except (LookupError, ValueError) as error:
                raise SettingError(
                    f"{name} is {pattern!r}: braces stand for {{split}}, the name of the split, and nothing else; "
                    "write others twice"
                ) from error
        super().__init__(mask_classes.classes, **kwargs)
        self.root = folder
        self.table = mask_classes.table
        self.images = images
        self.masks = masks
        self.image_ending = image_ending
        self.mask_ending = mask_ending
        self.lists = lists
        self.lists_leave_root = lists_leave_root

    def source(self, split: Split) -> FileSource:
        """Frames of a split; "test" and "predict" fall back on what there is.

        Raises:
            DataError: a folder or list is missing, empty or wrong.
        """
        if not self.root.is_dir():
            raise DataError(f"folder {self.root} does not exist: correct root (--data.root FOLDER)")
        order: dict[str, tuple[str, ...]] = {"test": ("test", "val"), "predict": ("predict", "test", "val")}
        chosen = next((name for name in order.get(split, (split,)) if self._place(name).exists()), split)
        if chosen != split:
            rank_zero_info(f"{self.root} has no {split} split: {split} uses {chosen}")
        return self._found(chosen) if self.lists is None else self._listed(chosen)

    def _place(self, split: str) -> Path:
        """Folder of the images, or list, of a split."""
        name, pattern = ("images", self.images) if self.lists is None else ("lists", self.lists)
        return user_path(self.root / pattern.format(split=split), f"data.{name}")

    def _found(self, split: str) -> FileSource:
        images, masks = self._place(split), user_path(self.root / self.masks.format(split=split), "data.masks")
        for folder, setting in ((images, "images"), (masks, "masks")):
            if not folder.is_dir() and not (split == "predict" and setting == "masks"):
                raise DataError(
                    f"{folder} is missing: create it, or say where the {setting} of a split are "
                    f"(--data.{setting} 'FOLDER/{{split}}')"
                )
        pictures = find_files(images, ending=self.image_ending)
        if split == "predict" and not masks.is_dir():
            return FileSource([Frame(name, path) for name, path in pictures.items()], self.table)
        labels = find_files(masks, LABEL_SUFFIXES, self.mask_ending)
        if pictures and not labels and (lossy := find_files(masks, {".jpg", ".jpeg", ".webp"}, self.mask_ending)):
            raise DataError(
                f"{next(iter(lossy.values()))} is a mask in a format that changes pixels: masks must be PNG, BMP, TIFF "
                "or PGM, made from the original annotations"
            )
        masks_found = set(labels.values())  # where images and masks share a folder and differ in their endings
        pictures = {name: path for name, path in pictures.items() if path not in masks_found}
        paired = pair_files(pictures, labels, f"{images} and {masks}")
        return FileSource(paired.frames, self.table, paired.problems)

    def _listed(self, split: str) -> FileSource:
        path = self._place(split)
        frames: dict[str, Frame] = {}
        root = self.root.resolve()
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
                if not self.lists_leave_root and not (real := file.resolve()).is_relative_to(root):
                    raise DataError(
                        f"{path}, line {line}: {shown(file)} is {shown(real)}, which is not in the root {self.root}: "
                        "correct the list, or allow it with --data.lists_leave_root true"
                    )
            name = _frame_name(columns[0])
            if name in frames:
                raise DataError(f"{path}, line {line}: {columns[0]} is the same frame as an earlier line: remove one")
            frames[name] = Frame(name, *files)
        return FileSource(frames.values(), self.table)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and columns of the lines of a list that are neither empty, a comment nor a header."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the list {path} ({error}): correct lists (--data.lists '{{split}}.txt')"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        if path.suffix == ".csv":
            columns = next(csv.reader([line]))
        else:
            columns = line.split("\t") if "\t" in line else line.split()
        columns = [column.strip() for column in columns]
        if number == 1 and columns[0].lower() == "image":
            continue
        yield number, columns


def _frame_name(path: str) -> str:
    """Path of an image without suffix, and without what leads out of the folder that predictions go to."""
    return Path(
        *(part for part in Path(path).with_suffix("").parts if part not in ("..", Path(path).anchor))
    ).as_posix()
