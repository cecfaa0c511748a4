import sys
from collections import Counter

import numpy as np
import pytest
import torch
from tests.data import made

from gscnn_lightning.data import FolderDataModule, Source
from gscnn_lightning.data.class_tiles import TILE, Target, cache_folder, class_tiles
from gscnn_lightning.data.samplers import TrainSampler
from gscnn_lightning.data.transforms import RandomScaleCrop

VOID = 255


class Maps(Source):
    """Label maps in memory; `version` is what changes with them."""

    def __init__(self, *maps):
        self.maps, self.version, self.read = maps, "a", 0

    def __len__(self):
        return len(self.maps)

    def name(self, index):
        return str(index)

    def load(self, index):
        raise AssertionError("the labels alone are asked for")

    def load_labels(self, index):
        self.read += 1
        return self.maps[index]

    def fingerprint(self):
        return self.version * 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gscnn-lightning"


@pytest.fixture
def maps():
    """Class 0 everywhere, class 4 in two tiles of map 1, class 2 in one pixel of map 2."""
    first, second, third = (np.zeros((TILE + 10, 2 * TILE), np.uint8) for _ in range(3))
    second[:20, TILE - 5 : TILE + 5] = 4
    third[TILE + 3, 7] = 2
    third[:TILE] = VOID
    return Maps(first, second, third)


def rows(tiles):
    return sorted(zip(*(x.tolist() for x in (tiles.labels, tiles.frames, tiles.tops, tiles.lefts)), strict=True))


def test_index_lists_every_tile_of_every_class(maps):
    places = [(0, 0), (0, TILE), (TILE, 0), (TILE, TILE)]
    expected = [(0, frame, *place) for frame in (0, 1) for place in places] + [(0, 2, TILE, 0), (0, 2, TILE, TILE)]
    expected += [(4, 1, 0, 0), (4, 1, 0, TILE), (2, 2, TILE, 0)]
    assert rows(class_tiles(maps, with_bar=False)) == sorted(expected)


def test_index_is_kept_and_made_again_when_the_labels_change(maps, cache):
    first = class_tiles(maps, with_bar=False)
    assert maps.read == 3
    assert rows(class_tiles(maps, with_bar=False)) == rows(first)
    assert maps.read == 3
    (file,) = cache.iterdir()
    file.write_bytes(b"damaged")
    assert rows(class_tiles(maps, with_bar=False)) == rows(first)
    maps.version = "b"
    class_tiles(maps, with_bar=False)
    assert maps.read == 9
    assert len(list(cache.iterdir())) == 2


def test_without_a_place_to_keep_it_the_index_is_made_every_time(maps, cache):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    assert len(class_tiles(maps, with_bar=False).labels) == 13
    assert cache.read_text().startswith("a file")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="each platform has its own folder")
def test_cache_folder_of_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "gscnn-lightning"


def test_labels_that_change_change_the_fingerprint(tmp_path):
    made.folder(tmp_path)
    data = FolderDataModule(tmp_path, "classes.yaml")
    before = data.source("train").fingerprint()
    assert data.source("train").fingerprint() == before
    mask = made.raw_mask()
    mask[3, 3] = 8
    made.save(tmp_path / "masks/train/f1.png", mask)
    assert data.source("train").fingerprint() != before


def test_every_class_is_drawn_alike_and_then_every_tile(maps):
    tiles = class_tiles(maps, with_bar=False)
    rng = np.random.default_rng(0)
    drawn = [tiles.draw(rng) for _ in range(3000)]
    classes = Counter(target.label for _, target in drawn)
    assert [classes[c] for c in (0, 2, 4)] == pytest.approx([1000] * 3, rel=0.1)
    lefts = Counter(target.left for _, target in drawn if target.label == 4)
    assert lefts[0] == pytest.approx(lefts[TILE], rel=0.2)


def test_sampler_replaces_its_share_of_the_stream(maps):
    tiles = class_tiles(maps, with_bar=False)
    plain = list(TrainSampler(maps, 600, seed=3))
    mixed = list(TrainSampler(maps, 600, seed=3, class_uniform=0.5, tiles=tiles))
    assert len(mixed) == 600
    targets = [key for key in mixed if key.target]
    assert len(targets) == pytest.approx(300, rel=0.15)
    assert all(key == other for key, other in zip(mixed, plain, strict=True) if not key.target)
    for key in targets:
        tile = maps.maps[key.frame][key.target.top :, key.target.left :][:TILE, :TILE]
        assert (tile == key.target.label).any()
    shares = [list(TrainSampler(maps, 600, 3, 2, rank, class_uniform=0.5, tiles=tiles)) for rank in (0, 1)]
    assert [key for pair in zip(*shares, strict=True) for key in pair] == mixed


def test_crop_is_centred_on_the_target():
    mask = np.zeros((400, 400), np.uint8)
    mask[300:304, 350], mask[20, 30] = 9, 9  # in another tile too
    image = np.zeros((400, 400, 3), np.uint8)
    transform = RandomScaleCrop((11, 11), (1.0, 1.0))
    rows_hit = set()
    for seed in range(60):
        transform.set_random_seed(seed)
        out = transform(image=image, mask=mask, target=Target(9, 256, 256))["mask"]
        assert out[5, 5] == 9
        rows_hit.add(int((out[:5, 5] == 9).sum()))
    assert rows_hit == {0, 1, 2, 3}
    assert transform(image=image, mask=mask, target=Target(5, 0, 0))["mask"].shape == (11, 11)


def batches(root, workers):
    data = FolderDataModule(
        root, "classes.yaml", batch_size=3, num_workers=workers, crop_size=(8, 8), samples_per_epoch=30,
        class_uniform=0.7, class_uniform_over="data",
    )  # fmt: skip
    data.prepare_data()
    return list(data.train_dataloader())


def test_rare_class_is_seen_often_whatever_the_number_of_workers(tmp_path):
    made.folder(tmp_path)
    mask = made.raw_mask(dtype=np.uint16)
    mask[5, 5] = 300  # one pixel of sky in all data
    made.save(tmp_path / "masks/train/f1.png", mask)
    alone, other = batches(tmp_path, 0), batches(tmp_path, 2)
    for ours, theirs in zip(alone, other, strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["mask"], theirs["mask"])
    assert sum(bool((mask == 2).any()) for batch in alone for mask in batch["mask"]) >= 5
