import json
import re

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar, TQDMProgressBar

from gscnn_lightning.callbacks import LearningCurves, Pictures, RunRecord, RunSummary
from gscnn_lightning.errors import SettingError
from gscnn_lightning.scores import Scores


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def epoch_lines(text):
    return [line for line in re.split(r"[\r\n]", text) if line.startswith("epoch")]


def test_one_line_per_epoch_and_none_for_the_sanity_check(make_trainer, color_task, squares_data, capsys):
    make_trainer([RunRecord(), RunSummary()]).fit(color_task(), datamodule=squares_data())
    lines = epoch_lines(capsys.readouterr().out)
    pattern = r"epoch {}/3  loss \d+\.\d{{3}}  mIoU {}  F 1/3 px {}/50.0  [\d.]+ img/s  \d+:\d\d of \d+:\d\d"
    scores = [("25.0", "12.5"), ("75.0", "37.5"), ("50.0", "25.0")]
    for number, (line, (miou, fscore)) in enumerate(zip(lines, scores, strict=True), start=1):
        assert re.fullmatch(pattern.format(number, miou, fscore), line)
        assert len(line) <= 80


def test_losses_are_those_of_the_same_epoch(make_trainer, color_task, squares_data, capsys):
    task, means = color_task(), []
    task.on_train_epoch_end = lambda: means.append(float(task.trainer.callback_metrics["train/loss_epoch"]))
    make_trainer([RunRecord(), RunSummary()]).fit(task, datamodule=squares_data())
    shown = [float(re.search(r"loss (\S+)", line)[1]) for line in epoch_lines(capsys.readouterr().out)]
    assert shown == pytest.approx(means, abs=6e-4)


def test_line_without_validation_or_end(make_trainer, color_task, squares_data, capsys):
    trainer = make_trainer([RunRecord(), RunSummary()], max_epochs=-1, max_steps=6, limit_val_batches=0)
    trainer.fit(color_task(), datamodule=squares_data())
    first, second = epoch_lines(capsys.readouterr().out)
    assert re.fullmatch(r"epoch 1  loss \S+  \S+ img/s  0:\d\d", first)
    assert second.startswith("epoch 2  ")


@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 0)])
def test_table_shows_the_best_epoch(make_trainer, color_task, squares_data, capsys, tmp_path, mode, best):
    checkpoint = ModelCheckpoint(monitor="val/miou", mode=mode)
    make_trainer([RunRecord(), RunSummary(), checkpoint]).fit(color_task(), datamodule=squares_data())
    text = capsys.readouterr().out
    saved = json.loads((tmp_path / "run" / "scores_val.json").read_text())
    score = (0.25, 0.75)[best]
    assert saved["epoch"] == best
    assert saved["means"] == {"miou": score, "boundary_f1_1px": score / 2, "boundary_f1_3px": 0.5}
    assert saved["classes"]["square"] == {"iou": score / 2, "boundary_f1_1px": 0, "boundary_f1_3px": 0}
    assert saved["classes"]["ghost"] == {"iou": None, "boundary_f1_1px": None, "boundary_f1_3px": None}
    assert saved["training_seconds"] > 0
    assert f"Best epoch by val/miou: {best + 1} of 3" in text
    assert re.search(rf"ground\s+{100 * score}\s+{100 * score}\s+100.0", text)
    assert re.search(r"ghost\s+-\s+-\s+-", text)
    assert re.search(rf"mean\s+{100 * score}\s+{50 * score}\s+50.0", text)


def test_without_a_monitor_the_last_epoch_is_shown(make_trainer, color_task, squares_data, capsys, tmp_path):
    make_trainer([RunRecord(), RunSummary()]).fit(color_task(), datamodule=squares_data())
    assert json.loads((tmp_path / "run" / "scores_val.json").read_text())["epoch"] == 2
    assert "Last validated epoch: 3 of 3" in capsys.readouterr().out


def test_nan_never_hides_a_score(make_trainer, color_task, squares_data, tmp_path):
    task = color_task(scores=(float("nan"), 0.3, float("nan")))
    make_trainer([RunRecord(), RunSummary(), ModelCheckpoint(monitor="val/miou", mode="max")]).fit(
        task, datamodule=squares_data()
    )
    assert json.loads((tmp_path / "run" / "scores_val.json").read_text())["means"]["miou"] == pytest.approx(0.3)


def test_files_of_the_run_are_listed_relative_to_here(
    make_trainer, color_task, squares_data, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    checkpoint = ModelCheckpoint(monitor="val/miou", mode="max", save_last=True)
    callbacks = [RunRecord(), RunSummary(), Pictures(1), LearningCurves(), checkpoint]
    make_trainer(callbacks).fit(color_task(), datamodule=squares_data())
    text = capsys.readouterr().out
    for name in ("metrics.csv", "learning_curves.png", "contact_sheet.png", "scores_val.json", "checkpoints/last.ckpt"):
        assert re.search(rf" run/{name}$", text, re.MULTILINE)
    assert re.search(r"^best checkpoint run/checkpoints/epoch=1-step=6.ckpt$", text, re.MULTILINE)
    assert "config.yaml" not in text, "only files that exist"


def test_validate_and_test_print_their_own_table(make_trainer, color_task, squares_data, capsys, tmp_path):
    trainer = make_trainer([RunRecord(), RunSummary()])
    trainer.validate(color_task(), datamodule=squares_data(), verbose=False)
    trainer.test(color_task(), datamodule=squares_data(), verbose=False)
    text = capsys.readouterr().out
    assert re.search(r"^Validation", text, re.MULTILINE)
    assert re.search(r"^Test", text, re.MULTILINE)
    assert "training time" not in text
    for stage, score in (("val", 0.25), ("test", 0.5)):
        saved = json.loads((tmp_path / "run" / f"scores_{stage}.json").read_text())
        assert (saved["stage"], saved["epoch"], saved["means"]["miou"]) == (stage, None, score)


def test_table_of_nineteen_classes_and_four_tolerances_fits(make_trainer, color_task, squares_data, capsys):
    class Cityscapes(squares_data):
        class_names = ("a class of an uncommonly long name in its data set", *(f"class {i}" for i in range(18)))

    task = color_task()
    keys = ["iou", *(f"boundary_f1_{px}px" for px in (3, 5, 9, 12))]
    task.evaluate = lambda stage, score: task.stage_scores.update(
        {stage: Scores({}, {key: [1.0] * 19 for key in keys})}
    )
    make_trainer([RunRecord(), RunSummary()]).validate(task, datamodule=Cityscapes(), verbose=False)
    table = capsys.readouterr().out.partition("\nscores ")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert sum(line.count("100.0") for line in table) == 19 * 5


def test_resumed_run_remembers_its_best_epoch(make_trainer, color_task, squares_data, tmp_path):
    def callbacks():
        return [RunRecord(), RunSummary(), ModelCheckpoint(monitor="val/miou", mode="max", save_last=True)]

    make_trainer(callbacks(), max_epochs=2).fit(color_task(), datamodule=squares_data())
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["callbacks"]["RunRecord"]["best"]["epoch"] == 2
    make_trainer(callbacks()).fit(color_task(), datamodule=squares_data(), ckpt_path=last)
    assert json.loads((tmp_path / "run" / "scores_val.json").read_text())["epoch"] == 1


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_lines_stay_whole_beside_progress_bars(make_trainer, color_task, squares_data, capsys, bar):
    trainer = make_trainer([RunRecord(), RunSummary(), bar()], enable_progress_bar=True)
    trainer.fit(color_task(), datamodule=squares_data())
    out = capsys.readouterr().out
    lines = epoch_lines(out)
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    for words in ("Last validated epoch: 3 of 3", "ground ", "scores  "):
        assert words in out, "the table comes when the bars are gone"
    assert all(re.search(r"img/s  \S+ of \S+$", line.rstrip()) for line in lines)


def test_without_a_logger_it_only_prints(make_trainer, color_task, squares_data, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_trainer([RunRecord(), RunSummary()], logger=False).fit(color_task(), datamodule=squares_data())
    assert "Last validated epoch" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_without_a_record_there_is_nothing_to_sum_up(make_trainer, color_task, squares_data):
    with pytest.raises(SettingError, match="put a RunRecord before it"):
        make_trainer([RunSummary()]).fit(color_task(), datamodule=squares_data())
    with pytest.raises(SettingError, match="put a RunRecord before it"):
        make_trainer([RunSummary(), RunRecord()]).fit(color_task(), datamodule=squares_data())


def test_training_that_goes_on_within_an_epoch_is_summed_up(make_trainer, color_task, squares_data, tmp_path, capsys):
    """Lightning does not start an epoch once more that it resumes, so no hook of its start is called."""
    steps = ModelCheckpoint(every_n_train_steps=1, save_top_k=-1, filename="{step}", auto_insert_metric_name=False)
    make_trainer([RunRecord(), RunSummary(), steps], max_epochs=1).fit(color_task(), datamodule=squares_data())
    within = tmp_path / "run/checkpoints/2.ckpt"
    capsys.readouterr()
    callbacks = [RunRecord(), RunSummary()]
    make_trainer(callbacks, max_epochs=2).fit(color_task(), datamodule=squares_data(), ckpt_path=within)
    first, second = epoch_lines(capsys.readouterr().out)
    assert first.startswith("epoch 1/2  loss ")
    assert second.startswith("epoch 2/2  loss ")
    assert "nan" not in first
