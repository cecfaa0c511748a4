"""The data module of packed frames."""

from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from gscnn_lightning.checks import is_number
from gscnn_lightning.classes import ClassTable
from gscnn_lightning.data.base import SegmentationDataModule, Split
from gscnn_lightning.data.files import user_path
from gscnn_lightning.data.shards.layout import read_manifest, shard_name
from gscnn_lightning.data.shards.places import LocalCopies, place_of
from gscnn_lightning.data.shards.source import ShardSource
from gscnn_lightning.errors import DataError, SettingError

_INSTEAD: dict[str, tuple[Split, ...]] = {"test": ("val",), "predict": ("test", "val")}


class ShardsDataModule(SegmentationDataModule):
    """Frames that `gscnn data pack` wrote, in a folder or an object store.

    Classes are those of the data that were packed, and so are samples, their order and their augmentation for the same
    settings. Tests run on `val` where the shards have no `test`, prediction on `test` or else `val`.

    Args:
        root: folder, or s3://BUCKET/FOLDER, read with the keys and the endpoint of the AWS tools' variables
            (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL ...).
        copies: folder for copies of shards in an object store, made when they are first used; any number of processes
            of a machine may share it, and later trainings find them. None to ask the store for every sample.
        copies_gb: room for them, in 10^9 bytes. Of shards that do not fit, samples are asked for as without copies.
        **kwargs: see `SegmentationDataModule`.

    Raises:
        DataError: there is no shard set, or it is damaged or of another version.
        SettingError: litdata is needed and not installed, or settings do not go together.
    """

    def __init__(
        self,
        root: str,
        copies: str | None = None,
        copies_gb: float = 100.0,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        if not is_number(copies_gb, 0):
            raise SettingError(f"copies_gb must be a number of 0 or more, got {copies_gb!r}")
        if copies is not None and not root.startswith("s3://"):
            raise SettingError(f"copies is {copies}, but the shards in {root} are in a folder already: leave it out")
        self.place = place_of(root, "data.root")
        self.manifest = read_manifest(self.place)
        names, colors = self.manifest["classes"]["names"], self.manifest["classes"]["colors"]
        super().__init__(ClassTable(tuple(names), tuple(tuple(color) for color in colors)), **kwargs)
        self.root = root
        self.copies = None if copies is None else user_path(copies, "data.copies")
        self.copies_gb = copies_gb

    def source(self, split: Split) -> ShardSource:
        """Frames of a split; "test" and "predict" fall back on what there is.

        Raises:
            DataError: the split was not packed, or its index is missing or damaged.
        """
        splits = self.manifest["splits"]
        chosen = next((name for name in (split, *_INSTEAD.get(split, ())) if name in splits), None)
        if chosen is None:
            raise DataError(
                f"{self.place.address} has no {split} split, only {', '.join(splits)}: pack it, too (gscnn data pack "
                "--splits)"
            )
        if chosen != split:
            rank_zero_info(f"{self.place.address} has no {split} split: {split} uses {chosen}")
        stored = splits[chosen].get("same_as", chosen)
        source = ShardSource(self.place, stored, splits[stored], splits[chosen]["instances"])
        if self.copies is not None:
            # Another set's shards have the same names.
            folder = self.copies / self.manifest["digest"][:16]
            source.place = LocalCopies(self.place, folder, self._to_copy(stored, source))
        return source

    def _to_copy(self, split: str, source: ShardSource) -> dict[str, int]:
        """Bytes of the shards of a split that are copied, by name: the first of the set that there is room for."""
        splits = self.manifest["splits"]
        before = list(splits)[: list(splits).index(split)]
        room = self.copies_gb * 1e9 - sum(splits[name].get("bytes", 0) for name in before)
        sizes = source.frames.bytes
        fitting = int(np.searchsorted(np.cumsum(sizes), room, side="right"))
        return {shard_name(split, number): int(size) for number, size in enumerate(sizes[:fitting])}
