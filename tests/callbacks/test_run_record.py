import csv
import json

import cv2
import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from tests.tiny import SETTINGS

from gscnn_lightning import GSCNNTask, ScenesDataModule
from gscnn_lightning.callbacks import RunRecord, RunSummary
from gscnn_lightning.metrics import boundary_fscore

VAL_SAMPLES = 5


def scenes(batch_size=2):
    sizes = {"size": (64, 128), "train_samples": 4, "val_samples": VAL_SAMPLES, "val_batch_size": batch_size}
    return ScenesDataModule(**sizes, batch_size=2, num_workers=0, crop_size=(64, 64), color_jitter=0.0, blur=0.0)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_record_is_that_of_the_best_checkpoint(make_trainer, tmp_path):
    best = ModelCheckpoint(monitor="val/miou", mode="max")
    settings = {"lr": 0.1, "momentum": 0.9}
    task = GSCNNTask(19, **SETTINGS, optimizer={"class_path": "torch.optim.SGD", "init_args": settings})
    data = scenes()
    make_trainer([RunRecord(), best], max_epochs=3).fit(task, datamodule=data)
    run = tmp_path / "run"
    task = GSCNNTask.load_from_checkpoint(best.best_model_path).eval()
    confusion, rows = np.zeros((19, 19), int), table(run / "image_scores.csv")
    assert [(row["name"], row["index"]) for row in rows] == [
        (data.datasets["val"][i]["name"], str(i)) for i in range(VAL_SAMPLES)
    ]
    for index, row in enumerate(rows):
        sample = data.datasets["val"][index]
        with torch.no_grad():
            preds = task.predict_output(sample["image"][None]).seg_logits.argmax(1)
        fscore = boundary_fscore(preds, sample["mask"][None], 19, [1, 3])[0].nanmean(-1)
        assert [float(row[f"boundary_f1_{t}px"]) for t in (1, 3)] == pytest.approx(fscore.tolist(), abs=1e-12)
        valid = sample["mask"] != 255
        pairs = list(zip(sample["mask"][valid].tolist(), preds[0][valid].tolist(), strict=True))
        one = np.zeros((19, 19), int)
        np.add.at(one, tuple(np.transpose(pairs)), 1)
        union = one.sum(0) + one.sum(1) - one.diagonal()
        assert float(row["miou"]) == pytest.approx((one.diagonal()[union > 0] / union[union > 0]).mean())
        confusion += one
    written = table(run / "confusion_matrix.csv")
    assert [row.pop("truth") for row in written] == list(data.class_names)
    assert [[int(value) for value in row.values()] for row in written] == confusion.tolist()
    assert (run / "confusion_matrix.png").is_file()


def test_batches_of_any_size_give_the_same_record(make_trainer, tmp_path):
    task = GSCNNTask(19, **SETTINGS)
    texts = []
    for batch_size in (1, 3):
        make_trainer([RunRecord()]).validate(task, datamodule=scenes(batch_size), verbose=False)
        texts.append([(tmp_path / "run" / name).read_text() for name in ("image_scores.csv", "confusion_matrix.csv")])
    assert texts[0] == texts[1]


def test_start_is_recorded(make_trainer, color_task, squares_data, tmp_path):
    make_trainer([RunRecord()], max_epochs=1).fit(color_task(), datamodule=squares_data())
    run = tmp_path / "run"
    classes = json.loads((run / "classes.json").read_text())
    colors = [list(color) for color in squares_data.class_colors]
    assert classes == {"names": list(squares_data.class_names), "colors": colors}
    record = json.loads((run / "environment.json").read_text())
    assert (record["precision"], record["devices"]) == ("32-true", 1)
    assert not (run / "image_scores.csv").exists(), "this task keeps no scores of images"


def test_without_a_logger_nothing_is_written(make_trainer, color_task, squares_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_trainer([RunRecord()], max_epochs=1, logger=False).fit(color_task(), datamodule=squares_data())
    assert list(tmp_path.iterdir()) == []


def test_loaders_without_a_data_module_are_enough(make_trainer, tmp_path):
    data = scenes()
    data.setup("validate")
    task = GSCNNTask(19, **SETTINGS, class_names=data.class_names)
    loader = torch.utils.data.DataLoader(data.datasets["val"])
    make_trainer([RunRecord()]).validate(task, loader, verbose=False)
    assert len(table(tmp_path / "run/image_scores.csv")) == VAL_SAMPLES
    assert json.loads((tmp_path / "run/classes.json").read_text())["names"] == list(data.class_names)


def test_a_test_is_recorded_too(make_trainer, tmp_path):
    make_trainer([RunRecord()]).test(GSCNNTask(19, **SETTINGS), datamodule=scenes(), verbose=False)
    assert len(table(tmp_path / "run/image_scores.csv")) == VAL_SAMPLES
    assert len(table(tmp_path / "run/confusion_matrix.csv")) == 19
    assert (tmp_path / "run/environment.json").is_file()


def test_a_test_tells_how_reliable_the_network_is(make_trainer, tmp_path, capsys):
    make_trainer([RunRecord(), RunSummary()]).test(GSCNNTask(19, **SETTINGS), datamodule=scenes(), verbose=False)
    means = json.loads((tmp_path / "run/scores_test.json").read_text())["means"]
    rows = table(tmp_path / "run/reliability.csv")
    assert [row["region"] for row in rows] == ["all"] * 15 + ["boundary"] * 15
    assert (rows[3]["from"], rows[3]["to"]) == ("0.2", "0.266667")
    for region, name in (("all", "ece"), ("boundary", "ece_boundary")):
        bins = [row for row in rows if row["region"] == region and row["pixels"] != "0"]
        total = sum(int(row["pixels"]) for row in bins)
        gaps = [int(row["pixels"]) * abs(float(row["accuracy"]) - float(row["confidence"])) for row in bins]
        assert means[name] == pytest.approx(sum(gaps) / total, abs=1e-12)
        assert all(float(row["from"]) - 1e-6 < float(row["confidence"]) <= float(row["to"]) + 1e-6 for row in bins)
    assert cv2.imread(str(tmp_path / "run/reliability.png")).shape[2] == 3
    out = capsys.readouterr().out
    assert f"calibration error (ECE) {100 * means['ece']:.1f}" in " ".join(out.split())
    assert "reliability" in out


def test_what_an_older_version_kept_is_taken_up(make_trainer, color_task, squares_data, tmp_path):
    """Once, another callback kept best scores and time."""
    steps = ModelCheckpoint(monitor="val/miou", mode="max", save_last=True)
    make_trainer([RunRecord(), steps], max_epochs=2).fit(color_task(), datamodule=squares_data())
    last = tmp_path / "run/checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    state = checkpoint["callbacks"].pop("RunRecord")
    parts = {name: state["best"][name] for name in ("means", "classes", "categories", "crops")}
    best = {**parts, "epoch": state["best"]["epoch"] - 1, "monitored": state["monitored"]}
    checkpoint["callbacks"]["RunSummary"] = {"best": best, "seconds": 1000.0}
    torch.save(checkpoint, last)
    callbacks = [RunRecord(), ModelCheckpoint(monitor="val/miou", mode="max", save_last=True)]
    make_trainer(callbacks).fit(color_task(), datamodule=squares_data(), ckpt_path=last)
    saved = json.loads((tmp_path / "run/scores_val.json").read_text())
    assert (saved["epoch"], saved["means"]["miou"]) == (1, 0.75)
    assert list(saved["classes"]) == list(squares_data.class_names)
    assert saved["training_seconds"] > 1000


def test_the_runs_own_checkpoint_decides_whatever_others_there_are(make_trainer, color_task, squares_data, tmp_path):
    """`gscnn-fit` adds one whose file is called best; a user's own may come before it, and monitor what they want."""
    others = [
        ModelCheckpoint(every_n_train_steps=1, save_top_k=-1, filename="{step}"),
        ModelCheckpoint(monitor="val/miou", mode="min", filename="lowest"),
    ]
    best = ModelCheckpoint(monitor="val/miou", mode="max", filename="best")
    make_trainer([*others, best, RunRecord(), RunSummary()]).fit(color_task(), datamodule=squares_data())
    saved = json.loads((tmp_path / "run/scores_val.json").read_text())
    assert (saved["epoch"], saved["means"]["miou"]) == (1, 0.75)
    assert torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["epoch"] == 1
