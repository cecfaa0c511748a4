"""`gscnn predict --confident`: labels with void, and back into a training."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tests.drafting.test_drafting import FRAMES, photo
from tests.test_cli import TINY
from tests.tiny import write_checkpoint

from gscnn_lightning.classes import CAMVID, ClassTable
from gscnn_lightning.cli import main
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.data import FolderDataModule

SMALL = ClassTable(("road", "car"), ((128, 64, 128), (0, 0, 142)))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    for seed, name in enumerate(FRAMES[:4]):
        photo(tmp_path / f"photos/{name}.jpg", seed, (64, 80))
    return tmp_path / "photos"


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def refused(*args):
    with pytest.raises(SystemExit) as stop:
        tools(["predict", *args])
    assert stop.value.code == 2


def test_void_where_the_network_is_not_sure(photos, capsys):
    write_checkpoint(Path("best.ckpt"), CAMVID)
    tools(["predict", "best.ckpt", "photos", "--out", "all", "--formats", "[labels,confidence]"])
    confidence = np.stack([read(f"all/{name}_confidence.png") for name in FRAMES[:4]])
    least = float(np.median(confidence)) / 255
    capsys.readouterr()
    tools(["predict", "best.ckpt", "photos", "--formats", "[labels,color]", "--confident", str(least)])
    told = re.search(r"confident [\d.]+: ([\d.]+)% of the pixels keep their class", capsys.readouterr().err)
    labels = np.stack([read(f"predictions/{name}_labels.png") for name in FRAMES[:4]])
    full = np.stack([read(f"all/{name}_labels.png") for name in FRAMES[:4]])
    kept = labels != 255
    assert float(told[1]) == pytest.approx(100 * kept.mean(), abs=0.06)
    np.testing.assert_array_equal(labels[kept], full[kept])
    certain = np.abs(confidence / 255 - least) > 1 / 255  # confidence was rounded to bytes
    np.testing.assert_array_equal(kept[certain], (confidence / 255 >= least)[certain])
    assert not read("predictions/000_color.png")[labels[0] == 255].any()
    # Another probability is another prediction.
    refused("best.ckpt", "photos", "--formats", "[labels,color]", "--confident", "0.99")
    assert "was made with confident" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["train ids", "ids", "colors"])
def test_predicted_labels_are_trained_on(form, photos, capsys):
    write_checkpoint(Path("best.ckpt"), SMALL)
    coding, expected = [], {0, 1, 255}
    if form != "train ids":
        values = {"ids": ([7, 8], [300]), "colors": ([[1, 2, 3]], [[9, 9, 9]])}
        first, void = values["ids" if form == "ids" else "colors"]
        rows = [{"name": "road", "color": [128, 64, 128], "values": first}, {"name": "car", "color": [0, 0, 142]}]
        rows[1]["values"] = [40] if form == "ids" else [[200, 100, 50]]
        Path("table.yaml").write_text(yaml.safe_dump({"masks": form, "void": void, "classes": rows}))
        coding = ["--classes", "table.yaml"]
        expected = {7, 40, 300} if form == "ids" else {0x010203, 0xC86432, 0x090909}
    tools(["predict", "best.ckpt", "photos", "--formats", "[labels]", "--confident", "0.6", *coding])
    drawn = [read(path) for path in sorted(Path("predictions").glob("*_labels.png"))]
    values = {int(v) for m in drawn for v in np.unique(m if m.ndim == 2 else m.astype(int) @ np.array([1, 256, 65536]))}
    assert values <= expected
    assert len(values) > 1
    if form == "ids":
        assert drawn[0].dtype == np.uint16
    data = FolderDataModule(
        ".", "predictions/classes.yaml", "photos", "predictions", mask_ending="_labels", hold_out=0.25, num_workers=0
    )
    data.setup("fit")
    masks = {int(value) for frame in data.datasets["train"] for value in frame["mask"].unique()}
    assert masks <= {0, 1, 255}
    if form == "train ids":
        capsys.readouterr()
        Path("both").mkdir()
        Path("photos").rename("both/photos")
        Path("predictions").rename("both/masks")
        tools(["new", "both", "--backbone", "test_resnet"])
        assert "class table classes.yaml, which is copied" in capsys.readouterr().out
        main(["--config", "both_config/both.yaml", *TINY, "--trainer.max_epochs", "1", "--data.samples_per_epoch", "8"])
        assert json.loads(Path("runs/both/version_0/classes.json").read_text())["names"] == ["road", "car"]


BAD = {
    "above 1": (["--confident", "90"], "confident must be a probability from 0 to 1, such as 0.9, got 90.0"),
    "other classes": (
        ["--classes", "camvid"],
        "has 'sky' for the 'road' of the checkpoint: give",
    ),
    "no void": (["--classes", "no_void.yaml"], "no_void.yaml has no value for void: name one, such as void: [255]"),
    "no table": (["--classes", "nothing"], "there is no file 'nothing' and no shipped config of this name"),
}


@pytest.mark.parametrize("kind", BAD)
def test_settings_that_cannot_be_used(kind, photos, capsys):
    write_checkpoint(Path("best.ckpt"), SMALL)
    rows = [{"name": name, "color": list(color)} for name, color in zip(SMALL.names, SMALL.colors, strict=True)]
    Path("no_void.yaml").write_text(yaml.safe_dump({"classes": rows}))
    args, message = BAD[kind]
    refused("best.ckpt", "photos", *args)
    told = capsys.readouterr().err
    assert f"gscnn predict: error: {message}" in told or message in told
    assert "Traceback" not in told


def test_another_table_is_not_written_over(photos, capsys):
    write_checkpoint(Path("best.ckpt"), SMALL)
    Path("predictions").mkdir()
    Path("predictions/classes.yaml").write_text("mine")
    refused("best.ckpt", "photos", "--confident", "0.5")
    assert "classes.yaml is another class table than that of these masks" in capsys.readouterr().err
    assert Path("predictions/classes.yaml").read_text() == "mine"
