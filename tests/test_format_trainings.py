"""An epoch of `gscnn-fit` and a look at the data, for every format of others, from the config that is named for it."""

import json
from pathlib import Path

import cv2
import pytest
from tests.data import made_formats

from gscnn_lightning.cli import main
from gscnn_lightning.commands.main import main as gscnn

SETTINGS = """
--trainer.accelerator cpu --trainer.precision 32-true --trainer.max_epochs 1 --trainer.check_val_every_n_epoch 1
--trainer.log_every_n_steps 1 --trainer.enable_progress_bar false
--model.pretrained false --model.channels 16 --model.skip_channels 8 --model.shape_channels 16
--model.output_stride 32 --model.boundary_tolerances [1] --model.backbone test_resnet
"""
TINY = SETTINGS.split()
DATA = ["--data.crop_size", "[32,32]", "--data.batch_size", "2", "--data.num_workers", "0"]

# The maker of each config's data, and what the command is told besides.
FORMATS = {
    "coco": (made_formats.coco, []),
    "mapillary_v1.2": (made_formats.mapillary, []),
    "mapillary_v2.0": (lambda root: made_formats.mapillary(root, "v2.0"), []),
    "bdd100k": (made_formats.bdd100k, []),
    "ade20k": (made_formats.ade20k, []),
    "idd": (made_formats.idd, []),
    "kitti": (made_formats.kitti, []),
    "gta5": (made_formats.gta5, []),
    "cvat": (made_formats.cvat, []),
    "yolo": (made_formats.yolo, []),
    "label_studio": (made_formats.label_studio, []),
    "hugging_face": (
        made_formats.hugging_face,
        ["--data.classes", "classes.yaml", "--data.image", "pixel_values", "--data.mask", "label"],
    ),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("coco", "kitti"))) for name in FORMATS]
)
def test_an_epoch(name):
    make, more = FORMATS[name]
    make(Path("data"))
    main(["fit", "--config", "folder", "--config", f"data/{name}", "--data.root", "data", *more, *DATA, *TINY])
    run = Path("runs/folder/version_0")
    assert (run / "checkpoints/last.ckpt").is_file()
    assert 0 <= json.loads((run / "scores_val.json").read_text())["means"]["miou"] <= 1
    saved = (run / "config.yaml").read_text()
    assert "class_uniform_over: data" in saved  # as in the config called folder


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "yolo")) for n in FORMATS])
def test_the_data_are_looked_at(name, capsys):
    make, more = FORMATS[name]
    make(Path("data"))
    data = ["--config", "folder", "--config", f"data/{name}", "--data.root", "data", *more, *DATA]
    gscnn(["data", "check", *data])
    assert capsys.readouterr().out.rstrip().endswith("no problems")
    gscnn(["data", "preview", "--out", "sheet.png", "--samples", "2", *data])
    assert cv2.imread("sheet.png").shape[0] > 32
