"""Cityscapes in its official folder layout."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.checks import is_whole
from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_ID_TO_TRAIN_ID, IGNORE_INDEX
from gscnn_lightning.data.base import SegmentationDataModule, Split
from gscnn_lightning.data.files import (
    IMAGE_SUFFIXES,
    FileSource,
    Frame,
    data_root,
    find_files,
    label_table,
    pair_files,
)
from gscnn_lightning.errors import DataError, SettingError

FROM_ID = label_table({raw % 256: train_id for raw, train_id in CITYSCAPES_ID_TO_TRAIN_ID.items()})
"""Train id of each official id; an 8-bit file holds the id -1 (license plate) as 255."""
FROM_TRAIN_ID = label_table({**{i: i for i in range(len(CITYSCAPES))}, IGNORE_INDEX: IGNORE_INDEX})

PACKAGES = {
    "leftImg8bit": ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit", "leftImg8bit_trainextra/leftImg8bit"),
    "gtFine": ("gtFine", "gtFine_trainvaltest/gtFine"),
    "gtCoarse": ("gtCoarse", "gtCoarse/gtCoarse"),
}
"""Folders that hold the splits, as the official archives unpack with and without a folder of the archive's name."""

VAL_CITIES = (
    ("frankfurt", "lindau", "munster"),  # the official validation split
    ("aachen", "erfurt", "hanover"),
    ("bochum", "bremen", "ulm"),
    ("cologne", "dusseldorf", "krefeld"),
    ("darmstadt", "monchengladbach", "strasbourg"),
    ("hamburg", "jena", "zurich"),
    ("stuttgart", "tubingen", "weimar"),
)
"""Validation cities of each cross-validation split: every city of train and val once, 474 to 544 frames per split."""


class CityscapesDataModule(SegmentationDataModule):
    """Cityscapes: 2975 training and 500 validation frames of 2048x1024 with fine labels, 19 classes and void.

    Folders as in the official archives, `leftImg8bit/<split>/<city>` and `gtFine/<split>/<city>`, each also below
    the name of its archive, such as `leftImg8bit_trainvaltest`. Labels are read from `*_labelIds.png` and translated
    on the fly, or from `*_labelTrainIds.png` if there are only these. Validation always has fine labels. The labels of
    the official test split are withheld: tests run on the validation frames; prediction runs on the `test` images
    where they are present, else on the validation frames.

    Cordts et al., The Cityscapes Dataset for Semantic Urban Scene Understanding, CVPR 2016.

    Args:
        root: folder of the data set, default the environment variable CITYSCAPES_DATASET.
        train_split: what to train on: "train"; "trainval", which leaves no unseen frames to validate on; or
            "train_extra", 19998 frames with coarse labels only.
        annotation: "fine" or "coarse" labels in training.
        cv_split: 0 for the official training and validation frames, 1 to 6 for others: the cities of train and val
            are divided as in `VAL_CITIES`, one group to validate on, all others to train on.
        skip_frames: names of frames that are to be left out, such as `troisdorf_000000_000073`: files known to be
            black or missing, which would be refused otherwise.
        instances: whether samples for evaluation have "instances", the official instance ids (H, W) int32, which iIoU
            needs; instance k of a class with id c is 1000 * c + k. True for validation and test, False for none; by
            default in test if the files are there, as in the official archive.
        **kwargs: see `SegmentationDataModule`.

    Raises:
        ValueError: settings that do not go together.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        train_split: Literal["train", "trainval", "train_extra"] = "train",
        annotation: Literal["fine", "coarse"] = "fine",
        cv_split: int = 0,
        skip_frames: Sequence[str] = (),
        instances: bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(CITYSCAPES, **kwargs)
        if train_split not in ("train", "trainval", "train_extra"):
            raise SettingError(f"train_split must be 'train', 'trainval' or 'train_extra', got {train_split!r}")
        if annotation not in ("fine", "coarse"):
            raise SettingError(f"annotation must be 'fine' or 'coarse', got {annotation!r}")
        if isinstance(skip_frames, str):
            raise SettingError(f"skip_frames is {skip_frames!r}: give a list of names")
        if not is_whole(cv_split, 0) or cv_split >= len(VAL_CITIES):
            raise SettingError(f"cv_split must be 0 (official) to {len(VAL_CITIES) - 1}, got {cv_split!r}")
        if cv_split and train_split == "trainval":
            raise SettingError(f"train_split 'trainval' uses all cities: cv_split must be 0 with it, got {cv_split}")
        if train_split == "train_extra" and annotation == "fine":
            raise SettingError("train_extra has no fine labels: set annotation to 'coarse' with it")
        self.root = root
        self.train_split = train_split
        self.annotation = annotation
        self.cv_split = cv_split
        self.skip_frames = frozenset(skip_frames)
        self.instances = instances

    def source(self, split: Split) -> FileSource:
        """Frames of a split; "test" means the validation frames, "predict" the images of `test` or else these.

        Raises:
            DataError: a folder is missing or empty.
        """
        root = data_root(self.root, "CITYSCAPES_DATASET", "Cityscapes")
        if split == "predict":
            images = self._find(root, "leftImg8bit", "test", "_leftImg8bit")
            if images:
                return FileSource([Frame(name, path) for name, path in images.items()], FROM_ID)
        if split == "train":
            return self._training(root)
        if self.train_split == "trainval":
            rank_zero_info("Cityscapes: trained on trainval, so the validation frames are among the training frames")
        source = self._labelled(root, ("train", "val") if self.cv_split else ("val",), "fine")
        if self.cv_split:
            source = self._of_cities(source, validation=True)
        if self.instances or (self.instances is None and split == "test"):
            self._add_instances(source)
        return source

    def _training(self, root: Path) -> FileSource:
        if self.train_split == "train" and self.cv_split:
            return self._of_cities(self._labelled(root, ("train", "val"), self.annotation), validation=False)
        splits = {"train": ("train",), "trainval": ("train", "val"), "train_extra": ("train_extra",)}
        return self._labelled(root, splits[self.train_split], self.annotation)

    def _labelled(self, root: Path, splits: Sequence[str], annotation: str) -> FileSource:
        """Frames of official splits with their labels."""
        package = "gtFine" if annotation == "fine" else "gtCoarse"
        images: dict[str, Path] = {}
        ids: dict[str, Path] = {}
        train_ids: dict[str, Path] = {}
        for split in splits:
            ids.update(self._find(root, package, split, f"_{package}_labelIds"))
            train_ids.update(self._find(root, package, split, f"_{package}_labelTrainIds"))
            images.update(self._find(root, "leftImg8bit", split, "_leftImg8bit"))
        labels, table = (ids, FROM_ID) if ids or not train_ids else (train_ids, FROM_TRAIN_ID)
        frames, problems = pair_files(images, labels, f"Cityscapes split {' and '.join(splits)} of {root}")
        return FileSource(frames, table, problems)

    def _find(self, root: Path, package: str, split: str, ending: str) -> dict[str, Path]:
        """Files of an official split by name, such as `aachen/aachen_000000_000019`."""
        suffixes = IMAGE_SUFFIXES if package == "leftImg8bit" else {".png"}
        found = find_files(_split_folder(root, package, split), suffixes, ending)
        skipped = self.skip_frames
        return {name: path for name, path in found.items() if skipped.isdisjoint((name, name.rpartition("/")[2]))}

    def _of_cities(self, source: FileSource, validation: bool) -> FileSource:
        """The frames of a cross-validation split."""
        cities = VAL_CITIES[self.cv_split]
        source.frames = [frame for frame in source.frames if (frame.name.split("/")[0] in cities) == validation]
        if not source.frames and not source.problems:
            side = "validation" if validation else "training"
            raise DataError(
                f"cross-validation split {self.cv_split} leaves no {side} frames, as it validates on "
                f"{', '.join(cities)}: add the missing cities or choose another cv_split"
            )
        return source

    def _add_instances(self, source: FileSource) -> None:
        """Pair frames with their instance maps: all of them, or none if none has to be there."""
        paths = [instance_map(frame) for frame in source.frames]
        missing = [path for path in paths if not path.is_file()]
        if self.instances is None and len(missing) == len(paths):
            return
        if missing:
            raise DataError(f"{missing[0]} is missing: unpack gtFine_trainvaltest.zip again, or set instances to false")
        source.frames = [replace(frame, instances=path) for frame, path in zip(source.frames, paths, strict=True)]


def instance_map(frame: Frame) -> Path:
    """Where the instance map of a frame is by its name, whether it is there or not."""
    assert frame.labels is not None
    name = frame.labels.name.replace("_labelTrainIds", "_labelIds").replace("_labelIds", "_instanceIds")
    return frame.labels.with_name(name)


def _split_folder(root: Path, package: str, split: str) -> Path:
    """Folder of a split in one of the places of a package; it need not exist if another split is there."""
    places = [root / place for place in PACKAGES[package]]
    present = [place for place in places if place.is_dir()]
    if not present:
        archive = {"gtCoarse": "gtCoarse.zip"}.get(package, f"{package}_trainvaltest.zip")
        missing = f"{root} has neither {' nor '.join(PACKAGES[package])}"
        raise DataError(f"{missing}: unpack {archive} there, or correct root (--data.root FOLDER)")
    return next((place / split for place in present if (place / split).is_dir()), present[0] / split)
