"""The ablation: rows trained in processes of their own, one table, nothing repeated."""

import csv
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml
from rich.console import Console
from tests.tiny import write_config

from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import parsed_settings
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.studies.ablation import Result, _changes, _plan, _spreads, _tables, _with_checkpoint, run_ablation
from gscnn_lightning.studies.tables import Spread, TextTable
from gscnn_lightning.studies.training import held, run_training


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    """The control, and a row that cannot be built; what the command said, and its exit code."""
    folder = tmp_path_factory.mktemp("ablation")
    config = write_config(folder / "tiny.yaml", epochs=1)
    (folder / "broken.yaml").write_text("model:\n  backbone: resnet5O\n")
    rows = f"{folder}/broken.yaml,control"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as stop:
            tools(["ablate", "--config", str(config), "--rows", rows, "--seeds", "3", "--out", "out"])
    return folder, stop.value.code


def test_rows_go_on_after_one_that_fails(ablation):
    folder, code = ablation
    assert code == 1
    record = json.loads((folder / "out/ablation.json").read_text())
    broken, control = record["trainings"]
    assert (broken["row"], control["row"]) == ("broken", "control")
    assert broken["failure"].startswith("exit code 2: gscnn-fit: error: unknown backbone 'resnet5O'")
    assert control["failure"] == ""
    means = json.loads((folder / "out/control_seed3/scores_val.json").read_text())["means"]
    assert control["means"] == means
    assert record["rows"]["control"]["miou"]["mean"] == pytest.approx(100 * means["miou"])
    assert record["parameters"] == {"control": 425_056}
    with (folder / "out/ablation.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert float(rows["control"]["boundary_f1_3px_mean"]) == pytest.approx(100 * means["boundary_f1_3px"])
    assert rows["broken"]["miou_mean"] == ""
    text = (folder / "out/ablation.md").read_text()
    assert "| broken (0 of 1) | - |" in text
    assert "- broken, seed 3, failed: exit code 2" in text
    assert "+ " not in text, "there is nothing to be different from"
    sheet = cv2.imread(str(folder / "out/contact_sheets.png"))
    assert sheet.shape[1] == 2 * 12 + 4 * (256 + 6) - 6, "photo, labels, prediction, true boundary"


def test_seed_reaches_network_and_data(ablation):
    folder, _ = ablation
    config = (folder / "out/control_seed3/config.yaml").read_text()
    assert config.count("seed_everything: 3\n") == 1
    assert "    seed: 3\n" in config


def test_finished_rows_are_not_repeated_and_other_settings_are_refused(ablation, monkeypatch, capsys):
    folder, _ = ablation
    monkeypatch.chdir(folder)
    before = (folder / "out/control_seed3/scores_val.json").stat().st_mtime_ns
    common = ["ablate", "--config", "tiny.yaml", "--rows", "control", "--seeds", "3", "--out", "out"]
    tools(common)
    out = capsys.readouterr().out
    assert "1 of 1: control, seed 3: finished already" in out
    assert (folder / "out/control_seed3/scores_val.json").stat().st_mtime_ns == before
    with pytest.raises(SystemExit) as stop:
        tools([*common, "--model.tau", "0.5"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "out has an ablation with other settings: model.tau None and 0.5" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--rows", "control,gatet"],
            "there is no file 'gatet' and no shipped config of this name: did you mean gated",
        ),
        (["--rows", "control,control"], "rows are control,control: give each of them once"),
        (["--seeds", "0,one"], "seeds are 0,one: give whole numbers"),
        (["--seeds", "1,1"], "seeds are 1,1: give each of them once"),
        (["--model.image_gradient", "sobel"], "--model.image_gradient cannot be the same for all rows: row gated sets"),
        (["--seed_everything=7"], "--seed_everything cannot be the same for all rows: give --seeds"),
        (["--trainer.logger", "WandbLogger"], "--trainer.logger cannot be the same for all rows: give --out"),
        (["--trainer.max_epoch", "3"], "Did you mean --trainer.max_epochs"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(args, words, capsys):
    with pytest.raises(SystemExit) as stop:
        tools(["ablate", *args])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
    assert not Path("runs").exists()


def test_rows_of_equal_time_have_epochs_by_the_time_of_their_steps(capsys):
    config = str(write_config(Path("tiny.yaml"), epochs=6))
    asked = []

    def seconds(**of_rows):
        def measure(rows):
            asked.append(list(rows))
            assert all(list(arguments[:2]) == ["--config", config] for arguments in rows.values())
            return {row: of_rows[row] for row in rows}

        return measure

    def planned(rows, measure):
        plan = _plan(["--config", config, *once], [0], rows, Path("out"), measure)
        return {t.row: int(t.arguments[t.arguments.index("--trainer.max_epochs") + 1]) for t in plan}

    once = ["--trainer.check_val_every_n_epoch", "6"]
    first = planned(["control", "gated"], seconds(control=0.1, gated=0.15))
    assert first == {"control": 9, "gated": 6}
    assert "control: 100 ms a step, 9 epochs, 1 validation" in capsys.readouterr().out
    assert planned(["control", "gated"], seconds()) == first, "measured once, as a machine is not always as fast"
    # A row that comes later is measured beside one that was there, today twice as slow, and gets the same time.
    more = planned(["control", "gated", "dual_task"], seconds(control=0.2, dual_task=0.6))
    assert more == {**first, "dual_task": 3}
    # So is one that comes alone.
    assert planned(["gradient"], seconds(control=0.3, gradient=0.4)) == {"gradient": 7}
    assert asked == [["control", "gated"], ["control", "dual_task"], ["control", "gradient"]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["--trainer.max_steps", "9"],
            r"control has max_epochs 2 and max_steps 9: give --trainer.max_epochs, those of",
        ),
        (
            ["--trainer.limit_train_batches", "5"],
            r"limit_train_batches 5(\.0)?: leave it out, and give --data.samples_per_e",
        ),
        (
            ["--trainer.val_check_interval", "0.5"],
            r"val_check_interval 0.5: leave it out, and give --trainer.check_val",
        ),
        (["--data.batch_size", "999"], r"an epoch has \d+ training samples, and a batch 999: lower --data.batch_size"),
    ],
)
def test_time_that_is_not_left_to_epochs_is_refused_before_it_is_measured(given, words):
    config = str(write_config(Path("tiny.yaml"), epochs=2))
    with pytest.raises(SettingError, match=words):
        _plan(["--config", config, *given], [0], ["control"], Path("out"), lambda rows: 1 / 0)
    assert not list(Path("out").glob("*"))


def test_other_settings_are_refused_before_anything_is_measured():
    config = str(write_config(Path("tiny.yaml"), epochs=2))
    measure = {"control": 0.1, "gated": 0.2, "dual_task": 0.3}
    _plan(["--config", config], [0], ["control", "gated"], Path("out"), lambda rows: measure)
    before = Path("out/times.json").read_text()
    for rows in (["control", "gradient"], ["gradient"]):
        with pytest.raises(SettingError, match=r"out has an ablation with other settings\W+model.tau None and 0.5"):
            _plan(["--config", config, "--model.tau", "0.5"], [0], rows, Path("out"), lambda rows: 1 / 0)
    assert Path("out/times.json").read_text() == before


def test_row_with_a_batch_of_its_own_has_the_same_time():
    config = str(write_config(Path("tiny.yaml"), epochs=8))
    Path("large.yaml").write_text("data:\n  init_args:\n    batch_size: 4\n")
    # A step of twice the images takes twice the time, and there are half as many.
    seconds = {"control": 0.1, "large": 0.2}
    plan = _plan(["--config", config], [0], ["control", "large.yaml"], Path("out"), lambda rows: seconds)
    settings = {t.row: parsed_settings(t.arguments) for t in plan}
    assert settings["control"]["data"]["init_args"]["batch_size"] == 2
    assert {row: one["trainer"]["max_epochs"] for row, one in settings.items()} == {"control": 8, "large": 8}
    with pytest.raises(SettingError, match=r"--data.batch_size cannot be the same for all rows: row large sets it"):
        _plan(["--config", config, "--data.batch_size", "2"], [0], ["control", "large.yaml"], Path("o"), None)
    Path("longer.yaml").write_text("trainer:\n  max_epochs: 9\n")
    with pytest.raises(SettingError, match=r"longer has max_epochs 9 of its own: leave it out there, and give --trai"):
        _plan(["--config", config], [0], ["control", "longer.yaml"], Path("o"), lambda rows: 1 / 0)


def test_time_that_whole_steps_miss_is_said(capsys):
    config = str(write_config(Path("tiny.yaml"), epochs=6))
    given = ["--config", config, "--data.samples_per_epoch", "2", "--trainer.check_val_every_n_epoch", "1"]
    plan = _plan(given, [0], ["control", "gated"], Path("out"), lambda rows: {"control": 0.1, "gated": 0.14})
    trainer = parsed_settings(plan[0].arguments)["trainer"]
    assert (trainer["max_epochs"], trainer["check_val_every_n_epoch"]) == (6, 1), "8.4 steps, validated six times"
    out = " ".join(capsys.readouterr().out.split())
    assert "control: 100 ms a step, 6 epochs, 6 validations, 29 % less time, as epochs are of whole steps" in out


@pytest.mark.parametrize(("epochs", "every"), [(40, 10), (50, 1), (45, 9), (175, 5), (7, 3)])
def test_rows_of_equal_time_are_validated_equally_often(epochs, every):
    config = str(write_config(Path("tiny.yaml"), epochs=epochs))
    seconds = {"dual_task": 0.7, "gated": 0.61, "control": 0.429, "gradient": 0.69}
    often = ["--config", config, "--trainer.check_val_every_n_epoch", str(every)]
    plan = _plan(often, [0], list(seconds), Path("out"), lambda rows: seconds)
    # The last epoch is validated in any case.
    wanted = math.ceil(epochs / every)
    for training in plan:
        given = parsed_settings(training.arguments)
        trainer, data = given["trainer"], given["data"]["init_args"]
        assert math.ceil(trainer["max_epochs"] / trainer["check_val_every_n_epoch"]) == wanted, training.row
        steps = data.get("samples_per_epoch", data["train_samples"]) // data["batch_size"]
        whole = data["train_samples"] // data["batch_size"]
        time = trainer["max_epochs"] * steps * seconds[training.row]
        half_a_step = 0.5 * trainer["max_epochs"] * seconds[training.row]
        assert abs(time - epochs * whole * 0.7) <= max(0.02 * time, half_a_step) * 1.001, training.row


@pytest.mark.parametrize("samples", [None, 60])
def test_epochs_that_would_miss_the_time_have_another_length(samples, capsys):
    config = str(write_config(Path("tiny.yaml"), epochs=4))
    given = [] if samples is None else ["--data.samples_per_epoch", str(samples)]
    settings = parsed_settings(["--config", config, *given])["data"]["init_args"]
    batch, epoch = settings["batch_size"], samples or settings["train_samples"]
    seconds = {"control": 0.304, "gated": 0.404, "dual_task": 0.409}
    plan = _plan(["--config", config, *given], [0], list(seconds), Path("out"), lambda rows: seconds)
    found = {}
    for training in plan:
        one = parsed_settings(training.arguments)
        length = one["data"]["init_args"].get("samples_per_epoch", epoch)
        assert length % batch == 0
        found[training.row] = one["trainer"]["max_epochs"] * (length // batch)
    wanted = 4 * (epoch // batch)
    assert found["dual_task"] == found["gated"] == wanted, "of 1.2 % less nothing is made"
    # 5.4 epochs, validated four times as the others: seven shorter ones, to half a step in each of them.
    assert abs(found["control"] - wanted * 0.409 / 0.304) <= 3.5
    length = batch * found["control"] // 7
    assert f"control: 304 ms a step, 7 epochs of {length} samples, 4 validations" in capsys.readouterr().out


@pytest.mark.slow
def test_equal_time_is_measured_and_curves_are_drawn(capsys):
    write_config(Path("tiny.yaml"), epochs=2)
    tools(
        ["ablate", "--config", "tiny.yaml", "--rows", "control,supervised,refined", "--equal", "time", "--seeds", "0"]
    )
    out = capsys.readouterr().out
    times = json.loads(Path("runs/ablation/times.json").read_text())
    assert 4 * max(times["seconds"].values()) == times["epoch_seconds_of_slowest"]
    for row, seconds in times["seconds"].items():
        config = yaml.safe_load(Path(f"runs/ablation/{row}_seed0/config.yaml").read_text())
        epochs = config["trainer"]["max_epochs"]
        assert f"ms a step, {epochs} epochs" in out
        data = config["data"]["init_args"]
        steps = epochs * ((data["samples_per_epoch"] or data["train_samples"]) // data["batch_size"])
        budget = 2 * times["epoch_seconds_of_slowest"]
        assert abs(steps * seconds - budget) <= max(0.02 * budget, 0.51 * epochs * seconds)
    assert cv2.imread("runs/ablation/curves.png") is not None


def results(**scores):
    """Results of rows whose mIoU of every seed is given in percent; None for a training that failed."""
    return [
        Result(row, seed, RunFolder(Path(f"{row}_seed{seed}")), {}, math.nan, "it broke")
        if value is None
        else Result(
            row, seed, RunFolder(Path(f"{row}_seed{seed}")), {"accuracy": 0.9, "miou": value / 100}, 60.0 + seed
        )
        for row, values in scores.items()
        for seed, value in enumerate(values)
    ]


def cells(given):
    """Title and cells of both tables."""
    names = ["miou", "training_minutes"]
    rows = list(dict.fromkeys(result.row for result in given))
    scores = {row: _spreads([r for r in given if r.row == row], names) for row in rows}
    changes = {row: _changes(given, rows[0], row, names) for row in rows[1:]}
    return _tables(given, scores, changes, {"control": 1234})


def test_spread_of_two_seeds_is_their_distance_and_of_three_the_standard_deviation():
    scores, changes = cells(results(control=[50.0, 52.0], gated=[53.0, 57.0]))
    assert scores == (
        "scores in %, 2 seeds, mean ± half their distance",
        ["row", "mIoU", "minutes", "parameters"],
        [["control", "51.0 ±1.0", "1.0", "1,234"], ["+ gates", "55.0 ±2.0", "1.0", "-"]],
    )
    assert changes[2] == [["+ gates", "+4.0 ±1.0", "x1.00"]]
    scores, changes = cells(results(control=[50.0, 52.0, 57.0], gated=[53.0, None, 51.0]))
    assert scores[0].endswith("3 seeds, mean ± sample standard deviation")
    deviation = statistics.stdev([50.0, 52.0, 57.0])
    assert scores[2][0][1] == f"53.0 ±{deviation:.1f}"
    assert scores[2][1][:2] == ["+ gates (2 of 3)", f"52.0 ±{math.sqrt(2):.1f}"]
    assert changes[2][0][1] == f"-1.5 ±{statistics.stdev([3.0, -6.0]):.1f}", "of the seeds that both have"


def test_no_number_is_cut_in_a_terminal_of_80_columns(capsys):
    row = ["control + refinement", "72.5 ±1.2", "51.3 ±0.8", "68.9 ±0.9", "20.7", "3,675,156"]
    headings = ["row", "mIoU", "F 1 px", "F 3 px", "minutes", "parameters"]
    Console(width=80).print(
        TextTable("scores in %, 3 seeds, mean ± sample standard deviation", headings, [row]).for_terminal()
    )
    out = capsys.readouterr().out
    assert [cell for cell in (*headings, *row[1:]) if cell not in out] == []
    assert max(map(len, out.splitlines())) <= 80


def test_spread_of_nothing_is_a_dash():
    assert Spread.of([math.nan]).text() == "-"


@pytest.mark.slow
def test_interrupted_row_goes_on_and_ends_as_if_it_had_not_been(capsys):
    config = str(write_config(Path("tiny.yaml"), epochs=4))
    whole, cut = Path("whole"), Path("cut")
    (expected,) = run_ablation(["--config", config], [0], ["dual_task"], whole)
    (training,) = _plan(["--config", config], [0], ["dual_task"], cut)
    epochs = []

    def stop_in_the_third(line):
        epochs.append(line)
        return len(epochs) == 2

    command = [sys.executable, "-m", "gscnn_lightning", "fit", *training.arguments]
    run_training(command, Path("first.log"), stop_in_the_third)
    assert not training.run.is_finished()
    capsys.readouterr()
    (result,) = run_ablation(["--config", config], [0], ["dual_task"], cut)
    out = capsys.readouterr().out
    assert "epoch 3/4" in out
    assert "epoch 1/4" not in out
    assert result.means == pytest.approx(expected.means, rel=1e-6)
    assert (cut / "dual_task_seed0/metrics_1.csv").is_file(), "nothing that was logged is lost"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_training_of_another_process_is_left_alone_until_that_has_ended(capsys):
    config, out = str(write_config(Path("tiny.yaml"), epochs=1)), Path("out")
    wait = "import sys; print('epoch 1', flush=True); sys.stdin.read()"
    with held(out / "control_seed0.log") as lock:
        child = subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE, pass_fds=(lock,))
    try:  # the lock is the child's alone now
        (result,) = run_ablation(["--config", config], [0], ["control"], out)
        assert "control_seed0.log is being written by another process, which has this training" in result.failure
        assert not result.run.path.exists()
    finally:
        child.communicate()
    with held(out / "control_seed0.log"):
        assert "wait until it has ended, or give another --out" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_all_rows_with_two_seeds(capsys):
    write_config(Path("tiny.yaml"), epochs=1)
    tools(["ablate", "--config", "tiny.yaml", "--out", "out"])
    record = json.loads(Path("out/ablation.json").read_text())
    assert list(record["rows"]) == ["control", "gated", "gradient", "dual_task"]
    assert [t["seed"] for t in record["trainings"]] == [0, 1] * 4
    for row, spreads in record["rows"].items():
        values = [100 * t["means"]["miou"] for t in record["trainings"] if t["row"] == row]
        assert spreads["miou"]["mean"] == pytest.approx(statistics.fmean(values))
        assert spreads["miou"]["std"] == pytest.approx(statistics.stdev(values))
        assert values[0] != values[1]
    assert list(record["differences"]) == ["gated", "gradient", "dual_task"]
    assert list(record["intervals"]["rows"]) == ["+ gates", "+ image gradient", "+ dual task"]
    for row, label in zip(record["differences"], record["intervals"]["rows"], strict=True):
        found = record["intervals"]["rows"][label]["miou"]
        assert found["low"] <= found["difference"] <= found["high"]
        assert found["difference"] == pytest.approx(record["differences"][row]["miou"]["mean"], abs=1e-4)
    assert "+ dual task" in capsys.readouterr().out
    sheet = cv2.imread("out/contact_sheets.png")
    assert sheet.shape[1] == 2 * 12 + 10 * (256 + 6) - 6
    assert cv2.imread("out/gains_and_losses.png").shape[1] == sheet.shape[1]


OWN_DATA = """
import pytorch_lightning as pl
from gscnn_lightning.data import ScenesDataModule

class Foreign(pl.LightningDataModule):
    '''Scenes by what Lightning asks of a data module, and by what the task needs to know.'''

    def __init__(self):
        super().__init__()
        self.scenes = ScenesDataModule(size=(64, 128), train_samples=4, val_samples=2, batch_size=2, num_workers=0)
        self.num_classes, self.ignore_index = self.scenes.num_classes, self.scenes.ignore_index
        self.class_names, self.class_colors = self.scenes.class_names, self.scenes.class_colors
        self.setup, self.boundaries = self.scenes.setup, self.scenes.boundaries
        self.train_dataloader, self.val_dataloader = self.scenes.train_dataloader, self.scenes.val_dataloader
        self.on_after_batch_transfer = self.scenes.on_after_batch_transfer
"""


@pytest.mark.slow
def test_table_is_there_whatever_becomes_of_the_intervals(monkeypatch, capsys):
    Path("own.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    settings = yaml.safe_load(write_config(Path("tiny.yaml"), epochs=1).read_text())
    settings["data"] = {"class_path": "own.Foreign"}
    Path("own.yaml").write_text(yaml.safe_dump(settings))
    tools(["ablate", "--config", "own.yaml", "--rows", "control,gated", "--seeds", "0", "--out", "out"])
    out = capsys.readouterr().out
    assert "no intervals: AttributeError: 'Foreign' object has no attribute 'checked_source'" in out
    record = json.loads(Path("out/ablation.json").read_text())
    assert record["rows"]["gated"]["miou"]["mean"] > 0
    assert record["intervals"] == {}
    assert cv2.imread("out/contact_sheets.png") is not None


def test_rows_without_checkpoints_are_said(capsys):
    trained = RunFolder(Path("gated_seed0"))
    trained.best_checkpoint.parent.mkdir(parents=True)
    trained.best_checkpoint.touch()
    left = _with_checkpoint(results(control=[50.0], gated=[53.0], gradient=[None]))
    assert [result.row for result in left] == ["gated"]
    said = capsys.readouterr().out.replace("\n", " ")
    assert "not in pictures and intervals, as there is no control_seed0/checkpoints/best.ckpt" in said
