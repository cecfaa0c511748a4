"""The built-in data set as a data module: street scenes drawn on the fly, nothing to download."""

from typing import Any

from gscnn_lightning.checks import are_numbers, is_whole
from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.data.base import SegmentationDataModule, Split
from gscnn_lightning.data.ranges import check_count
from gscnn_lightning.data.scenes.draw import ScenesDataset
from gscnn_lightning.errors import SettingError

# Far apart, so that the validation scenes stay the same whatever the number of training scenes.
_START = {"train": 0, "val": 1_000_000, "test": 2_000_000}


class ScenesDataModule(SegmentationDataModule):
    """Drawn street scenes with exact labels of the 19 Cityscapes classes.

    A scene is a function of its number and `scene_seed`; training, validation and test use different numbers.

    Args:
        train_samples: number of training scenes.
        val_samples: number of validation scenes, and of test scenes. Prediction runs on the test scenes.
        size: height and width in pixels.
        scene_seed: another seed is another data set; `seed` only shuffles and augments.
        **kwargs: see `SegmentationDataModule`.

    Raises:
        ValueError: fewer than one scene, or another number out of range.
        DataError: scenes cannot be drawn in that size.
    """

    def __init__(
        self,
        train_samples: int = 512,
        val_samples: int = 64,
        size: tuple[int, int] = (256, 512),
        scene_seed: int = 0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(CITYSCAPES, **kwargs)
        if not is_whole(train_samples, 1) or not is_whole(val_samples, 1):
            raise SettingError(
                f"train_samples and val_samples must be 1 or more, got {train_samples!r} and {val_samples!r}"
            )
        check_count("scene_seed", scene_seed, 0)
        if not are_numbers(size, is_whole) or len(size) != 2:
            raise SettingError(f"size must be height and width in pixels, such as (256, 512), got {size!r}")
        self.train_samples = train_samples
        self.val_samples = val_samples
        self.size = size
        self.scene_seed = scene_seed
        self.source("train")  # knows which sizes can be drawn

    def source(self, split: Split) -> ScenesDataset:
        """Scenes of a split; "predict" means those of "test"."""
        samples = self.train_samples if split == "train" else self.val_samples
        start = _START["test" if split == "predict" else split]
        return ScenesDataset(samples, start=start, seed=self.scene_seed, size=self.size)
