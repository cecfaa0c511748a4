"""Packing the frames of a data module into litdata shards: shard by shard, so that it can go on where it was."""

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from gscnn_lightning.classes import IGNORE_INDEX
from gscnn_lightning.data.ahead import results_in_order
from gscnn_lightning.data.base import SegmentationDataModule, Split, check_labelled
from gscnn_lightning.data.class_tiles import sorted_tiles, tiles_of
from gscnn_lightning.data.pictures import read_picture
from gscnn_lightning.data.shards.layout import (
    FRAMES,
    INDEX,
    ITEM,
    KIND,
    MANIFEST,
    TILES,
    UNFINISHED,
    VERSION,
    arrays_as_bytes,
    arrays_of,
    digest_of,
    joined_names,
    manifest_as_bytes,
    read_manifest,
    shard_name,
)
from gscnn_lightning.data.shards.places import NEEDS_LITDATA, Place
from gscnn_lightning.data.source import Source
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.version import __version__

Coding = Literal["own", "png"]
_OWN = (b"\x89PNG", b"\xff\xd8")
_MB = 10**6
_RECORDS = "packed"


class Packed(NamedTuple):
    """What `pack` did.

    Attributes:
        manifest: of the shard set.
        found: shards that an interrupted call had finished before.
        made: shards that this call wrote; 0 if the set was complete.
    """

    manifest: dict[str, Any]
    found: int
    made: int


@dataclass(frozen=True)
class _Frame:
    """A frame ready to be written."""

    parts: tuple[bytes, ...]
    tiles: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64] | None

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


def pack(
    data: SegmentationDataModule,
    place: Place,
    splits: Sequence[Split] = ("train", "val", "test"),
    images: Coding = "own",
    shard_mb: int = 64,
    settings: dict[str, Any] | None = None,
    progress: Callable[[str, int, int], object] = lambda split, done, total: None,
) -> Packed:
    """Write the frames of a data module as a shard set.

    A call that was interrupted is continued by the same one, from its last finished shard. The manifest is written
    last: without it, nobody takes the set for a whole one.

    Args:
        data: the data module; its `setup` need not have been called.
        place: where to write; there may be nothing but what an interrupted call for the same data left.
        splits: what to pack. Splits that are the same frames are stored once.
        images: "own", the bytes of PNG and JPEG files as they are, and PNG of what else there is; or "png", all images
            decoded and written as PNG, without loss.
        shard_mb: size of a shard in 10^6 bytes, one frame at least.
        settings: what the data module was made of, for the manifest.
        progress: called after every frame with the split, the number of frames done and of all.

    Raises:
        SettingError: litdata is not installed, or a setting cannot be used.
        DataError: the data cannot be used, or the place has something else.
    """
    try:
        from litdata.streaming.writer import BinaryWriter  # noqa: F401 - before hours of reading
    except ModuleNotFoundError as error:
        raise SettingError(NEEDS_LITDATA.format(what="gscnn data pack")) from error
    if not splits or len(set(splits)) < len(splits):
        raise SettingError(f"splits are {list(splits)}: give one or more, each of them once")
    if images not in ("own", "png"):
        raise SettingError(f"images must be 'own' or 'png', got {images!r}")
    if not 1 <= shard_mb <= 1000:
        raise SettingError(f"shard_mb must be 1 to 1000, got {shard_mb}")
    sources = {split: data.checked_source(split) for split in splits}
    for split, source in sources.items():
        if split != "predict":
            check_labelled(split, (source.load_labels(index) for index in range(len(source))))
    same_as = _same_frames(sources)
    about = {"images": images, "shard_mb": shard_mb, "classes": list(data.class_names), "same_as": same_as}
    fingerprint = _fingerprint(about, sources)
    present = place.sizes()
    if MANIFEST in present:
        manifest = read_manifest(place)
        if manifest["fingerprint"] != fingerprint:
            raise DataError(
                f"{place.address} is a shard set of other data, of another state of these, or of other settings: give "
                "another --out, or remove it"
            )
        _clean(place, present)
        return Packed(manifest, manifest["shards"], 0)
    _claim(place, present, fingerprint)
    with place.claimed(UNFINISHED):
        written, found, made = _write_splits(data, place, sources, same_as, images, shard_mb * _MB, progress, present)
        manifest = {
            "kind": KIND,
            "version": VERSION,
            "gscnn_lightning": __version__,
            "classes": {"names": list(data.class_names), "colors": [list(color) for color in data.class_colors]},
            "data": settings or {"class_path": f"{type(data).__module__}.{type(data).__qualname__}"},
            "images": images,
            "shard_mb": shard_mb,
            "shards": found + made,
            "fingerprint": fingerprint,
            "splits": written,
        }
        place.write(MANIFEST, manifest_as_bytes(manifest))
        _clean(place, place.sizes())
    return Packed(manifest, found, made)


def _write_splits(
    data: SegmentationDataModule,
    place: Place,
    sources: dict[Split, Source],
    same_as: dict[str, str],
    images: Coding,
    shard_bytes: int,
    progress: Callable[[str, int, int], object],
    present: dict[str, int],
) -> tuple[dict[str, Any], int, int]:
    """Write all shards; what the manifest says of the splits, and the numbers of shards found and made."""
    written: dict[str, Any] = {}
    found = made = 0
    with_instances = {split for split, source in sources.items() if _has_instances(source)}
    for split, source in sources.items():
        instances = split in with_instances
        if same_as[split] != split:
            written[split] = {"same_as": same_as[split], "instances": instances}
            continue
        # Instances are stored if any of the splits with these frames has them.
        stored = next((sources[name] for name in sources if same_as[name] == split and name in with_instances), source)
        writer = _SplitWriter(place, split, stored, images, shard_bytes, data.num_classes)
        found += writer.resume(present)
        made += writer.write(partial(progress, split))
        written[split] = {**writer.finish(), "instances": instances, "notes": list(source.notes)}
    return written, found, made


class _SplitWriter:
    """Writes the shards of one split, each followed by a record of what is in it."""

    def __init__(
        self, place: Place, split: str, source: Source, images: Coding, shard_bytes: int, num_classes: int
    ) -> None:
        self.place = place
        self.split = split
        self.source = source
        self.images = images
        self.shard_bytes = shard_bytes
        self.num_classes = num_classes
        self.records: list[dict[str, npt.NDArray[Any]]] = []

    def resume(self, present: dict[str, int]) -> int:
        """Take what an interrupted call left; returns the number of shards."""
        while True:
            number = len(self.records)
            record = self._record_name(number)
            if record not in present:
                return number
            arrays = arrays_of(self.place.read(record))
            if present.get(shard_name(self.split, number)) != int(arrays["bytes"]):
                return number
            self.records.append(arrays)

    def write(self, progress: Callable[[int, int], object]) -> int:
        """Write the shards that are missing; returns their number."""
        before = len(self.records)
        first = sum(len(record["begins"]) for record in self.records)
        frames: list[_Frame] = []
        indices = range(first, len(self.source))
        for position, frame in enumerate(results_in_order(self._frame, indices, os.cpu_count() or 1), start=first + 1):
            if frames and sum(each.size for each in frames) + frame.size > self.shard_bytes:
                self._write_shard(frames)
                frames = []
            frames.append(frame)
            progress(position, len(self.source))
        if frames:
            self._write_shard(frames)
        return len(self.records) - before

    def finish(self) -> dict[str, Any]:
        """Write the indices, and return what the manifest says of the split."""
        tables = [record["tiles"] for record in self.records]
        rows = [rows for record in self.records for rows in record["tile_rows"].tolist()]
        table = np.concatenate([np.empty((0, 3), np.int32), *tables])
        tiles = sorted_tiles(np.split(table, np.cumsum(rows)[:-1]))
        names, ends = joined_names([self.source.name(index) for index in range(len(self.source))])
        records = self.records
        column = {key: np.concatenate([record[key] for record in records]) for key in ("begins", "lengths", "sums")}
        counts = np.array([len(record["begins"]) for record in self.records], np.int64)
        sizes = np.array([int(record["bytes"]) for record in self.records], np.int64)
        contents = {
            FRAMES: arrays_as_bytes({"names": names, "ends": ends, **column, "counts": counts, "bytes": sizes}),
            TILES: arrays_as_bytes(
                {"labels": tiles.labels, "frames": tiles.frames, "tops": tiles.tops, "lefts": tiles.lefts},
                compressed=True,
            ),
            INDEX: self._litdata_index(counts.tolist(), sizes.tolist()),
        }
        for name, content in contents.items():
            self.place.write(f"{self.split}/{name}", content)
        pixels, maps = (sum(record[name] for record in self.records) for name in ("pixels", "maps"))
        return {
            "frames": len(self.source),
            "unlabelled": sum(int(record["unlabelled"]) for record in self.records),
            "shards": len(self.records),
            "bytes": int(sizes.sum()),
            "frames_digest": digest_of(contents[FRAMES]),
            "tiles_digest": digest_of(contents[TILES]),
            "pixels": np.asarray(pixels).tolist(),
            "maps": np.asarray(maps).tolist(),
        }

    def _frame(self, index: int) -> _Frame:
        source = self.source
        name = source.name(index)
        path = source.image_file(index) if self.images == "own" else None
        if path is None:
            image, mask = source.load(index)
            content = b""
        else:
            content = _content(path)
            image, mask = read_picture(content, f"{path} (sample {index})"), source.load_labels(index)
        if mask is not None and image.shape[:2] != mask.shape:
            raise DataError(
                f"{name} (sample {index}): image is {image.shape[1]}x{image.shape[0]} pixels, label map "
                f"{mask.shape[1]}x{mask.shape[0]}: resize one of them"
            )
        instances = source.load_instances(index)
        parts = {
            "name": name.encode(errors="surrogateescape"),
            "mask": b"" if mask is None else _png(mask),
            "instances": b"" if instances is None else _png(instances.astype("<i4")[..., None].view(np.uint8)),
            "image": content if content.startswith(_OWN) else _png(image[..., ::-1]),
        }
        tiles = np.empty((0, 3), np.int32) if mask is None else tiles_of(mask)
        counts = None if mask is None else np.bincount(mask.ravel(), minlength=256)
        return _Frame(tuple(parts[part] for part in ITEM), tiles, counts)

    def _write_shard(self, frames: Sequence[_Frame]) -> None:
        number = len(self.records)
        content, config = _shard([frame.parts for frame in frames])
        bounds = np.frombuffer(content, "<u4", len(frames) + 1, offset=4)
        items = [content[start:stop] for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
        counted = [frame.counts for frame in frames if frame.counts is not None]
        counts = np.array(counted, np.int64).reshape(-1, 256)[:, [*range(self.num_classes), IGNORE_INDEX]]
        record = {
            "begins": bounds[:-1],
            "lengths": np.diff(bounds),
            "sums": np.array([zlib.crc32(item) for item in items], np.uint32),
            "bytes": np.array(len(content), np.int64),
            "tiles": np.concatenate([frame.tiles for frame in frames]),
            "tile_rows": np.array([len(frame.tiles) for frame in frames], np.int32),
            "pixels": counts.sum(axis=0),
            "maps": (counts > 0).sum(axis=0),
            "unlabelled": np.array(len(frames) - len(counted)),
            "config": np.array(config),
        }
        self.place.write(shard_name(self.split, number), content)
        self.place.write(self._record_name(number), arrays_as_bytes(record, compressed=True))
        self.records.append(record)

    def _record_name(self, number: int) -> str:
        return f"{self.split}/{_RECORDS}/{number}.npz"

    def _litdata_index(self, counts: Sequence[int], sizes: Sequence[int]) -> bytes:
        """The file by which litdata itself finds its way through the shards."""
        config = {**json.loads(str(self.records[0]["config"])), "chunk_size": None, "chunk_bytes": self.shard_bytes}
        chunks = [
            {
                "chunk_bytes": size,
                "chunk_size": count,
                "dim": None,
                "filename": shard_name(self.split, number).partition("/")[2],
            }
            for number, (count, size) in enumerate(zip(counts, sizes, strict=True))
        ]
        return json.dumps({"chunks": chunks, "config": config}).encode()


def _shard(items: Sequence[tuple[bytes, ...]]) -> tuple[bytes, str]:
    """Content of a shard, made by litdata's writer, and how litdata describes it."""
    from litdata.streaming.writer import BinaryWriter

    with tempfile.TemporaryDirectory() as folder:
        # Tuples: of dictionaries, litdata would make Arrow tables where pyarrow happens to be installed.
        writer = BinaryWriter(folder, chunk_size=len(items))
        for index, item in enumerate(items):
            writer.add_item(index, item)
        writer.done()
        (path,) = Path(folder).glob("chunk-*.bin")
        (about,) = Path(folder).glob("*index.json")
        return path.read_bytes(), json.dumps(json.loads(about.read_text(encoding="utf-8"))["config"])


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """PNG of (H, W) or (H, W, 3 or 4) in the order of OpenCV; quick to write, and a little larger for that."""
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _has_instances(source: Source) -> bool:
    return any(source.load_instances(index) is not None for index in range(len(source)))


def _same_frames(sources: dict[Split, Source]) -> dict[str, str]:
    """For each split the first one with the same frames."""
    seen: list[tuple[list[str], str]] = []
    same: dict[str, str] = {}
    for split, source in sources.items():
        frames = [source.identity(index) for index in range(len(source))]
        # Sources in memory name their frames only, and may do so alike in different splits.
        is_files = source.fingerprint() is not None
        same[split] = next((name for known, name in seen if is_files and known == frames), split)
        seen.append((frames, split))
    return same


def _fingerprint(about: dict[str, Any], sources: dict[Split, Source]) -> str:
    """Digest of all that shards depend on: settings, names, sizes and dates of the files."""
    digest = hashlib.sha256(json.dumps([VERSION, about], sort_keys=True).encode())
    for split, source in sources.items():
        digest.update(f"{split}\0{source.fingerprint()}\0{len(source)}\n".encode())
        for index in range(len(source)):
            path = source.image_file(index)
            status = None if path is None else path.stat()
            stamp = "" if status is None else f"{status.st_size}\0{status.st_mtime_ns}"
            digest.update(f"{source.name(index)}\0{stamp}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _claim(place: Place, present: dict[str, int], fingerprint: str) -> None:
    """Note in an empty place whose it is, or see that it is ours.

    Raises:
        DataError: the place has something else.
    """
    if UNFINISHED not in present:
        if present:
            raise DataError(
                f"{place.address} has other files, such as {sorted(present)[0]}: give another --out, or one that is "
                "empty"
            )
        place.write(UNFINISHED, json.dumps({"kind": KIND, "version": VERSION, "fingerprint": fingerprint}).encode())
        return
    try:
        known = json.loads(place.read(UNFINISHED))
    except ValueError:
        known = None
    if not isinstance(known, dict) or known.get("fingerprint") != fingerprint:
        raise DataError(
            f"{place.address} has an unfinished shard set of other data, of another state of these, or of other "
            "settings: give another --out, or remove it"
        )


def _clean(place: Place, present: dict[str, int]) -> None:
    """Remove what is of use for going on only."""
    records = [name for name in present if name.split("/")[1:2] == [_RECORDS] or name.endswith(".unfinished")]
    place.remove([*records, *([UNFINISHED] if UNFINISHED in present else [])])
