"""What can be wrong with data in the formats of others: one message that names the file and what to do."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.data import made, made_formats
from tests.data.test_bad_input import (  # noqa: F401
    _nothing_hangs,
    cut,
    folder_for_file,
    read_all,
    refused_in_one_line,
)
from tests.data.test_formats import by_config

from gscnn_lightning.data import (
    CocoDataModule,
    FolderDataModule,
    HuggingFaceDataModule,
    LabelStudioDataModule,
    YoloDataModule,
)
from gscnn_lightning.data.check import check_data
from gscnn_lightning.errors import GSCNNError

SMALL = {"batch_size": 1, "num_workers": 0}
FILE = "annotations/instances_train2017.json"


def edit(path, change):
    """Change what a JSON file holds."""
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(content if changed is None else changed))


def coco_with(change):
    return lambda root: edit(root / FILE, change)


def first(**values):
    return coco_with(lambda content: content["annotations"][0].update(values))


def shape(segmentation):
    return first(segmentation=segmentation)


SIZE = list(made_formats.SIZE)

# What is done to a good COCO data set, and the words of the message.
COCO = {
    "no file": (lambda r: (r / FILE).unlink(), r"cannot read .*train2017\.json .*: correct annotations"),
    "no JSON": (lambda r: (r / FILE).write_text("{"), r"train2017\.json is not valid JSON .*: export or copy it again"),
    "half a file": (lambda r: cut(r / FILE, 50), r"train2017\.json is not valid JSON"),
    "not text": (lambda r: (r / FILE).write_bytes(b"\xff\xfe\x00\x81"), r"train2017\.json is not valid JSON"),
    "deep": (lambda r: (r / FILE).write_text("[" * 200_000), r"train2017\.json is not valid JSON"),
    "a list": (lambda r: (r / FILE).write_text("[]"), r"train2017\.json holds a list, not the keys of COCO's format"),
    "other JSON": (lambda r: (r / FILE).write_text("{}"), r"has no list of categories, as COCO's format has it"),
    "no images": (coco_with(lambda c: {**c, "images": None}), r"train2017\.json has no list of images"),
    "no annotations": (
        coco_with(lambda c: c.pop("annotations") and c),
        r"train2017\.json has no annotations: the list of that name is missing",
    ),
    "no categories": (coco_with(lambda c: {**c, "categories": []}), "has no categories: export it with the classes"),
    "category twice": (
        coco_with(lambda c: c["categories"].append({"id": 1, "name": "x"})),
        "has a category with the id 1: give each a whole number of its own",
    ),
    "category without a name": (
        coco_with(lambda c: c["categories"].append({"id": 7})),
        "has a class called None: give it a name",
    ),
    "name twice": (
        coco_with(lambda c: c["categories"].append({"id": 7, "name": "car"})),
        "has the class 'car' twice: give each a name of its own",
    ),
    "other categories": (
        lambda r: edit(r / FILE, lambda c: c["categories"].append({"id": 7, "name": "bus"})),
        r"val2017\.json and .*train2017\.json have different categories, such as \(7, 'bus'\): write the same list",
    ),
    "image twice": (
        coco_with(lambda c: c["images"].append(c["images"][0])),
        r"image 4 \(000000000004\.jpg\) is there twice, by its id or name: remove one",
    ),
    "image without a size": (
        coco_with(lambda c: c["images"][1].pop("width") and None),
        r"image 1 has no 'width': an image has id, file_name, width and height",
    ),
    "image of no size": (
        coco_with(lambda c: c["images"][1].update(width="48")),
        r"image 1 is '000000000005\.jpg' of '48'x32: correct name and size",
    ),
    "other size": (
        coco_with(lambda c: c["images"][3].update(width=50)),
        r"train2017\.json: image 000000000007\.jpg is 50x32 pixels but its image 000000000007\.jpg is 48x32",
    ),
    "missing image": (
        lambda r: (r / "train2017/000000000005.jpg").unlink(),
        r"1 of 4 images in .*train2017\.json are no files, the first is .*000000000005\.jpg: add",
    ),
    "image elsewhere": (
        coco_with(lambda c: c["images"][0].update(file_name="../../secret.png")),
        r"image \.\./\.\./secret\.png: .* which is not in the root .*: correct the list, or allow it with",
    ),
    "images missing": (
        lambda r: (r / "train2017").rename(r / "x"),
        r"train2017 is missing: create it, .*--data\.images",
    ),
    "broken image": (
        lambda r: cut(r / "train2017/000000000005.jpg", 100),
        r"000000000005\.jpg is truncated after \d+ bytes: copy it again",
    ),
    "image that is a folder": (
        lambda r: folder_for_file(r / "train2017/000000000005.jpg"),
        r"1 of 4 images in .*train2017\.json are no files|000000000005\.jpg is no file but",
    ),
    "unknown image": (
        first(image_id=5),
        r"annotation 0 is of image 5, which is not among the images: correct image_id",
    ),
    "unknown category": (first(category_id=7), r"annotation 0 has the category 7, which is none of those there"),
    "odd polygon": (
        shape([[1, 2, 3, 4, 5, 6, 7]]),
        r"annotation 0 of .*4\.jpg has a polygon \[1, 2.*: write x and y in t",
    ),
    "polygon of text": (shape([["a", 1, 2, 3, 4, 5]]), r"annotation 0 of .*: write x and y in turns, as numbers"),
    "flat polygon": (shape([1, 2, 3, 4, 5, 6]), r"annotation 0 of .* has a polygon 1: write x and y in turns"),
    "polygon of no number": (shape([[1, 2, 3, 4, 5, float("nan")]]), r"annotation 0 of .*: write x and y in turns"),
    "polygon of shares or of another image": (
        shape([[1, 2, 3, 4, 5e9, 6]]),
        r"annotation 0 of .* has a point \(5e\+09, 6\) far outside of the 48x32 image: coordinates are pixels",
    ),
    "segmentation of text": (shape("abc"), r"annotation 0 of .* has 'abc' for polygons: write lists"),
    "runs of another size": (
        shape({"size": SIZE[::-1], "counts": [48 * 32]}),
        r"annotation 0 of .* has runs \(RLE\) of size \[48, 32\], and its image has height and width \[32, 48\]",
    ),
    "too few runs": (
        shape({"size": SIZE, "counts": [5, 7]}),
        r"annotation 0 of .* has runs \(RLE\) of 12 pixels, and its image has 1536: correct",
    ),
    "negative runs": (shape({"size": SIZE, "counts": [-5, 1541]}), r"something else than whole numbers in counts"),
    "no runs": (shape({"size": SIZE}), r"annotation 0 of .* has runs \(RLE\) without counts"),
    "damaged runs": (
        shape({"size": SIZE, "counts": "1n1o20"}),
        r"annotation 0 of .* has runs \(RLE\) of \d+ pixels, and",
    ),
    "runs of other text": (shape({"size": SIZE, "counts": "é"}), r"annotation 0 of .* has runs \(RLE\) without counts"),
    "only boxes": (
        coco_with(lambda c: [a.update(segmentation=[]) for a in c["annotations"]] and c),
        r"train2017\.json has boxes and not one outline, the first is .*: export the annotations as polygons or masks",
    ),
}


@pytest.mark.parametrize("kind", COCO)
def test_coco(kind, tmp_path):
    break_it, words = COCO[kind]
    made_formats.coco(tmp_path / "data")
    break_it(tmp_path / "data")
    splits = {"train": "train2017", "val": "val2017"}
    refused_in_one_line(
        lambda: CocoDataModule(tmp_path / "data", images="{split}", splits=splits, **SMALL), tmp_path, words
    )


def line(text):
    return lambda root: (root / "labels/train/000000000001.txt").write_text(text)


def yaml_of(text):
    return lambda root: (root / "data.yaml").write_text(text)


NAMES = "names: [person, car, light]\n"
YOLO = {
    "no file": (lambda r: (r / "data.yaml").unlink(), r"cannot read .*data\.yaml .*: correct data_file"),
    "no YAML": (yaml_of("{a"), r"data\.yaml is not valid YAML"),
    "a text": (yaml_of("images"), r"data\.yaml holds no keys with values: write path, train, val and names"),
    "no names": (yaml_of("train: images/train\nval: images/val"), r"data\.yaml has 'None' for names: write a list"),
    "name twice": (yaml_of("names: [a, a]"), r"data\.yaml has the class 'a' twice"),
    "name that is none": (yaml_of("names: [a, yes]"), r"data\.yaml has a class called True: give it a name, as text"),
    "no train": (yaml_of(f"val: images/val\n{NAMES}"), r"data\.yaml has no train: write the folder of its images"),
    "no such folder": (
        yaml_of(f"train: images/x\nval: images/val\n{NAMES}"),
        r"images/x is missing, where .*data\.yaml has the images of train: correct train or path there",
    ),
    "folder elsewhere": (
        lambda r: yaml_of(f"path: {r.parent}\ntrain: other/images\nval: other/images\n{NAMES}")(r),
        r"data\.yaml: .*other/images is .*, which is not in the root .*: correct the list, or allow it",
    ),
    "list of nothing": (
        lambda r: (yaml_of(f"train: t.txt\nval: images/val\n{NAMES}")(r), (r / "t.txt").write_text("\n./images/x.jpg")),
        r"t\.txt, line 2: .*images/x\.jpg is no image file; paths start from",
    ),
    "no labels": (
        lambda r: (r / "labels").rename(r / "x"),
        r"none of the 4 images of train in .*data\.yaml has a label file, such as .*labels/train/0+\.txt: add",
    ),
    "class beyond": (line("3 0 0 1 0 1 1"), r"0001\.txt, line 1 has the class 3, which .*data\.yaml does not name"),
    "no number": (line("\n0 0 0 1 0 1 a"), r"0001\.txt, line 2 is '0 0 0 1 0 1 a': write class x1 y1"),
    "class of text": (line("car 0 0 1 0 1 1"), r"0001\.txt, line 1 is 'car 0 0 1 0 1 1': write class x1 y1"),
    "odd": (line("0 0 0 1 0 1 1 0"), r"0001\.txt, line 1 has a polygon \[0\.0, .*: write x and y in turns"),
    "two points": (line("0 0 0"), r"0001\.txt, line 1 has 2 coordinates: a polygon has 3 points or more"),
    "pixels": (
        line("0 5 7 20 8 9 30"),
        r"0001\.txt, line 1 has a point \(5, 7\) far outside of the image: coordinates are shares of width and height",
    ),
    "not text": (
        lambda r: (r / "labels/train/000000000001.txt").write_bytes(b"\xff\xfe\x81"),
        r"cannot read .*0001\.txt .*: replace the file",
    ),
    "only boxes": (
        lambda r: [p.write_text("0 0.5 0.5 0.1 0.1") for p in (r / "labels/train").iterdir()],
        r"train in .*data\.yaml has boxes and not one outline, the first is .*0+\.txt: export",
    ),
    "broken image": (
        lambda r: cut(r / "images/train/000000000001.jpg", 100),
        r"0001\.jpg is truncated after \d+ bytes",
    ),
}


@pytest.mark.parametrize("kind", YOLO)
def test_yolo(kind, tmp_path):
    break_it, words = YOLO[kind]
    made_formats.yolo(tmp_path / "data")
    made_formats.yolo(tmp_path / "other")
    break_it(tmp_path / "data")
    refused_in_one_line(lambda: YoloDataModule(tmp_path / "data", hold_out=0.25, **SMALL), tmp_path, words)


def task(change):
    return lambda root: edit(root / "result.json", lambda tasks: change(tasks[1]) and None)


def region(**values):
    return task(lambda t: t["annotations"][0]["result"][0].update(values))


def value(**values):
    return task(lambda t: t["annotations"][0]["result"][1]["value"].update(values))


RLE = made_formats.packed_strokes(made_formats.ring())
LABEL_STUDIO = {
    "no file": (lambda r: (r / "result.json").unlink(), r"cannot read .*result\.json .*: correct annotations"),
    "no JSON": (lambda r: cut(r / "result.json", 10), r"result\.json is not valid JSON"),
    "COCO": (lambda r: (r / "result.json").write_text("{}"), r"result\.json is no list of tasks: export the project"),
    "JSON-MIN": (
        lambda r: (r / "result.json").write_text('[{"id": 1, "image": "a.png", "tag": []}]'),
        r"result\.json has no labelled region: export a project with annotations",
    ),
    "no data": (task(lambda t: t.pop("data")), r"task 1 has no data: export the project as JSON, not as JSON-MIN"),
    "other key": (
        task(lambda t: t.update(data={"img": "a"})),
        r"task 1 has no image among its data, which are img: name",
    ),
    "no annotations": (task(lambda t: t.pop("annotations")), r"task 1 has no annotations: export the project as JSON"),
    "missing image": (
        lambda r: (r / "images/street1_2.png").rename(r / "x.png"),
        r"1 of 6 images in .*result\.json are not in .*images, the first is /data/local-files/\?d=images/street1_2",
    ),
    "no images": (lambda r: (r / "images").rename(r / "x"), r"images is missing: put the images there, or say where"),
    "task twice": (
        lambda r: edit(r / "result.json", lambda tasks: tasks.append({**tasks[0], "id": 9})),
        r"task 9 has the image .*, as an earlier task has: export each image once",
    ),
    "two labels": (
        value(brushlabels=["Car", "Road"]),
        r"task 1, region r1 is labelled Car, Road: give it one label, one of the classes",
    ),
    "no size": (region(original_width=None), r"region r0 is of an image of Nonex32 pixels: correct original_width"),
    "other size": (
        region(original_width=49),
        r"task 1 has regions of images of different sizes, \[\(48, 32\), \(49, 32\)\]",
    ),
    "turned": (region(image_rotation=90), r"region r0 was drawn on an image turned by 90 degrees: turn the file"),
    "strokes of text": (
        value(rle="abc"),
        r"region r1 has brush strokes \(rle\) that are no list of bytes .*: export again",
    ),
    "strokes of numbers": (value(rle=[1, 2, 300]), r"region r1 has brush strokes \(rle\) that are no list of bytes"),
    "half the strokes": (
        value(rle=RLE[:-9]),
        r"region r1 has brush strokes \(rle\) that end after \d+ bytes: export again",
    ),
    "strokes of another size": (
        value(rle=made_formats.packed_strokes(np.ones((4, 4)))),
        r"region r1 has brush strokes \(rle\) of 64 values, and 48x32 pixels have 6144: export again",
    ),
    "points of text": (
        task(lambda t: t["annotations"][0]["result"][0]["value"].update(points=[["a", 1]])),
        r"region r0 has points .*: write \[x, y\] in percent of width and height",
    ),
    "points far away": (
        task(lambda t: t["annotations"][0]["result"][0]["value"].update(points=[[1, 2], [3, 4], [900, 5]])),
        r"region r0 has a point \(432, 1\.6\) far outside of the 48x32 image",
    ),
}


@pytest.mark.parametrize("kind", LABEL_STUDIO)
def test_label_studio(kind, tmp_path):
    break_it, words = LABEL_STUDIO[kind]
    made_formats.label_studio(tmp_path)
    break_it(tmp_path)
    refused_in_one_line(lambda: LabelStudioDataModule(tmp_path, hold_out=0.2, **SMALL), tmp_path, words)


def test_labels_that_only_later_exports_have(tmp_path):
    made_formats.label_studio(tmp_path)
    with pytest.raises(GSCNNError, match="is labelled Road: give it one label, one of the classes"):
        read_all(LabelStudioDataModule(tmp_path, classes=["Car"], hold_out=0.2, **SMALL))


def names_of(root):
    return root / "ImageSets/Segmentation/default.txt"


CVAT = {
    "no labelmap": (lambda r: (r / "labelmap.txt").unlink(), r"cannot read the class table labelmap\.txt"),
    "wrong labelmap": (
        lambda r: (r / "labelmap.txt").write_text("# label\nroad:1,2::\n"),
        r"class table .*labelmap\.txt: line 2 is 'road:1,2::': write name:R,G,B::",
    ),
    "colour beyond": (
        lambda r: (r / "labelmap.txt").write_text("road:1,2,300::\n"),
        r"labelmap\.txt: color of class 'road': \[1, 2, 300\] is no colour",
    ),
    "colour twice": (
        lambda r: (r / "labelmap.txt").write_text("road:1,2,3::\ncar:1,2,3::\n"),
        r"labelmap\.txt: value \(1, 2, 3\) belongs to both road and car",
    ),
    "unknown colour": (
        lambda r: made.save(next((r / "SegmentationClass/default").iterdir()), np.full((32, 48, 3), 9, np.uint8)),
        r"label values that the data set does not define: \(9, 9, 9\) \(1536 pixels\)",
    ),
    "no names": (lambda r: names_of(r).unlink(), r"cannot read the list .*Segmentation/train\.txt .*: correct names"),
    "name of nothing": (
        lambda r: names_of(r).write_text("default/frame_000000\ndefault/frame_9\n"),
        r"default\.txt, line 2: there is no default/frame_9 in .*JPEGImages: add the file, or remove the line",
    ),
    "name twice": (
        lambda r: names_of(r).write_text("default/frame_000000\ndefault/frame_000000\n"),
        r"default\.txt, line 2: default/frame_000000 is there twice: remove one",
    ),
    "no mask": (
        lambda r: (r / "SegmentationClass/default/frame_000003.png").unlink(),
        r"default\.txt, line 4: there is no default/frame_000003 in .*SegmentationClass: add",
    ),
    "no images": (lambda r: (r / "JPEGImages").rename(r / "x"), r"JPEGImages is missing: create it.*--data\.images"),
}


@pytest.mark.parametrize("kind", CVAT)
def test_cvat(kind, tmp_path):
    break_it, words = CVAT[kind]
    made_formats.cvat(tmp_path)
    break_it(tmp_path)
    refused_in_one_line(lambda: by_config("cvat", tmp_path), tmp_path, words)


CONFIG = "config.json"
MASKS = {
    "Mapillary, no config": (
        "mapillary_v1.2",
        made_formats.mapillary,
        lambda r: (r / CONFIG).unlink(),
        r"cannot read the class table config\.json",
    ),
    "Mapillary, no JSON": (
        "mapillary_v1.2",
        made_formats.mapillary,
        lambda r: (r / CONFIG).write_text("{"),
        r"class table .*config\.json: it is no config\.json of Mapillary Vistas",
    ),
    "Mapillary, other JSON": (
        "mapillary_v1.2",
        made_formats.mapillary,
        lambda r: (r / CONFIG).write_text('{"labels": [{"name": "a"}]}'),
        r"class table .*config\.json: it is no config\.json of Mapillary Vistas, .*KeyError: 'readable'",
    ),
    "Mapillary, an index beyond": (
        "mapillary_v1.2",
        made_formats.mapillary,
        lambda r: edit(r / CONFIG, lambda c: c["labels"].pop() and None),
        r"label values that the data set does not define: 5 \(",
    ),
    "BDD100K, the masks in colours": (
        "bdd100k",
        made_formats.bdd100k,
        lambda r: made.save(r / "labels/sem_seg/masks/train/0004a4c0-d4dff0a1.png", made.picture(0, (32, 48))),
        r"0004a4c0-d4dff0a1\.png has pixels of type RGB: label maps are",
    ),
    "ADE20K, 16 bits of the full set": (
        "ade20k",
        made_formats.ade20k,
        lambda r: made.save(r / "annotations/training/ADE_train_00000001.png", np.full((64, 80), 1300, np.uint16)),
        r"ADE_train_00000001\.png .*label values that the data set does not define: 1300 \(5120 pixels\)",
    ),
    "IDD, label maps not made": (
        "idd",
        made_formats.idd,
        lambda r: [path.unlink() for path in (r / "gtFine/train").rglob("*.png")],
        r"3 of 3 images in .*leftImg8bit/train and .*gtFine/train have no label map, the first is .*8bit\.png: add",
    ),
    "KITTI, a mask missing": (
        "kitti",
        made_formats.kitti,
        lambda r: (r / "training/semantic/000001_10.png").unlink(),
        r"1 of 6 images in .*training/image_2 and .*training/semantic have no label map, the first is .*000001_10\.png",
    ),
    "GTA5, a frame of two sizes": (
        "gta5",
        made_formats.gta5,
        lambda r: Image.open(r / "labels/00003.png").resize((50, 32)).save(r / "labels/00003.png"),
        r"labels/00003\.png is 50x32 pixels but its image 00003\.png is 48x32: resize",
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_folders(kind, tmp_path):
    name, make, break_it, words = MASKS[kind]
    make(tmp_path)
    break_it(tmp_path)
    refused_in_one_line(lambda: by_config(name, tmp_path), tmp_path, words)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"root": "nowhere/at-all"},
            r"datasets cannot load nowhere/at-all \(.*\): correct root \(--data\.root FOLDER, or",
        ),
        (
            {"mask": "annotation"},
            r"has the columns pixel_values, label, not annotation: name the masks \(--data\.mask COL",
        ),
        ({"image": "img"}, r"has the columns pixel_values, label, not img: name the images \(--data\.image COLUMN\)"),
        ({"splits": {"train": "training"}}, r"has the splits train, validation, not training: say which is which"),
        ({"mask": "pixel_values"}, r"pixel_values of row 0 in .*, split train has pixels of type RGB: label maps are"),
        ({"void_classes": ["tree"]}, r"void_classes names 'tree', which is no class: there are flat-road, human"),
        ({"void_classes": ["human", "flat-road"]}, r"void_classes names all 2 classes: leave one at least"),
        ({"classes": "none.yaml"}, r"cannot read the class table none\.yaml"),
    ],
)
def test_hugging_face(given, words, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    root = made_formats.hugging_face(tmp_path / "data")
    given = {"classes": str(root / "classes.yaml"), "image": "pixel_values", "mask": "label", **given}
    refused_in_one_line(lambda: HuggingFaceDataModule(**{"root": str(root), **given}, **SMALL), tmp_path, words)


def test_a_damaged_row_is_named(tmp_path):
    import datasets

    rows = {"image": [{"bytes": made_formats.encoded(made.picture(i, (8, 8))), "path": None} for i in range(3)]}
    rows["mask"] = [{"bytes": made_formats.encoded(np.ones((8, 8))), "path": None} for _ in range(3)]
    rows["mask"][1] = None
    rows["image"][2]["bytes"] = rows["image"][2]["bytes"][:-30]
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features)}).save_to_disk(str(tmp_path / "data"))
    (tmp_path / "data/classes.yaml").write_text(made_formats.HUGGING_FACE_TABLE)
    data = HuggingFaceDataModule(str(tmp_path / "data"), "classes.yaml", **SMALL)
    (report,) = check_data(data, ("train",))
    assert report.problems[0].startswith(f"mask of row 1 in {tmp_path / 'data'}, split train is no picture but 'None'")
    assert report.problems[1].startswith(f"image of row 2 in {tmp_path / 'data'}, split train is truncated after")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda r: CocoDataModule(r, overlap="top"),
            "overlap must be one of smaller, later, earlier, classes, void, got",
        ),
        (lambda r: CocoDataModule(r, crowd="none"), "crowd must be class, void or left_out, got 'none'"),
        (
            lambda r: CocoDataModule(r, annotations="{stage}.json"),
            r"annotations is '\{stage\}\.json': braces stand for",
        ),
        (lambda r: CocoDataModule(r, hold_out=1.0), "hold_out must be a share from 0 to below 1, got 1.0"),
        (lambda r: CocoDataModule(r, void_classes="car"), "void_classes is 'car': give a list of names"),
        (lambda r: CocoDataModule(r, splits={"valid": "val"}), "splits has 'valid': the splits are train, val, test"),
        (lambda r: CocoDataModule(r, splits={"val": []}), r"splits has \[\] for val: write a name, or a list"),
        (lambda r: CocoDataModule(r, skip_frames="a"), "skip_frames is 'a': give a list of names"),
        (
            lambda r: FolderDataModule(r, "ade20k", splits="train"),
            "splits is 'train': write what the data call each split",
        ),
        (lambda r: FolderDataModule(r, "ade20k", void_classes=["tre"]), "void_classes names 'tre', which is no class"),
    ],
)
def test_settings(make, words, tmp_path):
    made_formats.coco(tmp_path)
    for path in (tmp_path / "annotations").glob("*2017.json"):
        path.rename(path.with_name(path.name.replace("2017", "")))
    with pytest.raises(GSCNNError, match=words):
        make(tmp_path)
