"""Directories of runs as training leaves them, for the tools that read those."""

import csv
import json

import cv2
import numpy as np
import yaml
from PIL import Image

NAMES = ("road", "car", "<script>alert(1)</script>")
COLORS = ((128, 64, 128), (0, 0, 142), (220, 20, 60))
TOLERANCES = ("boundary_f1_1px", "boundary_f1_3px")


def write_run(path, *, miou=0.5, names=NAMES, shape_stream=True, epochs=(2, 4), photos=None, images=2):
    """A complete run; `miou` shifts all of its scores."""
    path.mkdir(parents=True)
    write_scores(path / "scores_val.json", names, miou)
    write_metrics(path / "metrics.csv", miou, shape_stream)
    config = {
        "model": {"shape_stream": shape_stream, "lr": 0.003},
        "data": {"class_path": "Scenes", "init_args": {"seed": 0}},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    (path / "classes.json").write_text(json.dumps({"names": names, "colors": COLORS[: len(names)]}))
    environment = {"torch": "2.14.0", "gpus": [], "command": ["gscnn-fit", "--config", "a&b.yaml"], "code": None}
    (path / "environment.json").write_text(json.dumps(environment))
    write_rows(
        path / "confusion_matrix.csv",
        ["truth", *names],
        [["road", 80, 20, 0], [names[1], 30, 10, 60], [names[2], 0, 0, 0]],
    )
    scores = [[f"city/{index:02}_a b", index, 0.9 - 0.1 * index, 0.95 - 0.1 * index, miou] for index in range(images)]
    write_rows(path / "image_scores.csv", ["name", "index", *TOLERANCES, "miou"], scores)
    photos = photos or [np.full((24, 32, 3), 40 * index, np.uint8) for index in range(images)]
    for epoch in epochs:
        for index, photo in enumerate(photos):
            folder = path / f"pictures/epoch_{epoch:03}/{index:03}_{index:02}_a_b"
            write_pictures(folder, photo, shape_stream, gate=20 * epoch)
    for rank, index in enumerate(reversed(range(images))):
        write_pictures(path / f"pictures/worst/{rank:02}_{index:02}_a_b", photos[index], shape_stream)
    return path


def write_scores(path, names, miou):
    classes = {
        name: {
            key: None if name == names[-1] else round(miou + 0.1 * place - 0.01 * index, 4)
            for index, key in enumerate(("iou", *TOLERANCES))
        }
        for place, name in enumerate(names)
    }
    means = {"miou": miou, TOLERANCES[0]: miou - 0.1, TOLERANCES[1]: miou + 0.1}
    record = {"stage": "val", "epoch": 3, "means": means, "classes": classes, "training_seconds": 83.4}
    path.write_text(json.dumps(record))


def write_metrics(path, miou, shape_stream):
    rows = []
    for step in range(4, 200, 5):
        losses = [2.0 / (step + 1), 4.0 / (step + 1) if shape_stream else ""]
        rows.append([step // 50, step, *losses, 0.003, "", "", ""])
        if step % 50 == 49:
            rows.append([step // 50, step, "", "", "", miou - 0.01 * (3 - step // 50), miou, 0.3])
    names = ["train/loss", "train/loss_boundary", "train/lr", "val/miou", "val/boundary_f1_3px", "val/loss"]
    write_rows(path, ["epoch", "step", *names], rows)


def write_pictures(folder, photo, shape_stream=True, gate=100):
    """A prediction that is wrong in its left quarter, and void in the last column."""
    folder.mkdir(parents=True)
    height, width = photo.shape[:2]
    cv2.imwrite(str(folder / "photo.jpg"), photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    labels = np.zeros((height, width), np.uint8)
    labels[height // 2 :] = 1
    labels[:, -1] = 255
    preds = labels.copy()
    preds[:, : width // 4] = 2
    preds[:, -1] = 0
    for name, values in (("labels", labels), ("prediction", preds)):
        picture = Image.fromarray(values, mode="P")
        colors = [*COLORS, *[(0, 0, 0)] * (256 - len(COLORS))]
        picture.putpalette([value for color in colors for value in color])
        picture.save(folder / f"{name}.png")
    boundary = np.zeros((height, width), np.uint8)
    boundary[height // 2 - 2 : height // 2 + 2] = 255
    cv2.imwrite(str(folder / "boundary_truth.png"), boundary)
    if shape_stream:
        cv2.imwrite(str(folder / "boundary.png"), cv2.blur(boundary, (5, 5)))
        for number in (1, 2, 3):
            ramp = np.linspace(gate, 255, width // 2)[None].repeat(height // 2, 0)
            cv2.imwrite(str(folder / f"gate_{number}.png"), ramp.astype(np.uint8))


def write_rows(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
