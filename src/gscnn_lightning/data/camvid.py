"""CamVid road scenes in the SegNet layout."""

from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.classes import CAMVID, IGNORE_INDEX
from gscnn_lightning.data.base import SegmentationDataModule, Split
from gscnn_lightning.data.files import FileSource, data_root, find_files, label_table, pair_files
from gscnn_lightning.errors import DataError

_VOID = 11


class CamVidDataModule(SegmentationDataModule):
    """CamVid: 367 training, 101 validation and 233 test frames of 480x360, 11 classes and void.

    Folders `train`, `trainannot`, `val`, `valannot`, `test`, `testannot`; images PNG or JPEG, labels 8-bit PNG of the
    same name with values 0 to 10 and 11 for void. Without a `test` folder, tests run on `val`.

    Brostow, Fauqueur, Cipolla: Semantic object classes in video, PRL 2009; split and classes of SegNet
    (Badrinarayanan, Kendall, Cipolla, PAMI 2017).

    Args:
        root: folder of the data set, default the environment variable GSCNN_CAMVID_ROOT.
        **kwargs: see `SegmentationDataModule`.

    Raises:
        DataError: neither argument nor variable is given.
    """

    def __init__(self, root: str | Path | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(CAMVID, **kwargs)
        self.root = root

    def source(self, split: Split) -> FileSource:
        """Frames of a split; "test" and "predict" mean `test` where that folder exists, else `val`."""
        root = data_root(self.root, "GSCNN_CAMVID_ROOT", "CamVid")
        folder: str = split
        if split in ("test", "predict"):
            folder = "test" if (root / "test").is_dir() else "val"
            if folder != "test":
                rank_zero_info(f"CamVid in {root} has no test folder: {split} uses val")
        images, labels = root / folder, root / f"{folder}annot"
        for path in (images, labels):
            if not path.is_dir():
                raise DataError(f"{path} is missing: CamVid in the SegNet layout has {images.name} and {labels.name}")
        paired = pair_files(find_files(images), find_files(labels, {".png"}), f"{images} and {labels.name}")
        table = label_table({**{i: i for i in range(len(CAMVID))}, _VOID: IGNORE_INDEX})
        return FileSource(paired.frames, table, paired.problems)
