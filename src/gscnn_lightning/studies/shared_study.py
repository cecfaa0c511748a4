"""A study that any number of workers share, on one machine or many: who makes which run, and what if one is lost.

Every run of the plan begins with a trial of Optuna's, whose numbers the database gives out one after another. A trial
that ended without a result, because its worker is gone, is followed by another one with the same values, which says so
(``again``). Trials and their attributes are all there is: whoever looks at them comes to the same conclusion, so that
no worker has to be in charge.
"""

import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from gscnn_lightning import host
from gscnn_lightning.errors import SettingError
from gscnn_lightning.fit_settings import check_same_settings
from gscnn_lightning.studies.sweep_file import Sweep
from gscnn_lightning.terminal import say

PATIENCE = 300.0
"""Seconds that a database may be away."""

ATTEMPTS = 3
"""A run whose workers were lost that often, be it that it takes all memory, is given up."""

DATABASE_ERRORS = (StorageInternalError, sa.exc.SQLAlchemyError, ConnectionError, TimeoutError)

_LONGEST_PAUSE = 15.0
_BEATS = 6  # within the time after which a worker counts as lost
# What does not pass by waiting: users, passwords and names of databases, in the words or codes of their servers.
_FINAL = re.compile(
    r"authentication failed|does not exist|pg_hba|password|28P01|28000|3D000|[Aa]ccess denied|Unknown database|"
    r"permission denied|unable to open|not a database|readonly|malformed"
)
_DRIVERS = {"postgresql": ("psycopg2", "psycopg", "pg8000"), "postgres": ("psycopg2", "psycopg", "pg8000")}

Result = TypeVar("Result")


class TakenError(Exception):
    """The run is no longer this worker's: it was silent for too long, and another one has it now."""


@dataclass(frozen=True)
class Attempts:
    """A run of the plan: the trials that were made for it, the first one first."""

    trials: tuple[FrozenTrial, ...]

    @property
    def first(self) -> int:
        """Number of the trial that the run began with."""
        return int(self.trials[0].number)

    @property
    def result(self) -> FrozenTrial | None:
        """The trial that ended by itself, if there is one."""
        return next((trial for trial in self.trials if has_ended(trial)), None)

    @property
    def open(self) -> list[FrozenTrial]:
        """Trials that are running or wait for a worker."""
        return [trial for trial in self.trials if not trial.state.is_finished()]

    @property
    def lost(self) -> int:
        """Number of trials whose worker was lost, without those that were stopped by somebody."""
        return sum(
            trial.state == TrialState.FAIL and not has_ended(trial) and "stopped" not in trial.user_attrs
            for trial in self.trials
        )

    @property
    def is_over(self) -> bool:
        """Whether nothing remains to be done."""
        return self.result is not None or self.lost >= ATTEMPTS

    @property
    def params(self) -> dict[str, Any]:
        """What was drawn, as Optuna keeps it."""
        return {name: value for trial in self.trials for name, value in trial.params.items()}


def has_ended(trial: FrozenTrial) -> bool:
    """Whether a trial ended by itself, well or not, in place of being lost or stopped."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (
        trial.state == TrialState.FAIL and "message" in trial.user_attrs
    )


def by_run(trials: Sequence[FrozenTrial]) -> list[Attempts]:
    """Trials by the run of the plan that they are for, in the order of the plan."""
    runs: list[list[FrozenTrial]] = []
    of_trial: dict[int, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        run = of_trial.get(trial.user_attrs.get("again", -1))
        if run is None:
            run = []
            runs.append(run)
        run.append(trial)
        of_trial[trial.number] = run
    return [Attempts(tuple(run)) for run in runs]


class SharedStudy:
    """A study in a database, as one of its workers sees it.

    Args:
        storage: URL of the database, see `storage_url`.
        name: of the study.
        lost_after: seconds without a sign of life after which workers on other machines take this one for lost.

    Raises:
        SettingError: the database cannot be used.
    """

    def __init__(self, storage: sa.engine.URL, name: str, lost_after: float = 60.0) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name, self.shown = name, shown_url(storage)
        self._url, self._every = storage, lost_after / _BEATS
        self._worker = _this_process()
        self._seen: dict[int, tuple[Any, float]] = {}
        self._patience = PATIENCE
        self._storage = self.patiently(self._connect)
        self._study: optuna.Study | None = None

    @property
    def study(self) -> optuna.Study:
        """The study, once it was joined or looked at."""
        if self._study is None:
            raise RuntimeError("join the study first, or look at it")
        return self._study

    def names(self) -> list[str]:
        """Names of all studies of the database."""
        return sorted(self.patiently(lambda: optuna.get_all_study_names(self._storage)))

    def look(self) -> Mapping[str, Any]:
        """Open a study that is there, to look at it; what it was made with.

        Raises:
            SettingError: there is none of that name, or it is none of ``gscnn sweep``.
        """
        names = self.names()
        if self.name not in names:
            there = f"those there are {', '.join(names)}" if names else "there is none yet"
            raise SettingError(f"{self.shown} has no study {self.name!r}: {there}. Give --study NAME")
        self._study = self.patiently(lambda: optuna.load_study(study_name=self.name, storage=self._storage))
        return self.patiently(lambda: dict(self.study.user_attrs))

    def join(self, plan: Sweep, settings: Mapping[str, Any], seed: int, runs: int | None) -> None:
        """Take part in the study; the first one makes it.

        Args:
            plan: what it draws from.
            settings: what it is made with: all workers give the same.
            seed: of the drawing; that of the first worker counts.
            runs: number of runs in all, for all workers; None for what is there, or else what the plan says.

        Raises:
            SettingError: the study was made with other settings.
        """
        self.plan, self._settings = plan, settings
        direction = "minimize" if plan.minimizes else "maximize"
        # A new one each time: Optuna's cache of what was read does not outlive a database that was made anew.
        self._study = self.patiently(
            lambda: optuna.create_study(
                storage=self._storage, study_name=self.name, direction=direction, load_if_exists=True
            )
        )
        self.study.pruner = _pruner(plan.early_terminate)
        kept = self.patiently(lambda: dict(self.study.user_attrs))
        known = kept.get("runs")
        number = int(known) if runs is None and known is not None else plan.number_of_runs(runs)
        self._check(kept)
        news = {"settings": settings, "seed": seed, "runs": number}
        for key, value in news.items():
            if key not in kept or (key == "runs" and kept[key] != value):
                self.patiently(lambda key=key, value=value: self.study.set_user_attr(key, value))  # type: ignore[misc]
        if known is not None and number != known:
            say(f"study {self.name}: {number} runs in all now, for all workers, in place of {known}")

    def runs(self) -> list[Attempts]:
        """The runs of the plan, as far as they have begun."""
        return self._runs()[: self.number()]

    def number(self) -> int:
        """Number of runs in all."""
        return int(self.patiently(lambda: self.study.user_attrs).get("runs", 0))

    def claim(self) -> optuna.Trial | None:
        """The next run for this worker, which no other one has; waits for those of others. None: all is done.

        Raises:
            SettingError: another worker has other settings, or the database is away for long.
        """
        waits = False
        while True:
            kept = self.patiently(lambda: dict(self.study.user_attrs))
            self._check(kept)
            number = int(kept["runs"])
            self._end_lost()
            runs = self._runs()
            planned = runs[:number]
            for run in planned:
                if not run.is_over and not run.open:
                    self._again(run)
            if len(runs) < number or any(not run.is_over and _waits(run) for run in self._runs()[:number]):
                trial = self.patiently(self.study.ask)
                with suppress(UpdateFinishedTrialError):
                    if self._is_mine(trial, number):
                        self._begin(trial, int(kept["seed"]))
                        return trial
                self.give_back(trial)
                continue
            if all(run.is_over for run in planned):
                return None
            if not waits:
                waits = True
                left = sum(not run.is_over for run in planned)
                one = "one run of another worker" if left == 1 else f"{left} runs of other workers"
                say(f"waiting for {one}, in case its worker is lost; ctrl-C leaves it to whoever goes on")
            time.sleep(min(self._every, 5.0))

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values of all settings for a run of this worker."""
        return self.patiently(lambda: self.plan.draw(trial))

    def give_back(self, trial: optuna.Trial) -> None:
        """Leave a run to whoever comes next."""

        def give() -> None:
            trial.set_user_attr("stopped", True)
            self.study.tell(trial, state=TrialState.FAIL)

        self._mine(trial, give, TrialState.FAIL)

    def tell(self, trial: optuna.Trial, attributes: Mapping[str, Any], state: TrialState, value: float | None) -> None:
        """Say how a run of this worker ended.

        Raises:
            TakenError: another worker has it.
        """

        def tell() -> None:
            for key, content in attributes.items():
                trial.set_user_attr(key, content)
            self.study.tell(trial, value, state)

        if not self._mine(trial, tell, state):
            raise TakenError

    def patiently(self, call: Callable[[], Result]) -> Result:
        """What a call gives; while the database is away, it is called again for some minutes.

        Raises:
            SettingError: the database is away for longer, or it refuses to be used.
        """
        began, pause = time.monotonic(), 0.5
        told = False
        while True:
            try:
                result = call()
            except DATABASE_ERRORS as error:
                # While it was away nobody could give a sign of life.
                self._seen.clear()
                reason = self._reason(error)
                waited = time.monotonic() - began
                if _FINAL.search(reason) or waited + pause > self._patience:
                    self._patience = 0.0  # what is left to be done on the way out does not wait once more
                    raise SettingError(
                        f"the database {self.shown} cannot be used ({reason})"
                        + (f", for {waited:.0f} s now" if waited > 1 else "")
                        + ": start it, or correct --storage; the same command goes on where it was"
                    ) from error
                # Once may be two workers that make its tables at the same time.
                if pause > 0.5 and not told:
                    told = True
                    say(f"the database {self.shown} does not answer ({reason}): trying for {PATIENCE / 60:.0f} minutes")
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if told:
                    say("the database answers again")
                return result

    def _connect(self) -> optuna.storages.RDBStorage:
        seconds = 30
        drivers: dict[str, dict[str, Any]] = {
            "pysqlite": {"timeout": 60},
            "pg8000": {"timeout": seconds},
            # Or a server that is gone without a word would be waited for as long as TCP likes.
            "psycopg2": {"connect_timeout": 10, "keepalives_idle": seconds, "tcp_user_timeout": 1000 * seconds},
            "psycopg": {"connect_timeout": 10, "keepalives_idle": seconds, "tcp_user_timeout": 1000 * seconds},
        }
        try:
            driver = self._url.get_driver_name()
            more = {"connect_args": drivers.get(driver, {}), "pool_pre_ping": True}
            text = self._url.render_as_string(hide_password=False)
            storage = optuna.storages.RDBStorage(text, engine_kwargs=more)
        except (ImportError, sa.exc.NoSuchModuleError) as error:
            raise SettingError(
                f"--storage {self.shown} needs a driver that is not installed ({_first_line(error)}): "
                "pip install 'gscnn-lightning[sweeps]' brings one for postgresql://"
            ) from error
        except RuntimeError as error:  # tables of another version of Optuna; its errors of databases are no such
            if isinstance(error, DATABASE_ERRORS):
                raise
            raise SettingError(f"{self.shown}: {_first_line(error)}") from error
        if self._url.get_backend_name() == "sqlite":
            _lock_at_once(storage.engine)
        return storage

    def _reason(self, error: BaseException) -> str:
        cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
        text = _first_line(getattr(cause, "orig", None) or cause)
        return text.replace(str(self._url.password), "***") if self._url.password else text

    def _check(self, kept: Mapping[str, Any]) -> None:
        if "settings" in kept:
            what = f"study {self.name} of {self.shown} has another sweep"
            check_same_settings(kept["settings"], self._settings, what, "--study")

    def _runs(self) -> list[Attempts]:
        return by_run(self.patiently(lambda: self.study.get_trials(deepcopy=False)))

    def _is_mine(self, trial: optuna.Trial, number: int) -> bool:
        """Whether a trial is to be run: it is within the plan, and the only one for its run."""
        for run in self._runs()[:number]:
            if any(other.number == trial.number for other in run.trials):
                return not run.is_over and min(other.number for other in run.open) == trial.number
        return False

    def _again(self, run: Attempts) -> None:
        attributes = {"again": run.first}
        self.patiently(lambda: self.study.enqueue_trial(run.params, user_attrs=attributes))

    def _begin(self, trial: optuna.Trial, seed: int) -> None:
        attributes = {"worker": self._worker, "beat": [0, self._every]}
        for key, value in attributes.items():
            self.patiently(lambda key=key, value=value: trial.set_user_attr(key, value))  # type: ignore[misc]
        # By its number, or two workers would draw the same; and one worker the same as all of them.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = {
                "grid": lambda: _GridInTurn(self.plan.grid, seed, self._runs),
                "random": lambda: optuna.samplers.RandomSampler(seed=seed + trial.number),
                # Others are at work near what looks best, too.
                "bayes": lambda: optuna.samplers.TPESampler(seed=seed + trial.number, constant_liar=True),
            }[self.plan.method]()

    def _mine(self, trial: optuna.Trial, call: Callable[[], None], state: TrialState) -> bool:
        """Whether the last word on a trial was this worker's."""
        try:
            self.patiently(call)
        except (UpdateFinishedTrialError, ValueError):  # it has ended, perhaps by this call, whose answer was lost
            found = self.patiently(lambda: self.study.get_trials(deepcopy=False))[trial.number]
            return bool(found.state == state and found.user_attrs.get("worker") == self._worker)
        return True

    def _end_lost(self) -> None:
        """End the trials of workers that are gone."""
        now = time.monotonic()
        for run in self._runs():
            for trial in run.open:
                if trial.state != TrialState.RUNNING or not self._is_lost(trial, now):
                    continue
                try:
                    self.patiently(lambda trial=trial: self.study.tell(trial.number, state=TrialState.FAIL))  # type: ignore[misc]
                except (UpdateFinishedTrialError, ValueError):
                    continue  # ended, by its worker or for another that looked at the same time
                say(f"run {trial.number}: its worker {worker_name(trial)} is gone")

    def _is_lost(self, trial: FrozenTrial, now: float) -> bool:
        worker = trial.user_attrs.get("worker", {})
        if self._worker["place"] and worker.get("place") == self._worker["place"]:
            return host.start_of(int(worker["pid"])) != worker["started"]
        count, every = trial.user_attrs.get("beat", [0, self._every])
        beat, since = self._seen.get(trial.number, (None, now))
        if beat != count:
            self._seen[trial.number] = count, now
            return False
        return now - since > every * _BEATS


class Beats:
    """Signs of life of a run while it lasts; a context.

    Args:
        trial: the run.

    Attributes:
        is_taken: whether another worker has it, as there was no sign of life for too long.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.is_taken = False
        self._trial, self._over = trial, threading.Event()
        self._thread = threading.Thread(target=self._give, daemon=True, name="signs-of-life")

    def __enter__(self) -> "Beats":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60.0)

    def _give(self) -> None:
        count, every = self._trial.user_attrs["beat"]
        while not self._over.wait(every):
            count += 1
            try:
                self._trial.set_user_attr("beat", [count, every])
            except UpdateFinishedTrialError:
                self.is_taken = True
                return
            except DATABASE_ERRORS:
                continue  # whoever looks for signs of life needs the database, too


class _GridInTurn(optuna.samplers.BaseSampler):
    """Points of a grid in an order that depends on the seed alone: each run of the plan has its own.

    Optuna's own sampler picks among the points that it sees nobody at, so that two workers may pick the same one.
    """

    def __init__(self, grid: Mapping[str, Sequence[Any]], seed: int, runs: Callable[[], list[Attempts]]) -> None:
        self._grid, self._seed, self._all_runs = grid, seed, runs

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: object
    ) -> Any:  # noqa: ANN401
        """The value of a parameter at the point of the trial's run."""
        sizes = [len(values) for values in self._grid.values()]
        order = [int(point) for point in np.random.default_rng(self._seed).permutation(int(np.prod(sizes)))]
        # Folders of former versions have points that Optuna's own sampler picked.
        runs, picked = [], set()
        for run in self._all_runs():
            point = run.trials[0].system_attrs.get("grid_id")
            if point is None:
                runs.append(run)
            elif not any(t.number == trial.number for t in run.trials):
                picked.add(tuple(str(run.params.get(name)) for name in self._grid))
        place = next(i for i, run in enumerate(runs) if any(t.number == trial.number for t in run.trials))
        points = []
        for point in order:
            places = dict(zip(self._grid, np.unravel_index(point, sizes), strict=True))
            values = {name: self._grid[name][int(index)] for name, index in places.items()}
            if tuple(map(str, values.values())) not in picked:
                points.append(values)
        return points[place % len(points)][param_name]


def storage_url(text: str) -> sa.engine.URL:
    """The URL of a database, with a driver that is installed.

    Args:
        text: as SQLAlchemy takes it, such as postgresql://user:password@host/database or sqlite:///study.db. Without a
            password, that of PGPASSWORD counts for PostgreSQL.

    Raises:
        SettingError: it is no such URL. The message does not repeat it, as there may be a password in it.
    """
    from importlib.util import find_spec

    try:
        url = sa.engine.make_url(text)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise SettingError(
            "--storage is no URL of a database: write it as postgresql://user:password@host:5432/database, "
            "or sqlite:////folder/study.db"
        ) from error
    name, driver = url.drivername.partition("+")[::2]
    if name in _DRIVERS:
        found = next((name for name in _DRIVERS[name] if find_spec(name)), "pg8000")
        url = url.set(drivername=f"postgresql+{driver or found}")
        if not url.password and os.environ.get("PGPASSWORD"):
            url = url.set(password=os.environ["PGPASSWORD"])
    return url


def shown_url(url: sa.engine.URL) -> str:
    """A URL as it may be printed: without password, and without what may hold one."""
    create = sa.engine.URL.create
    return create(url.get_backend_name(), url.username, None, url.host, url.port, url.database).render_as_string()


def worker_name(trial: FrozenTrial) -> str:
    """Host and process of a trial's worker, as they are shown; "" if there is none yet."""
    worker = trial.user_attrs.get("worker")
    return f"{worker['host']}:{worker['pid']}" if worker else ""


def _waits(run: Attempts) -> bool:
    return any(trial.state == TrialState.WAITING for trial in run.open)


def _first_line(error: Any) -> str:  # noqa: ANN401
    """What an error says first; that of pg8000 is a mapping of codes, of which M is the message."""
    said = error.args[0] if getattr(error, "args", ()) else error
    if isinstance(said, Mapping):
        said = f"{said.get('M', said)} [{said.get('C', '')}]"
    lines = str(said).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _this_process() -> dict[str, Any]:
    """What tells this process from all others: on any host, and later on."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": host.start_of(pid), "place": host.machine()}


def _lock_at_once(engine: sa.Engine) -> None:
    """Have SQLite lock the file when a transaction begins: reading first and writing then would be no one step."""

    def connect(connection: Any, _: object) -> None:  # noqa: ANN401
        connection.isolation_level = None  # Python would begin transactions by itself, and later

    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    sa.event.listen(engine, "connect", connect)
    sa.event.listen(engine, "begin", begin)
    engine.dispose()


def _pruner(early_terminate: Mapping[str, Any] | None) -> optuna.pruners.BasePruner:
    """W&B's hyperband: after min_iter, min_iter * eta, ... values of the metric only the best 1 / eta go on."""
    if early_terminate is None:
        return optuna.pruners.NopPruner()
    eta = int(early_terminate.get("eta", 3))
    first = early_terminate.get("min_iter")
    if first is None and "max_iter" in early_terminate:
        first = early_terminate["max_iter"] // eta ** early_terminate.get("s", 1)
    if early_terminate.get("type") != "hyperband" or first is None:
        raise SettingError(f"early_terminate is {dict(early_terminate)}: use hyperband with min_iter, or leave it out")
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(int(first), 1), reduction_factor=eta)
