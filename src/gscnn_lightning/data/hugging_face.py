"""Data sets in Hugging Face's library `datasets`: of the hub, saved to disk, or Parquet files."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gscnn_lightning.data.base import Split
from gscnn_lightning.data.files import (
    Bytes,
    FileSource,
    Frame,
    look_at_image,
    look_at_labels,
    read_labels,
    user_path,
)
from gscnn_lightning.data.mask_classes import classes_file, read_classes
from gscnn_lightning.data.pictures import read_picture
from gscnn_lightning.data.splits import SplitDataModule
from gscnn_lightning.errors import DataError, SettingError

_USUAL_NAMES = ("file_name", "filename", "name", "id")


@dataclass(frozen=True)
class RowFrame(Frame):
    """An image and a mask in a row of a table.

    Attributes:
        row: its number.
    """

    row: int = 0


class RowSource(FileSource):
    """Rows of a data set with encoded pictures, decoded when asked for, by the reader of files.

    Args:
        frames: what to serve.
        table: train id of each raw value or colour, from `label_table` or `color_table`.
        rows: a split of a data set, whose pictures come as they are stored.
        image: column of the images.
        mask: column of the masks, None where there are none.
        where: what messages call the data set.
    """

    def __init__(
        self,
        frames: Iterable[RowFrame],
        table: Bytes,
        rows: Any,  # noqa: ANN401
        image: str,
        mask: str | None,
        where: str,
    ) -> None:
        super().__init__(frames, table)
        self.image, self.mask, self.where = image, mask, where
        # A row is read whole, so one that is asked for its mask must not have the image in it.
        self.columns = {column: rows.select_columns([column]) for column in (image, mask) if column is not None}

    def load(self, index: int) -> tuple[Bytes, Bytes | None]:
        """RGB image (H, W, 3) and train ids (H, W) or None, both uint8.

        Raises:
            DataError: a picture is damaged, or has a label value outside the table.
        """
        content, called = self.stored(index, self.image)
        return read_picture(content, called), self.load_labels(index)

    def load_labels(self, index: int) -> Bytes | None:
        """Train ids (H, W) uint8, or None where there are no masks.

        Raises:
            DataError: the mask is damaged, or has a value outside the table.
        """
        if self.mask is None:
            return None
        content, called = self.stored(index, self.mask)
        return read_labels(content, self.table, called)

    def identity(self, index: int) -> str:
        """Split and row: names may be the same in different splits."""
        return f"{self.where} {self._row(index)}"

    def check_frame(self, index: int) -> Sequence[str]:
        """Look at the first and last bytes of the pictures of a row.

        Returns:
            What is converted or left out when the frame is read.

        Raises:
            DataError: a picture is none that can be read, sizes differ, or the pixels are of the wrong kind.
        """
        content, called = self.stored(index, self.image)
        image = look_at_image(content, called)
        if self.mask is None:
            return image.converted
        mask, of_mask = self.stored(index, self.mask)
        return (*image.converted, *look_at_labels(mask, self.table, image, self.image, of_mask))

    def fingerprint(self) -> str:
        """Digest of the masks as they are stored, and of the table."""
        digest = hashlib.sha256(self.table.tobytes())
        for index in range(len(self) if self.mask is not None else 0):
            digest.update(hashlib.sha256(self.stored(index, self.mask or "")[0]).digest())
        return digest.hexdigest()

    def _row(self, index: int) -> int:
        frame = self.frames[index]
        assert isinstance(frame, RowFrame)
        return frame.row

    def stored(self, index: int, column: str) -> tuple[bytes, str]:
        """A picture as it is stored, and what messages call it.

        Raises:
            DataError: the row has none there.
        """
        row = self._row(index)
        return stored_picture(self.columns[column][row][column], f"{column} of row {row} in {self.where}")


def stored_picture(value: object, called: str) -> tuple[bytes, str]:
    """The bytes of a picture in a table, and what messages call it.

    Args:
        value: what the table has: bytes, or a mapping with them or with the path of a file.
        called: the place in the table, for messages.

    Raises:
        DataError: it is no picture, or a file that cannot be read.
    """
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return value["bytes"], called
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        try:
            return Path(value["path"]).read_bytes(), f"{value['path']}, {called},"
        except OSError as error:
            raise DataError(f"cannot read {value['path']}, {called}: {error.strerror or error}") from error
    if isinstance(value, bytes):
        return value, called
    raise DataError(f"{called} is no picture but {str(value)[:60]!r}: fill it, or leave the row out")


class HuggingFaceDataModule(SplitDataModule):
    """A data set with a column of images and one of masks, by Hugging Face's library `datasets`.

    By its name on the hub, such as "zhoubolei/scene_parse_150", or from disk: a folder that `save_to_disk` wrote, or
    that `load_dataset` takes, such as one of Parquet files called train-00000-of-00001.parquet and so on. Pictures are
    decoded as those of files are; masks are ids, palette or colours, as the class table has them.

    Args:
        root: name, or folder.
        classes: class table, see `mask_classes.read_classes`; a file below `root` or the working directory, or the
            name of a shipped one.
        image: column of the images.
        mask: column of the masks. For prediction it need not be there.
        config_name: which of the data set's configurations, where it has several.
        revision: which version of a data set on the hub: a commit, tag or branch.
        name: column with names of the frames, by default one of file_name, filename, name and id; rows are numbered
            where there is none.
        void_classes: names of classes of the table that are void here.
        **kwargs: see `SplitDataModule` (splits, hold_out, skip_frames) and `SegmentationDataModule`. Unless `splits`
            says otherwise, val is validation, val or valid.

    Raises:
        DataError: the class table cannot be used.
        SettingError: the library is not installed, or settings are of the wrong kind.
    """

    def __init__(
        self,
        root: str,
        classes: str | Path,
        image: str = "image",
        mask: str = "mask",
        config_name: str | None = None,
        revision: str | None = None,
        name: str | None = None,
        void_classes: Sequence[str] = (),
        splits: Mapping[str, str | list[str]] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        folder = user_path(root, "data.root")
        mask_classes = read_classes(classes_file(folder, classes)).without(void_classes)
        splits = {"val": ["validation", "val", "valid"], **(splits or {})}
        super().__init__(mask_classes.classes, folder, splits=splits, **kwargs)
        self.given = str(root)
        self.table = mask_classes.table
        self.image = image
        self.mask = mask
        self.config_name = config_name
        self.revision = revision
        self.name = name
        self._loaded: Any = None

    def check_root(self) -> None:
        """Load the data set, from wherever it is.

        Raises:
            DataError: it cannot be loaded.
        """
        self._data_set()

    def place(self, name: str) -> str | None:
        """The name of a split, None if the data set has none of that name."""
        return name if name in self._data_set() else None

    def read(self, name: str, split: Split) -> RowSource:
        """Rows of what the data set calls `name`; for prediction, there need be no masks.

        Raises:
            DataError: the split or a column is missing.
        """
        loaded = self._data_set()
        if name not in loaded:
            raise DataError(
                f"{self.given} has the splits {', '.join(loaded)}, not {name}: say which is which, as in --data.splits "
                "'{train: training}', or make one with --data.hold_out 0.1"
            )
        rows = loaded[name]
        columns = list(rows.features)
        mask = None if split == "predict" and self.mask not in columns else self.mask
        for setting, column in (("image", self.image), ("mask", mask), ("name", self.name)):
            if column is not None and column not in columns:
                raise DataError(
                    f"{self.given} has the columns {', '.join(columns)}, not {column}: name the {setting}s "
                    f"(--data.{setting} COLUMN)"
                )
        where = f"{self.given}, split {name}"
        return RowSource(self._frames(rows, columns, name), self.table, rows, self.image, mask, where)

    def _frames(self, rows: Any, columns: Sequence[str], split: str) -> list[RowFrame]:  # noqa: ANN401
        column = self.name or next((name for name in _USUAL_NAMES if name in columns), None)
        names = [f"{split}/{row:06d}" for row in range(len(rows))]
        if column is not None:
            found = [Path(str(name)).with_suffix("").as_posix().lstrip("/") for name in rows[column]]
            if len(set(found)) == len(found) and not any(".." in Path(name).parts for name in found):
                names = found
        return [RowFrame(name, Path(f"{split}-{row}"), row=row) for row, name in enumerate(names)]

    def _data_set(self) -> Any:  # noqa: ANN401
        """All splits by name, pictures as they are stored."""
        if self._loaded is None:
            self._loaded = load_tables(self.given, self.config_name, self.revision)
        return self._loaded


def load_tables(given: str, config_name: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """All splits of a data set by name, whose pictures come as they are stored.

    Args:
        given: folder, or name on the hub.
        config_name: which of its configurations.
        revision: which version of it.

    Raises:
        DataError: it cannot be loaded.
        SettingError: the library `datasets` is not installed.
    """
    stored = _library().Image(decode=False)
    tables = {}
    for name, rows in _load(given, config_name, revision).items():
        for column, feature in rows.features.items():
            if isinstance(feature, type(stored)):
                rows = rows.cast_column(column, stored)
        tables[name] = rows
    return tables


def _load(given: str, config_name: str | None, revision: str | None) -> Mapping[str, Any]:
    datasets = _library()
    folder = user_path(given, "data.root")
    try:
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))
        if (folder / "state.json").is_file():
            return {"train": datasets.load_from_disk(str(folder))}
        if folder.exists():
            return datasets.load_dataset(str(folder), config_name)
        return datasets.load_dataset(given, config_name, revision=revision)
    except Exception as error:  # of this library, of the hub's, of Arrow and of the network
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"datasets cannot load {given} ({type(error).__name__}: {reason}): correct root (--data.root FOLDER, or a "
            "name on the hub), config_name or revision"
        ) from error


def _library() -> Any:  # noqa: ANN401
    try:
        import datasets  # slow
    except ImportError as error:
        raise SettingError(
            f"data sets of Hugging Face are read by its library datasets, which cannot be imported ({error}): pip "
            "install 'gscnn-lightning[formats]'"
        ) from error
    return datasets
