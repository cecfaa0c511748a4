import csv

import cv2
import pytest
import pytorch_lightning as pl

from gscnn_lightning.callbacks import LearningCurves


def test_curves_are_drawn_from_all_that_was_logged(make_trainer, color_task, squares_data, tmp_path):
    make_trainer([LearningCurves()]).fit(color_task(), datamodule=squares_data())
    with (tmp_path / "run" / "metrics.csv").open() as file:
        last = [row["val/miou"] for row in csv.DictReader(file) if row["val/miou"]]
    assert last == ["0.25", "0.75", "0.5"]
    picture = cv2.imread(str(tmp_path / "run" / "learning_curves.png"))
    assert picture.shape[1] == pytest.approx(2 * 5.2 * 130, abs=2), "losses and scores; no learning rate was logged"


def test_without_a_csv_logger_nothing_is_drawn(make_trainer, color_task, squares_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_trainer([LearningCurves()], max_epochs=1, logger=False).fit(color_task(), datamodule=squares_data())
    assert list(tmp_path.rglob("*.png")) == []


def test_a_run_that_logged_nothing_ends_well(make_trainer, color_task, squares_data, tmp_path):
    trainer = make_trainer([LearningCurves()], max_epochs=1, limit_val_batches=0, log_every_n_steps=50)
    task = color_task()
    task.log = lambda *args, **kwargs: None
    trainer.fit(task, datamodule=squares_data())
    assert not (tmp_path / "run" / "learning_curves.png").exists()


def test_metrics_lie_with_their_logger_wherever_the_run_is(make_trainer, color_task, squares_data, tmp_path):
    loggers = [pl.loggers.TensorBoardLogger(tmp_path, name="board"), pl.loggers.CSVLogger(tmp_path, name="numbers")]
    make_trainer([LearningCurves()], logger=loggers).fit(color_task(), datamodule=squares_data())
    assert (tmp_path / "board/version_0/learning_curves.png").is_file()
