"""Sweep files: valid for W&B, run by its agent's own command line, and run without any server."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from jsonschema import Draft7Validator
from optuna.trial import TrialState
from tests.tiny import write_config

from gscnn_lightning import host
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import parsed_settings
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.metrics_csv import logged_values
from gscnn_lightning.studies.shared_study import SharedStudy, storage_url
from gscnn_lightning.studies.sweep import _check_folder
from gscnn_lightning.studies.sweep_file import Sweep, read_sweep

FILES = sorted((Path(__file__).parents[2] / "configs/sweep").glob("*.yaml"))
SCHEMA = json.loads((Path(__file__).parent / "wandb_sweep_schema.json").read_text())
every_file = pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)


def read(file):
    return yaml.safe_load(Path(file).read_text())


def draws(config, number, seed=0):
    """Values of a number of runs, drawn at random."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [Sweep({**config, "method": "random"}).draw(study.ask()) for _ in range(number)]


def setting(settings, name):
    """A value of parsed settings by its dotted name."""
    for part in name.split("."):
        settings = settings["init_args"] if part not in settings else settings
        settings = settings[part]
    return settings


def test_there_are_three():
    assert [file.stem for file in FILES] == ["backbone_gradient", "loss_weights", "optimizer"]


@every_file
def test_file_obeys_the_schema_of_wandb(file):
    config = read(file)
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(config)] == []
    assert config["metric"] == {"name": "val/miou", "goal": "maximize"}
    assert config["command"][-1] == "${args}"
    assert config["early_terminate"]["type"] == "hyperband"
    for wrong in ({"method": "guess"}, {"parameters": {}}, {"early_terminate": {"type": "median"}}):
        assert list(Draft7Validator(SCHEMA).iter_errors({**config, **wrong})), wrong


@every_file
def test_drawn_values_reach_their_settings(file, monkeypatch):
    monkeypatch.chdir(FILES[0].parents[2])
    config = read(file)
    for values in draws(config, 3):
        line = Sweep(config).command_line(values, [])
        assert line[:5] == ["/usr/bin/env", "gscnn-fit", "fit", "--config", "scenes"]
        settings = parsed_settings(line[3:])
        assert settings["trainer"]["check_val_every_n_epoch"] == 1
        assert settings["data"]["init_args"]["samples_per_epoch"] == 540
        for name, value in values.items():
            assert setting(settings, name) == value


def test_distributions_are_those_of_wandb():
    parameters = {
        "a": {"distribution": "log_uniform_values", "min": 0.01, "max": 100},
        "b": {"distribution": "log_uniform", "min": math.log(0.01), "max": math.log(100)},
        "c": {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
        "d": {"min": 1, "max": 3},
        "e": {"min": 1.0, "max": 3.0},
        "f": {"values": [[1, 2], None, "x"]},
        "g": {"value": 7},
        "h": {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8},
    }
    drawn = draws({"metric": {"name": "x"}, "parameters": parameters}, 400)
    columns = {name: [values[name] for values in drawn] for name in parameters}
    for name in "ab":
        assert min(columns[name]) >= 0.01 * (1 - 1e-9)
        assert max(columns[name]) <= 100 * (1 + 1e-9)
        assert sum(math.log10(value) for value in columns[name]) / 400 == pytest.approx(0, abs=0.2)
    assert set(columns["c"]) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert set(columns["d"]) == {1, 2, 3}
    assert sum(columns["e"]) / 400 == pytest.approx(2, abs=0.1)
    assert [1, 2] in columns["f"]
    assert None in columns["f"]
    assert set(columns["g"]) == {7}
    assert set(columns["h"]) == {8, 16, 24, 32, 40, 48, 56, 64}
    assert all(isinstance(value, int) for value in columns["d"] + columns["h"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": None}, "the sweep file lacks"),
        ({"method": "guess"}, "method is guess: use grid, random or bayes"),
        ({"parameters": {"model": {"parameters": {"tau": {"value": 1}}}}}, "write model."),
        ({"parameters": {"model.tau": {"distribution": "beta"}}}, "model.tau has the distribution beta"),
        ({"parameters": {"model.tau": {"min": 2, "max": 1}}}, "has no min below its max"),
        ({"parameters": {"model.tau": {"min": "1e-5", "max": 0.1}}}, "its min 1e-5 is text for YAML.* write 1.0e-5"),
        ({"parameters": {"model.tau": {"min": 1.0, "max": "2.5E3"}}}, r"its max 2.5E3 is text.* write 2.5e\+3"),
        ({"parameters": {"model.tau": {"max": 10}}}, "has no min: give min and max, or values"),
        ({"parameters": {"model.tau": {"min": "low", "max": 1}}}, "its min is 'low': give a number"),
        (
            {"parameters": {"model.tau": {"distribution": "q_uniform", "min": 1, "max": 2, "q": 0}}},
            "its q is 0: give a number above 0",
        ),
        (
            {"parameters": {"model.tau": {"min": 1.5, "max": 3, "distribution": "int_uniform"}}},
            "give whole min and max",
        ),
        (
            {"parameters": {"model.tau": {"distribution": "log_uniform_values", "min": 0, "max": 1}}},
            "its min is 0: logarithms need one above 0",
        ),
        ({"parameters": {"model.tau": {"distribution": "log_uniform", "min": 1, "max": 1e4}}}, "are exponents of e"),
        ({"parameters": {"model.tau": {"values": "adam"}}}, "values are 'adam': give a list"),
        ({"parameters": {"model.tau": {"distribution": "categorical"}}}, "values are None: give a list"),
        ({"parameters": {"model.tau": {"values": []}}}, "give a list, or `value:` for one"),
        ({"metric": {"name": "val/loss", "goal": "min"}}, "goal of the metric is min: use minimize or maximize"),
        ({"parameters": {"model.tau": 1}}, "parameter model.tau is 1"),
    ],
)
def test_what_is_not_known_here_is_said(change, words):
    config = {"method": "random", "metric": {"name": "val/miou"}, "parameters": {"model.tau": {"value": 1}}}
    with pytest.raises(SettingError, match=words):
        Sweep({**config, **change})


def test_files_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "sweep.yaml"
    with pytest.raises(
        SettingError,
        match=r"there is no file .*sweep\.yaml' and no shipped config of this name: shipped configs are",
    ):
        read_sweep(str(file))
    for content, words in (
        (b"method: [random\nmetric: x", r"is not valid YAML \(.*\): correct it there"),
        (b"method: 2020-99-99", r"is not valid YAML \(.*\): correct it there"),
        (b"method: \xff", "cannot be read .byte 8 is not UTF-8"),
        (b"random", "holds a str: write keys with values, such as method, metric"),
    ):
        file.write_bytes(content)
        with pytest.raises(SettingError, match=r"sweep file .*sweep\.yaml " + words):
            read_sweep(str(file))


def test_goal_is_that_of_wandb():
    config = {"method": "random", "parameters": {"model.tau": {"value": 1}}}
    metric = {"name": "val/miou"}
    assert [
        Sweep({**config, "metric": metric | goal}).minimizes
        for goal in ({}, {"goal": "minimize"}, {"goal": "maximize"})
    ] == [True, True, False]


def test_number_of_runs():
    grid = Sweep(read(FILES[0]))
    assert grid.number_of_runs(None) == 9
    assert grid.number_of_runs(100) == 9
    bayes = read(FILES[1])
    assert Sweep({**bayes, "run_cap": 4}).number_of_runs(None) == 4
    with pytest.raises(SettingError, match=r"how many runs\? give --runs N"):
        Sweep(bayes).number_of_runs(None)
    with pytest.raises(SettingError, match="a grid is uniform: give it values"):
        Sweep({**bayes, "method": "grid", "parameters": {"model.tau": {"min": 0.5, "max": 1.0}}}).number_of_runs(1)


def test_configs_and_settings_of_the_command_line_come_before_drawn_values():
    more = ["--config", "a.yaml", "--config=b.yaml", "--trainer.max_epochs", "1"]
    line = Sweep(read(FILES[1])).command_line({"model.tau": 0.5}, more)
    assert line[2:4] == ["fit", "--trainer.check_val_every_n_epoch=1"]
    assert line[4:] == [*more, "--model.tau=0.5"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A grid of two, one of which cannot be built; folder, exit code of the command, its output."""
    folder = tmp_path_factory.mktemp("sweep")
    write_config(folder / "scenes", epochs=1)
    config = {**read(FILES[0]), "parameters": {"model.backbone": {"values": ["test_resnet", "resnet5O"]}}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        tools(["sweep", "sweep.yaml", "--out", "out"])
    return folder


def test_sweep_without_a_server_goes_on_after_an_impossible_combination(finished):
    record = json.loads((finished / "out/sweep.json").read_text())
    best, failed = record["runs"]
    assert best["values"] == {"model.backbone": "test_resnet"}
    scores = json.loads((finished / f"out/run_{best['number']:03}/scores_val.json").read_text())
    assert best["score"] == pytest.approx(scores["means"]["miou"], abs=1e-6)
    assert failed["state"] == "failed"
    assert failed["score"] is None
    assert "unknown backbone 'resnet5O'" in failed["message"]
    with (finished / "out/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model.backbone"] for row in rows] == ["test_resnet", "resnet5O"]
    assert float(rows[0]["val/miou"]) == best["score"]


def test_finished_sweep_is_not_repeated_and_another_is_refused(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    tools(["sweep", "sweep.yaml", "--out", "out"])
    out = capsys.readouterr().out
    assert "run 0:" not in out
    assert "2 runs" in out
    with pytest.raises(SystemExit) as stop:
        tools(["sweep", "sweep.yaml", "--out", "out", "--trainer.max_epochs", "3"])
    assert stop.value.code == 2
    assert "out has another sweep: overrides [] and ['--trainer.max_epochs', '3']" in capsys.readouterr().err


def test_folder_of_an_older_version_goes_on(tmp_path):
    """Once, configs were kept apart from the other arguments."""
    settings = {"sweep": {"method": "grid"}, "configs": ["a.yaml"], "overrides": ["--model.tau", "1"]}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    _check_folder({"sweep": {"method": "grid"}, "overrides": ["--config", "a.yaml", "--model.tau", "1"]}, tmp_path)
    with pytest.raises(SettingError, match="has another sweep"):
        _check_folder({"sweep": {"method": "grid"}, "overrides": ["--config", "b.yaml"]}, tmp_path)


def test_interrupted_run_is_made_again_with_the_same_values(finished, tmp_path, monkeypatch):
    plan = Sweep(read(finished / "sweep.yaml"))
    url = storage_url(f"sqlite:///{tmp_path}/study.db")

    def worker():
        shared = SharedStudy(url, "sweep", lost_after=0.5)
        shared.join(plan, {}, 0, None)
        return shared

    values = worker().draw(worker().claim())  # and then the machine is switched off
    again = worker()
    monkeypatch.setattr(host, "start_of", lambda pid: "")
    trial = again.claim()
    assert again.draw(trial) == values
    again.tell(trial, {"score": 0.5}, TrialState.COMPLETE, 0.5)
    assert again.draw(again.claim()) != values, "the rest of the grid"


@pytest.mark.slow
def test_worse_run_is_stopped_early(tmp_path, monkeypatch, capsys):
    """The learning rate itself is the metric, so which run is worse is known."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "scenes", epochs=3)
    config = {**read(FILES[0]), "metric": {"name": "train/lr", "goal": "minimize"}}
    config["parameters"] = {"optimizer.lr": {"values": [0.001, 0.002]}, "model.poly_power": {"value": 0.0}}
    config["early_terminate"] = {"type": "hyperband", "min_iter": 4, "eta": 2}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))

    def first(seed):
        shared = SharedStudy(storage_url(f"sqlite:///{tmp_path}/seed{seed}.db"), "sweep")
        shared.join(Sweep(config), {}, seed, None)
        return shared.draw(shared.claim())["optimizer.lr"]

    seed = next(seed for seed in range(20) if first(seed) == 0.001)
    tools(["sweep", "sweep.yaml", "--out", "out", "--seed", str(seed)])
    assert "stopped early" in capsys.readouterr().out
    runs = json.loads((tmp_path / "out/sweep.json").read_text())["runs"]
    assert [(run["values"]["optimizer.lr"], run["state"]) for run in runs] == [
        (0.001, "complete"),
        (0.002, "stopped early"),
    ]
    assert not (tmp_path / "out/run_001/scores_val.json").exists()


def agent_line(config, values, monkeypatch):
    """The command that W&B's agent starts for values that the server has sent, caught before it runs."""
    from wandb import wandb_agent

    caught = []

    class Caught:
        def __init__(self, env=None, command=None, **_):
            caught.append((command, env))

    monkeypatch.setattr(wandb_agent, "AgentProcess", Caught)
    agent = wandb_agent.Agent(api=None, queue=None)
    agent._sweep_command = list(config["command"])
    arguments = {name: {"value": value} for name, value in values.items()}
    command = {"type": "run", "run_id": "abc123", "program": config["program"], "args": arguments}
    assert "exception" not in agent._process_command(command)
    return caught[0]


@every_file
def test_local_line_is_the_agents_apart_from_the_logger(file, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    config = read(file)
    values = draws(config, 1)[0]
    line, _ = agent_line(config, values, monkeypatch)
    assert "--trainer.logger=WandbLogger" in line
    assert Sweep(config).command_line(values, []) == [w for w in line if not w.startswith("--trainer.logger")]


def offline_summary(folder):
    """The last value of everything that the one offline W&B run in a folder has logged."""
    (run,) = folder.rglob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(run)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["summary"]


@pytest.mark.slow
@pytest.mark.parametrize("file", [FILES[1], FILES[2]], ids=lambda p: p.stem)
def test_agents_line_trains_and_its_objective_can_be_read(file, tmp_path, monkeypatch):
    """The base is a tiny config of the same path, so the line is the agent's to the letter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    write_config(tmp_path / "scenes", epochs=2)
    config = read(file)
    values = draws(config, 1, seed=3)[0]
    line, environment = agent_line(config, values, monkeypatch)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    result = subprocess.run(
        line, env={**environment, "PATH": path, "WANDB_MODE": "offline"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    objective = offline_summary(tmp_path)["val/miou"]
    (metrics,) = tmp_path.rglob("metrics.csv")
    logged = logged_values(RunFolder(metrics.parent), "val/miou")
    assert len(logged) == 2
    assert logged[-1] == pytest.approx(objective, rel=1e-6)
