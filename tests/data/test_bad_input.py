"""What users' data can be like: each kind gets one message that names the file and what to do, and changes nothing."""

import os
import signal
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.data import made

from gscnn_lightning.data import CamVidDataModule, CityscapesDataModule, FolderDataModule, ScenesDataModule
from gscnn_lightning.errors import DataError, GSCNNError


@pytest.fixture(autouse=True)
def _nothing_hangs():
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("still running after 30 s"))
    signal.alarm(30)
    yield
    signal.alarm(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)
    monkeypatch.delenv("GSCNN_CAMVID_ROOT", raising=False)


def folder(root, **kwargs):
    return FolderDataModule(**{"root": root, "classes": "classes.yaml", "batch_size": 1, "num_workers": 0, **kwargs})


def read_all(data):
    """Everything a training does with its data."""
    data.prepare_data()
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        list(loader)


def refused(make, root, words):
    """The message that ends a training on data that `make` opens, after which their files are as they were."""
    before = made.digest(root)
    with pytest.raises(GSCNNError, match=words) as error:
        read_all(make())
    assert made.digest(root) == before
    return str(error.value)


def refused_in_one_line(make, root, words):
    message = refused(make, root, words)
    assert len(message.splitlines()) == 1, message


def cut(path, lost):
    path.write_bytes(path.read_bytes()[:-lost])


def damage(path):
    content = bytearray(path.read_bytes())
    content[60:-12] = bytes(len(content) - 72)
    path.write_bytes(content)


def palette(path, value):
    image = Image.fromarray(np.full((12, 16), value, np.uint8), mode="P")
    image.putpalette(list(range(256)) * 3)
    image.save(path)


def replace_table(old, new):
    def break_it(root):
        path = root / "classes.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return break_it


def folder_for_file(path):
    path.unlink()
    path.mkdir()


MASK, PNG, JPG = "masks/train/f1.png", "images/train/f1.png", "images/train/f2.jpg"

# What is done to a good data set of folders, and the words of the message.
FOLDERS = {
    "images missing": (
        lambda r: (r / "images").rename(r / "pictures"),
        r"images/train is missing: create it.*--data\.images",
    ),
    "masks missing": (
        lambda r: (r / "masks").rename(r / "labels"),
        r"masks/train is missing: create it.*--data\.masks",
    ),
    "no files": (lambda r: [p.unlink() for p in r.glob("*/train/*")], "no images in .*train: check the path"),
    "no mask": (lambda r: (r / MASK).unlink(), r"1 of 3 images in .*, the first is .*images/train/f1\.png: add"),
    "no image": (lambda r: (r / PNG).unlink(), r"1 of 3 label maps in .*, the first is .*masks/train/f1\.png: add"),
    "image twice": (
        lambda r: made.save(r / "images/train/f1.bmp", made.picture()),
        r"f1\.bmp and f1\.png .* twice: remove",
    ),
    "other size": (lambda r: made.save(r / MASK, made.raw_mask((12, 15))), r"train/f1\.png is 15x12 .* 16x12: resize"),
    "text as image": (
        lambda r: (r / PNG).write_text("hello"),
        r"images/train/f1\.png is not a readable image .*: replace",
    ),
    "empty image": (lambda r: (r / PNG).write_bytes(b""), r"images/train/f1\.png is not a readable image .*: replace"),
    "empty mask": (lambda r: (r / MASK).write_bytes(b""), r"masks/train/f1\.png is not a readable image .*: replace"),
    "half a PNG": (lambda r: cut(r / PNG, 100), r"images/train/f1\.png is truncated after \d+ bytes: copy it again"),
    "half a JPEG": (lambda r: cut(r / JPG, 100), r"images/train/f2\.jpg is truncated after \d+ bytes: copy it again"),
    "half a mask": (lambda r: cut(r / MASK, 20), r"masks/train/f1\.png is truncated after \d+ bytes: copy it again"),
    "half a header": (
        lambda r: cut(r / PNG, (r / PNG).stat().st_size - 20),
        r"images/train/f1\.png is truncated after 20",
    ),
    "damaged image": (lambda r: damage(r / PNG), r"images/train/f1\.png \(sample 1\) cannot be decoded .*: replace"),
    "damaged mask": (lambda r: damage(r / MASK), r"masks/train/f1\.png \(sample 1\) cannot be decoded .*: replace"),
    "coloured mask": (lambda r: made.save(r / MASK, made.picture()), r"f1\.png has pixels of type RGB: .* class ids"),
    "mask with alpha": (
        lambda r: Image.new("LA", (16, 12)).save(r / MASK),
        r"masks/train/f1\.png has pixels of type LA: label maps are 8- or 16-bit images with one channel",
    ),
    "mask of real numbers": (
        lambda r: ((r / MASK).unlink(), Image.new("F", (16, 12)).save(r / "masks/train/f1.tif")),
        r"masks/train/f1\.tif has pixels of type F: label maps are",
    ),
    "masks as JPEG": (
        lambda r: [p.rename(p.with_suffix(".jpg")) for p in (r / "masks/train").iterdir()],
        r"masks/train/f0\.jpg is a mask in a format that changes pixels: masks must be PNG",
    ),
    "unknown id": (
        lambda r: made.save(r / MASK, np.full((12, 16), 9, np.uint8)),
        r"f1\.png \(sample 1\) has label values that .* define: 9 \(192 pixels\)\. Correct the file or its class table",
    ),
    "unknown 16-bit id": (
        lambda r: made.save(r / MASK, np.full((12, 16), 3000, np.uint16)),
        r"f1\.png \(sample 1\) has label values that .* not define: 3000 \(192 pixels\)",
    ),
    "unknown palette index": (lambda r: palette(r / MASK, 5), r"f1\.png \(sample 1\) .* not define: 5 \(192 pixels\)"),
    "many unknown ids": (
        lambda r: made.save(r / MASK, np.arange(20, 212, dtype=np.uint8).reshape(12, 16)),
        r"not define: 20, 21, 22, 23, 24, 25, 26, 27, 28, 29 and 182 more \(192 pixels\)",
    ),
    "folder called image": (
        lambda r: folder_for_file(r / PNG),
        r"images/train/f1\.png is no file but .*: restore or remove",
    ),
    "broken link": (
        lambda r: ((r / PNG).unlink(), (r / PNG).symlink_to(r / "gone.png")),
        r"images/train/f1\.png is no file but a broken link.*: restore or remove",
    ),
    "pipe": (lambda r: ((r / PNG).unlink(), os.mkfifo(r / PNG)), r"images/train/f1\.png is no file .* pipe: restore"),
    "table missing": (
        lambda r: (r / "classes.yaml").unlink(),
        r"cannot read the class table classes\.yaml .*--data\.classes",
    ),
    "table no YAML": (
        lambda r: (r / "classes.yaml").write_text("{a"),
        r"(?s)classes\.yaml is not valid YAML .*An example",
    ),
    "table of text": (
        lambda r: (r / "classes.yaml").write_text("road"),
        r"classes\.yaml: it holds str, not keys and values",
    ),
    "table with a typing error": (
        replace_table("void:", "viod:"),
        r"classes\.yaml: unknown key 'viod' in table: the keys",
    ),
    "class with a typing error": (
        replace_table("values: [0]", "value: 0"),
        "unknown key 'value' in class 'ground': the keys",
    ),
    "class without a colour": (
        replace_table("color: [70, 130, 180], ", ""),
        "class 2 is .*'sky'.*: give it a name and a color",
    ),
    "wrong colour": (replace_table("[70, 130, 180]", "[70, 130, 480]"), r"'sky': \[70, 130, 480\] is no colour: write"),
    "wrong id": (replace_table("[300]", "[-1]"), "values of class 'sky': -1 is no id: ids are whole numbers from 0"),
    "id alone": (replace_table("[300]", "300"), r"values of class 'sky' is 300: write a list, such as \[0, 7\]"),
    "id of two classes": (replace_table("[300]", "[8]"), "value 8 belongs to both tree and sky: give it to one"),
    "id of class and void": (replace_table("[255]", "[0]"), "value 0 belongs to both void and ground: give it to one"),
    "class twice": (replace_table("sky", "tree"), "class 'tree' is there twice: name it once, with all its values"),
    "kind of masks": (replace_table("masks: ids", "masks: rgb"), "masks is 'rgb': write ids or colors"),
    "no classes": (
        lambda r: (r / "classes.yaml").write_text("masks: ids"),
        "classes must be a list of 1 to 254 classes",
    ),
    "nothing but void": (
        lambda r: [made.save(p, np.full((12, 16), 255, np.uint8)) for p in (r / "masks/train").iterdir()],
        "all 3 label maps are void: nothing to sample classes from",
    ),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(kind, tmp_path):
    if kind in ("pipe", "broken link") and sys.platform == "win32":
        pytest.skip("links and pipes need POSIX")
    break_it, words = FOLDERS[kind]
    break_it(made.folder(tmp_path))
    message = refused(lambda: folder(tmp_path, class_uniform=0.5, class_uniform_over="data"), tmp_path, words)
    assert len(message.splitlines()) == 1 or "An example" in message


# What a list of training frames says, and the words of the message.
LISTS = {
    "three columns": ("a.png b.png c.png", r"train\.txt, line 1 has 3 columns: write the image and its mask"),
    "no mask": ("images/train/f0.jpg", r"train\.txt, line 1 has 1 columns: .* separated by a tab or a space"),
    "missing file": (
        "\n# a comment\nimages/train/f9.jpg masks/train/f0.png",
        r"train\.txt, line 3: .*images/train/f9\.jpg is no file; paths start from",
    ),
    "frame twice": (
        "images/train/f0.jpg masks/train/f0.png\n" * 2,
        r"train\.txt, line 2: images/train/f0\.jpg is the same frame as an earlier line: remove one",
    ),
    "nothing": ("# nothing", "the train split of FolderDataModule is empty: check its path and settings"),
    "not text": (b"\xff\xfe\x00\x81", r"cannot read the list .*train\.txt .*: correct lists"),
    "no list": (None, r"cannot read the list .*train\.txt .*: correct lists \(--data\.lists"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists(kind, tmp_path):
    content, words = LISTS[kind]
    made.folder(tmp_path)
    if content is not None:
        (tmp_path / "train.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: folder(tmp_path, lists="{split}.txt"), tmp_path, words)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (made.raw_mask(), r"f1\.png has pixels of type L: label maps are 8-bit colour images"),
        (np.full((12, 16, 3), (9, 8, 7), np.uint8), r"f1\.png \(sample 1\) .* not define: \(9, 8, 7\) \(192 pixels\)"),
        (
            np.full((12, 16, 3), 700, np.uint16),
            r"f1\.png \(sample 1\) has shape \(12, 16, 3\) and type uint16: label maps",
        ),
    ],
    ids=["ids", "unknown colour", "16-bit colours"],
)
def test_masks_of_colours(mask, words, tmp_path):
    made.folder(tmp_path, made.COLOR_TABLE)
    for path in (tmp_path / "masks").rglob("*.png"):
        made.save(path, np.full((12, 16, 3), (128, 64, 128), np.uint8))
    read_all(folder(tmp_path))
    made.save(tmp_path / MASK, mask)
    with pytest.raises(GSCNNError, match=words):
        read_all(folder(tmp_path))


@pytest.mark.parametrize(
    ("path", "break_it", "words"),
    [
        (PNG, lambda path: path.unlink(), r"cannot read .*images/train/f1\.png \(sample 1\): .*No such file"),
        (
            PNG,
            lambda path: cut(path, 50),
            r"images/train/f1\.png \(sample 1\) is truncated after \d+ bytes: copy it again",
        ),
        (MASK, lambda path: path.write_bytes(b""), r"masks/train/f1\.png \(sample 1\) cannot be decoded .*: replace"),
        (
            MASK,
            lambda path: made.save(path, made.raw_mask((5, 16))),
            r"f1 \(sample 1\): image is 16x12 .* 16x5: resize",
        ),
        (
            MASK,
            lambda path: made.save(path, made.picture()),
            r"f1\.png \(sample 1\) has shape \(12, 16, 3\) and type uint8",
        ),
    ],
    ids=["vanished", "truncated", "emptied", "other size", "coloured"],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_break_during_the_training(path, break_it, words, workers, tmp_path):
    data = folder(made.folder(tmp_path), num_workers=workers)
    data.setup("fit")
    break_it(tmp_path / path)
    with pytest.raises(GSCNNError, match=words):
        list(data.train_dataloader())


CITY = ("aachen_000000_000019", "ulm_000000_000019")

# Data module and the words of its message; the data are good Cityscapes and CamVid folders, or none.
OTHERS = {
    "no root, Cityscapes": (lambda r: CityscapesDataModule(), r"where is Cityscapes\? Pass root .* CITYSCAPES_DATASET"),
    "no root, CamVid": (lambda r: CamVidDataModule(), r"where is CamVid\? Pass root .* GSCNN_CAMVID_ROOT"),
    "wrong root": (lambda r: CityscapesDataModule(r / "x"), r"Cityscapes root .*x does not exist: correct root"),
    "wrong root, folder": (
        lambda r: folder(r / "x", classes=str(r / "folder/classes.yaml")),
        r"x does not exist: correct",
    ),
    "no package": (
        lambda r: CityscapesDataModule(r / "folder"),
        "neither gtFine nor .*: unpack gtFine_trainvaltest",
    ),
    "no coarse labels": (
        lambda r: CityscapesDataModule(r / "city", annotation="coarse"),
        r"neither gtCoarse .*gtCoarse\.zip",
    ),
    "no train_extra": (
        lambda r: CityscapesDataModule(r / "city", annotation="fine", train_split="train_extra"),
        "train_extra has no fine labels: set annotation to 'coarse'",
    ),
    "no such cross-validation split": (
        lambda r: CityscapesDataModule(r / "city", cv_split=7),
        r"cv_split must be 0 .* 6, got 7",
    ),
    "cross-validation of trainval": (
        lambda r: CityscapesDataModule(r / "city", cv_split=1, train_split="trainval"),
        "'trainval' uses all cities: cv_split must be 0",
    ),
    "cross-validation without its cities": (
        lambda r: CityscapesDataModule(r / "city", cv_split=3, batch_size=1),
        "split 3 leaves no validation frames, as it validates on cologne, dusseldorf, krefeld: add the missing cities",
    ),
    "no instances": (
        lambda r: CityscapesDataModule(r / "city", instances=True, batch_size=1),
        r"gtFine_instanceIds\.png is missing: unpack gtFine_trainvaltest\.zip again, or set instances to false",
    ),
    "CamVid without a folder": (
        lambda r: CamVidDataModule(r / "folder"),
        r"train is missing: CamVid in the SegNet layout has",
    ),
    "fewer frames than a batch": (
        lambda r: CamVidDataModule(r / "camvid", batch_size=8, num_workers=0),
        "epoch of 3 training samples cannot fill one step .*: lower batch_size",
    ),
    "classes of drawn scenes": (
        lambda r: ScenesDataModule(4, 2, class_uniform=0.5, class_uniform_over="data"),
        "class_uniform_over='data' needs label files to index, and ScenesDataset has none: use 'frame'",
    ),
    "unknown word": (lambda r: ScenesDataModule(class_uniform_over="image"), "must be 'frame' or 'data', got 'image'"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_data_modules(kind, tmp_path):
    made.folder(tmp_path / "folder")
    made.camvid(tmp_path / "camvid")
    for split in ("train", "val"):
        made.cityscapes(tmp_path / "city", split, CITY)
    make, words = OTHERS[kind]
    refused(lambda: make(tmp_path), tmp_path, words)


def test_links_in_a_circle_end(tmp_path):
    made.folder(tmp_path)
    (tmp_path / "images/train/again").symlink_to(tmp_path / "images/train")
    (tmp_path / "images/train/up").symlink_to(tmp_path / "images")
    data = folder(tmp_path)
    with pytest.raises(GSCNNError, match=r"2 of 5 images in .* have no label map, the first is .*up/val/f0\.jpg"):
        data.setup("fit")


def test_the_good_data_sets_are_good(tmp_path):
    read_all(folder(made.folder(tmp_path / "folder")))
    read_all(CamVidDataModule(made.camvid(tmp_path / "camvid"), batch_size=1, num_workers=0))
    for split in ("train", "val"):
        made.cityscapes(tmp_path / "city", split, CITY)
    read_all(CityscapesDataModule(tmp_path / "city", batch_size=1, num_workers=0))


def test_opencv_is_not_left_with_less_threads_or_other_settings(tmp_path):
    before = cv2.getNumThreads()
    read_all(folder(made.folder(tmp_path)))
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_frames_of_different_sizes_in_one_batch_are_named(workers, tmp_path):
    made.folder(tmp_path)
    made.save(tmp_path / "images/val/f1.png", made.picture(7, (10, 16)))
    made.save(tmp_path / "masks/val/f1.png", made.raw_mask((10, 16)))
    data = FolderDataModule(tmp_path, "classes.yaml", batch_size=1, val_batch_size=2, num_workers=workers)
    with pytest.raises(DataError, match=r"f0 is 16x12 pixels and f1 16x10, .*: give --data\.val_batch_size 1"):
        list(data.val_dataloader())
    data = FolderDataModule(tmp_path, "classes.yaml", batch_size=1, val_batch_size=1, num_workers=workers)
    assert [batch["image"].shape[2] for batch in data.val_dataloader()] == [12, 10]
