"""Frames in shared memory are the frames of the source, decoded once."""

import copy
import math
import pickle
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.made import folder, picture, raw_mask
from torch.utils.data import DataLoader

from gscnn_lightning.data import FolderDataModule
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

    def load(self, index):
        self.decoded[index] += 1
        return picture(index, self.sizes[index]), raw_mask(self.sizes[index]) + index if self.labelled else None


def same(frames, expected):
    return all(np.array_equal(*pair) for pair in zip(frames, expected, strict=True))


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def module(root, workers, **settings):
    data = FolderDataModule(
        root, "classes.yaml", batch_size=1, num_workers=workers, crop_size=(8, 8), samples_per_epoch=30, **settings
    )
    data.setup("fit")
    return data


def batches(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return [(batch["name"], batch["image"].clone(), batch["mask"].clone()) for batch in loader]


@pytest.mark.parametrize(("second", "times"), [((6, 4), 1), ((8, 9), 3)], ids=["has room", "is too large"])
def test_each_frame_that_has_room_is_decoded_once(second, times):
    source = Counted([(5, 7), second, (8, 8)])
    kept = KeptFrames(source, 1e-9 * 4 * 64 * 3)
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


def test_frames_that_need_more_than_their_share_are_not_kept(tmp_path):
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
