"""What lies where in a shard set, and the files that describe it.

A set has `manifest.json`, and for each split a folder with

- `chunk-0-K.bin` and `index.json`, which litdata reads, too: each item is the tuple `ITEM` of bytes;
- `frames.npz`: names, and place and checksum of each item, so that one read gets it;
- `tiles.npz`: where the classes are, for class-uniform sampling.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gscnn_lightning.data.base import Split
from gscnn_lightning.data.shards.places import Place
from gscnn_lightning.errors import DataError

MANIFEST, UNFINISHED = "manifest.json", "packing.json"
FRAMES, TILES, INDEX = "frames.npz", "tiles.npz", "index.json"
KIND, VERSION = "gscnn-lightning shards", 1

SPLITS: tuple[Split, ...] = ("train", "val", "test", "predict")

ITEM = ("name", "mask", "instances", "image")
"""Parts of an item: name in UTF-8; train ids as PNG with one channel; the four bytes of instance ids as PNG with four;
image as PNG or JPEG. Mask and instances may be empty."""

_AGAIN = "copy the shards again, or pack them again"


@dataclass(frozen=True)
class FrameIndex:
    """Where the N frames of a split are in its M shards; no Python objects, as N may be millions.

    Attributes:
        names: all names in UTF-8, one after the other.
        ends: (N,) where each name ends.
        begins: (N,) first byte of the item in its shard.
        lengths: (N,) bytes of the item.
        sums: (N,) CRC-32 of the item.
        counts: (M,) frames of each shard.
        bytes: (M,) bytes of each shard.
    """

    names: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    begins: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.uint32]
    sums: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_firsts", np.cumsum(self.counts) - self.counts)

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> str:
        """Name of a frame."""
        start = int(self.ends[index - 1]) if index else 0
        return self.names[start : int(self.ends[index])].tobytes().decode(errors="surrogateescape")

    def shard(self, index: int) -> int:
        """Number of the shard that has a frame."""
        firsts: npt.NDArray[np.int64] = self._firsts  # type: ignore[attr-defined]
        return int(np.searchsorted(firsts, index, side="right")) - 1


def joined_names(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Names as the arrays `names` and `ends` of a `FrameIndex`."""
    encoded = [name.encode(errors="surrogateescape") for name in names]
    ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def shard_name(split: str, number: int) -> str:
    """Relative name of a shard, as litdata's own writer calls it."""
    return f"{split}/chunk-0-{number}.bin"


def arrays_as_bytes(arrays: dict[str, npt.NDArray[Any]], compressed: bool = False) -> bytes:
    """Arrays as the content of an .npz file."""
    file = io.BytesIO()
    save: Any = np.savez_compressed if compressed else np.savez
    save(file, **arrays)
    return file.getvalue()


def arrays_of(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Arrays in the content of an .npz file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def digest_of(content: bytes) -> str:
    """SHA-256 of a content."""
    return hashlib.sha256(content).hexdigest()


def manifest_as_bytes(manifest: dict[str, Any]) -> bytes:
    """A manifest with its own digest."""
    plain = json.loads(json.dumps(manifest, default=str))  # as it will be read
    return json.dumps({**plain, "digest": _digest(plain)}, indent=1).encode()


def read_manifest(place: Place) -> dict[str, Any]:
    """The manifest of a shard set.

    Raises:
        DataError: there is none, or it is of another kind or version, or damaged.
    """
    path = f"{place.address}/{MANIFEST}"
    try:
        content = place.read(MANIFEST)
    except DataError as error:
        if " is missing: " not in str(error):
            raise
        if UNFINISHED in place.sizes():
            raise DataError(
                f"{place.address} is a shard set that is not finished: call gscnn data pack again, with the same "
                "arguments, which goes on where it was"
            ) from error
        raise DataError(
            f"{place.address} has no {MANIFEST}, so it is no shard set: correct root (--data.root FOLDER or "
            "s3://BUCKET/FOLDER), or make one by gscnn data pack"
        ) from error
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): {_AGAIN}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise DataError(f"{path} is not one that gscnn data pack writes: correct root (--data.root)")
    if manifest.get("version") != VERSION:
        raise DataError(
            f"{path} has version {manifest.get('version')!r}, and this version of gscnn-lightning reads {VERSION}: "
            "pack the data again, or use the version that packed them "
            f"({manifest.get('gscnn_lightning', 'unknown')})"
        )
    if manifest.get("digest") != _digest(manifest):
        raise DataError(f"{path} was changed after it was written: {_AGAIN}")
    return manifest


def read_arrays(place: Place, name: str, digest: str) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a file that the manifest has the digest of.

    Raises:
        DataError: it is missing, or another one.
    """
    content = place.read(name)
    if digest_of(content) != digest:
        raise DataError(f"{place.address}/{name} is not what the manifest says (SHA-256): {_AGAIN}")
    return arrays_of(content)


def read_frames(place: Place, split: str, digest: str) -> FrameIndex:
    """The index of a split.

    Raises:
        DataError: it is missing, or another one.
    """
    arrays = read_arrays(place, f"{split}/{FRAMES}", digest)
    return FrameIndex(**{field.name: arrays[field.name] for field in fields(FrameIndex)})


def _digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return digest_of(json.dumps(rest, sort_keys=True).encode())
