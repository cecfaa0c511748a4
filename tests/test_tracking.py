"""Trackers: real W&B offline in processes of their own, without key and network; TensorBoard in this one."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from gscnn_lightning import tracking
from gscnn_lightning.cli import main

SETTINGS = """
--model.backbone test_resnet --model.pretrained false --model.channels 16 --model.skip_channels 8
--model.shape_channels 16 --model.output_stride 32 --model.boundary_tolerances [1,3] --data.num_workers 0
--data.size [64,128] --data.train_samples 4 --data.val_samples 3 --data.batch_size 2 --data.crop_size [64,64]
--data.color_jitter 0 --data.blur 0 --trainer.accelerator cpu --trainer.precision 32-true
--trainer.enable_progress_bar false --trainer.log_every_n_steps 1 --trainer.num_sanity_val_steps 0
"""
TINY = SETTINGS.split()
CLOSED = "http://127.0.0.1:9"
KEY = 40 * "0"


def call(folder, *command, cwd=None, code=0):
    """A command for which the network is out of reach, in a home without W&B's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own = {"HOME": str(folder / "home"), "https_proxy": CLOSED, "http_proxy": CLOSED, "no_proxy": "", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd or folder,
        env={**kept, **own},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,  # a hang, on any machine
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout, done.stderr


def inspect(folder, wandb_run):
    """What the transaction log of an offline run holds: its summary and config."""
    text, _ = call(folder, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(wandb_run))
    return json.loads(text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("wandb")
    (path / "home").mkdir()
    return path


PROGRAM = """
import os, sys
import wandb
from gscnn_lightning.cli import main

fit = ["fit", *sys.argv[2:], "--trainer.logger", "WandbLogger", "--trainer.max_epochs"]
main([*fit, "1"])
wandb.teardown()
print("then", flush=True)
print("then", file=sys.stderr, flush=True)
os.environ["WANDB_API_KEY"] = sys.argv[1]
main([*fit, "2", "--ckpt_path", "runs/default/version_0/checkpoints/last.ckpt"])
"""


@pytest.fixture(scope="module")
def runs(folder):
    """A run without key, and its continuation with a key, for which W&B is out of reach: directories and words."""
    texts = [text.split("then\n") for text in call(folder, "-c", PROGRAM, KEY, *TINY)]
    return [(folder / f"runs/default/version_{i}", "".join(text[i] for text in texts)) for i in range(2)]


@pytest.fixture(scope="module")
def offline(runs):
    return runs[0]


@pytest.fixture(scope="module")
def resumed(runs):
    return runs[1]


def wandb_run(run):
    found = list((run / "wandb").glob("offline-run-*"))
    assert len(found) == 1
    return found[0]


def test_offline_run_says_so_once_and_nothing_else_of_wandb(offline):
    run, text = offline
    lines = [line for line in text.splitlines() if "wandb" in line.lower() or "W&B" in line]
    assert len(lines) == 1
    assert "there is no key" in lines[0]
    assert lines[0].endswith("wandb sync runs/default/version_0/wandb/offline-run-*")
    assert not (run.parents[2] / "wandb").exists(), "its files are below the run"


def test_local_files_are_those_of_any_run(offline):
    run, _ = offline
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "metrics.csv", "scores_val.json", "contact_sheet.png", "checkpoints", "pictures"} <= names
    assert {"environment.json", "classes.json", "image_scores.csv", "confusion_matrix.csv"} <= names


def test_offline_run_has_scalars_pictures_tables_and_config(offline, folder):
    run, _ = offline
    summary = inspect(folder, wandb_run(run))
    text = json.dumps(summary)
    for name in ("train/loss", "train/lr", "val/miou", "val/boundary_f1_3px", "val/iou_road", "val/classes"):
        assert f'"{name}"' in text
    for name in ("segmentation", "boundary", "boundary_truth", "gate_1", "gate_2", "gate_3"):
        assert f'"pictures/{name}"' in text
        assert f'"worst/{name}"' in text
    assert "val/confusion_matrix_table" in text
    files = wandb_run(run) / "files"
    assert yaml.safe_load((files / "gscnn-fit.yaml").read_text()) == yaml.safe_load((run / "config.yaml").read_text())
    assert '"boundary_weight"' in text
    assert json.loads((run / "environment.json").read_text())["torch"] in text
    table = json.loads(next((files / "media/table/val").glob("classes*.json")).read_text())
    assert table["columns"] == ["class", "iou", "boundary_f1_1px", "boundary_f1_3px"]
    assert [row[0] for row in table["data"]] == json.loads((run / "classes.json").read_text())["names"]


def test_masks_of_wandb_are_the_label_maps(offline):
    run, _ = offline
    masks = [np.asarray(Image.open(p)) for p in wandb_run(run).glob("files/media/images/mask/pictures/*.png")]
    assert len(masks) == 2 * 3
    for path in run.glob("pictures/epoch_001/*/prediction.png"):
        assert any(np.array_equal(np.asarray(Image.open(path)), mask) for mask in masks)


def test_resumed_run_is_the_same_run(offline, resumed, folder):
    first, second = wandb_run(offline[0]).name, wandb_run(resumed[0]).name
    assert first.rpartition("-")[2] == second.rpartition("-")[2]
    saved = torch.load(resumed[0] / "checkpoints/last.ckpt", weights_only=True)
    assert saved["wandb_run_id"] == second.rpartition("-")[2]
    assert saved["epoch"] == 1


def test_a_key_without_network_means_offline(resumed):
    lines = [line for line in resumed[1].splitlines() if "W&B" in line]
    assert len(lines) == 1
    assert "does not answer" in lines[0]


def test_sync_finds_the_runs(offline, resumed, folder):
    runs = [str(wandb_run(run)) for run, _ in (offline, resumed)]
    text = "".join(call(folder, "-m", "wandb", "sync", "--dry-run", *runs))
    assert "Would sync 2 run" in text


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as W&B does to a good key, else as told."""

    def do_POST(self):
        kind = self.path.split("/")[1]
        self.rfile.read(int(self.headers["Content-Length"]))
        if kind == "silent":
            self.server.over.wait()
            return
        viewer = {"id": "a"} if kind == "good" else None
        body = b"<html>" if kind == "hotel" else json.dumps({"data": {"viewer": viewer}}).encode()
        self.send_response({"refused": 401, "broken": 500}.get(kind, 200))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        running.over = threading.Event()
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("good", True), ("refused", False), ("nobody", False), ("broken", None), ("hotel", None), ("silent", None)],
)
def test_what_the_server_makes_of_a_key(kind, expected, server, monkeypatch):
    if kind == "silent":
        monkeypatch.setattr(tracking, "PATIENCE", 0.2)
    assert tracking._ask(f"{server}/{kind}", KEY) is expected
    assert tracking.PATIENCE <= 5


def test_closed_port_is_no_answer(monkeypatch):
    assert tracking._ask(CLOSED, KEY) is None


def test_tensorboard_shows_scalars_and_pictures(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    main(["fit", *TINY, "--trainer.logger", "TensorBoardLogger", "--trainer.max_epochs", "1"])
    run = tmp_path / "runs/default/version_0"
    assert {"config.yaml", "metrics.csv", "contact_sheet.png"} <= {p.name for p in run.iterdir()}
    assert list(run.glob("events.out.tfevents.*"))
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "val/miou", "val/boundary_f1_3px"} <= set(tags["scalars"])
    assert "hp_metric" not in tags["scalars"]
    name = "002_scenes_1000002_000019"
    kinds = ("prediction", "truth", "boundary", "boundary_truth", "gate_1", "gate_2", "gate_3")
    assert {f"pictures_{kind}/{name}" for kind in kinds} <= set(tags["images"])
    (image,) = events.Images(f"pictures_boundary/{name}")
    assert (image.step, image.height, image.width) == (1, 64, 128)


def test_missing_tensorboard_is_said_at_once(monkeypatch, capsys):
    for package in ("tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as stop:
        main(["fit", *TINY, "--trainer.logger", "TensorBoardLogger"])
    assert stop.value.code == 2
    assert "pip install 'gscnn-lightning[tensorboard]'" in capsys.readouterr().err


def test_csv_logger_comes_first_and_is_not_doubled(tmp_path):
    csv = CSVLogger(tmp_path, name="a")
    (own,) = tracking.run_loggers([csv], [{}], None)
    assert own.log_dir == str(tmp_path / "a" / "version_0")


def test_runs_of_one_name_that_start_together_take_folders_of_their_own(tmp_path):
    both = [CSVLogger(tmp_path, name="a") for _ in range(2)]
    assert [logger.version for logger in both] == [0, 0]  # as they are chosen before either has made its folder
    folders = [tracking.run_loggers([logger], [{}], None)[0].log_dir for logger in both]
    assert [Path(folder).name for folder in folders] == ["version_0", "version_1"]
    # One that is asked for by its version is gone on with.
    (own,) = tracking.run_loggers([CSVLogger(tmp_path, name="a", version=0)], [{"version": 0}], None)
    assert own.log_dir == folders[0]


def test_a_run_that_never_starts_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["fit", *TINY, "--data", "ScenesDataModule", "--checkpoint.monitor", "val/mIoU"])
    assert "which nothing logs" in capsys.readouterr().err
    assert list(tmp_path.rglob("version_*")) == []


def test_all_loggers_share_one_run_folder(tmp_path):
    both = [CSVLogger(tmp_path, name="a"), TensorBoardLogger(tmp_path, name="a")]
    csv, board = tracking.run_loggers(both, [{}, {"save_dir": str(tmp_path), "name": "a"}], None)
    assert csv.log_dir == board.log_dir


def test_settings_of_wandb_that_are_given_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "_why_offline", lambda settings: "")
    logger = tracking.wandb_logger(tmp_path / "run", mode="disabled", settings={"init_timeout": 7})
    assert logger._wandb_init["mode"] == "disabled"
    assert logger._wandb_init["settings"].init_timeout == 7
    assert logger._wandb_init["settings"].silent


@pytest.mark.parametrize("mistake", ["--model.backbone=nonexistent_net", "--model.image_gradient=foo"])
def test_failing_combination_of_a_sweep_is_a_failed_run(mistake, folder, tmp_path):
    program = "import os, sys; os.environ.update(WANDB_SWEEP_ID='s', WANDB_RUN_ID='r1'); "
    program += "from gscnn_lightning.cli import main; main(sys.argv[1:])"
    arguments = ["fit", *TINY, "--trainer.logger=WandbLogger", mistake]
    _, words = call(folder, "-c", program, *arguments, cwd=tmp_path, code=2)
    assert "error: " in words
    assert "Traceback" not in words
    [run] = (tmp_path / "runs/failed/wandb").glob("offline-run-*-r1/*.wandb")
    text, _ = call(folder, "-m", "wandb", "leet", "inspect", "--json", str(run))
    assert '"exit_code":2' in text.replace(" ", "") or '"exitCode":2' in text.replace(" ", "")


def test_without_a_logger_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = ["--checkpoint.dirpath", str(tmp_path / "elsewhere")]
    main(["fit", *TINY, "--trainer.logger", "false", *checkpoint, "--trainer.max_epochs", "1"])
    assert not (tmp_path / "runs").exists()


def test_checkpoint_without_wandb_has_no_run(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    assert tracking.saved_wandb_run_id(str(tmp_path / "a.ckpt")) is None
    assert tracking.saved_wandb_run_id(None) is tracking.saved_wandb_run_id("last") is None


@pytest.mark.parametrize(("config", "kind"), [("wandb", "WandbLogger"), ("tensorboard", "TensorBoardLogger")])
def test_overlays_change_nothing_but_the_kind_of_logger(config, kind, capsys):
    configs = Path(__file__).parent.parent / "configs"
    files = [configs / "camvid.yaml", configs / f"logger/{config}.yaml"]
    with pytest.raises(SystemExit):
        main(["fit", *(word for file in files for word in ("--config", str(file))), "--print_config"])
    logger = yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]
    assert logger["class_path"].rpartition(".")[2] == kind
    assert (logger["init_args"]["save_dir"], logger["init_args"]["name"]) == ("runs", "camvid")
