"""`gscnn data suspects` as a user calls it, on made frames of which two have wrong labels."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.data import made
from tests.tiny import write_checkpoint

from gscnn_lightning.classes import CAMVID, ClassTable
from gscnn_lightning.commands.main import main
from gscnn_lightning.models import GSCNN
from gscnn_lightning.output import GSCNNOutput

NAMES, COLORS = ("ground", "tree", "sky"), ((128, 64, 128), (107, 142, 35), (70, 130, 180))
GROUND, TREE, SKY = range(3)
TABLE = "masks: ids\nvoid: [255]\nclasses:\n" + "".join(
    f"  - {{name: {name}, color: {list(color)}, values: [{index}]}}\n"
    for index, (name, color) in enumerate(zip(NAMES, COLORS, strict=True))
)


def truth(seed):
    labels = np.full((60, 80), SKY, np.uint8)
    labels[30:] = GROUND
    x = int(np.random.default_rng(seed).integers(12, 40))
    labels[8:28, x : x + 18] = TREE
    return labels


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Frames in the colours of their classes; in frame 1 the tree is ground, in frame 3 it is six pixels off."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    for split in ("train", "val"):
        for frame in range(5):
            labels = truth(frame)
            made.save(tmp_path / f"data/images/{split}/f{frame}.png", np.asarray(COLORS, np.uint8)[labels])
            if split == "val" and frame == 1:
                labels[labels == TREE] = GROUND
            if split == "val" and frame == 3:
                tree = labels == TREE
                labels[tree] = SKY
                labels[np.roll(tree, 6, 1)] = TREE
            made.save(tmp_path / f"data/masks/{split}/f{frame}.png", labels)
    (tmp_path / "data/classes.yaml").write_text(TABLE)
    return ["--data", "FolderDataModule", "--data.root", "data", "--data.classes", "data/classes.yaml"]


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A network that knows the classes by their colours, all but surely."""
    write_checkpoint(tmp_path / "best.ckpt", ClassTable(NAMES, COLORS))

    def forward(self, image, stride=1):
        known = image.new_tensor(COLORS, dtype=image.float().dtype).to(image.device)
        scale = 1.0 if image.dtype.is_floating_point else 1 / 255
        distance = (image.float()[:, None] * scale - known[None, :, :, None, None] / 255).abs().sum(2)
        return GSCNNOutput(-12 * distance, None, ())

    monkeypatch.setattr(GSCNN, "forward", forward)
    return "best.ckpt"


def stopped(args, code):
    with pytest.raises(SystemExit) as stop:
        main(["data", "suspects", *args])
    assert stop.value.code == code


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_planted_errors_come_first_in_tables_and_sheet(data, checkpoint, tmp_path, capsys):
    before = made.digest(tmp_path / "data")
    main(["data", "suspects", checkpoint, *data, "--out", "found", "--top", "3", "--flip", "true"])
    said = " ".join(capsys.readouterr().out.split())
    assert "class errors: the first 1 of 1" in said
    assert "displaced boundaries: the first 1 of 1" in said
    assert "1 f1 ground tree" in said
    assert "1 f3 tree sky" in said
    assert "2 suspects in 2 of 5 frames; saved in found: suspects.csv, suspect_frames.csv, suspects.png" in said
    swapped, displaced = rows("found/suspects.csv")
    assert [swapped[key] for key in ("rank", "kind", "frame", "label", "predicted")] == [
        *("1", "class", "f1", "ground", "tree")
    ]
    rows_, columns = np.nonzero(truth(1) == TREE)
    box = [columns.min(), rows_.min(), columns.max() + 1, rows_.max() + 1]
    assert [int(swapped[key]) for key in ("x0", "y0", "x1", "y1")] == box
    assert (swapped["pixels"], swapped["dx"], swapped["dy"]) == ("360", "0", "0")
    assert [displaced[key] for key in ("rank", "kind", "frame", "label", "predicted", "dx", "dy", "pixels")] == [
        *("1", "boundary", "f3", "tree", "sky", "-6", "0", "240")
    ]
    frames = rows("found/suspect_frames.csv")
    assert {row["frame"] for row in frames} == {"f1", "f3"}
    assert [row["rank"] for row in frames] == ["1", "2"]
    sheet = cv2.imread("found/suspects.png")[:, :, ::-1]
    assert sheet.shape[1] == 2 * 12 + 6 * 320 + 5 * 6, "two suspects side by side, three pictures each"
    for color in COLORS:
        assert (sheet == color).all(2).sum() > 1000
    assert made.digest(tmp_path / "data") == before, "nothing of the user's is changed"


def test_labels_without_contradiction_have_no_suspects(data, checkpoint, tmp_path, capsys):
    main(["data", "suspects", checkpoint, *data, "--split", "train"])
    assert "0 suspects in 0 of 5 frames; saved in suspects: suspects.csv, suspect_frames.csv" in capsys.readouterr().out
    assert rows("suspects/suspects.csv") == []
    assert sorted(path.name for path in (tmp_path / "suspects").iterdir()) == ["suspect_frames.csv", "suspects.csv"]


def test_frames_that_cannot_be_read_or_have_no_labels_are_named(data, checkpoint, tmp_path, capsys):
    image = tmp_path / "data/images/val/f1.png"
    image.write_bytes(image.read_bytes()[:60])
    made.save(tmp_path / "data/masks/val/f0.png", np.full((60, 80), 255, np.uint8))
    stopped([checkpoint, *data], 1)
    said = capsys.readouterr()
    assert "1 suspects in 1 of 3 frames" in said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("not checked: ")]
    assert "f1.png" in line
    assert "note: val: 1 frames have no labels, and were left out" in said.err
    for frame in range(5):
        made.save(tmp_path / f"data/masks/val/f{frame}.png", np.full((60, 80), 255, np.uint8))
    made.save(image, np.zeros((60, 80, 3), np.uint8))
    stopped([checkpoint, *data], 2)
    assert "val: all 5 label maps are void throughout" in capsys.readouterr().err


def test_frames_that_the_network_cannot_take_are_named(data, checkpoint, monkeypatch, capsys):
    forward, calls = GSCNN.forward, []

    def third_fails(self, image, stride=1):
        calls.append(tuple(image.shape[2:]))  # others try the network out
        if calls.count((60, 80)) == 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return forward(self, image, stride)

    monkeypatch.setattr(GSCNN, "forward", third_fails)
    stopped([checkpoint, *data], 1)
    said = capsys.readouterr()
    assert "2 suspects in 2 of 4 frames" in said.out
    (line,) = [line for line in said.err.splitlines() if line.startswith("not checked: ")]
    assert line.startswith("not checked: f2: the network cannot take its 60x80 pixels ([enforce fail] Default")
    assert line.endswith("--window [512,512] takes less memory")


def test_data_are_those_of_the_run_unless_told_otherwise(data, checkpoint, tmp_path, capsys):
    stopped([checkpoint], 2)
    message = capsys.readouterr().err
    assert message.startswith("gscnn data suspects: error: which data? best.ckpt lies in no run with a config.yaml")
    run = tmp_path / "run/checkpoints"
    run.mkdir(parents=True)
    (tmp_path / checkpoint).rename(run / "best.ckpt")
    (tmp_path / "run/config.yaml").write_text(
        "data:\n  class_path: FolderDataModule\n  init_args: {root: data, classes: data/classes.yaml}\n"
    )
    main(["data", "suspects", "run/checkpoints/best.ckpt"])
    assert "2 suspects in 2 of 5 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["best.ckpt", "--top", "0"], "top is 0: give a number of suspects of 1 or more"),
        (["none.ckpt"], "checkpoint none.ckpt does not exist"),
        (["other.ckpt"], "checkpoint other.ckpt has 11 classes (sky, building, pole"),
        (["best.ckpt", "--split", "all"], "split"),
        (["best.ckpt", "--scales", "[0]"], "scales is [0.0]: give one or more factors above 0"),
        (["best.ckpt", "--out", "file"], "--out file cannot be a folder"),
        (["best.ckpt", "--data.root", "elsewhere"], "folder elsewhere does not exist: correct root"),
    ],
)
def test_mistakes_are_one_message(args, words, data, checkpoint, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    write_checkpoint(tmp_path / "other.ckpt", CAMVID)
    stopped([args[0], *data, *args[1:]], 2)
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith("gscnn data suspects: error: ")
    assert len(said.err.splitlines()) <= 2
    assert (tmp_path / "file").read_text() == "mine"
