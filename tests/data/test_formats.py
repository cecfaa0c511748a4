"""Public data sets and annotation tools: images and labels pixel for pixel as an independent reader finds them."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tests.data import made, made_formats

from gscnn_lightning.classes import CAMVID
from gscnn_lightning.commands.main import main as gscnn
from gscnn_lightning.data import CocoDataModule, LabelStudioDataModule
from gscnn_lightning.data.check import check_data
from gscnn_lightning.data.label_studio import decoded_strokes
from gscnn_lightning.fit_settings import data_module
from gscnn_lightning.shipped_configs import config_names


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def by_config(name, root, *more):
    small = ["--data.crop_size", "[16,16]", "--data.batch_size", "1", "--data.num_workers", "0"]
    return data_module(["--config", "folder", "--config", f"data/{name}", "--data.root", str(root), *small, *more])


def frames(data, split):
    """Image file, image and labels of every frame."""
    source = data.checked_source(split)
    return [(source.frames[i], *source.load(i)) for i in range(len(source))]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def looked_up(raw, table):
    """Pixel by pixel, in Python."""
    flat = raw.reshape(-1, raw.shape[2]) if raw.ndim == 3 else raw.ravel()
    found = [table[tuple(value) if raw.ndim == 3 else value] for value in flat.tolist()]
    return np.array(found, np.uint8).reshape(raw.shape[:2])


def cityscapes_train_ids():
    from cityscapesscripts.helpers.labels import labels

    return {label.id: label.trainId if 0 <= label.trainId < 19 else 255 for label in labels}


def by_color(classes):
    """Train ids by colour; classes is a list of (colour, whether it is one)."""
    known = [color for color, is_class in classes if is_class]
    return {tuple(color): known.index(color) if is_class else 255 for color, is_class in classes}


MAPILLARY = by_color([(color, evaluate) for _, _, color, evaluate in made_formats.MAPILLARY])
TRAIN_IDS = cityscapes_train_ids()

# The config, the maker, how a mask is read, its own table, number of classes, frames of train, val, test and predict,
# whether the frames to predict have labels.
MASKS = {
    "mapillary_v1.2": (made_formats.mapillary, "RGB", MAPILLARY, 5, (3, 2, 2, 1), False),
    "mapillary_v2.0": (lambda root: made_formats.mapillary(root, "v2.0"), "RGB", MAPILLARY, 5, (3, 2, 2, 1), False),
    "bdd100k": (made_formats.bdd100k, "L", {**{i: i for i in range(19)}, 255: 255}, 19, (3, 2, 2, 1), False),
    "ade20k": (made_formats.ade20k, "L", {0: 255, **{i + 1: i for i in range(150)}}, 150, (3, 2, 2, 2), True),
    "idd": (made_formats.idd, "L", {**{i: i for i in range(26)}, 255: 255}, 26, (3, 2, 2, 1), False),
    "kitti": (made_formats.kitti, "L", TRAIN_IDS, 19, (5, 1, 1, 2), False),
    "gta5": (made_formats.gta5, "P", {**TRAIN_IDS, 34: 255}, 19, (5, 1, 1, 1), True),
    "cvat": (
        made_formats.cvat,
        "RGB",
        by_color([(c, True) for c in made_formats.CVAT.values()]),
        3,
        (5, 1, 1, 1),
        True,
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_those_of_an_independent_reader(name, tmp_path):
    make, mode, table, number, counts, predicts_labelled = MASKS[name]
    make(tmp_path / "data")
    data = by_config(name, tmp_path / "data")
    assert data.num_classes == number
    found = {split: frames(data, split) for split in ("train", "val", "test", "predict")}
    assert tuple(len(part) for part in found.values()) == counts
    assert not {frame.image for frame, *_ in found["train"]} & {frame.image for frame, *_ in found["val"]}
    for split, part in found.items():
        for frame, image, labels in part:
            assert np.array_equal(image, pixels(frame.image))
            if split == "predict" and not predicts_labelled:
                assert labels is None
                continue
            with Image.open(frame.labels) as raw:
                raw = np.asarray(raw if mode == raw.mode else raw.convert(mode))
            assert np.array_equal(labels, looked_up(raw, table))
    everything = np.concatenate([labels.ravel() for _, _, labels in found["train"]])
    assert len(np.unique(everything)) > 2


def test_every_config_of_a_format_is_tested():
    others = {"coco", "yolo", "label_studio", "hugging_face"}
    names = {name.removeprefix("data/") for name in config_names() if name.startswith("data/")}
    assert names == {*MASKS, *others}


def test_colours_in_place_of_ids(tmp_path):
    made_formats.kitti(tmp_path)
    colors = by_config("kitti", tmp_path, "--data.masks", "{split}/semantic_rgb", "--data.classes", "cityscapes_colors")
    for frame, _, labels in frames(colors, "train"):
        with Image.open(tmp_path / "training/semantic" / f"{frame.name}.png") as raw:
            # A group of poles, 18, has the colour of a pole.
            assert np.array_equal(labels, looked_up(np.asarray(raw), {**TRAIN_IDS, 18: 5}))


def test_subsets_of_cvat_and_void_classes(tmp_path):
    made_formats.cvat(tmp_path, (("Train", 3), ("Validation", 2)))
    data = by_config("cvat", tmp_path, "--data.void_classes", "[background]")
    assert data.class_names == ("road", "car: parked")
    assert data.class_colors == ((128, 64, 128), (10, 10, 128))
    table = {(0, 0, 0): 255, (128, 64, 128): 0, (10, 10, 128): 1}
    assert [len(frames(data, split)) for split in ("train", "val")] == [3, 2]
    for frame, _, labels in frames(data, "val"):
        assert np.array_equal(labels, looked_up(pixels(frame.labels), table))


def test_the_same_frames_are_held_out_whatever_else_there_is(tmp_path):
    made_formats.kitti(tmp_path)
    held = [frame.name for frame, *_ in frames(by_config("kitti", tmp_path), "val")]
    for folder in ("image_2", "semantic"):
        path = tmp_path / "training" / folder / "000099_10.png"
        made.save(path, made.picture(9, made_formats.SIZE) if folder == "image_2" else np.full((32, 48), 7, np.uint8))
    more = by_config("kitti", tmp_path, "--data.hold_out", "0.3")
    assert set(held) <= {frame.name for frame, *_ in frames(more, "val")} | {"000099_10"}
    assert len(frames(more, "val")) == 2
    assert len(frames(more, "train")) == 5


# What a pixel gets where annotations of COCO lie over each other, by pycocotools' own reader.
ORDERS = {
    "smaller": lambda masks: sorted(masks, key=lambda m: -int(m[1].sum())),
    "later": lambda masks: masks,
    "earlier": lambda masks: masks[::-1],
    "classes": lambda masks: sorted(masks, key=lambda m: m[0]),
}


def coco_labels(file, image, order, background=0, crowd="class"):
    """By pycocotools' own reader."""
    reader = COCO(str(file))
    numbers = {key: i + 1 for i, key in enumerate(sorted(reader.cats))}
    info = next(info for info in reader.imgs.values() if info["file_name"] == image)
    masks = []
    for annotation in reader.loadAnns(reader.getAnnIds(info["id"])):
        label = numbers[annotation["category_id"]]
        if annotation["iscrowd"] and crowd != "class":
            if crowd == "left_out":
                continue
            label = 255
        masks.append((label, reader.annToMask(annotation).astype(bool)))
    labels = np.full((info["height"], info["width"]), background, np.uint8)
    if order == "void":
        owners = [
            np.any([mask for owner, mask in masks if owner == label], axis=0) for label in {label for label, _ in masks}
        ]
        for label, mask in masks:
            labels[mask] = label
        if owners:
            labels[np.sum(owners, axis=0) > 1] = 255
        return labels
    for label, mask in ORDERS[order](masks):
        labels[mask] = label
    return labels


@pytest.mark.parametrize("order", [*ORDERS, "void"])
def test_coco_is_that_of_pycocotools(order, tmp_path):
    made_formats.coco(tmp_path)
    data = by_config("coco", tmp_path, "--data.overlap", order)
    assert data.class_names == ("background", "person", "car", "dog", "toothbrush")
    assert data.class_colors[0] == (96, 96, 96)
    for split, name, count in (("train", "train2017", 4), ("val", "val2017", 3)):
        found = frames(data, split)
        assert len(found) == count
        for frame, image, labels in found:
            assert np.array_equal(image, pixels(tmp_path / name / f"{frame.name}.jpg"))
            file = tmp_path / "annotations" / f"instances_{name}.json"
            assert np.array_equal(labels, coco_labels(file, frame.image.name, order))
        assert (found[-1][2] == 0).all()
    assert (255 in found[0][2]) == (order == "void")


def test_the_background_has_a_grey_that_no_class_has(tmp_path):
    made_formats.coco(tmp_path)
    for file in (tmp_path / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        others = [{"id": 100 + i, "name": name} for i, name in enumerate(CAMVID.names)]
        file.write_text(json.dumps({**content, "categories": others, "annotations": []}))
    data = CocoDataModule(tmp_path, "annotations/instances_{split}2017.json", images="{split}2017", batch_size=1)
    assert data.class_colors[1:] == CAMVID.colors  # of which the sky is (128, 128, 128)
    assert data.class_colors[0] == (208, 208, 208)


def test_the_default_order_of_coco_is_the_smaller_on_top(tmp_path):
    data = by_config("coco", made_formats.coco(tmp_path))
    frame, _, labels = frames(data, "val")[0]
    assert np.array_equal(
        labels, coco_labels(tmp_path / "annotations/instances_val2017.json", frame.image.name, "smaller")
    )


@pytest.mark.parametrize("crowd", ["class", "void", "left_out"])
def test_crowds_and_void_backgrounds_of_coco(crowd, tmp_path):
    made_formats.coco(tmp_path)
    data = by_config("coco", tmp_path, "--data.crowd", crowd, "--data.background", "null")
    assert data.class_names == ("person", "car", "dog", "toothbrush")
    frame, _, labels = frames(data, "val")[0]
    file = tmp_path / "annotations/instances_val2017.json"
    expected = coco_labels(file, frame.image.name, "smaller", 0, crowd)
    expected = np.where(expected == 255, 255, expected.astype(int) - 1) % 256
    assert np.array_equal(labels, expected)
    assert frame.left_out == (("crowds left out",) if crowd == "left_out" else ())


def test_images_of_coco_without_annotations_are_predicted(tmp_path):
    data = by_config("coco", made_formats.coco(tmp_path))
    found = frames(data, "predict")
    assert [frame.name for frame, *_ in found] == ["000000000002", "000000000003"]
    assert all(labels is None for *_, labels in found)


def test_one_file_of_coco_for_all_images(tmp_path):
    made_formats.coco(tmp_path)
    content = json.loads((tmp_path / "annotations/instances_train2017.json").read_text())
    # As Roboflow has it: a category that nothing is of, and folders with the images beside the file.
    content["categories"].insert(0, {"id": 0, "name": "vehicles", "supercategory": "none"})
    (tmp_path / "train2017/_annotations.coco.json").write_text(json.dumps(content))
    settings = {"annotations": "train2017/_annotations.coco.json", "images": "train2017", "hold_out": 0.25}
    data = CocoDataModule(tmp_path, **settings, void_classes=["vehicles"], batch_size=1, num_workers=0)
    assert data.class_names == ("background", "person", "car", "dog", "toothbrush")
    assert [len(frames(data, split)) for split in ("train", "val")] == [3, 1]


def test_coco_says_what_it_left_out(tmp_path):
    made_formats.coco(tmp_path)
    file = tmp_path / "annotations/instances_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = []
    content["annotations"][1]["segmentation"].append([3, 3, 9, 9])
    content["images"].pop()
    file.write_text(json.dumps(content))
    data = by_config("coco", tmp_path)
    (report,) = check_data(data, ("val",))
    assert report.problems == []
    assert report.notes[0].startswith(f"1 images of {tmp_path / 'val2017'} are not in {file}, the first is ")
    assert "boxes without an outline left out: 1 of 2 pictures, the first is 000000000003" in report.notes
    assert "polygons of fewer than 3 points left out: 1 of 2 pictures, the first is 000000000003" in report.notes


def yolo_labels(lines, size, order="smaller"):
    """Independent of the data module: one polygon at a time, in pixels, by pycocotools."""
    height, width = size
    masks = []
    for line in lines:
        index, *numbers = line.split()
        points = [float(n) * (width if i % 2 == 0 else height) for i, n in enumerate(numbers)]
        (runs,) = coco_mask.frPyObjects([points], height, width)
        masks.append((int(index) + 1, coco_mask.decode(runs).astype(bool)))
    labels = np.zeros(size, np.uint8)
    for label, mask in ORDERS[order](masks):
        labels[mask] = label
    return labels


def test_yolo_is_that_of_pycocotools(tmp_path):
    made_formats.yolo(tmp_path)
    data = by_config("yolo", tmp_path)
    assert data.class_names == ("background", "person", "car", "traffic light")
    found = frames(data, "train")
    for i, (_, image, labels) in enumerate(found):
        assert np.array_equal(image, pixels(tmp_path / f"images/train/{i:012d}.jpg"))
        assert np.array_equal(labels, yolo_labels(made_formats.YOLO_LINES[: i + 1] if i < 3 else [], image.shape[:2]))
    assert len(found) == 4
    # The hole of the last line is one.
    assert found[2][2][int(0.7 * 32), int(0.7 * 48)] == 3
    assert found[2][2][int(0.55 * 32), int(0.9 * 48)] == 2
    (report,) = check_data(data, ("train",))
    assert (
        "images without a label file, nothing but background: 1 of 4 pictures, the first is 000000000003"
        in report.notes
    )


@pytest.mark.parametrize("layout", ["Roboflow", "lists", "several"])
def test_where_yolo_has_its_images(layout, tmp_path):
    made_formats.yolo(tmp_path / "data")
    file = tmp_path / "data/data.yaml"
    if layout == "Roboflow":
        for split, name in (("train", "train"), ("val", "valid")):
            for kind in ("images", "labels"):
                (tmp_path / "data" / name).mkdir(exist_ok=True)
                (tmp_path / "data" / kind / split).rename(tmp_path / "data" / name / kind)
        file.write_text("train: ../train/images\nval: ../valid/images\nnc: 3\nnames: ['a', 'b', 'c']\n")
    elif layout == "lists":
        for split in ("train", "val"):
            names = "\n".join(f"./images/{split}/{i:012d}.jpg" for i in range(4))
            (tmp_path / f"data/{split}.txt").write_text(names + "\n")
        file.write_text("path: ../datasets/mine\ntrain: train.txt\nval: val.txt\nnames: {0: a, 1: b, 2: c}\n")
    else:
        file.write_text("train: [images/train, images/val]\nnames: [a, b, c]\n")
        for path in (tmp_path / "data").glob("*/val/*"):
            path.rename(path.with_name("v" + path.name))
    data = by_config("yolo", tmp_path / "data")
    counts = [len(frames(data, split)) for split in ("train", "val")]
    assert counts == ([6, 2] if layout == "several" else [4, 4])
    assert {labels.max() for *_, labels in frames(data, "train")} == {0, 3}


def test_label_studio_is_its_strokes_and_polygons(tmp_path):
    made_formats.label_studio(tmp_path)
    data = by_config("label_studio", tmp_path)
    assert data.class_names == ("background", "Car", "Road")
    found = [*frames(data, "train"), *frames(data, "val")]
    assert [len(frames(data, split)) for split in ("train", "val")] == [5, 1]
    height, width = made_formats.SIZE
    points = [part * n / 100 for x, y in made_formats.POLYGON for part, n in ((x, width), (y, height))]
    (runs,) = coco_mask.frPyObjects([points], height, width)
    road, car = coco_mask.decode(runs).astype(bool), made_formats.ring().astype(bool)
    for frame, image, labels in found:
        number = int(frame.name.rpartition("street")[2][0])
        expected = np.zeros(made_formats.SIZE, np.uint8)
        for mask, label in ((road, 2), (car, 1)) if number % 2 else ((car, 1), (road, 2)):
            expected[mask] = label
        assert np.array_equal(labels, expected)
        assert np.array_equal(image, made.picture(number, made_formats.SIZE))


def test_strokes_of_label_studio():
    """What its own encoder makes of a small picture, by label_studio_sdk.converter.brush.encode_rle."""
    stream = [0, 0, 0, 96, 57, 27, 254, 27, 0, 191, 255, 56, 4, 255, 241, 128, 71, 255, 134, 192, 0]
    mask = [[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]]
    assert np.array_equal(decoded_strokes(stream, 6, 4, "x"), np.array(mask) * 255)


def test_of_label_studios_annotations_the_ground_truth_counts(tmp_path):
    made_formats.label_studio(tmp_path)
    file = tmp_path / "result.json"
    tasks = json.loads(file.read_text())
    first = tasks[0]["annotations"][0]
    tasks[0]["annotations"] = [
        {**first, "was_cancelled": True},
        {**first, "result": []},
        {**first, "ground_truth": True, "result": first["result"][:1]},
    ]
    rectangle = {**first["result"][0], "type": "rectanglelabels", "value": {"x": 1, "rectanglelabels": ["Car"]}}
    tasks[1]["annotations"][0]["result"].append(rectangle)
    tasks[2]["annotations"] = []
    file.write_text(json.dumps(tasks))
    data = LabelStudioDataModule(tmp_path, hold_out=0.2, batch_size=1, num_workers=0)
    reports = check_data(data, ("train", "val"))
    notes = " ".join(note for report in reports for note in report.notes)
    assert "further annotations of the same task left out: 1 of " in notes
    assert "regions that are neither brush strokes nor polygons left out: 1 of " in notes
    assert f"tasks without an annotation left out: 1 of 6 in {file}" in notes
    found = {frame.name: labels for split in ("train", "val") for frame, _, labels in frames(data, split)}
    assert len(found) == 5
    assert np.array_equal(found["street0 1" if "street0 1" in found else "street0_1"], made_formats.ring())


@pytest.mark.parametrize("kind", ["save_to_disk", "parquet"])
def test_hugging_face_is_what_its_library_decodes(kind, tmp_path):
    import datasets

    root = made_formats.hugging_face(tmp_path / "data", kind)
    datasets.config.HF_DATASETS_CACHE, before = tmp_path / "cache", datasets.config.HF_DATASETS_CACHE
    try:
        more = ["--data.classes", "classes.yaml", "--data.image", "pixel_values", "--data.mask", "label"]
        data = by_config("hugging_face", root, *more)
        assert data.class_names == ("flat-road", "human")
        reader = datasets.load_from_disk(str(root)) if kind == "save_to_disk" else datasets.load_dataset(str(root))
        for split, name, count in (("train", "train", 4), ("val", "validation", 2), ("test", "validation", 2)):
            found = frames(data, split)
            assert len(found) == count
            for row, (_, image, labels) in zip(reader[name], found, strict=True):
                assert np.array_equal(image, np.asarray(row["pixel_values"]))
                assert np.array_equal(labels, looked_up(np.asarray(row["label"]), {0: 255, 1: 0, 2: 1, 3: 1}))
        assert data.checked_source("train").fingerprint() != data.checked_source("val").fingerprint()
    finally:
        datasets.config.HF_DATASETS_CACHE = before


@pytest.mark.parametrize("kind", ["coco", "yolo", "label_studio"])
def test_classes_are_drawn_uniformly_over_polygons(kind, tmp_path):
    """The index of class-uniform crops is made of drawn labels, and made anew when these change."""
    root = getattr(made_formats, kind)(tmp_path)
    more = ["--data.class_uniform", "1", "--data.class_uniform_over", "data"]
    data = by_config(kind, root, *more)
    data.prepare_data()
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert {tuple(batch["image"].shape) for batch in batches} == {(1, 3, 16, 16)}
    first = data.checked_source("train").fingerprint()
    assert by_config(kind, root, *more).checked_source("train").fingerprint() == first
    assert by_config(kind, root, *more, "--data.overlap", "classes").checked_source("train").fingerprint() != first
    assert by_config(kind, root, *more, "--data.background", "null").checked_source("train").fingerprint() != first


def test_many_classes_of_ones_own_names(tmp_path):
    """A class called background among those of the data is the background."""
    made_formats.coco(tmp_path)
    for path in (tmp_path / "annotations").glob("*.json"):
        path.write_text(path.read_text().replace('"dog"', '"background"'))
    data = by_config("coco", tmp_path)
    assert data.class_names == ("person", "car", "background", "toothbrush")
    assert (frames(data, "val")[-1][2] == 2).all()


@pytest.mark.parametrize("name", ["coco", "hugging_face"])
def test_label_maps_of_others_are_scored_against_them(name, tmp_path):
    root = getattr(made_formats, name)(tmp_path / "data")
    more = ["--data.classes", "classes.yaml", "--data.image", "pixel_values", "--data.mask", "label"]
    data = by_config(name, root, *(more if name == "hugging_face" else []))
    for frame, _, labels in frames(data, "val"):
        made.save(tmp_path / "masks" / f"{frame.name}.png", labels)
    settings = ["--config", "folder", "--config", f"data/{name}", "--data.root", str(root)]
    settings += more if name == "hugging_face" else []
    gscnn(["score", str(tmp_path / "masks"), "--coding", "trainids", *settings, "--out", str(tmp_path / "out")])
    scores = json.loads((tmp_path / "out/scores_test.json").read_text())
    assert scores["means"]["miou"] == 1
