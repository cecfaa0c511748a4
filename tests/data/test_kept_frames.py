"""Frames in shared memory are the frames of the source, decoded once."""

import copy
import dataclasses
import hashlib
import math
import multiprocessing
import os
import pickle
import re
import shutil
import signal
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.data.made import folder, picture, raw_mask
from torch.utils.data import DataLoader

from gscnn_lightning.data import FolderDataModule, kept_frames
from gscnn_lightning.data.kept_frames import KeptFrames, can_keep
from gscnn_lightning.errors import DataError, SettingError

pytestmark = pytest.mark.skipif(not can_keep(), reason="frames are kept on Linux only")


class Counted:
    """Frames of different sizes, that knows how often each was decoded."""

    def __init__(self, sizes, labelled=True):
        self.sizes = sizes
        self.labelled = labelled
        self.decoded = [0] * len(sizes)

    def __len__(self):
        return len(self.sizes)

    def name(self, index):
        return f"frame_{index}"

    def load(self, index):
        self.decoded[index] += 1
        return picture(index, self.sizes[index]), raw_mask(self.sizes[index]) + index if self.labelled else None


def same(frames, expected):
    return all(np.array_equal(*pair) for pair in zip(frames, expected, strict=True))


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def module(root, workers, setup=True, **settings):
    data = FolderDataModule(
        root, "classes.yaml", batch_size=1, num_workers=workers, crop_size=(8, 8), samples_per_epoch=30, **settings
    )
    if setup:
        data.setup("fit")
    return data


def batches(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [(batch["name"], batch["image"].clone(), batch["mask"].clone()) for batch in loader]


@pytest.mark.parametrize(("pixels", "times"), [(35 + 72 + 64, 1), (35 + 64, 3)], ids=["has room", "is too large"])
def test_each_frame_that_has_room_is_decoded_once(pixels, times):
    source = Counted([(5, 7), (8, 9), (8, 8)])
    kept = KeptFrames(source, 1e-9 * 4 * pixels)
    for _ in range(3):
        for index in range(3):
            assert same(kept.load(index), Counted(source.sizes).load(index))
    assert source.decoded == [1, times, 1]


def test_frames_without_labels_are_decoded_every_time():
    source = Counted([(5, 7)], labelled=False)
    kept = KeptFrames(source, 1.0)
    for count in (1, 2):
        image, mask = kept.load(0)
        assert mask is None
        assert np.array_equal(image, picture(0, (5, 7)))
        assert source.decoded == [count]


def test_kept_frames_cannot_be_written_to():
    kept = KeptFrames(Counted([(5, 7)]), 1.0)
    for part in kept.load(0) + kept.load(0):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 1


@pytest.mark.parametrize(
    "change",
    [lambda image: image / np.float32(255), lambda image: image[..., :1], lambda image: image[:-1]],
    ids=["floats", "one channel", "other size"],
)
def test_what_is_no_frame_is_handed_on_unchanged(change):
    class Changed(Counted):
        def load(self, index):
            image, mask = super().load(index)
            return change(image), mask

    source = Changed([(5, 7)])
    kept = KeptFrames(source, 1.0)
    for _ in range(2):
        assert same(kept.load(0), source.load(0))
        assert kept.load(0)[0].dtype == source.load(0)[0].dtype


def test_integers_of_numpy_are_indices_too():
    source = Counted([(4, 4)] * 3)
    kept = KeptFrames(source, 3 * 1.5)
    for index in (np.int32(2), np.uint8(2), 2):
        assert same(kept.load(index), Counted(source.sizes).load(2))
    assert source.decoded == [0, 0, 1]


@pytest.mark.parametrize("gigabytes", [1e7, 1e30])
def test_without_memory_frames_are_decoded(gigabytes):
    before = open_files()
    source = Counted([(4, 4)])
    kept = KeptFrames(source, gigabytes)
    for _ in range(2):
        assert same(kept.load(0), Counted(source.sizes).load(0))
    assert source.decoded == [2]
    del kept
    assert open_files() == before


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_a_copy_decodes(duplicate):
    kept = KeptFrames(Counted([(5, 7)]), 1.0)
    kept.load(0)
    other = duplicate(kept)
    assert same(other.load(0), kept.load(0))
    other.load(0)
    assert other.source.decoded == [3]
    assert kept.source.decoded == [1]


def test_memory_is_given_back():
    before = open_files()
    kept = KeptFrames(Counted([(5, 7)]), 1.0)
    kept.load(0)
    assert open_files() > before
    del kept
    assert open_files() == before


class Loads(torch.utils.data.Dataset):
    """Frames as they come from a source, and how often this process decoded each."""

    def __init__(self, kept):
        self.kept = kept

    def __len__(self):
        return len(self.kept.source)

    def __getitem__(self, index):
        return index, *(part.copy() for part in self.kept.load(index)), self.kept.source.decoded[index]


class Turns(list):
    """A sampler that starts at another index every time, so that the loading processes swap frames."""

    start = -1

    def __iter__(self):
        self.start += 1
        return iter(self[self.start :] + self[: self.start])


def only(batch):
    return batch[0]


def child(work):
    """What a function gives in a forked process, and the process, which waits until it is killed."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def run():
        there.send(work())
        signal.pause()

    process = context.Process(target=run, daemon=True)
    process.start()
    assert here.poll(30)
    return here.recv(), process


def kill(process):
    process.kill()
    process.join()


def shared_memory(*processes):
    """Bytes of shared memory of processes, each byte once."""
    rollups = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    return sum(1024 * int(re.search(r"^Pss_Shmem:\s+(\d+)", text, re.MULTILINE)[1]) for text in rollups)


SIZES = [(300, 400)] * 20
ROOM = 1e-9 * 4 * 300 * 400 * 20


def test_processes_of_a_machine_share_and_nothing_is_left_of_one_that_is_killed():
    before = set(Path("/dev/shm").iterdir())
    offers = []

    def first():
        kept = KeptFrames(Counted(SIZES), ROOM, lambda own: offers.append(own) or [own])
        for index in range(20):
            kept.load(index)
        globals()["alive"] = kept
        return offers[0], kept.source.decoded

    (offer, decoded), process = child(first)
    assert decoded == [1] * 20
    own = shared_memory("self")
    kept = KeptFrames(Counted(SIZES), ROOM, lambda mine: [offer, mine])
    assert kept.processes == 2
    assert os.fstat(kept._file).st_nlink == 0  # it has no name that could stay
    frames = [kept.load(index) for index in range(20)]
    assert kept.source.decoded == [0] * 20
    together = shared_memory("self", process.pid) - own
    assert ROOM * 1e9 * 0.95 < together < ROOM * 1e9 * 1.2
    kill(process)
    assert all(same(frame, Counted(SIZES).load(index)) for index, frame in enumerate(frames))
    assert kept.source.decoded == [0] * 20
    del frames, kept
    assert shared_memory("self") - own < ROOM * 1e9 * 0.1
    assert set(Path("/dev/shm").iterdir()) <= before


def test_what_is_half_written_by_one_that_was_killed_is_decoded():
    offers = []

    def first():
        kept = KeptFrames(Counted(SIZES), ROOM, lambda own: offers.append(own) or [own])
        kept.load(0)
        kept._table[1] = 4 * 300 * 400, 300, 400, 1
        globals()["alive"] = kept
        return offers[0]

    offer, process = child(first)
    kept = KeptFrames(Counted(SIZES), ROOM, lambda mine: [offer, mine])
    kill(process)
    for _ in range(2):
        assert all(same(kept.load(index), Counted(SIZES).load(index)) for index in range(3))
    assert kept.source.decoded[:3] == [0, 2, 1]


@pytest.mark.parametrize(
    "change", [{"machine": "another"}, {"frames": "other frames"}, {"file": -1}, {"process": 2**22 + 1}]
)
def test_what_is_not_the_same_or_not_to_be_had_is_not_shared(change):
    kept = KeptFrames(Counted(SIZES), ROOM, lambda own: [dataclasses.replace(own, **{"process": 1, **change}), own])
    for _ in range(2):
        assert same(kept.load(3), Counted(SIZES).load(3))
    assert kept.source.decoded[3] == 1


def test_devices_of_a_machine_share_through_their_process_group(tmp_path):
    """Two processes over gloo: what one decoded the other one does not read, and batches are those of files."""
    folder(tmp_path / "a")

    def rank(number):
        torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", world_size=2, rank=number)

        def ready(workers, **settings):
            data = module(tmp_path / "a", workers, setup=False, **settings)
            state = SimpleNamespace(fn=None, status=None)
            data.trainer = SimpleNamespace(global_rank=number, world_size=2, num_devices=1, state=state)
            data.setup("fit")
            return data

        digests = set()
        for workers, settings in ((0, {"cache_gb": 0}), (0, {}), (1, {}), (2, {}), (2, {"cache_gb": 2e-6})):
            loader = ready(workers, **settings).train_dataloader()
            digest = hashlib.sha256()
            for name, *tensors in chain(batches(loader, 0), batches(loader, 1)):
                digest.update("".join(name).encode())
                for tensor in tensors:
                    digest.update(tensor.numpy())
            digests.add(digest.hexdigest())
        kept = ready(0).datasets["train"].kept
        if number == 0:
            for index in range(len(kept.source)):
                kept.load(index)
        torch.distributed.barrier()
        if number == 1:
            shutil.rmtree(tmp_path / "a/masks")
        frames = [tuple(part.copy() for part in kept.load(index)) for index in range(len(kept.source))]
        torch.distributed.barrier()
        return kept.processes, frames, digests

    plain = module(folder(tmp_path / "b"), 0, cache_gb=0).datasets["train"].source
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=lambda n=n: results.put(rank(n))) for n in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0][2] != found[1][2]
    for number, frames, digests in found:
        assert number == 2
        assert len(digests) == 1
        assert all(same(frame, plain.load(index)) for index, frame in enumerate(frames))


@pytest.mark.parametrize(
    ("gigabytes", "words"),
    [
        (1.0, r"all 20 frames are kept once decoded, in 0\.0096 GB of memory that all loading processes share; "
              r"decoding them takes about [\d.]+ s of one core"),
        (ROOM / 2, r"10 of 20 frames are kept once decoded, in 0\.0048 GB .*; at 400x300 pixels all 20 need 0\.0096 GB "
                   r"\(--data\.cache_gb 0\.1\)"),
        (1e-5, r"frames are decoded in every epoch: cache_gb is 1e-05, at 400x300 pixels all 20 need 0\.0096 GB"),
    ],
)  # fmt: skip
def test_what_fits_is_said(gigabytes, words):
    assert re.fullmatch(words, KeptFrames(Counted(SIZES), gigabytes).said())


def test_too_little_memory_of_the_machine_is_said(monkeypatch):
    monkeypatch.setattr(kept_frames, "_available", lambda: 10**6)
    assert "This machine has 0.001 GB left: lower --data.cache_gb" in KeptFrames(Counted(SIZES), 1.0).said()


def test_it_is_said_when_a_training_starts(tmp_path, caplog):
    caplog.set_level("INFO")
    module(folder(tmp_path), 0)
    assert "train: all 3 frames are kept once decoded" in caplog.text


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_loading_processes_share_what_any_of_them_decoded(start):
    sizes = [(8, 8)] * 20
    loader = DataLoader(
        Loads(KeptFrames(Counted(sizes), 1.0)), sampler=Turns(range(20)), num_workers=2, collate_fn=only,
        multiprocessing_context=start, persistent_workers=True,
    )  # fmt: skip
    for decoded in (1, 0):
        for index, image, mask, times in loader:
            assert same((image, mask), Counted(sizes).load(index))
            assert times == decoded


@pytest.mark.parametrize("workers", [0, 2])
def test_training_needs_the_files_only_once(tmp_path, workers):
    plain = module(folder(tmp_path / "a"), workers, cache_gb=0).train_dataloader()
    expected = [batches(plain, epoch) for epoch in range(2)]
    loader = module(folder(tmp_path / "b"), workers).train_dataloader()
    found = [batches(loader, 0)]
    shutil.rmtree(tmp_path / "b")
    found.append(batches(loader, 1))
    for (name, *tensors), (other, *others) in zip(chain(*found), chain(*expected), strict=True):
        assert name == other
        assert all(torch.equal(*pair) for pair in zip(tensors, others, strict=True))


def test_a_frame_for_which_no_room_is_left_is_decoded_in_every_epoch(tmp_path):
    root = folder(tmp_path)
    loader = module(root, 0, cache_gb=1e-9 * (3 * 4 * 12 * 16 - 1)).train_dataloader()
    batches(loader, 0)
    shutil.rmtree(root / "masks")
    with pytest.raises(DataError, match="cannot read"):
        batches(loader, 1)


def test_whole_frames_can_be_kept_without_warnings(tmp_path, recwarn):
    data = FolderDataModule(
        folder(tmp_path), "classes.yaml", batch_size=3, num_workers=0, flip=0.0, color_jitter=0.0, blur=0.0
    )
    data.setup("fit")
    loader = data.train_dataloader()
    first, second = batches(loader, 0)[0], batches(loader, 0)[0]
    assert torch.equal(first[1], second[1])
    assert not [warning for warning in recwarn if "writ" in str(warning.message)]


def test_only_training_frames_are_kept(tmp_path):
    data = module(folder(tmp_path), 0)
    assert data.datasets["train"].kept is not None
    assert data.datasets["val"].kept is None
    assert module(tmp_path, 0, cache_gb=0).datasets["train"].kept is None


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_memory_that_is_no_number_is_refused(tmp_path, value):
    with pytest.raises(SettingError, match=f"cache_gb must be a number of 0 or more, got {value}"):
        FolderDataModule(folder(tmp_path), "classes.yaml", cache_gb=value)
