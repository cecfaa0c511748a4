"""The processes of a training on several devices: when one is lost all of them end, and one of them says why."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from gscnn_lightning.errors import GSCNNError, SettingError, TrainingError

PATIENCE = 10.0
"""Seconds that the main thread has to notice by itself that another process is gone; over NCCL it never does."""

_LAST_WORDS = 2.0
"""Seconds that other processes have to end by themselves when this one ends with an error."""

_LAUNCHER = "GSCNN_LAUNCHER"
_SEVERED = re.compile(r"gloo[/:]|NCCL|Connection (reset|closed) by peer|Broken pipe|ProcessGroup")
_TOLD = "gscnn_told"
_NUMBERS = {"MASTER_PORT": range(1, 65536), **dict.fromkeys(("NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"), range(2**31))}


def check_environment() -> None:
    """Look at what tells the processes of a training how to find each other.

    Raises:
        SettingError: a variable is no number, or no port.
    """
    for name, possible in _NUMBERS.items():
        value = os.environ.get(name, "")
        if value and not (value.isdecimal() and int(value) in possible):
            known = f"{possible[0]} to {possible[-1]}"
            raise SettingError(f"{name} in the environment is {value}: give a number ({known}), or unset it")


def check_launched(trainer: Trainer) -> None:
    """Compare what a launcher has started with what the trainer counts on.

    Lightning would wait for processes that nobody has started, or train in each on its own, all into one folder.

    Raises:
        SettingError: numbers of nodes or devices differ, or this node cannot find the first one. Said once per node.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, LightningEnvironment):
        _check_node(trainer.num_nodes)
        return
    started = _started_by(environment)
    if started is None:
        return
    who, world, nodes = started
    devices = trainer.num_devices  # the strategy's own number of processes is that of the launcher
    if trainer.num_nodes * devices == world and nodes in (None, trainer.num_nodes):
        return
    if environment.local_rank() != 0:
        time.sleep(PATIENCE)  # or who has started them ends the one that is about to say it
        sys.exit(2)
    name, value = ("devices", devices) if nodes in (None, trainer.num_nodes) else ("num_nodes", trainer.num_nodes)
    nodes = nodes or trainer.num_nodes
    there = f"{world} process{'es' * (world > 1)} on {nodes} node{'s' * (nodes > 1)}"
    raise SettingError(
        f"trainer.{name} is {value}, so that {trainer.num_nodes} x {devices} processes are to train (nodes x devices), "
        f"and {who} has started {there}: give --trainer.num_nodes {nodes} --trainer.devices {world // nodes}, or start "
        "as many as are to train"
    )


def _started_by(environment: ClusterEnvironment) -> tuple[str, int, int | None] | None:
    """Who has started the processes of a training, how many, and on how many nodes, as far as that is known."""
    if isinstance(environment, TorchElasticEnvironment):
        world = environment.world_size()
        each = os.environ.get("LOCAL_WORLD_SIZE")
        return "torchrun", world, None if each is None else world // int(each)
    if isinstance(environment, SLURMEnvironment):
        nodes = os.environ.get("SLURM_NNODES")
        return "SLURM", environment.world_size(), None if nodes is None else int(nodes)
    return None


def _check_node(nodes: int) -> None:
    number = int(os.environ.get("NODE_RANK") or 0)
    if nodes == 1 or number == 0:
        return
    if number >= nodes:
        raise SettingError(
            f"NODE_RANK in the environment is {number}, and trainer.num_nodes is {nodes}: nodes count from 0 to "
            f"{nodes - 1}"
        )
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise SettingError(
            f"NODE_RANK in the environment is {number}, and {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there: the command on node 0 says when it starts what to set"
        )


class _Launcher(_SubprocessScriptLauncher):
    """Lightning's launcher without its observer, which kills this process, too, and says nothing."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:  # noqa: ANN401
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            os.environ[_LAUNCHER] = str(os.getpid())
            try:
                self._call_children_scripts()
            finally:
                del os.environ[_LAUNCHER]
            if self.num_nodes > 1:
                sys.stderr.write(f"{self._what_is_waited_for()}; at most half an hour, or trainer.strategy.timeout\n")
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)

    def _what_is_waited_for(self) -> str:
        environment = self.cluster_environment
        node, address, port = environment.node_rank(), environment.main_address, environment.main_port
        if node > 0:
            return f"node {node} of {self.num_nodes} waits for the first one, at {address}, port {port}"
        here = address if "MASTER_ADDR" in os.environ else socket.gethostname()
        return (
            f"node 0 of {self.num_nodes} waits for the others: start the same command there, with MASTER_ADDR={here}, "
            f"MASTER_PORT={port} and NODE_RANK=1 and so on in the environment"
        )


@dataclass(frozen=True)
class _Lost:
    """A process that is gone.

    Attributes:
        words: which one, and how, in words.
        teller: whether this process is the one to say so; None if the first that asks is.
    """

    words: str
    teller: bool | None = None


class Processes:
    """What one process of a training knows of the others.

    Args:
        trainer: its launcher is watched, or who has started this process.
        ending: what is to be said after the error itself: what was saved, and how to go on.
    """

    def __init__(self, trainer: Trainer, ending: Callable[[BaseException], str]) -> None:
        self._size, self._ending = trainer.world_size, ending
        self._children: list[subprocess.Popen[bytes]] = []
        self._first_child = 1
        launcher = trainer.strategy.launcher
        if type(launcher) is _SubprocessScriptLauncher:
            environment = launcher.cluster_environment
            launcher = _Launcher(environment, launcher.num_processes, launcher.num_nodes)
            self._first_child = environment.node_rank() * launcher.num_processes + 1
            trainer.strategy._launcher = launcher
        self._launcher = launcher if isinstance(launcher, _Launcher) else None
        by_torchrun = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._parent = int(os.environ[_LAUNCHER]) if _LAUNCHER in os.environ else by_torchrun
        self._over, self._word = threading.Event(), threading.Lock()
        if self._size > 1:
            threading.Thread(target=self._watch, daemon=True, name="other-processes").start()

    def explain(self, error: BaseException) -> GSCNNError | None:
        """What an exception says about other processes; None if it says nothing about them."""
        if self._size == 1:
            return None
        if threading.current_thread() is threading.main_thread():
            # What has started the processes ends the others when one is gone; this one is ending, and has to say why.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for cause in _all_causes(error):
            reason = " ".join(str(cause).split())
            address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
            if "EADDRINUSE" in reason:
                return SettingError(
                    f"MASTER_PORT is {port}, which another program of this machine uses: set it to a free port, or "
                    "unset it, so that one is looked for"
                )
            came = re.search(r"[Tt]imed out after .*? waiting for clients\. (\d+)/(\d+) clients joined", reason)
            if came is not None:
                return TrainingError(
                    f"{came[1]} of {came[2]} processes have come to {address}, port {port}: start the same command on "
                    "all nodes, with this MASTER_ADDR and MASTER_PORT and NODE_RANK 0, 1 and so on in the environment"
                )
            if "client socket" in reason:
                return TrainingError(
                    f"the first process of the training does not answer at {address}, port {port}: check MASTER_ADDR "
                    "and MASTER_PORT in the environment, and whether the command runs on the node with NODE_RANK 0"
                )
            if isinstance(cause, torch.distributed.DistError) or (
                isinstance(cause, RuntimeError) and _SEVERED.search(reason)
            ):
                lost = self._wait_for_lost()
                return TrainingError(
                    "another process of this training is gone, or does not answer; what it printed, or what started "
                    "it, says why"
                    if lost is None
                    else lost.words
                )
        return None

    def has_the_word(self) -> bool:
        """Whether this process is the one that says why all of them end; to be asked once, just before."""
        if not self._word.acquire(blocking=False):
            threading.Event().wait()  # the watch is about to end this process
        return self._size == 1 or self._is_teller(self._lost())

    def end(self, failed: bool) -> None:
        """Watch no more, and see the processes end that this one has started."""
        self._over.set()
        limit = time.monotonic() + (_LAST_WORDS if failed else 60.0)
        for child in self._started():
            try:
                child.wait(max(0.0, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _started(self) -> list[Any]:
        return [] if self._launcher is None else self._launcher.procs

    def _lost(self) -> _Lost | None:
        """The first process that is known to be gone."""
        for rank, child in enumerate(self._started(), self._first_child):
            code = child.poll()
            if code is not None and code < 0:
                by = f"{signal.Signals(-code).name}, as the system does where memory runs out"
                by = by if code == -signal.SIGKILL else signal.Signals(-code).name
                return _Lost(f"process {rank} (pid {child.pid}) of the {self._size} of this training was ended by {by}")
            if code and code < 128:  # above, it has stopped by a signal, as this one is about to
                return _Lost(f"process {rank} of the {self._size} of this training has ended", teller=False)
        if self._parent is not None and os.getppid() != self._parent:
            # It had the store, too, so that there is nobody to ask: the first of those that it has started tells.
            who, first = "torchrun", "0"
            if _LAUNCHER in os.environ:
                who, first = f"process 0 of the {self._size} of this training", "1"
            words = f"{who} (pid {self._parent}), which has started this one, is gone"
            return _Lost(words, os.environ.get("LOCAL_RANK") == first)
        return None

    def _is_teller(self, lost: _Lost | None) -> bool:
        return _is_first() if lost is None or lost.teller is None else lost.teller

    def _wait_for_lost(self) -> _Lost | None:
        knows = self._started() or _LAUNCHER in os.environ
        limit = time.monotonic() + (_LAST_WORDS if knows else 0.0)
        while (lost := self._lost()) is None and time.monotonic() < limit:
            time.sleep(0.05)
        return lost

    def _watch(self) -> None:
        """End this process where its main thread waits for ever for one that is gone."""
        while not self._over.wait(0.5):
            lost = self._lost()
            if lost is None:
                continue
            if self._over.wait(PATIENCE) or not self._word.acquire(blocking=False):
                return
            if self._is_teller(lost):
                error = TrainingError(lost.words)
                sys.stderr.write(f"gscnn-fit: error: {error}{self._ending(error)}\n")
                sys.stderr.flush()
            for process in (*self._started(), *multiprocessing.active_children()):
                process.kill()
            os._exit(2)


def _is_first() -> bool:
    """Whether no other process has asked this before; all of them ask the same store, as far as it is there."""
    with suppress(Exception):
        if torch.distributed.is_initialized():
            return torch.distributed.distributed_c10d._get_default_store().add(_TOLD, 1) == 1
    return True


def _all_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
