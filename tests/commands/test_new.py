"""`gscnn new` as a user calls it: from a folder to a network in two commands."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tests.data import made, made_formats
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


def test_the_share_of_the_pixels_in_no_outline_is_said(tmp_path, capsys):
    pytest.importorskip("pycocotools")
    coco(tmp_path / "in", FRAMES[:5], "labels.json")
    for name in FRAMES[:5]:
        photo(tmp_path / f"in/pictures/{name}.jpg", int(name))
    tools(["new", "in"])
    # 25 x 25 of 56 x 40 pixels are in the outline.
    assert re.search(r"in no outline +72 % of the pixels of 4 training images", capsys.readouterr().out)


def label_studio(root, key="image", images="images"):
    made_formats.label_studio(root)
    tasks = json.loads((root / "result.json").read_text())
    for task in tasks:
        task["data"] = {"note": "street", key: task["data"]["image"]}
    (root / "result.json").rename(root / "project-1-at-2026-11-28.json")
    (root / "project-1-at-2026-11-28.json").write_text(json.dumps(tasks))
    if images != "images":
        (root / "images").rename(root / images)
    return root


def test_an_export_of_label_studio(tmp_path, capsys):
    label_studio(tmp_path / "in", key="photo", images="pictures")
    tools(["new", "in", "--backbone", "test_resnet"])
    told = capsys.readouterr().out
    assert "12 outlines in Label Studio's format" in told
    assert "2: Car, Road" in told
    assert "one file, project-1-at-2026-11-28.json" in told
    assert "the later one is seen, which is on top in the editor" in told
    data = yaml.safe_load(Path("in_config/in.yaml").read_text())["data"]
    assert data["class_path"] == "gscnn_lightning.data.LabelStudioDataModule"
    expected = {
        "annotations": "project-1-at-2026-11-28.json",
        "images": "pictures",
        "image_key": "photo",
        "hold_out": 0.2,
    }
    assert {key: data["init_args"].get(key) for key in expected} == expected
    run = trained("in_config/in.yaml")
    assert json.loads((run / "classes.json").read_text())["names"] == ["background", "Car", "Road"]


def label_studio_with(change):
    def make(root):
        label_studio(root)
        file = root / "project-1-at-2026-11-28.json"
        file.write_text(json.dumps([change(task) for task in json.loads(file.read_text())]))

    return make


def without_outlines(task):
    for result in task["annotations"][0]["result"]:
        result["value"] = {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["Car"]}
    return task


LABEL_STUDIO = {
    "JSON-MIN": (
        label_studio_with(
            lambda task: {"id": 1, "image": "a.png", "annotator": 1, "annotation_id": 2, "lead_time": 3.5}
        ),
        r"2026-11-28\.json is an export of Label Studio as JSON-MIN, which lacks sizes: export it as JSON",
    ),
    "boxes": (
        label_studio_with(without_outlines),
        r"2026-11-28\.json is an export of Label Studio without brush strokes and polygons: segmentation needs them",
    ),
    "no images": (
        lambda root: (shutil.rmtree(label_studio(root) / "images"), photo(root / "other.png")),
        r"export of Label Studio, and its images, such as .*street0.*, are nowhere in ",
    ),
    "two exports": (
        lambda root: shutil.copy(label_studio(root) / "project-1-at-2026-11-28.json", root / "old.json"),
        r"has 2 files in Label Studio's format, and their names do not say which trains: old\.json, .*tasks_train",
    ),
}


@pytest.mark.parametrize("kind", LABEL_STUDIO)
def test_exports_of_label_studio_that_are_refused(kind, tmp_path, capsys):
    make, message = LABEL_STUDIO[kind]
    make(tmp_path / "in")
    with pytest.raises(SystemExit) as stop:
        tools(["new", "in"])
    assert stop.value.code == 2
    assert re.search("gscnn new: error: .*" + message, capsys.readouterr().err)


def table(root, columns, splits=("train",), on_disk=False):
    """Tables of a split each, of as many rows less than there are as splits come before."""
    datasets = pytest.importorskip("datasets")
    root.mkdir(parents=True, exist_ok=True)
    tables = datasets.DatasetDict()
    for place, split in enumerate(splits):
        cells = {name: cells[place:] for name, cells in columns.items()}
        pictures = {name: datasets.Image() for name, cells in columns.items() if isinstance(cells[0], bytes)}
        cells.update({name: [{"bytes": content, "path": None} for content in cells[name]] for name in pictures})
        texts = {name: datasets.Value("string") for name in columns if name not in pictures}
        tables[split] = datasets.Dataset.from_dict(cells, datasets.Features({**pictures, **texts}))
        if not on_disk:
            tables[split].to_parquet(str(root / f"{split}-00000-of-00001.parquet"))
    if on_disk:
        tables.save_to_disk(str(root))
    return root


PHOTOS = [made_formats.encoded(made.picture(i, (40, 56)), "JPEG") for i in range(5)]
MAPS = [made_formats.encoded(ids(seed=i)) for i in range(5)]
LOSSY = [
    made_formats.encoded(painted(ids(seed=i, size=(320, 480)), [(9, 0, 0), (0, 200, 0), (0, 0, 90)]), "JPEG")
    for i in range(5)
]


@pytest.mark.parametrize("kind", ["on disk", "parquet", "in a folder"])
def test_tables_of_hugging_face(kind, tmp_path, capsys):
    root = tmp_path / ("in/stored" if kind == "in a folder" else "in")
    maps = [made_formats.encoded(ids((0, 1, 2, 3), seed=i)) for i in range(5)]
    table(root, {"pixel_values": PHOTOS, "label": maps}, ("train", "validation"), on_disk=kind != "parquet")
    (tmp_path / "in/id2label.json").write_text('{"0": "unlabeled", "1": "flat-road", "2": "human", "3": "rider"}')
    tools(["new", "in", "--backbone", "test_resnet"])
    told = capsys.readouterr().out
    assert "of Hugging Face's library datasets: train 5, validation 4 rows" in told
    assert "pixel_values (images), label (masks)" in told
    assert re.search("masks +9: ids with 4 values: 0, 1, 2, 3", told)
    assert "names by values from id2label.json" in told
    assert "5 train, 4 validate" in told
    arguments = yaml.safe_load(Path("in_config/in.yaml").read_text())["data"]["init_args"]
    assert arguments["splits"] == {"train": "train", "val": "validation"}
    if kind == "in a folder":
        assert arguments["root"] == str(root)
        return
    run = trained("in_config/in.yaml")
    assert json.loads((run / "classes.json").read_text())["names"] == ["flat-road", "human", "rider"]


@pytest.mark.parametrize("on_disk", [True, False])
def test_one_table_is_split_and_of_two_columns_of_masks_that_of_classes_is_taken(on_disk, tmp_path, capsys):
    objects = [made_formats.encoded(ids(tuple(range(7)), seed=i)) for i in range(5)]
    table(
        tmp_path / "in",
        {"instances": objects, "photo": PHOTOS, "classes": MAPS, "text": list("abcde")},
        on_disk=on_disk,
    )
    if on_disk:  # as a table that is in no dictionary is stored
        shutil.copytree(tmp_path / "in/train", tmp_path / "alone")
        shutil.rmtree(tmp_path / "in")
        (tmp_path / "alone").rename(tmp_path / "in")
    tools(["new", "in"])
    told = capsys.readouterr().out
    assert "photo (images), classes (masks)" in told
    assert "4 train, 1 validate" in told
    assert "assumed: not used: instances" in told
    assert "held out by their names, always the same (hold_out in in.yaml)" in told


TABLES = {
    "no masks": ({"photo": PHOTOS}, ("train",), r"has the columns photo, none of which has masks: it needs"),
    "no images": ({"mask": MAPS}, ("train",), r"has the columns mask, none of which has images: it needs"),
    "lossy": ({"photo": PHOTOS, "mask": LOSSY}, ("train",), r"none of which has masks; mask has JPEG, which changes"),
    "no pictures": ({"text": list("abc")}, ("train",), r"has the columns text, none of which has images"),
    "splits": ({"photo": PHOTOS, "mask": MAPS}, ("test", "validation"), r"and their names do not say which trains"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_that_are_refused(kind, tmp_path, capsys):
    columns, splits, message = TABLES[kind]
    table(tmp_path / "in", columns, splits)
    with pytest.raises(SystemExit) as stop:
        tools(["new", "in"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert re.search("gscnn new: error: .*" + message, error), error


def test_a_stray_table_beside_pictures_is_none(tmp_path, capsys):
    folder(Path("in"), FRAMES, "img/{}.jpg", "gt/{}.png")
    (tmp_path / "in/metadata.parquet").write_bytes(b"PAR1")
    tools(["new", "in"])
    assert "masks    10: gt/*.png" in capsys.readouterr().out


def test_gta5_is_known_by_its_palette(tmp_path, capsys):
    made_formats.gta5(tmp_path / "in")
    tools(["new", "in"])
    told = capsys.readouterr().out
    assert "gta5, by its folders (images, labels)" in told
    assert "assumed: gta5 has no validation split: 10 % of the frames are held out by their names" in told
    arguments = yaml.safe_load(Path("in_config/in.yaml").read_text())["data"]["init_args"]
    assert arguments["classes"] == "gta5"
    assert arguments["skip_frames"] == ["15188", "17705"]
    # The same folders with ids, or another palette, are not that data set.
    (tmp_path / "in/images/15188.png").unlink()
    (tmp_path / "in/labels/15188.png").unlink()
    for path in (tmp_path / "in/labels").iterdir():
        made_formats.write(path, ids((7, 8), size=(32, 48)), list(range(105)))
    tools(["new", "in", "--out", "other"])
    assert "layout" not in capsys.readouterr().out


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
