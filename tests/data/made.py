"""Tiny data sets on disk in the supported layouts."""

import hashlib

import cv2
import numpy as np

CLASS_TABLE = """
masks: ids
void: [255]
classes:
  - {name: ground, color: [128, 64, 128], values: [0]}
  - {name: tree, color: [107, 142, 35], values: [7, 8]}
  - {name: sky, color: [70, 130, 180], values: [300]}
"""
COLOR_TABLE = """
masks: colors
void: [[0, 0, 0]]
classes:
  - {name: ground, color: [128, 64, 128]}
  - {name: tree, color: [107, 142, 35], values: [[107, 142, 35], [1, 2, 3]]}
"""


def picture(seed=0, size=(12, 16)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def raw_mask(size=(12, 16), dtype=np.uint8):
    """Left half ground, right half tree in both of its values, one row void."""
    mask = np.zeros(size, dtype)
    mask[:, size[1] // 2 :] = 7
    mask[0, size[1] // 2 :] = 8
    mask[-1] = 255
    return mask


def save(path, array):
    """Write an RGB picture or a mask with one channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array[..., ::-1] if array.ndim == 3 else array)


def folder(root, table=CLASS_TABLE):
    """images/ and masks/ with three training and two validation frames, PNG and JPEG mixed, and a class table."""
    for split, count in (("train", 3), ("val", 2)):
        for i in range(count):
            save(root / "images" / split / f"f{i}.{'png' if i % 2 else 'jpg'}", picture(i + 10 * count))
            save(root / "masks" / split / f"f{i}.png", raw_mask())
    (root / "classes.yaml").write_text(table)
    return root


def cityscapes(root, split, frames, annotation="gtFine", kind="labelIds", labels=None):
    """A split in the official layout."""
    labels = np.full((4, 9), 7, np.uint8) if labels is None else labels
    for seed, frame in enumerate(frames):
        place = f"{split}/{frame.split('_')[0]}/{frame}"
        save(root / "leftImg8bit" / f"{place}_leftImg8bit.png", picture(seed, labels.shape))
        if annotation:
            save(root / annotation / f"{place}_{annotation}_{kind}.png", labels)
    return root


def camvid(root):
    """Three frames per split in the SegNet layout."""
    for split in ("train", "val"):
        for i in range(3):
            save(root / split / f"f{i}.png", picture(i + 10 * len(split)))
            save(root / f"{split}annot" / f"f{i}.png", np.full((12, 16), i, np.uint8))
    return root


def digest(root):
    """Names and contents of all files below a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
