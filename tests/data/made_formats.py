"""Tiny data sets exactly as public ones and annotation tools lay them out: names, folders, codings.

Each maker returns the root. Images are 48x32 pixels (width x height) unless a format wants others.
"""

import io
import itertools
import json

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from tests.data import made

SIZE = (32, 48)


def ids(values, seed=0, size=SIZE):
    """A map of blocks of 4x4 pixels, each value in it where there is room."""
    blocks = (size[0] // 4, size[1] // 4)
    rng = np.random.default_rng(seed)
    order = np.resize(rng.permutation(np.asarray(values)), blocks[0] * blocks[1])
    return np.kron(order.reshape(blocks), np.ones((4, 4), np.int64)).astype(np.int64)


def write(path, array, palette=None):
    """An RGB picture (PNG or JPEG), a map of ids, or one with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if palette is None:
        Image.fromarray(array.astype(np.uint16 if array.max() > 255 else np.uint8)).save(path)
        return
    image = Image.fromarray(array.astype(np.uint8), mode="P")
    image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    image.save(path)


MAPILLARY = [
    ("animal--bird", "Bird", [165, 42, 42], True),
    ("construction--barrier--curb", "Curb", [196, 196, 196], True),
    ("construction--flat--road", "Road", [128, 64, 128], True),
    ("object--vehicle--car", "Car", [0, 0, 142], True),
    ("void--car-mount", "Car Mount", [32, 32, 32], True),
    ("void--unlabeled", "Unlabeled", [0, 0, 0], False),
]


def mapillary(root, version="v1.2"):
    labels = [
        {"color": color, "instances": evaluate, "readable": readable, "name": name, "evaluate": evaluate}
        for name, readable, color, evaluate in MAPILLARY
    ]
    config = {"labels": labels, "version": "1.1" if version == "v1.2" else "2.0", "mapping": "public"}
    config["folder_structure"] = "{split}/{content:s}/{image_id:s}.{extension:s}"
    names = ["config.json"] if version == "v1.2" else ["config_v1.2.json", "config_v2.0.json"]
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / name).write_text(json.dumps(config))
    palette = [label["color"] for label in labels]
    for split, count in (("training", 3), ("validation", 2), ("testing", 1)):
        for i in range(count):
            name = f"{split[0]}Ghv{i}-_zQ"  # as Mapillary's keys
            write(root / split / "images" / f"{name}.jpg", made.picture(i + 10 * count, SIZE))
            if split != "testing":
                place = root / split / ("" if version == "v1.2" else version)
                values = ids(range(len(labels)), i + count)
                write(place / "labels" / f"{name}.png", values, palette)
                write(place / "instances" / f"{name}.png", values * 256 + 1)
    return root


def bdd100k(root):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for i in range(count):
            name = f"0004a4c0-d4dff0a{i}"
            write(root / "images/10k" / split / f"{name}.jpg", made.picture(i + 10 * count, SIZE))
            if split != "test":
                values = ids([*range(19), 255], i + count)
                write(root / "labels/sem_seg/masks" / split / f"{name}.png", values)
                write(root / "labels/sem_seg/colormaps" / split / f"{name}.png", values)
    return root


def ade20k(root):
    for split, short, count in (("training", "train", 3), ("validation", "val", 2)):
        for i in range(count):
            name = f"ADE_{short}_{i + 1:08d}"
            write(root / "images" / split / f"{name}.jpg", made.picture(i + 10 * count, (64, 80)))
            write(root / "annotations" / split / f"{name}.png", ids(range(151), i + count, (64, 80)))
    return root


def idd(root):
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for i in range(count):
            place = f"{split}/{i}/frame{i * 3}"
            write(root / "leftImg8bit" / f"{place}_leftImg8bit.png", made.picture(i + 10 * count, SIZE))
            if split != "test":
                values = ids([*range(26), 255], i + count)
                write(root / "gtFine" / f"{place}_gtFine_labellevel3Ids.png", values)
                (root / "gtFine" / f"{place}_gtFine_polygons.json").write_text("{}")
    return root


def kitti(root):
    for split, count in (("training", 6), ("testing", 2)):
        for i in range(count):
            write(root / split / "image_2" / f"{i:06d}_10.png", made.picture(i + 10 * count, SIZE))
            if split == "training":
                values = ids(range(34), i + count)
                write(root / split / "semantic" / f"{i:06d}_10.png", values)
                write(root / split / "instance" / f"{i:06d}_10.png", values * 256 + 1)
                colors = np.array([CITYSCAPES[v] for v in values.ravel()], np.uint8).reshape(*values.shape, 3)
                write(root / split / "semantic_rgb" / f"{i:06d}_10.png", colors)
    return root


def _cityscapes():
    from cityscapesscripts.helpers.labels import labels

    return {label.id: label.color for label in labels}


CITYSCAPES = _cityscapes()


def gta5(root):
    palette = [CITYSCAPES.get(i, (0, 0, 142)) for i in range(35)]
    for i in (1, 2, 3, 4, 5, 6, 15188):
        write(root / "images" / f"{i:05d}.png", made.picture(i, SIZE))
        size = (32, 52) if i == 15188 else SIZE  # as the real one differs
        write(root / "labels" / f"{i:05d}.png", ids(range(35), i, size), palette)
    return root


CVAT = {"background": (0, 0, 0), "road": (128, 64, 128), "car: parked": (10, 10, 128)}


def cvat(root, subsets=(("default", 6),)):
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:{','.join(map(str, c))}::" for name, c in CVAT.items())]
    (root / "labelmap.txt").write_text("\n".join(lines) + "\n")
    colors = np.array(list(CVAT.values()), np.uint8)
    for subset, count in subsets:
        names = [f"{subset}/frame_{i:06d}" for i in range(count)]
        for i, name in enumerate(names):
            write(root / "JPEGImages" / f"{name}.jpg", made.picture(i + 10 * count, SIZE))
            for kind in ("SegmentationClass", "SegmentationObject"):
                write(root / kind / f"{name}.png", colors[ids(range(3), i + count)])
        (root / "ImageSets/Segmentation" / f"{subset}.txt").write_text("\n".join(names) + "\n")
    return root


def ring():
    """A square with a hole, at the left."""
    mask = np.zeros(SIZE, np.uint8)
    mask[4:20, 2:18] = 1
    mask[8:16, 6:14] = 0
    return mask


def runs(mask, compressed):
    """A mask as COCO encodes it."""
    encoded = coco_mask.encode(np.asfortranarray(mask))
    if compressed:
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if flat[0] == 0 else [0, *counts]}


def coco_annotations():
    """Polygons of one and two parts, runs with a hole in both encodings, a crowd: they overlap."""
    crowd = np.zeros(SIZE, np.uint8)
    crowd[18:30, 20:46] = 1
    return [
        (18, [[3.5, 2.25, 40.2, 5.0, 38.0, 25.75, 5.1, 22.0]], 0),
        (1, [[10, 10, 20.5, 10, 20.5, 20.5, 10, 20.5], [30, 3, 36, 3, 33, 9.5]], 0),
        (3, runs(ring(), compressed=True), 0),
        (90, runs(np.roll(ring(), 14, axis=1), compressed=False), 0),
        (1, runs(crowd, compressed=False), 1),
    ]


COCO_CATEGORIES = {1: "person", 3: "car", 18: "dog", 90: "toothbrush"}


def coco_content(names, categories=None, annotations=coco_annotations):
    """What a file of annotations holds: the same annotations for all images but the last, which has none."""
    images = [
        {"license": 4, "file_name": name, "height": SIZE[0], "width": SIZE[1], "id": 1000 + i}
        for i, name in enumerate(names)
    ]
    rows = [
        {
            "segmentation": s,
            "area": 1.0,
            "iscrowd": crowd,
            "image_id": image["id"],
            "bbox": [0, 0, 1, 1],
            "category_id": c,
        }
        for image in images[:-1]
        for c, s, crowd in annotations()
    ]
    return {
        "info": {"description": "COCO 2017 Dataset"},
        "licenses": [],
        "images": images,
        "annotations": [{**row, "id": i} for i, row in enumerate(rows)],
        "categories": [
            {"supercategory": "thing", "id": key, "name": name} for key, name in (categories or COCO_CATEGORIES).items()
        ],
    }


def coco(root):
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2017", 4), ("val2017", 3), ("test2017", 2)):
        names = [f"{i + count:012d}.jpg" for i in range(count)]
        for i, name in enumerate(names):
            write(root / split / name, made.picture(i + 10 * count, SIZE))
        content = coco_content(names)
        if split == "test2017":
            content.pop("annotations")
        kind = "image_info" if split == "test2017" else "instances"
        (root / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(content))
    return root


YOLO_LINES = [
    "2 0.05 0.1 0.9 0.1 0.9 0.9 0.05 0.9",
    "0 0.2 0.3 0.61 0.28 0.4 0.77",
    # Around and, along itself, around the hole.
    "1 0.5 0.5 0.95 0.5 0.95 0.95 0.5 0.95 0.5 0.5 0.6 0.6 0.6 0.8 0.8 0.8 0.8 0.6 0.6 0.6",
]


def yolo(root, splits=("train", "val")):
    content = {"path": ".", "nc": 3, "names": {0: "person", 1: "car", 2: "traffic light"}}
    for split in splits:
        content[split] = f"images/{split}"
        for i in range(4):
            write(root / "images" / split / f"{i:012d}.jpg", made.picture(i + 10 * len(split), SIZE))
            path = root / "labels" / split / f"{i:012d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            if i < 3:  # the last one has background only
                path.write_text("\n".join(YOLO_LINES[: i + 1]) + "\n")
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root


def packed_strokes(mask):
    """A mask as Label Studio packs brush strokes: runs where values repeat, literal values elsewhere."""
    values = np.repeat((mask * 255).astype(np.uint8).ravel(), 4)
    lengths = [3, 4, 8, 16]
    bits = [f"{len(values):032b}", f"{8 - 1:05b}", *(f"{n - 1:04b}" for n in lengths)]
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1), len(values)]
    for start, stop in itertools.pairwise(starts):
        while start < stop:
            count = min(stop - start, 1 << 16)
            which = next(k for k, n in enumerate(lengths) if count <= 1 << n)
            is_run = count > 4
            bits.append(f"{int(is_run)}{which:02b}{count - 1:0{lengths[which]}b}")
            bits += [f"{values[start]:08b}"] * (1 if is_run else count)
            start += count
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return [int(stream[i : i + 8], 2) for i in range(0, len(stream), 8)]


POLYGON = [[10.0, 20.0], [70.5, 15.0], [66.0, 80.0], [12.0, 90.0]]


def label_studio_task(number, image, results, **annotation):
    common = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    results = [
        {
            **common,
            "value": value,
            "id": f"r{i}",
            "from_name": "tag",
            "to_name": "image",
            "type": kind,
            "origin": "manual",
        }
        for i, (kind, value) in enumerate(results)
    ]
    found = {"id": number, "completed_by": 1, "result": results, "was_cancelled": False, "ground_truth": False}
    return {
        "id": number,
        "annotations": [{**found, **annotation}],
        "file_upload": image.rpartition("/")[2],
        "drafts": [],
        "predictions": [],
        "data": {"image": image},
        "meta": {},
        "project": 1,
    }


def label_studio(root):
    polygon = ("polygonlabels", {"points": POLYGON, "closed": True, "polygonlabels": ["Road"]})
    brush = ("brushlabels", {"format": "rle", "rle": packed_strokes(ring()), "brushlabels": ["Car"]})
    tasks = []
    for i in range(6):
        name = ("0a1b2c3d-street%201.png", "street_2.png", "e4f5a6b7-street_3.png")[i % 3].replace(
            "street", f"street{i}"
        )
        on_disk = name.partition("-")[2].replace("%20", " ") if i % 3 == 0 else name
        address = f"/data/local-files/?d=images/{name}" if i % 3 == 1 else f"/data/upload/1/{name}"
        write(root / "images" / on_disk, made.picture(i, SIZE))
        tasks.append(label_studio_task(i, address, [polygon, brush] if i % 2 else [brush, polygon]))
    (root / "result.json").write_text(json.dumps(tasks))
    return root


HUGGING_FACE_TABLE = """
masks: ids
void: [0]
classes:
  - {name: flat-road, color: [216, 82, 24], values: [1]}
  - {name: human, color: [255, 255, 0], values: [2, 3]}
"""


def encoded(array, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(file, kind)
    return file.getvalue()


def hugging_face(root, kind="save_to_disk"):
    import datasets

    features = datasets.Features({"pixel_values": datasets.Image(), "label": datasets.Image()})
    splits = {}
    for split, count in (("train", 4), ("validation", 2)):
        images = [{"bytes": encoded(made.picture(i + 10 * count, SIZE), "JPEG"), "path": None} for i in range(count)]
        masks = [{"bytes": encoded(ids(range(4), i + count)), "path": None} for i in range(count)]
        splits[split] = datasets.Dataset.from_dict({"pixel_values": images, "label": masks}, features)
    if kind == "save_to_disk":
        datasets.DatasetDict(splits).save_to_disk(str(root))
    else:
        for split, rows in splits.items():
            (root / "data").mkdir(parents=True, exist_ok=True)
            rows.to_parquet(str(root / "data" / f"{split}-00000-of-00001.parquet"))
    (root / "classes.yaml").write_text(HUGGING_FACE_TABLE)
    return root
