"""What `gscnn new` finds in folders as people have them."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from gscnn_lightning.data import FolderDataModule
from gscnn_lightning.data.mask_classes import read_classes
from gscnn_lightning.drafting.draft import classes_text, config_text, draft, write_draft
from gscnn_lightning.drafting.names import find_name_files
from gscnn_lightning.drafting.pictures import find_pictures, pair_pictures, split_of
from gscnn_lightning.errors import DataError, SettingError

CITY = {"road": (128, 64, 128), "car": (0, 0, 142), "sky": (70, 130, 180)}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def photo(path, seed=0, size=(40, 56)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)


def ids(values=(0, 1, 2), seed=0, size=(40, 56)):
    """Stripes of values, at a place that the seed says."""
    mask = np.zeros(size, np.uint8)
    for place, value in enumerate(values):
        mask[:, place * size[1] // len(values) :] = value
    return np.roll(mask, seed, axis=1)


def save(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)


def painted(mask, colors):
    return np.array(colors, np.uint8)[mask][..., ::-1]


def folder(root, names, image="{}.jpg", mask="{}.png", values=(0, 1, 2), paint=None):
    for seed, name in enumerate(names):
        photo(root / image.format(name), seed)
        drawn = ids(values, seed)
        save(root / mask.format(name), drawn if paint is None else painted(drawn, paint))
    return root


def drafted(root, **kwargs):
    return draft(root, Path("out"), **kwargs)[0]


def rows(text):
    return [line.split(",") for line in text.splitlines()[1:]]


def test_the_words_of_splits():
    told = {word: split_of(word)[0] for word in ("Training", "val2017", "images_valid", "testannot", "valley", "tests")}
    assert told == {
        "Training": "train",
        "val2017": "val",
        "images_valid": "val",
        "testannot": "test",
        "valley": "",
        "tests": "",
    }


FRAMES = [f"{n:03}" for n in range(10)]
LAYOUTS = {
    "two folders": ("img/{}.jpg", "label/{}.png"),
    "an ending": ("img/{}.jpg", "label/{}_L.png"),
    "endings on both sides": ("img/{}_leftImg8bit.png", "gt/{}_gtFine_labelIds.png"),
    "one folder": ("{}.jpg", "{}_mask.png"),
    "one folder, other suffix": ("{}.jpg", "{}.png"),
    "one folder, both PNG": ("{}_rgb.png", "{}_seg.png"),
    "prefixes": ("images/img_{}.png", "masks/mask_{}.png"),
    "deep": ("data/v1/images/{}.jpg", "data/v1/masks/{}.png"),
    "upper case": ("IMG/{}.JPG", "GT/{}.PNG"),
    "names that say nothing": ("a/{}.bmp", "b/{}.bmp"),
    "TIFF": ("img/{}.tif", "msk/{}.tif"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_and_masks_are_paired(layout, tmp_path):
    image, mask = LAYOUTS[layout]
    root = folder(tmp_path / "in", FRAMES, image, mask)
    pairs = pair_pictures(root, find_pictures(root))
    expected = [(root / image.format(name), root / mask.format(name)) for name in FRAMES]
    assert [(pair.image, pair.mask) for pair in pairs.pairs] == expected
    assert not pairs.images_alone
    assert not pairs.masks_alone


def test_frames_of_drives_with_the_same_names_are_told_apart(tmp_path):
    root = tmp_path / "in"
    for drive in ("a1", "b2", "c3"):
        folder(root / drive, FRAMES[:4], "images/{}.jpg", "masks/{}.png")
    pairs = pair_pictures(root, find_pictures(root))
    assert len(pairs.pairs) == 12
    assert all(pair.mask.parent.parent == pair.image.parent.parent for pair in pairs.pairs)


def test_ids_are_preferred_to_colours_and_instances(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}_labelIds.png")
    folder(root, FRAMES, "img/{}.jpg", "gt/{}_color.png", paint=list(CITY.values()))
    folder(root, FRAMES, "img/{}.jpg", "gt/{}_instanceIds.png")
    found = drafted(root)
    assert "gt/*_labelIds.png, ids with 3 values: 0, 1, 2" in dict(found.found)["masks"]
    assert found.assumed[-1] == "not used: gt/*_color.png, gt/*_instanceIds.png"


def test_splits_by_folders_in_either_order_and_images_to_predict(tmp_path):
    for number, (image, mask) in enumerate((("{}/img", "{}/gt"), ("img/{}", "gt/{}"))):
        root = tmp_path / f"in{number}"
        for split, count in (("train", 4), ("valid", 3)):
            folder(root, FRAMES[:count], image.format(split) + "/{}.jpg", mask.format(split) + "/{}.png")
        for name in FRAMES[:2]:
            photo(root / image.format("test") / f"{name}.jpg")
        found = drafted(root)
        assert {name: len(rows(text)) for name, text in found.files.items()} == {
            "train.csv": 4,
            "val.csv": 3,
            "predict.csv": 2,
        }
        assert len(rows(found.files["predict.csv"])[0]) == 1


def test_splits_by_lists(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "images/{}.jpg", "masks/{}.png")
    (root / "ImageSets").mkdir()
    (root / "ImageSets/train.txt").write_text("\n".join(FRAMES[:7]))
    (root / "ImageSets/val.txt").write_text(
        "\n".join(f"/SegNet/images/{n}.jpg /SegNet/masks/{n}.png" for n in FRAMES[7:])
    )
    found = drafted(root)
    assert [row[0] for row in rows(found.files["val.csv"])] == [f"images/{n}.jpg" for n in FRAMES[7:]]
    assert "by ImageSets/train.txt, ImageSets/val.txt" in dict(found.found)["splits"]


def test_whole_sequences_validate_and_always_the_same(tmp_path):
    names = [f"{drive}_{n:06}" for drive in ("0001TP", "0006R0", "Seq05VD", "xx", "yy") for n in range(5)]
    root = folder(tmp_path / "in", names, "img/{}.jpg", "gt/{}.png")
    first, second = drafted(root), drafted(root)
    assert first.files == second.files
    sequences = {
        split: {row[0].rpartition("_")[0] for row in rows(first.files[f"{split}.csv"])} for split in ("train", "val")
    }
    assert len(sequences["val"]) == 1
    assert not sequences["train"] & sequences["val"]
    assert any("5 sequences" in sentence and "validates (5 frames)" in sentence for sentence in first.assumed)


def test_frames_of_one_sequence_are_held_out_by_name(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png")
    found = drafted(root)
    assert {name: len(rows(text)) for name, text in found.files.items()} == {"train.csv": 8, "val.csv": 2}
    assert any("neighbours are in both" in sentence for sentence in found.assumed)


COLORS = [*CITY.values()]
NAME_FILES = {
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\nsky:70,130,180::\n",
    "label_colors.txt": "128 64 128\troad\n0 0 142\tcar\n70 130 180\tsky\n",
    "class_dict.csv": "name,r,g,b\nroad,128,64,128\ncar,0,0,142\nsky,70,130,180\n",
    "legend.csv": "name,color\nroad,#804080\ncar,#00008e\nsky,#4682b4\n",
    "classes.json": json.dumps([{"name": name, "color": list(color)} for name, color in CITY.items()]),
    "colors.json": json.dumps({name: list(color) for name, color in CITY.items()}),
}


@pytest.mark.parametrize("file", NAME_FILES)
def test_names_of_colours(file, tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png", paint=COLORS)
    (root / file).write_text(NAME_FILES[file])
    table = drafted(root).table
    assert {row.name: row.values for row in table.rows} == {name: [color] for name, color in CITY.items()}
    assert table.found == f"names by colours from {file}"


ID_FILES = {
    "classes.txt": "road\ncar\nsky\n",
    "codes.txt": "road\ncar\nsky",
    "data.yaml": "names: [road, car, sky]\n",
    "labels.yaml": "names: {0: road, 1: car, 2: sky}\n",
    "id2label.json": '{"0": "road", "1": "car", "2": "sky"}',
    "class_ids.json": '{"road": 0, "car": 1, "sky": 2}',
    "labels.csv": "id,name\n0,road\n1,car\n2,sky\n",
    "label_ids.txt": "0 road\n1 car\n2 sky\n",
    "class_list.txt": "road: 0\ncar: 1\nsky: 2\n",
}


@pytest.mark.parametrize("file", ID_FILES)
def test_names_of_ids(file, tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png")
    (root / file).write_text(ID_FILES[file])
    table = drafted(root).table
    assert [(row.name, row.values) for row in table.rows] == [("road", [0]), ("car", [1]), ("sky", [2])]
    assert file in table.found


def test_names_that_begin_with_one(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png", values=(1, 2, 3))
    save(root / "gt/000.png", np.where(np.arange(56) < 1, 0, ids((1, 2, 3))).astype(np.uint8))
    (root / "classes.txt").write_text("road\ncar\nsky\n")
    table = drafted(root).table
    assert [(row.name, row.values) for row in table.rows] == [("road", [1]), ("car", [2]), ("sky", [3])]
    assert table.void == [0]
    assert any("names begin with 1" in sentence for sentence in table.assumed)


def test_names_that_do_not_fit_are_said_not_to_be_used(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png", values=(0, 4, 9))
    (root / "classes.txt").write_text("road\ncar\nsky\n")
    table = drafted(root).table
    assert [row.name for row in table.rows] == ["class_0", "class_4", "class_9"]
    assert table.assumed[0] == "classes.txt is not used: it has 3 names, and the masks have values up to 9"


def test_void_is_guessed_and_said(tmp_path):
    table = drafted(folder(tmp_path / "a", FRAMES, values=(0, 3, 255))).table
    assert ([row.values for row in table.rows], table.void) == ([[0], [3]], [255])
    table = drafted(folder(tmp_path / "b", FRAMES, values=(0, 255))).table
    assert [(row.name, row.values) for row in table.rows] == [("background", [0]), ("foreground", [255])]
    assert "255 is a class and not void" in table.assumed[0]
    root = folder(tmp_path / "c", FRAMES, paint=[(0, 0, 0), (9, 200, 9), (200, 9, 9)])
    table = drafted(root).table
    assert [(row.name, row.values) for row in table.rows] == [
        ("background", [(0, 0, 0)]),
        ("class_1", [(9, 200, 9)]),
        ("class_2", [(200, 9, 9)]),
    ]
    (root / "labelmap.txt").write_text("Unlabeled:0,0,0::\ngrass:9,200,9::\nroof:200,9,9::\n")
    table = drafted(root).table
    assert ([row.name for row in table.rows], table.void) == (["grass", "roof"], [(0, 0, 0)])


def test_colours_and_palettes_of_public_data_sets(tmp_path):
    root = folder(tmp_path / "a", FRAMES, "img/{}.jpg", "gt/{}.png", paint=COLORS)
    table = drafted(root).table
    assert {row.name: row.values[0] for row in table.rows} == CITY
    assert "the colours are those of Cityscapes" in table.assumed[0]
    palettes = {
        # That of Cityscapes' train ids, and the colour map of Pascal VOC, with which tools paint classes of any kind.
        "b": ([128, 64, 128, 244, 35, 232, 70, 70, 70], ["road", "sidewalk", "building"]),
        "c": ([0, 0, 0, 128, 0, 0, 0, 128, 0], ["class_0", "class_1", "class_2"]),
    }
    for place, (palette, names) in palettes.items():
        (tmp_path / place / "gt").mkdir(parents=True)
        for seed, name in enumerate(FRAMES):
            photo(tmp_path / place / f"img/{name}.jpg", seed)
            image = Image.fromarray(ids(seed=seed), "P")
            image.putpalette(palette)
            image.save(tmp_path / place / f"gt/{name}.png")
        table = drafted(tmp_path / place).table
        assert [row.name for row in table.rows] == names
        assert [row.color for row in table.rows] == [tuple(palette[i : i + 3]) for i in (0, 3, 6)]


def test_masks_that_were_resized_smoothly(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png")
    for seed, name in enumerate(FRAMES):
        large = cv2.resize(painted(ids(seed=seed), [(200, 0, 0), (0, 200, 0), (0, 0, 200)]), (720, 100))
        photo(root / f"img/{name}.jpg", seed, (100, 720))
        save(root / f"gt/{name}.png", large)
    table = drafted(root).table
    assert table.others_void
    assert {row.values[0] for row in table.rows} >= {(200, 0, 0), (0, 200, 0), (0, 0, 200)}
    assert "rare colours" in table.assumed[-1]


def test_what_is_written_is_what_training_reads(tmp_path):
    names = ["# odd, name", "plain", "ünï", "  blank", "five"]
    root = folder(tmp_path / "my {data}", names, "a b/{}.jpg", "m/{}.png", values=(0, 7, 255))
    (root / "classes.csv").write_text('id,name\n0,"road, wet"\n7,yes\n')
    found, out = draft(root, tmp_path / "out {1}")
    written = write_draft(found, out, "test_resnet", 3)
    config = yaml.safe_load((out / "my_data.yaml").read_text())
    data = FolderDataModule(**config["data"]["init_args"])
    assert data.class_names == ("road, wet", "yes")
    data.setup("fit")
    frames = [data.datasets[split][index] for split in ("train", "val") for index in range(len(data.datasets[split]))]
    assert len(frames) == 5
    labels = {value for frame in frames for value in frame["mask"].unique().tolist()}
    assert labels == {0, 1, 255}
    with pytest.raises(SettingError, match=r"is there already and is not overwritten: give another folder \(--out\)"):
        draft(root, out)
    assert sorted(written) == sorted(out.iterdir())
    assert not list(root.glob("*.yaml"))


def test_a_table_of_this_library_is_copied(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}_labels.png", values=(0, 1, 255))
    table = "void: [255]\nclasses:\n  - {name: road, color: [1, 2, 3]}\n  - {name: car, color: [4, 5, 6]}\n"
    (root / "classes.yaml").write_text(table)
    found = drafted(root)
    assert found.copied == table
    (root / "classes.yaml").write_text(table.replace("void: [255]\n", ""))  # a value of the masks is missing
    assert found.copied != drafted(root).copied


def test_class_tables_are_read_again(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png", paint=COLORS)
    path = tmp_path / "classes.yaml"
    path.write_text(classes_text(drafted(root).table))
    assert read_classes(path).classes.names == ("road", "sky", "car")
    assert "% of the pixels, 10 of 10 masks" in path.read_text()


def test_crops_follow_the_images(tmp_path):
    found = drafted(folder(tmp_path / "in", FRAMES))
    for size, expected in (((480, 360), "[192, 288]"), ((2048, 1024), "[384, 384]"), ((5000, 4000), "[384, 384]")):
        found.sizes = Counter({size: 3})
        text = config_text(found, "test_resnet", 50)
        assert f"crop_size: {expected}" in text
        assert ("window: [1024, 1024]" in text) == (size[0] == 5000)


def mixed(root):
    folder(root, FRAMES, "img/{}.jpg", "gt/{}.png")
    save(root / "gt/003.png", painted(ids(), COLORS))


def refused(root):
    """Each kind of folder that no config can be made of."""
    return {
        "empty": (lambda: root.mkdir(), "has no pictures: give a folder with images"),
        "photos": (lambda: [photo(root / f"{n}.jpg") for n in FRAMES], "has 10 photographs and no masks, such as"),
        "masks": (lambda: [save(root / f"{n}.png", ids()) for n in FRAMES], "has 10 masks and no photographs, such as"),
        "lossy": (
            lambda: [
                (photo(root / f"img/{n}.jpg"), save(root / f"gt/{n}.jpg", painted(ids(size=(400, 560)), COLORS)))
                for n in FRAMES
            ],
            "look like masks in a format that changes pixels",
        ),
        "names": (
            lambda: [(photo(root / f"img/{n}x.jpg"), save(root / f"gt/y{n}z.png", ids())) for n in "abc"],
            "no mask has the name of an image: 3 images such as",
        ),
        "unpaired": (
            lambda: (folder(root, FRAMES, "img/{}.jpg", "gt/{}.png"), (root / "gt/004.png").unlink()),
            r"1 of 10 images \(img/\*.jpg\) have no mask, the first is .*004.jpg: add what is missing, or leave",
        ),
        "mixed": (
            lambda: mixed(root),
            "two kinds: 1 are in colours, the first is .*003.png, and 9 hold numbers",
        ),
        "one": (lambda: folder(root, FRAMES[:1]), "has one image with a mask"),
        "twins": (
            lambda: (folder(root, FRAMES, "img/{}.jpg", "gt/{}.png"), photo(root / "img/004.png")),
            "no mask|the same frame twice|have no mask",
        ),
        "void": (lambda: folder(root, FRAMES, values=(255,)), "one value|all pixels are void"),
        "damaged": (
            lambda: (folder(root, FRAMES, "img/{}.jpg", "gt/{}.png"), (root / "gt/004.png").write_bytes(b"\x89PNG")),
            "004.png is truncated",
        ),
    }


@pytest.mark.parametrize("kind", refused(Path()))
def test_folders_that_cannot_be_used(kind, tmp_path):
    make, message = refused(tmp_path / "in")[kind]
    make()
    if kind == "void":
        assert "all masks have the one value 255" in drafted(tmp_path / "in").table.assumed[-1]
        return
    with pytest.raises(DataError, match=message) as error:
        drafted(tmp_path / "in")
    assert "\n" not in str(error.value)


def test_what_has_no_partner_can_be_left_out(tmp_path):
    root = folder(tmp_path / "in", FRAMES, "img/{}.jpg", "gt/{}.png")
    (root / "gt/004.png").unlink()
    found = drafted(root, leave_out_unpaired=True)
    assert sum(len(rows(text)) for text in found.files.values()) == 9
    assert any("left out: 1 images and 0 masks that have no partner" in sentence for sentence in found.assumed)


def test_the_data_are_not_written_to(tmp_path):
    root = folder(tmp_path / "in", FRAMES)
    with pytest.raises(SettingError, match=r"is in the data .*, which are only read: give a folder elsewhere"):
        draft(root, root / "config")


def test_lists_of_frames_are_no_names(tmp_path):
    (tmp_path / "classes_used.txt").write_text("img/1.png\nimg/2.png\n")
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "data.json").write_text("[1, 2")
    assert find_name_files(tmp_path) == []
