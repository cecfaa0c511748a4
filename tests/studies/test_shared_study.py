"""Several workers at one study: on a real PostgreSQL and on SQLite, with workers killed and databases restarted."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from tests.tiny import write_config

from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.errors import SettingError
from gscnn_lightning.studies import shared_study
from gscnn_lightning.studies.shared_study import Beats, SharedStudy, TakenError, by_run, shown_url, storage_url
from gscnn_lightning.studies.sweep_file import Sweep

SECRET = "p4ss-w0rd"

# Stands in for a training: an epoch ends when it has taken as long as it is told, and the score is one of the values.
TRAINING = """
import sys, time
from pathlib import Path
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
run = Path(given["trainer.logger.save_dir"]) / given["trainer.logger.version"]
run.mkdir(parents=True)
(Path.cwd() / "started.txt").open("a").write(f"{run.name} {given['model.tau']}\\n")
lines = ["step,val/miou"]
for epoch in (1, 2):
    began = time.monotonic()
    while time.monotonic() - began < float(Path("seconds").read_text() or 60):
        time.sleep(0.05)
    lines.append(f"{epoch},{float(given['model.tau']) * epoch / 20}")
    (run / "metrics.csv").write_text("\\n".join(lines) + "\\n")
    print(f"epoch {epoch}", flush=True)
(run / "scores_val.json").write_text("{}")
"""


class Postgres:
    """A server of its own on loopback, with a password."""

    def __init__(self, programs):
        self.programs = programs
        # As root, the server runs as another user, who has no way into pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="gscnn-postgres-"))
        self.user = {}
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        word = self.folder / "word"
        word.write_text(SECRET)
        word.chmod(0o644)
        self.run("initdb", "-A", "scram-sha-256", "-U", "me", f"--pwfile={word}", "--no-sync")
        settings = f"port={self.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nfsync=off\n"
        config = self.folder / "data/postgresql.conf"
        config.write_text(config.read_text() + settings)
        self.start()
        self.url = f"postgresql+pg8000://me:{SECRET}@127.0.0.1:{self.port}/postgres"

    def run(self, program, *arguments):
        command = [str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        # In pipes, the server would keep them open.
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **self.user)

    def start(self):
        self.run("pg_ctl", "-w", "-l", str(self.folder / "log"), "start")

    def stop(self):
        self.run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def postgres():
    found = [Path(p) for p in (shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))) if p]
    if not found or sys.platform != "linux":
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Postgres(found[-1].resolve().parent)
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A sweep over a grid whose trainings are stand-ins."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "seconds").write_text("0.15")
    write_sweep(tmp_path, range(1, 7))
    return tmp_path


def write_sweep(folder, values, **change):
    config = {"method": "grid", "metric": {"name": "val/miou", "goal": "maximize"}}
    config["parameters"] = {"model.tau": {"values": list(values)}}
    config["command"] = [sys.executable, str(folder / "training.py"), "${args}"]
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**config, **change}))


def start(*arguments):
    """Another worker, in a process of its own."""

    def work():
        os.setsid()
        output = os.open(f"worker_{os.getpid()}.txt", os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(output, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        tools(["sweep", "sweep.yaml", "--lost_after", "2", *arguments])

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def wait_for(what, seconds=60.0):
    limit = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < limit, "this takes too long"
        time.sleep(0.05)


def started(folder):
    path = folder / "started.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def printed(worker):
    return Path(f"worker_{worker.pid}.txt").read_text()


def run_of(worker):
    """Name of the run that a worker is at."""
    said = [line.split()[1].rstrip(":") for line in printed(worker).splitlines() if line.startswith("run ")]
    return f"run_{int(said[-1]):03}"


def end(workers):
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0, printed(worker)


def check_complete(folder, out, values):
    """Every set of values has one result, and none was trained to the end twice."""
    runs = json.loads((out / "sweep.json").read_text())["runs"]
    assert [run["state"] for run in runs] == ["complete"] * len(values)
    assert sorted(run["values"]["model.tau"] for run in runs) == sorted(values)
    ended = [run.parent.name for run in out.glob("run_*/scores_val.json")]
    assert sorted(ended) == sorted(f"run_{run['number']:03}" for run in runs)
    return runs


def test_two_workers_share_a_file_of_sqlite_and_one_is_killed(folder, capsys):
    (folder / "seconds").write_text("60")
    workers = [start(), start()]
    wait_for(lambda: len(started(folder)) == 2)
    lost = run_of(workers[0])
    os.kill(workers[0].pid, signal.SIGKILL)
    workers[0].join()  # before its training may end: the signal takes its time where others have the processors
    (folder / "seconds").write_text("0.1")
    end(workers[1:])
    runs = check_complete(folder, folder / "runs/sweep_sweep", range(1, 7))
    tau = dict(started(folder))[lost]
    assert next(name for name, value in started(folder) if value == tau) == lost
    assert sum(value == tau for _, value in started(folder)) == 2
    assert lost not in [f"run_{run['number']:03}" for run in runs]
    assert f"run {int(lost[4:])}: its worker" in printed(workers[1])
    assert not (folder / f"runs/sweep_sweep/{lost}/scores_val.json").exists()  # its training went with it
    tools(["sweep", "sweep.yaml", "--status"])
    said = capsys.readouterr().out
    assert "study sweep: 6 of 6 runs have begun" in said
    assert f"best so far: run {runs[0]['number']}, val/miou 0.6000, made by {runs[0]['worker']}" in said


def test_three_workers_share_postgresql(folder, postgres, capsys):
    """One is killed, and the database restarted while the others train."""
    values = range(1, 7)
    write_sweep(folder, values)
    arguments = ["--storage", postgres.url, "--study", folder.name]
    (folder / "seconds").write_text("60")
    workers = [start(*arguments, "--out", f"out{index}") for index in range(3)]
    wait_for(lambda: len(started(folder)) == 3)
    os.kill(workers[0].pid, signal.SIGKILL)
    lost = dict(started(folder))[run_of(workers[0])]
    postgres.stop()
    (folder / "seconds").write_text("0.1")
    time.sleep(1.5)
    postgres.start()
    workers[0].join()
    end(workers[1:])
    runs = json.loads((folder / "out1/sweep.json").read_text())["runs"]
    assert [run["state"] for run in runs] == ["complete"] * len(values)
    assert sorted(run["values"]["model.tau"] for run in runs) == sorted(values)
    assert len(list(folder.glob("out*/run_*/scores_val.json"))) == len(values)
    assert sum(value == lost for _, value in started(folder)) == 2
    for worker in workers[1:]:
        assert "the database answers again" in printed(worker)
    capsys.readouterr()
    tools(["sweep", "--status", *arguments])
    said = capsys.readouterr().out
    assert f"study {folder.name}: {len(values)} of {len(values)} runs have begun" in said
    assert f"{len(values)} complete" in said
    everything = [said, *map(printed, workers)]
    everything += [p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file()]
    assert not any(SECRET in text for text in everything)


@pytest.mark.parametrize("driver", ["pg8000", "psycopg2"])
def test_mistakes_are_one_line_without_the_password(driver, folder, postgres, capsys, monkeypatch):
    pytest.importorskip(driver)
    address = postgres.url.replace("pg8000", driver)

    def message(*arguments):
        with pytest.raises(SystemExit) as stop:
            tools(["sweep", *arguments])
        assert stop.value.code == 2
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        return said.err

    study = SharedStudy(storage_url(address), driver)
    study.join(Sweep(yaml.safe_load(Path("sweep.yaml").read_text())), {"sweep": {"method": "random"}}, 0, 3)
    at = ["--storage", address, "--study", driver]
    assert f"study {driver} of postgresql://me@127.0.0.1:{postgres.port}/postgres has another sweep: sweep.method" in (
        error := message("sweep.yaml", *at)
    )
    assert "Give another --study, or the settings that it was started with" in error
    assert "has no study 'other': those there are" in message("--status", "--storage", address, "--study", "other")
    assert "--status only looks: leave out --runs" in message("--status", "--runs", "3")
    assert "which study? give the sweep file" in message("--status")
    assert "sweep_sweep has no study.db" in message("sweep.yaml", "--status")
    assert "which sweep? give its file" in message("--runs", "3")
    wrong = address.replace("me:", "you:")
    assert 'password authentication failed for user "you"' in message("sweep.yaml", "--storage", wrong)
    wrong = address.replace("/postgres", "/nowhere")
    assert 'database "nowhere" does not exist' in message("sweep.yaml", "--storage", wrong)
    assert "--storage is no URL of a database" in message("sweep.yaml", "--storage", f"me:{SECRET}")
    assert "needs a driver that is not installed" in message("sweep.yaml", "--storage", f"nosql://me:{SECRET}@host/x")
    monkeypatch.setattr(shared_study, "PATIENCE", 1.0)
    away = f"postgresql+{driver}://me:{SECRET}@127.0.0.1:1/x?password={SECRET}"
    assert "start it, or correct --storage" in message("sweep.yaml", "--storage", away)


@pytest.fixture
def shared(tmp_path):
    """Makes workers of one study of three runs."""
    config = {"method": "grid", "metric": {"name": "x"}, "parameters": {"model.tau": {"values": [1, 2, 3]}}}
    config["early_terminate"] = {"type": "hyperband", "min_iter": 2, "eta": 2}

    def make(place=None, **settings):
        worker = SharedStudy(storage_url(f"sqlite:///{tmp_path}/study.db"), "sweep", lost_after=0.6)
        worker.join(Sweep(config), {}, 0, settings.get("runs"))
        if place is not None:
            worker._worker = {"host": "host", "pid": 1, "started": "1", "place": place}
        return worker

    return make


def test_a_worker_on_another_machine_is_lost_without_a_sign_of_life(shared):
    one, other = shared("another machine"), shared()
    trial = one.claim()
    assert one.draw(trial) in ({"model.tau": tau} for tau in (1, 2, 3))
    with Beats(trial):  # signs of life
        drawn = [other.claim(), other.claim()]
        limit = time.monotonic() + 1.5
        while time.monotonic() < limit:
            other._end_lost()
            time.sleep(0.1)
    assert other.study.get_trials()[trial.number].state == TrialState.RUNNING
    for claimed in drawn:
        other.draw(claimed)
        other.tell(claimed, {}, TrialState.COMPLETE, 1.0)
    again = other.claim()  # waits until the first one is lost
    assert again.number == 3
    assert other.draw(again) == one.draw(trial)
    other.tell(again, {}, TrialState.COMPLETE, 1.0)
    with pytest.raises(TakenError):  # it was only slow
        one.tell(trial, {}, TrialState.COMPLETE, 1.0)
    assert other.claim() is None
    assert [run.result.number for run in one.runs()] == [3, 1, 2]


def test_a_run_that_is_worse_than_another_workers_is_stopped(shared):
    one, other = shared().claim(), shared().claim()
    pruned = []
    for step in (1, 2):
        for trial, value in ((one, 0.2), (other, 0.9)):  # less is better
            trial.report(value, step)
            pruned.append(trial.should_prune())
    assert pruned == [False, False, False, True]


def test_a_run_that_loses_every_worker_is_given_up(shared):
    one = shared()
    for _ in range(shared_study.ATTEMPTS):
        one.study.tell(one.claim().number, state=TrialState.FAIL)
    two = [one.claim(), one.claim()]
    assert {one.draw(trial)["model.tau"] for trial in two} < {1, 2, 3}
    assert one.runs()[0].is_over
    assert one.runs()[0].result is None


def test_one_that_was_stopped_is_not_lost(shared):
    one = shared()
    for _ in range(shared_study.ATTEMPTS + 2):
        one.give_back(one.claim())
    assert one.runs()[0].lost == 0
    assert not one.runs()[0].is_over


def test_what_two_workers_queued_again_is_made_once(shared):
    one = shared()
    one.give_back(one.claim())
    (run,) = one.runs()
    one._again(run)
    one._again(run)
    first, second = one.claim(), one.claim()
    assert [first.number, second.number] == [1, 3]  # 2 was dropped
    assert first.user_attrs["again"] == 0
    assert "again" not in second.user_attrs


def test_more_runs_than_planned_are_left_to_a_longer_plan(shared):
    one = shared(runs=1)
    late = one.study.ask()
    one.study.ask()
    assert [len(run.trials) for run in by_run(one.study.get_trials())] == [1, 1]
    assert not one._is_mine(optuna.trial.Trial(one.study, late._trial_id + 1), 1)
    assert one._is_mine(late, 1)
    assert shared(runs=3).number() == one.number() == 3


def test_urls_are_shown_without_what_is_secret(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", SECRET)
    url = storage_url("postgresql://me@host/db?sslmode=require")
    assert url.password == SECRET
    assert shown_url(url) == "postgresql://me@host/db"
    monkeypatch.delenv("PGPASSWORD")
    assert shown_url(storage_url(f"mysql+pymysql://me:{SECRET}@host/db?password={SECRET}")) == "mysql://me@host/db"
    with pytest.raises(SettingError, match="no URL of a database") as error:
        storage_url(SECRET)
    assert SECRET not in str(error.value)


@pytest.mark.slow
def test_three_workers_train_on_postgresql(tmp_path, postgres, monkeypatch):
    """Trainings as they are: `gscnn-fit` of the tiny network, one worker killed, the database restarted."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "tiny.yaml", epochs=2)
    rates = [0.001, 0.002, 0.004, 0.008, 0.016]
    write_sweep(
        tmp_path, rates, parameters={"optimizer.lr": {"values": rates}},
        command=["${program}", "fit", "--config", "tiny.yaml", "${args}"],
    )  # fmt: skip
    arguments = ["--storage", postgres.url, "--study", "real"]
    workers = [start(*arguments, "--out", f"out{index}") for index in range(3)]
    wait_for(lambda: list(tmp_path.glob("out0/run_*/metrics.csv")), 180)
    os.kill(workers[0].pid, signal.SIGKILL)
    postgres.stop()
    time.sleep(3)
    postgres.start()
    for worker in workers[1:]:
        worker.join(500)
        assert worker.exitcode == 0, printed(worker)
    runs = json.loads((tmp_path / "out2/sweep.json").read_text())["runs"]
    assert [run["state"] for run in runs] == ["complete"] * 5
    assert sorted(run["values"]["optimizer.lr"] for run in runs) == rates
    assert len({run["number"] for run in runs}) == 5
    finished = {path.parent.name for path in tmp_path.glob("out*/run_*/scores_val.json")}
    assert finished == {f"run_{run['number']:03}" for run in runs}
    assert len(list(tmp_path.glob("out*/run_???"))) == 6  # that of the killed worker, too
