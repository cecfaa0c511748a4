"""Frames from shards are those from files: samples, order, augmentation; and what is broken is named."""

import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.data import made
from tests.data.test_base import BoardsDataModule, epochs

from gscnn_lightning.commands.main import main
from gscnn_lightning.data import CityscapesDataModule, FolderDataModule, ShardsDataModule
from gscnn_lightning.data.class_tiles import class_tiles
from gscnn_lightning.data.shards import layout, pack, places
from gscnn_lightning.errors import DataError, SettingError

SETTINGS = {"batch_size": 2, "crop_size": (32, 40), "seed": 3}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def frames(root, train=7, val=3):
    """A folder data set with pictures of several formats."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (64, 48))
            made.save(root / f"images/{split}/ä{index}.{('png', 'jpg', 'bmp')[index % 3]}", picture)
            mask = np.kron(rng.choice([0, 7, 8, 255], (6, 8)), np.ones((8, 8))).astype(np.uint8)
            made.save(root / f"masks/{split}/ä{index}.png", mask)
    (root / "classes.yaml").write_text(made.CLASS_TABLE)
    return root


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder data set, and its shards of two or three frames."""
    root = tmp_path_factory.mktemp("packed")
    frames(root / "files")
    data = FolderDataModule(root / "files", "classes.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_MB", 7000)
        pack.pack(data, places.Folder(root / "shards"), ("train", "val"), shard_mb=3)
    return root


@pytest.fixture
def shards(packed, tmp_path):
    """A copy of the shards, to break."""
    return Path(shutil.copytree(packed / "shards", tmp_path / "shards"))


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(
    "settings",
    [{"class_uniform": 0.5, "class_uniform_over": "data"}, {}, {"cache_gb": 0.0}],
    ids=["classes", "", "kept"],
)
def test_batches_are_those_from_files(workers, settings, packed):
    files = FolderDataModule(packed / "files", "classes.yaml", num_workers=0, **SETTINGS, **settings)
    data = ShardsDataModule(str(packed / "shards"), num_workers=workers, **SETTINGS, **settings)
    expected = epochs(files, 2)
    assert sum(map(len, expected)) == 6
    assert_same(epochs(data, 2), expected)
    assert_same(list(data.val_dataloader()), list(files.val_dataloader()))
    assert data.class_names == files.class_names
    assert data.class_colors == files.class_colors


def used():
    """Bytes of memory that are not shared, and open files, of this process and those that it started."""
    pids = [os.getpid(), *map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    memory = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    return memory, sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids), len(pids)


def assert_steady(root):
    """Ten epochs of two loading processes take no more memory and open files at their end than after some of them."""
    data = ShardsDataModule(root, num_workers=2, cache_gb=0.0, samples_per_epoch=30, **SETTINGS)
    loader = data.train_dataloader()
    seen = []
    for epoch in range(10):
        loader.sampler.set_epoch(epoch)
        assert sum(1 for _ in loader) == 15
        seen.append(used())
    middle, late = seen[3:5], seen[7:]
    assert max(row[0] for row in late) <= max(row[0] for row in middle) + 8e6, seen
    # The least of the last ones: files of a loading process that is just ending may still be counted.
    assert min(row[1] for row in late) <= max(row[1] for row in middle), seen
    assert late[-1][2] >= 3


def test_memory_and_open_files_stay_the_same_for_ten_epochs(packed):
    assert_steady(str(packed / "shards"))


def test_shards_are_what_litdata_reads(packed):
    from litdata import StreamingDataset

    data = ShardsDataModule(str(packed / "shards"))
    source = data.source("train")
    assert len(source.frames.counts) > 1
    items = StreamingDataset(str(packed / "shards/train"))
    assert len(items) == 7
    for index in (5, 0, 3):
        name, mask, instances, image = items[index]
        assert bytes(name).decode() == source.name(index) == f"ä{index}"
        assert np.array_equal(cv2.imdecode(np.frombuffer(mask, np.uint8), -1), source.load(index)[1])
        assert instances == b""
        suffix = ("png", "jpg", "bmp")[index % 3]
        own = (packed / f"files/images/train/ä{index}.{suffix}").read_bytes()
        assert bytes(image[:4]) == b"\x89PNG" if suffix == "bmp" else image == own


def test_index_of_classes_is_the_same_as_from_files(packed, monkeypatch):
    files = class_tiles(FolderDataModule(packed / "files", "classes.yaml").source("train"), with_bar=False)
    source = ShardsDataModule(str(packed / "shards")).source("train")
    monkeypatch.setattr(source, "load_labels", None)  # nothing is decoded for it
    ours = class_tiles(source)
    for column in ("labels", "frames", "tops", "lefts"):
        assert np.array_equal(getattr(ours, column), getattr(files, column))
    about = ShardsDataModule(str(packed / "shards")).manifest["splits"]["train"]
    masks = np.stack([source.frames and source.__class__.load_labels(source, i) for i in range(7)])
    assert about["pixels"] == [int((masks == value).sum()) for value in (0, 1, 2, 255)]
    assert about["maps"] == [int((masks == value).any((1, 2)).sum()) for value in (0, 1, 2, 255)]


def test_index_of_classes_is_read_once_for_a_training(packed, monkeypatch):
    settings = {**SETTINGS, "num_workers": 0, "class_uniform": 0.5, "class_uniform_over": "data"}
    data = ShardsDataModule(str(packed / "shards"), **settings)
    reads = []
    read = places.Folder.read
    monkeypatch.setattr(places.Folder, "read", lambda self, name: reads.append(name) or read(self, name))
    data.prepare_data()
    for _ in range(2):
        data.train_dataloader()
    assert reads.count("train/tiles.npz") == 1


@pytest.mark.parametrize("images", ["own", "png"])
def test_pictures_of_all_kinds_are_packed_without_loss(images, tmp_path):
    root = frames(tmp_path / "files", train=1, val=1)
    picture = made.picture(3, (48, 64))
    deep = (picture.astype(np.uint16) << 8) + 5
    turned = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 0, 2)))
    exif = turned.getexif()
    exif[274] = 6
    for name, save in {
        "deep.png": lambda path: cv2.imwrite(str(path), deep),
        "deep.tif": lambda path: cv2.imwrite(str(path), deep),
        "turned.jpg": lambda path: turned.save(path, exif=exif),
        "opaque.png": lambda path: Image.fromarray(np.dstack([picture, picture[..., 0]])).save(path),
        "palette.png": lambda path: Image.fromarray(picture).quantize(50).save(path),
        "cmyk.jpg": lambda path: Image.fromarray(picture).convert("CMYK").save(path),
        "lossy.webp": lambda path: Image.fromarray(picture).save(path),
    }.items():
        save(root / f"images/train/{name.replace('.', '_')}.{name[-3:] if name[-4] == '.' else 'webp'}")
        shutil.copy(root / "masks/train/ä0.png", root / f"masks/train/{name.replace('.', '_')}.png")
    data = FolderDataModule(root, "classes.yaml")
    pack.pack(data, places.Folder(tmp_path / "shards"), ("train",), images)
    source = data.checked_source("train")
    ours = ShardsDataModule(str(tmp_path / "shards")).checked_source("train")
    assert [ours.name(index) for index in range(len(ours))] == [source.name(index) for index in range(len(source))]
    for index in range(len(source)):
        assert all(np.array_equal(a, b) for a, b in zip(ours.load(index), source.load(index), strict=True)), index
    assert ours.notes == source.notes
    assert len(ours.notes) >= 4


def test_frames_of_two_splits_are_stored_once_with_instances_and_without_labels(tmp_path):
    root = made.cityscapes(tmp_path / "city", "train", ["aachen_000000_000019"])
    for kind in ("labelIds", "instanceIds"):
        labels = np.full((4, 9), 7 if kind == "labelIds" else 26001, np.uint8 if kind == "labelIds" else np.uint16)
        made.cityscapes(root, "val", ["ulm_000000_000019", "ulm_000001_000019"], kind=kind, labels=labels)
    made.cityscapes(root, "test", ["bonn_000000_000019"], annotation=None)
    data = CityscapesDataModule(root)
    splits = ("train", "val", "test", "predict")
    manifest = pack.pack(data, places.Folder(tmp_path / "shards"), splits).manifest
    assert manifest["splits"]["test"] == {"same_as": "val", "instances": True}
    ours = ShardsDataModule(str(tmp_path / "shards"))
    for split in splits:
        data.setup("fit" if split in ("train", "val") else split)
        ours.setup("fit" if split in ("train", "val") else split)
        if split != "train":
            found = [[each.datasets[split][i] for i in range(len(each.datasets[split]))] for each in (ours, data)]
            assert_same(*found)
            assert ("instances" in found[0][0], "mask" in found[0][0]) == (split == "test", split != "predict")


class TestBroken:
    def refused(self, shards, words, split="train", use=lambda source: [source.load(i) for i in range(len(source))]):
        with pytest.raises(DataError) as error:
            use(ShardsDataModule(str(shards)).checked_source(split))
        text = str(error.value)
        assert "\n" not in text
        for word in words:
            assert word in text, text
        return text

    def test_missing_shard(self, shards):
        (shards / "train/chunk-0-1.bin").unlink()
        self.refused(shards, [f"{shards}/train/chunk-0-1.bin is missing: copy the shards again"])

    def test_truncated_shard(self, shards):
        os.truncate(shards / "train/chunk-0-1.bin", 1000)
        self.refused(shards, [f"{shards}/train/chunk-0-1.bin has 1000 bytes in place of"])

    def test_shard_truncated_while_it_is_used(self, shards):
        source = ShardsDataModule(str(shards)).checked_source("train")
        os.truncate(shards / "train/chunk-0-0.bin", 2000)
        with pytest.raises(DataError, match=r"chunk-0-0.bin is truncated: it ends before ä0 does \(sample 0\)"):
            source.load(0)
        (shards / "train/chunk-0-0.bin").unlink()
        with pytest.raises(DataError, match=r"chunk-0-0.bin is missing"):
            source.load(1)

    @pytest.mark.parametrize("seed", range(5))
    def test_flipped_bit(self, shards, seed):
        path = shards / "train/chunk-0-1.bin"
        content = bytearray(path.read_bytes())
        place = np.random.default_rng(seed).integers(20, len(content))
        content[place] ^= 1 << seed
        path.write_bytes(content)
        self.refused(shards, [f"{path} is damaged: ä", "is not what was packed, by its CRC-32 (sample "])

    @pytest.mark.parametrize("name", ["frames", "tiles"])
    @pytest.mark.parametrize("damage", ["flipped", "missing", "other"])
    def test_index(self, name, damage, shards):
        path = shards / f"train/{name}.npz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        if damage == "flipped":
            path.write_bytes(content)
        elif damage == "missing":
            path.unlink()
        else:
            shutil.copy(shards / f"val/{name}.npz", path)
        said = "is missing: copy" if damage == "missing" else "is not what the manifest says (SHA-256)"
        self.refused(shards, [f"{path} {said}"], use=class_tiles)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda m: {**m, "version": 2}, ["has version 2, and this version of gscnn-lightning reads 1: pack"]),
            (lambda m: {**m, "kind": "x"}, ["is not one that gscnn data pack writes: correct root"]),
            (lambda m: [], ["is not one that gscnn data pack writes"]),
            (lambda m: {**m, "classes": {"names": ["a"], "colors": [[0, 0, 0]]}}, ["was changed after it was written"]),
        ],
    )
    def test_manifest(self, change, words, shards):
        manifest = json.loads((shards / "manifest.json").read_text())
        (shards / "manifest.json").write_text(json.dumps(change(manifest)))
        self.refused(shards, [f"{shards}/manifest.json ", *words])

    def test_manifest_that_is_no_json(self, shards):
        os.truncate(shards / "manifest.json", 100)
        self.refused(shards, ["manifest.json is damaged (", "copy the shards again"])

    def test_folder_of_something_else(self, packed, tmp_path):
        self.refused(packed / "files", [f"{packed}/files has no manifest.json, so it is no shard set: correct root"])
        self.refused(packed / "shards/train", ["has no manifest.json"])  # what litdata would read
        self.refused(tmp_path / "nowhere", ["has no manifest.json"])

    def test_unfinished(self, shards):
        (shards / "manifest.json").rename(shards / "packing.json")
        self.refused(shards, [f"{shards} is a shard set that is not finished: call gscnn data pack again"])

    def test_split_that_was_not_packed(self, shards, capsys):
        shutil.rmtree(shards / "val")
        self.refused(shards, [f"{shards}/val/frames.npz is missing"], "val")
        assert len(ShardsDataModule(str(shards)).source("train")) == 7


@pytest.mark.parametrize(
    ("root", "settings", "message"),
    [
        ("gs://bucket/x", {}, "data.root is gs://bucket/x: give a folder, or s3://BUCKET/FOLDER"),
        ("s3://", {}, "s3:// names no bucket: write s3://BUCKET/FOLDER"),
        ("x", {"copies": "y"}, "copies is y, but the shards in x are in a folder already: leave it out"),
        ("x", {"copies_gb": -1}, "copies_gb must be a number of 0 or more, got -1"),
    ],
)
def test_bad_settings(root, settings, message):
    with pytest.raises(SettingError) as error:
        ShardsDataModule(root, **settings)
    assert str(error.value) == message


def config(root):
    content = {"data": {"class_path": "FolderDataModule", "init_args": {"root": str(root), "classes": "classes.yaml"}}}
    Path("run.yaml").write_text(yaml.safe_dump(content))
    return "run.yaml"


def stopped(*args):
    with pytest.raises(SystemExit) as stop:
        main(["data", "pack", *args])
    assert stop.value.code == 2


def test_command(packed, capsys):
    main(["data", "pack", config(packed / "files"), "--out", "out", "--data.flip", "0.25"])
    out = capsys.readouterr().out
    assert "train: 7 frames in 1 shards, 0 MB\nval: 3 frames in 1 shards, 0 MB\ntest: the frames of val\n" in out
    assert "saved in out; train on it by gscnn-fit --config shards --data.root out\n" in out
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["data"]["class_path"].endswith(".FolderDataModule")
    assert manifest["data"]["init_args"]["flip"] == 0.25
    assert sorted(path.name for path in Path("out").iterdir()) == ["manifest.json", "train", "val"]
    before = made.digest(Path("out"))
    main(["data", "pack", "run.yaml", "--out", "out"])
    assert "out was complete before: nothing was written" in capsys.readouterr().out
    assert made.digest(Path("out")) == before
    main(["data", "check", "--data", "ShardsDataModule", "--data.root", "out"])
    assert "no problems" in capsys.readouterr().out


def test_command_touches_nothing_of_others(packed, capsys):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years")
    stopped(config(packed / "files"), "--out", "mine")
    assert (
        "gscnn data pack: error: mine has other files, such as thesis.txt: give another --out"
        in capsys.readouterr().err
    )
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]
    stopped("run.yaml", "--out", "mine/thesis.txt")
    assert "gscnn data pack: error: cannot list mine/thesis.txt (Not a directory)" in capsys.readouterr().err
    main(["data", "pack", "run.yaml", "--out", "out", "--splits", "[train]"])
    before = made.digest(Path("out"))
    for other in (["--splits", "[val]"], ["--splits", "[train]", "--images", "png"]):
        stopped("run.yaml", "--out", "out", *other)
        assert "gscnn data pack: error: out is a shard set of other data, of another state" in capsys.readouterr().err
    assert made.digest(Path("out")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--splits", "[]"], "splits are []: give one or more, each of them once"),
        (["--splits", "[val,val]"], "splits are ['val', 'val']: give one or more, each of them once"),
        (["--shard-mb", "0"], "shard_mb must be 1 to 1000, got 0"),
        (["--out", "ftp://x/y"], "--out is ftp://x/y: give a folder, or s3://BUCKET/FOLDER"),
        (["--data.classes", "nowhere.yaml"], "cannot read the class table nowhere.yaml ("),
    ],
)
def test_command_refuses(arguments, message, packed, capsys):
    stopped(config(packed / "files"), "--out", "out", *arguments)
    assert capsys.readouterr().err.startswith(f"gscnn data pack: error: {message}")
    assert not Path("out").exists()


class EndError(Exception):
    """In place of a kill: what is on disk then is the same, as nothing is open."""


@pytest.mark.parametrize("written", [0, 1, 2])
def test_interrupted_packing_goes_on(written, packed, monkeypatch):
    monkeypatch.setattr(pack, "_MB", 7000)
    data, place = FolderDataModule(packed / "files", "classes.yaml"), places.Folder(Path("out"))
    write_shard = pack._SplitWriter._write_shard

    def end(writer, frames):
        if len(list(Path("out").rglob("chunk-*.bin"))) == written:
            raise EndError
        write_shard(writer, frames)

    with monkeypatch.context() as patch:
        patch.setattr(pack._SplitWriter, "_write_shard", end)
        with pytest.raises(EndError):
            pack.pack(data, place, ("train", "val"), shard_mb=3)
    Path("out/train").mkdir(exist_ok=True)
    Path(f"out/train/chunk-0-{written}.bin.unfinished").write_bytes(b"half a shard")
    with pytest.raises(DataError, match="out is a shard set that is not finished"):
        ShardsDataModule("out")
    with pytest.raises(DataError, match="out has an unfinished shard set of other data"):
        pack.pack(data, place, ("train", "val"), "png", 3)
    done = pack.pack(data, place, ("train", "val"), shard_mb=3)
    whole, ours = made.digest(packed / "shards"), made.digest(Path("out"))
    assert (done.found, done.found + done.made) == (written, len([path for path in whole if path.suffix == ".bin"]))
    assert ours == whole


def test_two_calls_at_once_do_not_mix(packed, monkeypatch):
    data, place = FolderDataModule(packed / "files", "classes.yaml"), places.Folder(Path("out"))
    monkeypatch.setattr(pack, "_clean", lambda place, present: None)
    pack.pack(data, place)
    Path("out/manifest.json").unlink()
    with (
        places.Folder(Path("out")).claimed("packing.json"),
        pytest.raises(DataError, match="another gscnn data pack is"),
    ):
        pack.pack(data, place)
    assert pack.pack(data, place).made == 0


def test_without_the_extra(packed, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "litdata.streaming.writer", None)
    monkeypatch.setitem(sys.modules, "litdata.streaming.client", None)
    stopped(config(packed / "files"), "--out", "out")
    told = "litdata is not installed, which gscnn data pack needs: pip install 'gscnn-lightning[streaming]'\n"
    assert capsys.readouterr().err == f"gscnn data pack: error: {told}"
    with pytest.raises(SettingError, match=r"litdata is not installed, which s3://b/x needs: pip install"):
        ShardsDataModule("s3://b/x")
    assert len(ShardsDataModule(str(packed / "shards")).checked_source("train")) == 7  # a folder needs nothing


def test_frames_in_memory_are_packed_too(tmp_path):
    data = BoardsDataModule(train=5, val=2)
    pack.pack(data, places.Folder(tmp_path / "shards"), ("train", "val", "predict"))
    ours = ShardsDataModule(str(tmp_path / "shards"), **SETTINGS)
    assert_same(epochs(ours, 1), epochs(BoardsDataModule(train=5, val=2, **SETTINGS), 1))


def test_a_source_travels_to_spawned_processes(packed):
    source = ShardsDataModule(str(packed / "shards")).source("train")
    source.load(3)
    again = pickle.loads(pickle.dumps(source))
    assert np.array_equal(again.load(3)[0], source.load(3)[0])


def test_names_that_are_no_utf_8(tmp_path):
    names = ["a", "b\udcff", "天空/c"]
    joined, ends = layout.joined_names(names)
    zeros = np.zeros(3, np.uint32)
    index = layout.FrameIndex(joined, ends, zeros, zeros, zeros, np.array([2, 1]), np.zeros(2, np.int64))
    assert [index.name(i) for i in range(3)] == names
    assert [index.shard(i) for i in range(3)] == [0, 0, 1]
