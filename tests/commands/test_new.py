"""`gscnn new` as a user calls it: from a folder to a network in two commands."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tests.drafting.test_drafting import FRAMES, folder, ids, painted, photo, save
from tests.test_cli import TINY

from gscnn_lightning.cli import main
from gscnn_lightning.commands.main import main as tools

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(config, *others):
    main(["--config", config, *TINY, "--trainer.max_epochs", "1", "--data.samples_per_epoch", "8", *others])
    (run,) = Path("runs").glob("*/version_0")
    return run


def test_two_commands_train_a_network(capsys):
    folder(Path("our photos"), FRAMES, "{}.jpg", "{}_mask.png", values=(0, 1, 255))
    tools(["new", "our photos", "--backbone", "test_resnet"])
    told = capsys.readouterr().out
    assert "masks    10: *_mask.png, ids with 3 values: 0, 1, 255" in told
    assert "8 train, 2 validate" in told
    assert "assumed: classes.yaml: 255 is void, as is usual" in told
    command = re.search(r"train: gscnn-fit (--config (\S+))", told)
    assert command[2] == "our_photos_config/our_photos.yaml"
    run = trained(command[2])
    assert (run / "contact_sheet.png").is_file()
    assert json.loads((run / "classes.json").read_text())["names"] == ["class_0", "class_1"]


def coco(root, names, file, first=0):
    images = [{"id": i, "file_name": f"{name}.jpg", "width": 56, "height": 40} for i, name in enumerate(names)]
    square = [5.0, 5.0, 30.0, 5.0, 30.0, 30.0, 5.0, 30.0]
    annotations = [
        {"id": i, "image_id": i, "category_id": 7, "iscrowd": 0, "segmentation": [square], "bbox": [5, 5, 25, 25]}
        for i in range(len(names))
    ]
    categories = [{"id": 7, "name": "roof"}, {"id": 12, "name": "tree"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))


COCO = {
    "one file": ({"labels.json": "pictures"}, {"hold_out": 0.2, "images": "pictures", "annotations": "labels.json"}),
    "official": (
        {"annotations/instances_train2017.json": "train2017", "annotations/instances_val2017.json": "val2017"},
        {
            "annotations": "annotations/instances_{split}.json",
            "images": "{split}",
            "splits": {"train": "train2017", "val": "val2017"},
        },
    ),
    "beside the images": (
        {"train/_annotations.coco.json": "train", "valid/_annotations.coco.json": "valid"},
        {
            "annotations": "{split}/_annotations.coco.json",
            "images": "{split}",
            "splits": {"train": "train", "val": "valid"},
        },
    ),
}


@pytest.mark.parametrize("kind", COCO)
def test_polygons_in_cocos_format(kind, tmp_path, capsys):
    pytest.importorskip("pycocotools")
    files, expected = COCO[kind]
    root = tmp_path / "in"
    for file, images in files.items():
        coco(root, FRAMES[:5], file)
        for name in FRAMES[:5]:
            photo(root / images / f"{name}.jpg", len(file) + int(name))
    tools(["new", "in"])
    arguments = yaml.safe_load(Path("in_config/in.yaml").read_text())["data"]["init_args"]
    assert {key: arguments.get(key) for key in expected} == expected
    assert "2: roof, tree" in capsys.readouterr().out


def test_polygons_in_yolos_format_without_the_file_that_names_classes(tmp_path, capsys):
    pytest.importorskip("pycocotools")
    for split, count in (("train", 4), ("val", 2)):
        for name in FRAMES[:count]:
            photo(tmp_path / f"in/images/{split}/{name}.jpg", int(name) + count)
            label = tmp_path / f"in/labels/{split}/{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("1 0.1 0.1 0.6 0.1 0.6 0.6\n0 0.7 0.7 0.9 0.7 0.9 0.9\n")
    tools(["new", "in"])
    told = capsys.readouterr().out
    assert "4 train, 2 validate" in told
    assert "write your names for class_... into" in told
    assert yaml.safe_load(Path("in_config/data.yaml").read_text())["names"] == {0: "class_0", 1: "class_1"}


def test_boxes_are_refused(tmp_path, capsys):
    for name in FRAMES[:3]:
        photo(tmp_path / f"in/images/{name}.jpg", int(name))
        (tmp_path / "in/labels").mkdir(exist_ok=True)
        (tmp_path / f"in/labels/{name}.txt").write_text("1 0.1 0.1 0.6 0.1\n")
    with pytest.raises(SystemExit) as stop:
        tools(["new", "in"])
    assert stop.value.code == 2
    assert "3 boxes and no outlines: segmentation needs polygons" in capsys.readouterr().err


def test_known_layouts_keep_their_own_settings(tmp_path, capsys):
    for split, count in (("train", 3), ("val", 2)):
        for name in FRAMES[:count]:
            photo(tmp_path / f"CamVid/{split}/{name}.png", int(name) + count)
            save(tmp_path / f"CamVid/{split}annot/{name}.png", ids((0, 3, 11)))
    tools(["new", "CamVid"])
    assert "camvid, by its folders" in capsys.readouterr().out
    config = yaml.safe_load(Path("CamVid_config/CamVid.yaml").read_text())
    assert config["data"]["class_path"] == "gscnn_lightning.data.CamVidDataModule"
    # Colours in the same folders are not that layout.
    for split, count in (("train", 3), ("val", 2)):
        for name in FRAMES[:count]:
            save(tmp_path / f"CamVid/{split}annot/{name}.png", painted(ids(), [(9, 0, 0), (0, 9, 0), (0, 0, 9)]))
    tools(["new", "CamVid", "--out", "other"])
    assert "names    none found" in capsys.readouterr().out


def test_what_training_would_refuse_leaves_nothing_behind(tmp_path, capsys):
    folder(Path("in"), FRAMES, "img/{}.jpg", "gt/{}.png")
    save(Path("in/gt/002.png"), np.zeros((20, 20), np.uint8))
    with pytest.raises(SystemExit) as stop:
        tools(["new", "in"])
    assert stop.value.code == 2
    assert re.search(
        r"gscnn new: error: .*002.png is 20x20 pixels but its image 002.jpg is 56x40", capsys.readouterr().err
    )
    assert not list(Path("in_config").iterdir())
    assert cv2.imread("in/gt/002.png") is not None
