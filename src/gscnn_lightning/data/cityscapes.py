"""Cityscapes in its official folder layout."""

from pathlib import Path
from typing import Any

from gscnn_lightning.data.base import SegmentationDataModule, Split
from gscnn_lightning.data.classes import CITYSCAPES, CITYSCAPES_ID_TO_TRAIN_ID, IGNORE_INDEX
from gscnn_lightning.data.files import FileSource, Frame, data_root, find_files, label_table, pair_files
from gscnn_lightning.errors import DataError

# An 8-bit file holds the official id -1 (license plate) as 255.
_FROM_ID = label_table({raw % 256: train_id for raw, train_id in CITYSCAPES_ID_TO_TRAIN_ID.items()})
_FROM_TRAIN_ID = label_table({**{i: i for i in range(len(CITYSCAPES))}, IGNORE_INDEX: IGNORE_INDEX})


class CityscapesDataModule(SegmentationDataModule):
    """Cityscapes, fine annotations: 2975 training and 500 validation frames of 2048x1024, 19 classes and void.

    Folders as in the official archives, `leftImg8bit/<split>/<city>` and `gtFine/<split>/<city>`, each also below
    `leftImg8bit_trainvaltest` and `gtFine_trainvaltest`. Labels are read from `*_gtFine_labelIds.png` and translated
    on the fly, or from `*_gtFine_labelTrainIds.png` if there are only these. The labels of the official test split are
    withheld: tests run on `val`; prediction runs on the `test` images where they are present, else on `val`.

    Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.

    Args:
        root: folder of the data set, default the environment variable CITYSCAPES_DATASET.
        **kwargs: see `SegmentationDataModule`.
    """

    def __init__(self, root: str | Path | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(CITYSCAPES, **kwargs)
        self.root = root

    def source(self, split: Split) -> FileSource:
        """Frames of a split; "test" means `val`, "predict" the images of `test` or else `val`.

        Raises:
            DataError: a folder or one of a pair of files is missing.
        """
        root = data_root(self.root, "CITYSCAPES_DATASET", "Cityscapes")
        if split == "predict":
            images = _images(root, "test")
            if images:
                return FileSource([Frame(name, path) for name, path in images.items()], _FROM_ID)
        return _labelled(root, "train" if split == "train" else "val")


def _labelled(root: Path, split: str) -> FileSource:
    """Frames of an official split with their fine labels."""
    folder = _package(root, "gtFine") / split
    labels, table = find_files(folder, {".png"}, "_gtFine_labelIds"), _FROM_ID
    if not labels:
        labels, table = find_files(folder, {".png"}, "_gtFine_labelTrainIds"), _FROM_TRAIN_ID
    return FileSource(pair_files(_images(root, split), labels, f"Cityscapes split {split} of {root}"), table)


def _images(root: Path, split: str) -> dict[str, Path]:
    """Images of an official split by name, such as `aachen/aachen_000000_000019`."""
    return find_files(_package(root, "leftImg8bit") / split, ending="_leftImg8bit")


def _package(root: Path, name: str) -> Path:
    """Folder of one official package, unpacked directly into the root or with its archive's name around it."""
    places = (root / name, root / f"{name}_trainvaltest" / name)
    for place in places:
        if place.is_dir():
            return place
    missing = f"{root} has neither {name} nor {name}_trainvaltest/{name}"
    raise DataError(f"{missing}: unpack {name}_trainvaltest.zip there, or correct root (--data.root FOLDER)")
