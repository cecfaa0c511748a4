"""The frames of a split, read from shards one by one in any order."""

import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.class_tiles import ClassTiles
from gscnn_lightning.data.pictures import read_picture
from gscnn_lightning.data.shards.layout import ITEM, TILES, FrameIndex, read_arrays, read_frames, shard_name
from gscnn_lightning.data.shards.places import LocalCopies, Place
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError

Bytes = npt.NDArray[np.uint8]


class ShardSource(Source):
    """Frames in shards: one read of a file, or one request to an object store, for each.

    Args:
        place: where the shard set is.
        split: folder of the split.
        about: what the manifest says of that split.
        instances: whether frames have their instance maps.
    """

    def __init__(self, place: Place, split: str, about: dict[str, Any], instances: bool) -> None:
        self.place = place
        self.split = split
        self.about = about
        self.instances = instances
        self.frames: FrameIndex = read_frames(place, split, about["frames_digest"])
        self.notes: Sequence[str] = about["notes"]
        self._last: tuple[int, list[memoryview]] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """Name of a frame, as in the data that were packed."""
        return self.frames.name(index)

    def identity(self, index: int) -> str:
        """Its place: two splits may be the same frames."""
        return f"{self.split} {index}"

    def check(self) -> None:
        """Look for all shards and their sizes.

        Raises:
            DataError: one is missing or has another size.
        """
        found = self.place.sizes(self.split)
        for number, size in enumerate(self.frames.bytes.tolist()):
            name = shard_name(self.split, number)
            if found.get(name) == size:
                continue
            path = f"{self.place.address}/{name}"
            if name not in found:
                raise DataError(f"{path} is missing: copy the shards again, or pack them again")
            raise DataError(f"{path} has {found[name]} bytes in place of {size}: copy it again, or pack the data again")

    def load(self, index: int) -> tuple[Bytes, Bytes | None]:
        """RGB image (H, W, 3) and train ids (H, W) or None, both uint8.

        Raises:
            DataError: the shard cannot be read, or the item is not what was packed.
        """
        image = read_picture(bytes(self._part(index, "image")), self._called(index))
        return image, self.load_labels(index)

    def load_labels(self, index: int) -> Bytes | None:
        """Train ids (H, W) uint8, or None of an unlabelled frame.

        Raises:
            DataError: as `load`.
        """
        part = self._part(index, "mask")
        return self._decoded(part, index) if part else None

    def load_instances(self, index: int) -> npt.NDArray[np.int32] | None:
        """Instance map (H, W), None of a frame without.

        Raises:
            DataError: as `load`.
        """
        part = self._part(index, "instances") if self.instances else None
        return self._decoded(part, index).view("<i4")[..., 0].astype(np.int32) if part else None

    def fingerprint(self) -> str:
        """Digest of the index of the frames."""
        digest: str = self.about["frames_digest"]
        return digest

    def class_tiles(self) -> ClassTiles:
        """Where the classes are, as it was found when the frames were packed.

        Raises:
            DataError: the index is missing or damaged, or there is nothing but void.
        """
        tiles = ClassTiles(**read_arrays(self.place, f"{self.split}/{TILES}", self.about["tiles_digest"]))
        if not len(tiles.labels):
            raise DataError(
                f"all {len(self)} label maps of {self.place.address}/{self.split} are void: nothing to sample classes "
                "from. Check the class table of the data that were packed"
            )
        return tiles

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def _part(self, index: int, part: str) -> memoryview:
        index = int(index)
        last = self._last  # image, labels and instances of a frame are asked for one after the other
        if last is None or last[0] != index:
            self._last = last = index, self._item(index)
        return last[1][ITEM.index(part)]

    def _item(self, index: int) -> list[memoryview]:
        """The parts of an item; in front of them are their lengths."""
        frames = self.frames
        name = shard_name(self.split, frames.shard(index))
        where, expected = (name, int(frames.begins[index]), int(frames.lengths[index])), int(frames.sums[index])
        content = self.place.read_part(*where)
        if zlib.crc32(content) != expected and isinstance(self.place, LocalCopies):
            self.place.remove([name])
            content = self.place.read_part(*where)
        if zlib.crc32(content) != expected:
            frame = frames.name(index)
            what = f"is damaged: {frame} is not what was packed, by its CRC-32"
            if len(content) < where[2]:
                what = f"is truncated: it ends before {frame} does"
            path = f"{self.place.address}/{name}"
            raise DataError(f"{path} {what} (sample {index}): copy it again, or pack the data again")
        lengths = np.frombuffer(content, "<u4", len(ITEM)).tolist()
        parts, start = [], 4 * len(ITEM)
        for length in lengths:
            parts.append(memoryview(content)[start : start + length])
            start += length
        return parts

    def _decoded(self, part: memoryview, index: int) -> Bytes:
        pixels = cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise DataError(f"the label map of {self._called(index)} cannot be decoded: pack the data again")
        return pixels

    def _called(self, index: int) -> str:
        path = f"{self.place.address}/{shard_name(self.split, self.frames.shard(index))}"
        return f"{self.frames.name(index)} in {path} (sample {index})"
