"""Crops read out of TIFF files, beside crops of the whole decoded picture."""

import importlib.util
import sys

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from gscnn_lightning.data import FolderDataModule
from gscnn_lightning.data.files import FileSource
from gscnn_lightning.data.pictures import read_picture
from gscnn_lightning.data.windows import TiffWindows, open_tiff
from gscnn_lightning.errors import DataError, SettingError

tifffile = pytest.importorskip("tifffile")

SIZE = (301, 417)


def photo(size=SIZE, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (19, 27, 3), np.uint8)
    noise = np.random.default_rng(seed + 1).integers(0, 9, (*size, 3), np.uint8)
    return cv2.add(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), noise)


def labels(size=SIZE, seed=0):
    coarse = np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (9, 11))
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)


KINDS = {
    "tiles": {"tile": (64, 96)},
    "strips": {"rowsperstrip": 17},
    "one strip": {},
    "deflate": {"tile": (64, 64), "compression": "zlib"},
    "predictor": {"tile": (64, 64), "compression": "zlib", "predictor": True},
    "BigTIFF": {"tile": (64, 64), "bigtiff": True},
    "big-endian": {"tile": (64, 64), "byteorder": ">"},
}


@pytest.fixture
def folder(tmp_path):
    def make(kind="tiles", mask_kind="tiles", suffix=".tif", grey=False, colors=False):
        for place in ("images/train", "masks/train"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for seed in range(3):
            picture, drawn = photo(seed=seed), labels(seed=seed)
            picture = picture[..., 0] if grey else picture
            tifffile.imwrite(tmp_path / f"images/train/{seed}.tif", picture, **KINDS[kind])
            if colors:
                drawn = np.array([[9, 0, 1]] * 256, np.uint8)[drawn] + drawn[..., None] % 3
            if suffix == ".tif":
                tifffile.imwrite(tmp_path / f"masks/train/{seed}.tif", drawn, **KINDS[mask_kind])
            else:
                cv2.imwrite(str(tmp_path / f"masks/train/{seed}{suffix}"), drawn[..., ::-1] if colors else drawn)
        rows = [{"name": name, "color": [9 + i, i, 1 + i]} for i, name in enumerate("abc")]
        table = {"masks": "colors", "classes": rows} if colors else {"void": [255], "classes": rows}
        (tmp_path / "classes.yaml").write_text(yaml.safe_dump(table))
        return tmp_path

    return make


def module(root, windows, **settings):
    usual = {"crop_size": (90, 110), "scale": (0.3, 2.5), "class_uniform": 0.5, "num_workers": 0, "batch_size": 2}
    data = FolderDataModule(root, "classes.yaml", hold_out=0.34, windows=windows, **{**usual, **settings})
    data.setup("fit")
    return data


def same_samples(root, number=12, **settings):
    whole, windowed = (module(root, windows, **settings).train_dataloader() for windows in (False, True))
    for epoch in range(number // 2):
        keys = []
        for loader in (whole, windowed):
            loader.sampler.set_epoch(epoch)
            keys.append(list(loader.sampler))
        assert keys[0] == keys[1]
        for key in keys[0]:
            first, second = whole.dataset[key], windowed.dataset[key]
            assert torch.equal(first["image"], second["image"])
            assert torch.equal(first["mask"], second["mask"])
    return windowed.dataset


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_those_of_the_whole_picture(kind, folder, monkeypatch):
    root = folder(kind, "one strip" if kind == "tiles" else kind)
    assert same_samples(root).source.open_windows(0) is not None


@pytest.mark.parametrize("over", ["frame", "data"])
@pytest.mark.parametrize("form", ["grey", "colours", "masks in PNG"])
def test_samples_of_other_forms(form, over, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = folder(grey=form == "grey", colors=form == "colours", suffix=".png" if form == "masks in PNG" else ".tif")
    dataset = same_samples(root, class_uniform_over=over, class_uniform=0.7)
    assert dataset.source.open_windows(0) is not None


def test_crops_larger_than_the_picture(folder):
    same_samples(folder(), crop_size=(600, 500), scale=(0.8, 1.2), number=4)


def test_the_whole_picture_is_not_decoded(folder, monkeypatch):
    data = module(folder("deflate"), True, class_uniform=0.0, scale=(1.0, 1.0), crop_size=(32, 32))
    read = []
    usual = TiffWindows._tile
    monkeypatch.setattr(TiffWindows, "_tile", lambda *args: read.append(args[2]) or usual(*args))
    for name in ("load", "load_labels"):
        monkeypatch.setattr(FileSource, name, lambda *_: pytest.fail("decoded as a whole"))
    data.datasets["train"][(0, 0)]
    assert len(read) <= 2 * 4 + 2  # image and mask, and a look at the first tile of either


NOT = {
    "JPEG": lambda path: path.with_suffix(".jpg").write_bytes(b""),
    "16 bits": lambda path: tifffile.imwrite(path, photo().astype(np.uint16) * 257, tile=(64, 64)),
    "planes": lambda path: tifffile.imwrite(
        path, photo().transpose(2, 0, 1), planarconfig="separate", photometric="rgb"
    ),
    "transparency": lambda path: tifffile.imwrite(
        path, np.dstack([photo(), photo()[..., :1]]), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "turned": lambda path: tifffile.imwrite(path, photo(), extratags=[(274, "H", 1, 6, True)]),
    "white is 0": lambda path: tifffile.imwrite(path, photo()[..., 0], photometric="miniswhite"),
    "damaged": lambda path: path.write_bytes(b"II*\0" + b"\xff" * 40),
}


@pytest.mark.parametrize("kind", NOT)
def test_files_that_are_decoded_as_a_whole(kind, tmp_path):
    path = tmp_path / "a.tif"
    NOT[kind](path)
    assert open_tiff(path if path.exists() else path.with_suffix(".jpg")) is None


@pytest.mark.parametrize("compression", ["packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_files_of_another_program(compression, tmp_path):
    """What needs a decoder that is not there is decoded as a whole."""
    path = tmp_path / "a.tif"
    Image.fromarray(photo()).save(path, compression=compression)
    windows = open_tiff(path)
    if windows is None:
        assert compression in ("tiff_lzw", "jpeg")
        return
    whole = read_picture(path)
    for top, left, bottom, right in ((0, 0, 301, 417), (17, 100, 41, 103), (300, 416, 301, 417)):
        np.testing.assert_array_equal(windows.read(top, left, bottom, right), whole[top:bottom, left:right])


def test_what_is_decoded_as_a_whole_is_said(folder, caplog):
    root = folder()
    tifffile.imwrite(root / "images/train/0.tif", photo().astype(np.uint16) * 257)
    caplog.set_level("INFO")
    same_samples(root, number=4)
    assert "1 of 2 images are decoded as a whole, the first is 0: windows are read of TIFF files" in caplog.text


def test_label_maps_are_looked_at_in_parts(folder, monkeypatch):
    """To see whether they are void throughout."""
    root = folder()
    decoded = []
    usual = FileSource.load_labels
    monkeypatch.setattr(
        FileSource, "load_labels", lambda self, index: decoded.append(self.name(index)) or usual(self, index)
    )
    monkeypatch.setattr("gscnn_lightning.data.base._PART", 64)
    data = module(root, True)
    assert set(decoded).isdisjoint(data.datasets["train"].source.name(i) for i in range(2))
    for path in (root / "masks/train").iterdir():
        tifffile.imwrite(path, np.full((301, 417), 255, np.uint8), tile=(64, 64))
    with pytest.raises(DataError, match="train: all 2 label maps are void throughout"):
        module(root, True)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_missing_decoder_is_said_with_the_extra_that_has_it(is_there, folder, caplog, monkeypatch):
    usual = importlib.util.find_spec
    found = {True: object(), False: None}[is_there]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "imagecodecs" else usual(name))
    root = folder()
    monkeypatch.setattr(TiffWindows, "_tile", lambda *_: (_ for _ in ()).throw(ValueError("requires imagecodecs")))
    caplog.set_level("INFO")
    module(root, True)
    assert "2 of 2 images are decoded as a whole" in caplog.text
    told = "imagecodecs is not installed, which those in LZW and Zstandard need: pip install 'gscnn-lightning[tiles]'"
    assert (told in caplog.text) == (not is_there)


@pytest.mark.parametrize("predictor", [None, "horizontal"])
@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_parts_in_lzw_and_zstandard(compression, predictor, tmp_path):
    pytest.importorskip("imagecodecs")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, photo(), tile=(64, 64), compression=compression, predictor=predictor, photometric="rgb")
    windows = open_tiff(path)
    for top, left, bottom, right in ((0, 0, 301, 417), (17, 100, 141, 203), (300, 416, 301, 417)):
        part = photo()[top:bottom, left:right]
        np.testing.assert_array_equal(windows.read(top, left, bottom, right), part)


def test_values_outside_the_table_are_named(folder):
    root = folder()
    data = module(root, True, class_uniform=0.0)
    for seed in range(3):
        tifffile.imwrite(root / f"masks/train/{seed}.tif", np.full(SIZE, 77, np.uint8), tile=(64, 64))
    with pytest.raises(DataError, match="label values that the data set does not define: 77"):
        data.datasets["train"][(0, 0)]


def test_settings(folder, monkeypatch):
    root = folder()
    with pytest.raises(SettingError, match="windows reads what a crop needs, and crop_size is None"):
        module(root, True, crop_size=None)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'gscnn-lightning\[tiles\]'"):
        module(root, True)
