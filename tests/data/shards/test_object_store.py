"""Shards in an object store: a real S3 server on this machine, by moto."""

import os
from pathlib import Path

import boto3
import pytest
from tests.data.shards.test_shards import SETTINGS, assert_same, assert_steady, frames
from tests.data.test_base import epochs

from gscnn_lightning.data import FolderDataModule, ShardsDataModule
from gscnn_lightning.data.shards import pack, places
from gscnn_lightning.errors import DataError

ROOT = "s3://bucket/some/shards"
SAMPLED = {"class_uniform": 0.5, "class_uniform_over": "data", "cache_gb": 0.0, **SETTINGS}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory, store):
    """A folder data set whose shards are in the store."""
    root = frames(tmp_path_factory.mktemp("files"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "_MB", 7000)
        pack.pack(
            FolderDataModule(root, "classes.yaml"), places.place_of(f"{ROOT}/", "--out"), ("train", "val"), shard_mb=3
        )
    return root


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_from_files(workers, files):
    expected = epochs(FolderDataModule(files, "classes.yaml", num_workers=0, **SAMPLED), 2)
    data = ShardsDataModule(ROOT, num_workers=workers, **SAMPLED)
    assert_same(epochs(data, 2), expected)
    assert_same(list(data.val_dataloader()), list(FolderDataModule(files, "classes.yaml").val_dataloader()))


def test_memory_and_open_files_stay_the_same_for_ten_epochs(files):
    assert_steady(ROOT)


def test_copies_are_made_as_far_as_there_is_room(files, tmp_path, monkeypatch):
    expected = epochs(FolderDataModule(files, "classes.yaml", num_workers=0, **SAMPLED), 2)
    whole = ShardsDataModule(ROOT, num_workers=0, copies="copies", **SAMPLED)
    sizes = whole.source("train").frames.bytes.tolist()
    room = sum(sizes[:-1]) / 1e9
    part = ShardsDataModule(ROOT, num_workers=0, copies="part", copies_gb=room, **SAMPLED)
    for data in (part, whole):
        assert_same(epochs(data, 2), expected)
    assert len(list(Path("part").rglob("chunk-*.bin"))) == len(sizes) - 1
    assert len(list(Path("copies").rglob("chunk-*.bin"))) == len(sizes)
    # From now on, nothing is asked for; copies that are damaged are made again.
    copies = sorted(Path("copies").rglob("chunk-*.bin"))
    copies[0].write_bytes(bytes(copies[0].stat().st_size))
    os.truncate(copies[1], 5)
    again = ShardsDataModule(ROOT, num_workers=0, copies="copies", **SAMPLED)
    asked = []
    read = again.place.read
    monkeypatch.setattr(again.place, "read", lambda name: (asked.append(name), read(name))[1])
    monkeypatch.setattr(again.place, "read_part", None)
    assert_same(epochs(again, 2), expected)
    assert sorted(name for name in asked if "chunk" in name) == ["train/chunk-0-0.bin", "train/chunk-0-1.bin"]


def test_while_somebody_copies_others_read_from_the_store(files):
    data = ShardsDataModule(ROOT, copies="copies")
    source = data.source("train")
    folder = source.place.copies.path / "train"
    folder.mkdir(parents=True)
    (folder / "chunk-0-0.bin.lock").touch()
    with places.Folder(folder).claimed("chunk-0-0.bin.lock"):
        assert source.load(0)[0].shape == (48, 64, 3)
        assert [path.name for path in folder.iterdir()] == ["chunk-0-0.bin.lock"]
    source.load(3)
    source.load(0)
    assert (folder / "chunk-0-0.bin").is_file()


def test_interrupted_packing_goes_on(files, monkeypatch):
    monkeypatch.setattr(pack, "_MB", 7000)
    data, place = FolderDataModule(files, "classes.yaml"), places.Bucket("s3://bucket/broken")
    write, written = place.write, []

    def stop(name, content):
        if name.endswith("chunk-0-1.bin"):
            raise DataError("no more")
        written.append(name)
        write(name, content)

    monkeypatch.setattr(place, "write", stop)
    with pytest.raises(DataError, match="no more"):
        pack.pack(data, place, ("train",), shard_mb=3)
    monkeypatch.setattr(place, "write", write)
    with pytest.raises(DataError, match="s3://bucket/broken is a shard set that is not finished"):
        ShardsDataModule("s3://bucket/broken")
    done = pack.pack(data, place, ("train",), shard_mb=3)
    assert (done.found, "train/chunk-0-0.bin" in written) == (1, True)
    assert not [name for name in place.sizes() if "packed" in name or "packing" in name]
    assert len(ShardsDataModule("s3://bucket/broken").checked_source("train")) == 7


class TestBroken:
    @pytest.fixture
    def broken(self, files, request):
        """Address of a copy of the shards, and what changes it."""
        client, prefix = boto3.client("s3"), f"broken/{request.node.name}"
        for part in client.list_objects_v2(Bucket="bucket", Prefix="some/shards/")["Contents"]:
            name = part["Key"].removeprefix("some/shards/")
            client.copy_object(Bucket="bucket", Key=f"{prefix}/{name}", CopySource=f"bucket/{part['Key']}")

        def change(name, do):
            content = client.get_object(Bucket="bucket", Key=f"{prefix}/{name}")["Body"].read()
            client.put_object(Bucket="bucket", Key=f"{prefix}/{name}", Body=do(content))

        return (
            f"s3://bucket/{prefix}",
            change,
            lambda name: client.delete_object(Bucket="bucket", Key=f"{prefix}/{name}"),
        )

    def test_shards(self, broken):
        address, change, delete = broken
        source = ShardsDataModule(address).checked_source("train")
        change("train/chunk-0-0.bin", lambda content: content[:-9] + bytes(9))
        change("train/chunk-0-1.bin", lambda content: content[:100])
        last = len(source) - 1
        with pytest.raises(DataError, match=rf"^{address}/train/chunk-0-0.bin is damaged: ä\d is not what was packed"):
            [source.load(index) for index in range(last)]
        with pytest.raises(
            DataError, match=rf"^{address}/train/chunk-0-\d.bin is truncated: it ends before ä{last} does"
        ):
            source.load(last)
        with pytest.raises(DataError, match=rf"^{address}/train/chunk-0-1.bin has 100 bytes in place of"):
            ShardsDataModule(address).checked_source("train")
        delete("train/chunk-0-1.bin")
        with pytest.raises(DataError, match=rf"^{address}/train/chunk-0-1.bin is missing: copy the shards again"):
            source.load(last)
        with pytest.raises(DataError, match=rf"^{address}/train/chunk-0-1.bin is missing: copy the shards again"):
            ShardsDataModule(address).checked_source("train")
        delete("train/frames.npz")
        with pytest.raises(DataError, match=rf"^{address}/train/frames.npz is missing"):
            ShardsDataModule(address).source("train")

    def test_addresses(self, files, monkeypatch):
        for root, words in {
            "s3://bucket/nothing": "s3://bucket/nothing has no manifest.json, so it is no shard set",
            "s3://nobucket/x": "s3://nobucket/x/manifest.json: there is no bucket nobucket: make it, or",
            "s3://no bucket/x": "cannot reach s3://no bucket/x/manifest.json (Parameter validation failed: In",
        }.items():
            with pytest.raises(DataError) as error:
                ShardsDataModule(root)
            assert str(error.value).startswith(words)
            assert "\n" not in str(error.value)

    def test_nobody_is_there(self, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(
            DataError, match=r"^cannot reach s3://bucket/x/manifest.json \(Could not connect to the endp"
        ):
            ShardsDataModule("s3://bucket/x")

    def test_no_key(self, store, monkeypatch):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(DataError, match=r"^no key for s3://bucket/x/manifest.json: set AWS_ACCESS_KEY_ID and"):
            ShardsDataModule("s3://bucket/x")


def test_others_files_are_not_touched(files):
    boto3.client("s3").put_object(Bucket="bucket", Key="mine/thesis.txt", Body=b"years")
    data = FolderDataModule(files, "classes.yaml")
    with pytest.raises(DataError, match=r"^s3://bucket/mine has other files, such as thesis.txt: give another --out"):
        pack.pack(data, places.Bucket("s3://bucket/mine"))
    assert [*places.Bucket("s3://bucket/mine").sizes()] == ["thesis.txt"]
