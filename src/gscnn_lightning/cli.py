"""The ``gscnn-fit`` command: LightningCLI with the task fixed and the data module chosen by class path."""

import difflib
import inspect
import json
import logging
import math
import os
import pydoc
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, strategies
from pytorch_lightning import callbacks as lightning_callbacks
from pytorch_lightning import loggers as lightning_loggers
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.callbacks import ProgressBar as AnyProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.strategies import StrategyRegistry
from pytorch_lightning.trainer.connectors import checkpoint_connector
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch.optim import Optimizer

from gscnn_lightning import callbacks  # with the data modules: also makes short names such as `Pictures` known
from gscnn_lightning import data as data_modules
from gscnn_lightning.agreement import check_end, same
from gscnn_lightning.allocator import keep_memory
from gscnn_lightning.checkpoint import read_checkpoint
from gscnn_lightning.checkpoint_io import WholeCheckpoints
from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.optim import SGD
from gscnn_lightning.parsing import HelpFormatter, plain_message
from gscnn_lightning.processes import Processes, check_environment, check_launched
from gscnn_lightning.refusals import refusal
from gscnn_lightning.requeue import clear, job_checkpoint, job_folder
from gscnn_lightning.run_folder import BEST, LAST, RunFolder
from gscnn_lightning.score_names import MIOU
from gscnn_lightning.shipped_configs import find_config, is_written_out, read_config
from gscnn_lightning.task import MACHINE_SETTINGS, PREDICTION_SETTINGS, GSCNNTask
from gscnn_lightning.terminal import take_any_text
from gscnn_lightning.tracking import check_installed, finish_wandb, log_config, run_loggers, saved_wandb_run_id

SUBCOMMANDS = ("fit", "validate", "test", "predict")

# Said by the libraries below on every run, about nothing that a user can or should change.
_EXPECTED_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen stages are meant to be
    r"The dirpath has changed from",  # a resumed run has a folder of its own
    r"It is recommended to use `self.log\(.*sync_dist=True",  # scores are the same in every process already
)
_EXPECTED_MESSAGES = re.compile(r"💡|TPU available|`Trainer.fit` stopped|model summary callbacks")

_CHOSEN_BY_LIGHTNING = ("last", "hpc")
"""Values of ckpt_path that Lightning makes a file of, in the folder of the run, or none."""

_SEARCHES = ("find_batch_size", "find_lr")

_SHARDED = (strategies.FSDPStrategy, strategies.DeepSpeedStrategy, strategies.ModelParallelStrategy)

_NOT_OF_CHECKPOINTS = (*PREDICTION_SETTINGS, *MACHINE_SETTINGS, "pretrained", "backbone_weights", "optimizer")

DESCRIPTION = """Train and evaluate Gated-SCNN. Without a subcommand it fits.

examples:
  gscnn-fit --config scenes                          drawn street scenes, nothing to download
  gscnn-fit --config camvid --data.root CamVid
  gscnn-fit --config camvid --config ablation/control    the matched control, DeepLabv3+
  gscnn-fit --config cityscapes --trainer.devices 8 --trainer.strategy ddp
  gscnn-fit --config camvid --trainer.logger WandbLogger   also TensorBoardLogger
  gscnn-fit --config my/own.yaml                     a path means a path, a bare name a shipped config
  gscnn-fit validate --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  gscnn-fit fit --help                               every setting
With --ckpt_path, the model's settings are those in the checkpoint.
"""


class _Parser(LightningArgumentParser):
    """Parser whose errors are one message with a remedy, not a page of usage."""

    about = ""
    """What settings come from, if not from command line and configs."""

    given: Sequence[str] = ()
    """Arguments that are parsed, for the parsers within: of the settings of a class they know the last part only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        # Half a name would be taken for the whole, and a misspelling for another setting.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what was wrong and what may have been meant, and exit with 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        prog = parser.prog.replace(" [options]", "")
        if prog == "gscnn-fit" and self.given and self.given[0] in SUBCOMMANDS:
            prog = f"{prog} {self.given[0]}"
        known = _known_settings(parser)
        text = plain_message(message, lambda name: _full_name(name, self.given, known))
        value = re.search(r"Given value: ([\w.]+)$", message)
        linked = re.search(rf"\bmodel\.({'|'.join(_OF_THE_DATA)})\b", message)
        if linked is not None:
            text = f"--{_follows_from_data(linked[1])}"
        elif "Expected a dot import path string" in message and value is not None:
            names = {name.lower(): name for name in _class_names()}
            close = difflib.get_close_matches(value[1].lower(), names, n=1, cutoff=0.75)
            text += _meant([names[name] for name in close])
        elif text == " ".join(message.split()):  # not about a value, so a name may be wrong
            unknown = re.match(r"Option '(\w+)'", text)
            text += f" (--{_full_name(unknown[1], self.given, set())})" if unknown else ""
            text += _suggestion(message, known)
        if self.about:
            raise WeightsError(f"{self.about}{text}") from ex
        sys.stderr.write(f"{prog}: error: {text}\nAll settings: {prog} --help\n")
        sys.exit(2)


_OF_THE_DATA = ("num_classes", "class_names", "class_colors", "ignore_index")
"""Arguments of the task that the data module decides."""


def _follows_from_data(name: str) -> str:
    """What is wrong with giving one of them."""
    return (
        f"model.{name} follows from the data: leave it out, and choose the data by --data, or the classes of your own "
        "images by --data.classes"
    )


def _known_settings(parser: ArgumentParser) -> set[str]:
    """Names of all settings, those of the shipped data modules included."""
    known = {option[2:] for option in parser._option_string_actions if option.startswith("--")}
    known -= {f"model.{name}" for name in _OF_THE_DATA}
    data: Any = data_modules
    for module in (getattr(data, name) for name in data.__all__):
        if isinstance(module, type) and issubclass(module, LightningDataModule):
            known |= {f"data.{parameter}" for parameter in inspect.signature(module).parameters}
    return known


def _full_name(name: str, given: Sequence[str], known: set[str]) -> str:
    """The dotted name of a setting by its last part: as it was given, or the only one that ends so."""
    told, possible = ([n for n in names if n.endswith(f".{name}")] for names in (_names(given), known))
    return told[-1] if told else possible[0] if len(possible) == 1 and name not in known else name


def _names(given: Sequence[str]) -> list[str]:
    """Names of the settings among arguments."""
    return [word[2:].partition("=")[0].rstrip("+") for word in given if word.startswith("--")]


_ELSEWHERE = {
    **dict.fromkeys(("resume", "resume_from", "resume_from_checkpoint", "checkpoint_path"), "ckpt_path"),
    **dict.fromkeys(("load_from", "weights", "pretrained_weights"), "model.backbone_weights"),
    **dict.fromkeys(("epochs", "num_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("gpus", "num_gpus", "gpu_ids"), "trainer.devices"),
    **dict.fromkeys(("device",), "trainer.accelerator"),
    **dict.fromkeys(("workers",), "data.num_workers"),
    **dict.fromkeys(("batch", "samples_per_gpu"), "data.batch_size"),
    **dict.fromkeys(("imgsz", "img_size", "image_size"), "data.crop_size"),
    **dict.fromkeys(("seed",), "seed_everything"),
    **dict.fromkeys(("amp", "fp16", "half"), "trainer.precision"),
    **dict.fromkeys(("work_dir", "project", "output_dir"), "trainer.logger.save_dir"),
}
"""Names that other training tools have for a setting."""


def _suggestion(message: str, known: set[str]) -> str:
    """The settings that are spelt most like the unknown ones in a message, or are called so by other tools."""
    close: list[str] = []
    for word in {a or b for a, b in re.findall(r"--([\w.-]+)|[\"']([\w.-]+)[\"']", message)} - known:
        elsewhere = _ELSEWHERE.get(word.rpartition(".")[2].replace("-", "_").lower())
        if elsewhere is not None:
            close.append(elsewhere)
            continue
        # Nested errors name a setting without the part before the dot.
        names = {name if "." in word else name.rpartition(".")[2]: name for name in sorted(known) if "." in name}
        close += [names[k] for k in difflib.get_close_matches(word, names, n=2, cutoff=0.75)]
    return _meant([f"--{name}" for name in dict.fromkeys(close)])


def _meant(close: Sequence[str]) -> str:
    return f". Did you mean {' or '.join(close)}?" if close else ""


def _class_names() -> list[str]:
    """Short names of classes that settings take."""
    modules = (data_modules, callbacks, torch.optim, lightning_loggers, lightning_callbacks)
    return [name for module in modules for name in dir(module)]


class _InUtf8:
    """A parser that saves configs in UTF-8, whatever the locale."""

    def __init__(self, parser: ArgumentParser) -> None:
        self.dump = parser.dump

    def save(self, config: Namespace, path: str, *, skip_none: bool, **_: bool) -> None:
        Path(path).write_text(self.dump(config, skip_none=skip_none), encoding="utf-8")


class _SaveConfig(SaveConfigCallback):
    """Saves the config that ran in the run's directory, and with the trackers."""

    def __init__(self, parser: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(cast(Any, _InUtf8(parser)), *args, **kwargs)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hand it to the trackers; called in one process."""
        log_config(trainer.loggers, self.parser.dump(self.config, skip_none=False))


class GSCNNCLI(LightningCLI):
    """LightningCLI that links what the task must know about the data, and reports on every run.

    Args:
        args: arguments as on the command line; `sys.argv` by default.

    Raises:
        GSCNNError: a setting, or a file that it names, cannot be used, whoever has found that out; see `refusal`.
    """

    def __init__(self, args: list[str] | None = None) -> None:
        self._checkpoint: dict[str, Any] | None = None
        self._folder: Path | None = None
        self._job: Path | None = None
        self._processes: Processes | None = None
        failed = True
        try:
            super().__init__(
                GSCNNTask,
                LightningDataModule,
                parser_class=_Parser,
                subclass_mode_data=True,
                save_config_callback=_SaveConfig,
                seed_everything_default=0,
                trainer_defaults={
                    "precision": default_precision(),
                    "max_epochs": 50,
                    "log_every_n_steps": 10,
                    "logger": {
                        "class_path": "pytorch_lightning.loggers.CSVLogger",
                        "init_args": {"save_dir": "runs", "name": "default"},
                    },
                },
                parser_kwargs={"prog": "gscnn-fit", "description": DESCRIPTION, "formatter_class": HelpFormatter},
                auto_configure_optimizers=False,
                args=args,
            )
            failed = False
        except SystemExit as stop:
            failed = not isinstance(stop, callbacks.Stopped)
            raise
        except Exception as error:
            if self._folder is not None:
                with suppress(OSError):
                    self._folder.rmdir()  # if nothing has begun in it
            refused: GSCNNError | None = None if self._processes is None else self._processes.explain(error)
            refused = refused or self._unusable(error)
            refused = refused or refusal(error, *self._settings_and_defaults(), _names(_Parser.given))
            if self._processes is not None and not self._processes.has_the_word():
                sys.exit(2)
            if refused is None:
                error.add_note(self._ending(error).lstrip(". "))
                raise
            # A loading process hands its error over with its traceback in front.
            message = str(refused).rpartition(f"{type(refused).__name__}: ")[2].strip()
            raise type(refused)(f"{message}{self._ending(refused)}") from error
        finally:
            if self._processes is not None:
                self._processes.end(failed)

    def _ending(self, error: BaseException) -> str:
        """What is to be said after an error: what was saved, and how to go on."""
        listed: list[Callback] = getattr(getattr(self, "trainer", None), "callbacks", [])
        return next((each.ending(error) for each in listed if isinstance(each, callbacks.Interruption)), "")

    def _unusable(self, error: BaseException) -> WeightsError | None:
        """What an exception says of the checkpoint while Lightning takes up what is in it; None if it is another."""
        trace, path = error.__traceback__, getattr(getattr(self, "trainer", None), "ckpt_path", None)
        if path is None or isinstance(error, GSCNNError | MemoryError | torch.OutOfMemoryError):
            return None
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_filename == checkpoint_connector.__file__ and code.co_name.startswith(
                ("restore", "resume_start")
            ):
                reason = " ".join(str(error).split())[:300]
                return WeightsError(
                    f"checkpoint {path} cannot be gone on from ({type(error).__name__}: {reason}): it was altered or "
                    "comes from another version; give best.ckpt or last.ckpt of a run as they are"
                )
            trace = trace.tb_next
        return None

    def _settings_and_defaults(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What runs, and what would run without arguments; empty before arguments are parsed."""
        config = getattr(self, "config", None)
        if config is None:
            return {}, {}
        subcommand = config["subcommand"]
        both = config[subcommand].as_dict(), self._parser(subcommand).get_defaults().as_dict()
        for settings in both:
            settings["model"].pop("optimizer", None)  # is `optimizer`, for the user
        return both

    def _check_agreement(self, checkpoint: Mapping[str, Any], path: str) -> None:
        name = f"checkpoint {path}"
        self.model.check_checkpoint(checkpoint, name, self.subcommand == "fit")
        if self.subcommand != "fit":
            return
        # In the checkpoint's own folder, a training that was all but over is finished, as `gscnn ablate` does.
        run = self._folder
        if run is None or not Path(path).absolute().is_relative_to(run.absolute()):
            check_end(checkpoint, self.trainer.max_epochs, self.trainer.max_steps, name)
        saved = dict(checkpoint["hyper_parameters"].get("optimizer") or {}).get("init_args", {})
        now = self.model.settings.optimizer.get("init_args", {})
        changed = [name for name in now if name in saved and not same(saved[name], now[name])]
        if changed:
            told = ", ".join(f"optimizer.{name} {saved[name]} and not {now[name]}" for name in changed)
            asked = [name for name in changed if f"optimizer.{name}" in _names(_Parser.given)]
            if asked:
                raise SettingError(f"{name} goes on with {told}: its optimizer keeps its settings; leave them out")
            rank_zero_info(f"As in the checkpoint, not as in the config: {told}")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints, optimizer, default data and links."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "data": {"class_path": "gscnn_lightning.data.ScenesDataModule"},
                "checkpoint.monitor": f"val/{MIOU}",
                "checkpoint.mode": "max",
                "checkpoint.filename": BEST,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.add_argument(
            "--checkpoint_minutes",
            type=float,
            default=10.0,
            help="minutes between two checkpoints within an epoch, written to last.ckpt of the run; 0 for none",
        )
        parser.add_argument(
            "--find_lr",
            type=bool,
            default=False,
            help="look for a learning rate before the training, in 100 steps, and train with it; see RUN/lr_search.png",
        )
        parser.add_argument(
            "--find_batch_size",
            type=bool,
            default=False,
            help="look for the largest batch that the memory of the GPU holds before the training, and train with it",
        )
        parser.add_optimizer_args((Optimizer,))
        parser.set_defaults({"optimizer": SGD})
        parser.link_arguments("optimizer", "model.optimizer", compute_fn=_plain)
        for name in _OF_THE_DATA:
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse, with shipped configs by their names."""
        args = sys.argv[1:] if args is None else args
        with warnings.catch_warnings():
            # They are those of the command line, or of a command that hands them on.
            warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended to run from within Python")
            if isinstance(args, list):
                args = _Parser.given = _with_paths(args)
            super().parse_arguments(parser, args)
        self.check_before_start()

    def check_before_start(self) -> None:
        """Check checkpoint and loggers before minutes are spent on anything else.

        Raises:
            WeightsError: the checkpoint cannot be read, or there is none where one is needed.
            SettingError: a setting is out of range, or a logger needs a package that is missing.
        """
        subcommand = self.config["subcommand"]
        config = self.config[subcommand]
        if subcommand == "fit":
            self._go_on_as_job(config)
        path = config.get("ckpt_path")
        words = ("best", "registry") if subcommand == "fit" else ("best", "last", "hpc", "registry", None)
        if path in words:
            given = "ckpt_path is missing" if path is None else f"ckpt_path is {path}"
            why = (
                "a run begins in a folder of its own"
                if subcommand == "fit"
                else f"{subcommand} needs a trained network"
            )
            raise WeightsError(f"{given}: {why}; give a file, such as --ckpt_path RUN/checkpoints/best.ckpt")
        if path not in (None, *_CHOSEN_BY_LIGHTNING):
            self._checkpoint = read_checkpoint(path)
        _check_trainer(config["trainer"], subcommand)
        minutes = config["checkpoint_minutes"]
        if not 0 <= minutes < math.inf:
            raise SettingError(f"checkpoint_minutes is {minutes}: give minutes between checkpoints, or 0 for none")
        if subcommand == "fit":
            self._check_search(config)
        logger = config["trainer"]["logger"]
        check_installed([part["class_path"] for part in _listed(logger) if isinstance(part, Namespace)])

    def _check_search(self, config: Namespace) -> None:
        """Raise if there can be no search for a learning rate or batch size.

        Raises:
            SettingError: the training goes on, runs on several devices, or has no GPU whose memory could be filled.
        """
        asked = [name for name in _SEARCHES if config[name]]
        if not asked:
            return
        path = config.get("ckpt_path")
        if path is not None and self._job is not None:  # of the job's first start
            for name in asked:
                config[name] = False
        elif path is not None:
            raise SettingError(
                f"{asked[0]} is for new trainings, and ckpt_path is {path}: a training goes on with its own settings; "
                "leave one of them out"
            )
        if config["trainer"]["fast_dev_run"] and path is None:
            raise SettingError(
                f"{asked[0]} searches for many steps, and trainer.fast_dev_run is on: leave one of them out"
            )

    def before_fit(self) -> None:
        """Search for what the command line asks to be found, and train with it.

        Raises:
            SettingError: there can be no search, or it found nothing.
        """
        config = self.config["fit"]
        asked = [name for name in _SEARCHES if config[name]]
        if not asked:
            return
        if self.trainer.world_size > 1:
            raise SettingError(
                f"{asked[0]} searches on one device, and there are {self.trainer.world_size}: search with "
                "--trainer.devices 1, and give what it finds as --optimizer.lr or --data.batch_size"
            )
        # Slow to import, and needed here only.
        from gscnn_lightning.finders import found_batch_size, found_learning_rate

        settings = config["trainer"].as_dict()
        if config["find_batch_size"]:
            device = self.trainer.strategy.root_device.type
            if device != "cuda":
                raise SettingError(
                    f"find_batch_size fills the memory of a GPU until it does not suffice, and the device is {device}, "
                    "whose memory is that of all programs: give data.batch_size; 8 to 16 make as good a use of a "
                    "processor as more"
                )
            self.datamodule.setup("fit")
            samples = self.datamodule.samples_per_epoch or len(self.datamodule.datasets["train"])
            size = found_batch_size(self.model, self.datamodule, settings, samples)
            rank_zero_info(f"find_batch_size: data.batch_size {size} in place of {self.datamodule.batch_size}")
            self.datamodule.batch_size = config["data"]["init_args"]["batch_size"] = size
        if config["find_lr"]:
            plot = None if self._folder is None else RunFolder(self._folder).lr_search
            before = config["optimizer"]["init_args"]["lr"]
            rank_zero_info("find_lr: 100 steps with growing learning rates")
            rate = found_learning_rate(self.model, self.datamodule, settings, plot)
            rank_zero_info(f"find_lr: optimizer.lr {rate} in place of {before}")
            config["optimizer"]["init_args"]["lr"] = rate
            self.model.set_learning_rate(rate)
        # The run's config starts the same training again, without a search.
        for name in asked:
            config[name] = False

    def _go_on_as_job(self, config: Namespace) -> None:
        """Where SLURM has started a job once more, go on from what it had saved, unless a checkpoint is given."""
        trainer, loggers = config["trainer"], _listed(config["trainer"]["logger"])
        first = loggers[0].get("init_args", {}) if isinstance(loggers[0], Namespace) else {}
        runs = Path(first.get("save_dir") or "runs") / (first.get("name") or "default")
        self._job = job_folder(runs) if trainer["default_root_dir"] is None else None
        if self._job is None:
            return
        saved = job_checkpoint(self._job)
        if saved is not None and config.get("ckpt_path") is None:
            config["ckpt_path"] = str(saved)
            rank_zero_info(f"The job was started again and goes on from {saved}")

    def after_fit(self) -> None:
        """The training has come to its end: what its job has saved to be started again is not needed any more."""
        if self._job is not None and self.trainer.is_global_zero:
            clear(self._job)

    def after_instantiate_classes(self) -> None:
        """Check what only the classes know together, before data are looked at.

        Raises:
            SettingError: a callback monitors what nothing logs, or the checkpoint does not go with data or training.
            WeightsError: the checkpoint does not go with the network.
        """
        if self._checkpoint is not None:
            self._check_agreement(self._checkpoint, self._get(self.config, "ckpt_path"))
        if self.subcommand == "fit":
            best = self._get(self.config_init, "checkpoint")
            _check_monitors(self.trainer, self.model, best)
            if best.dirpath is not None and "://" not in str(best.dirpath):
                Path(best.dirpath).mkdir(parents=True, exist_ok=True)  # an epoch is trained before it is written to

    def _parse_ckpt_path(self) -> None:
        """As Lightning does: the model's settings become those of the checkpoint. What is overruled is said.

        Lightning would read the file anew, and take a class to make in place of the task from it.

        Raises:
            WeightsError: settings of the checkpoint are no settings of the model.
            SettingError: the command line asks for others.
        """
        if self._checkpoint is None:
            return
        config = self.config[self.config["subcommand"]]
        before, usual = config["model"].as_dict(), self._parser(self.config["subcommand"]).get_defaults()["model"]
        name = f"checkpoint {config['ckpt_path']}"
        # What the user's own config or command line names needs no other word.
        saved = GSCNNTask.checked_hyperparameters(self._checkpoint, name, [config["optimizer"]["class_path"]])
        _Parser.about = f"{name}: "
        try:
            self.config = self.parser.parse_object({self.config["subcommand"]: {"model": saved}}, self.config)
        finally:
            _Parser.about = ""
        after = self.config[self.config["subcommand"]]["model"].as_dict()
        own = {name: value for name, value in after.items() if name not in _NOT_OF_CHECKPOINTS}
        changed = [name for name, value in own.items() if name in before and not same(value, before[name])]
        told = {name: f"model.{name} {after[name]} and not {before[name]}" for name in changed}
        asked = [told[name] for name in changed if f"model.{name}" in _names(_Parser.given)]
        if asked:
            raise SettingError(
                f"checkpoint {config['ckpt_path']} has {', '.join(asked)} as on the command line: a network goes with "
                "the settings that it was trained with; leave them out"
            )
        meant = [told[name] for name in changed if not same(before[name], usual.get(name))]
        if meant:
            rank_zero_info(f"As in the checkpoint, not as in the config: {', '.join(meant)}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """The trainer, with our progress bar unless bars are off or the config lists another one.

        Its loggers keep their files in the run's own directory, and a `CSVLogger` is always among them.
        """
        trainer = self._get(self.config_init, "trainer")
        if self._job is not None:
            trainer["default_root_dir"] = str(self._job)
        if not trainer["fast_dev_run"]:
            trainer["logger"] = self._loggers(trainer["logger"])
        listed = _listed(trainer["callbacks"] or [])
        if trainer["enable_progress_bar"] is not False and not any(isinstance(c, AnyProgressBar) for c in listed):
            listed = [*listed, callbacks.ProgressBar()]
        trainer["callbacks"] = listed
        # Forced, so that a config which lists callbacks of its own does not lose the reports.
        minutes = self._get(self.config, "checkpoint_minutes", 0) if self.subcommand == "fit" else 0
        self.trainer_defaults["callbacks"] = _reports(minutes)
        plugins = trainer["plugins"]
        trainer["plugins"] = [] if plugins is None else _listed(plugins)
        if not any(isinstance(plugin, CheckpointIO) for plugin in trainer["plugins"]):
            trainer["plugins"] = [*trainer["plugins"], WholeCheckpoints()]
        check_environment()
        made = super().instantiate_trainer(**kwargs)
        check_launched(made)
        self._processes = Processes(made, self._ending)
        return made

    def _loggers(self, made: Any) -> Any:  # noqa: ANN401
        """Loggers of one run in place of those that the config made; none if it has none."""
        loggers = _listed(made)
        if not loggers or not all(isinstance(logger, Logger) for logger in loggers):
            return made
        config = self._get(self.config, "trainer")["logger"]
        parts = [part.as_dict() for part in _listed(config)]
        settings = [{**part.get("init_args", {}), **part.get("dict_kwargs", {})} for part in parts]
        resumed = self._get(self.config, "ckpt_path") if self.subcommand == "fit" else None
        made = run_loggers(loggers, settings, saved_wandb_run_id(resumed))
        self._folder = Path(made[0].log_dir or "")
        return made

    def before_predict(self) -> None:
        """The pictures are written batch by batch; keeping all of them would fill the memory."""
        self.config_init["predict"]["return_predictions"] = False


def _listed(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else [value]


def _with_paths(args: Sequence[str]) -> list[str]:
    """Arguments in which shipped configs are given by their path instead of their name.

    Raises:
        SettingError: a config is neither a file nor a shipped one.
    """
    result: list[str] = []
    for before, word in zip(["", *args], args, strict=False):
        name, equals, value = word.partition("=")
        if before in ("-c", "--config"):
            word = _config_path(word)
        elif name == "--config" and equals:
            word = f"{name}={_config_path(value)}"
        elif word.startswith("-c") and len(word) > 2:
            word = f"-c{_config_path(word[2:])}"
        result.append(word)
    return result


def _check_trainer(settings: Mapping[str, Any], subcommand: str) -> None:
    """Raise where Lightning takes a setting of the trainer as it is, to stumble over it later, or to train nothing.

    Raises:
        SettingError: a setting is out of range.
    """
    strategy = settings["strategy"]
    kind = strategy if isinstance(strategy, str) else strategy["class_path"]
    if any(issubclass(one, _SHARDED) for one in _strategies(kind)):
        raise SettingError(
            f"trainer.strategy is {kind}, which spreads the weights over the processes: checkpoints, averages of "
            "weights and the exact going on of this library need all of them in each. Give --trainer.strategy ddp; "
            "where memory does not suffice, --model.grad_checkpointing true or a smaller --data.batch_size"
        )
    least = {"accumulate_grad_batches": "batches of a step", "check_val_every_n_epoch": "epochs between validations"}
    for name, meaning in least.items():
        if settings[name] is not None and settings[name] < 1:
            raise SettingError(f"trainer.{name} is {settings[name]}: give the number of {meaning}, 1 or more")
    if settings["val_check_interval"] in (0, "0"):
        raise SettingError(
            "trainer.val_check_interval is 0: give a share of the epoch above 0, such as 0.5, or a number of steps"
        )
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if subcommand == "fit" and settings[name] == 0:
            raise SettingError(f"trainer.{name} is 0, which trains nothing: give 1 or more, or leave it out")


def _strategies(kind: str) -> list[type]:
    """The class of a strategy, given by its path, its name or what Lightning calls it; none if there is none."""
    found: Any = getattr(strategies, kind, None)
    if kind in StrategyRegistry:
        found = StrategyRegistry[kind]["strategy"]
    elif "." in kind:
        found = pydoc.locate(kind)
    return [found] if isinstance(found, type) else []


def _check_monitors(trainer: Trainer, task: GSCNNTask, best: Callback) -> None:
    """Raise if a callback monitors what nothing logs, which Lightning finds out after an epoch.

    Args:
        trainer: its callbacks are looked at; one of the user's own may log anything.
        task: knows what it logs.
        best: the callback whose settings are those below ``checkpoint``.

    Raises:
        SettingError: the score is unknown; the message has the nearest ones.
    """
    listed: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not all(type(callback).__module__.startswith(("pytorch_lightning.", "gscnn_lightning.")) for callback in listed):
        return
    for callback in listed:
        monitor, is_checkpoint = getattr(callback, "monitor", None), isinstance(callback, ModelCheckpoint)
        if monitor is None or not getattr(callback, "strict", True):
            continue
        names = [*task.logged_names(), *(["epoch", "step"] if is_checkpoint else [])]
        # Without validation there is no best checkpoint, which Lightning takes as it is.
        if trainer.limit_val_batches == 0 and not is_checkpoint:
            names = [name for name in names if name.startswith("train/")]
        if monitor not in names:
            spelt = monitor.lower() if "/" in monitor else monitor.lower().replace("_", "/", 1)  # val_loss
            close = [name for name in names if name.startswith(spelt)][:2]
            close = close or difflib.get_close_matches(spelt, names, n=2, cutoff=0.5)
            place = "checkpoint" if callback is best else "trainer.callbacks"
            owner = "" if callback is best else f" of {type(callback).__name__}"
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
            raise SettingError(f"{place}.monitor{owner} is {monitor}, which nothing logs: {hint}")


def _config_path(given: str) -> str:
    """Path of a config; what is written out as YAML, or an address, stays as it is.

    Raises:
        SettingError: it cannot be read, a part of it is no group of settings, or one decides what the data decide.
    """
    written_out = is_written_out(given)
    path = given if written_out else str(find_config(given))
    if re.match(r"\w+://", given) or (not written_out and not Path(path).is_file()):
        return path  # an address, or a pipe, which can be read only once
    content = read_config(given if written_out else Path(path))
    for name in ("trainer", "model", "checkpoint", "data", "optimizer"):
        is_class = name in ("data", "optimizer")
        if name in content and not isinstance(content[name], Mapping | str if is_class else Mapping):
            needs = "the name of a class, or class_path and init_args" if is_class else "its settings below it"
            raise SettingError(f"config {given[:80]}: {name} is {content[name]}: write {needs}, or leave it out")
    for name in _OF_THE_DATA:
        if name in content.get("model", {}) or f"model.{name}" in content:  # the parser would drop it without a word
            raise SettingError(f"config {given[:80]}: {_follows_from_data(name)}")
    return path


def _reports(checkpoint_minutes: float) -> list[Callback]:
    """What every run is reported and kept by."""
    last: dict[str, Any] = {"filename": LAST, "enable_version_counter": False, "auto_insert_metric_name": False}
    between = [callbacks.TimedCheckpoint(**last, train_time_interval=timedelta(minutes=checkpoint_minutes))]
    return [
        # Write last.ckpt after every epoch, and between; the monitored callback's own ``save_last`` does so only with a
        # new best.
        ModelCheckpoint(**last, save_on_train_epoch_end=True),
        *(between if checkpoint_minutes else []),
        callbacks.FiniteLoss(),
        callbacks.RandomState(),
        callbacks.FinalValidation(),
        callbacks.NetworkSummary(),
        callbacks.LearningCurves(),
        callbacks.RunRecord(),
        callbacks.Pictures(),
        callbacks.RunSummary(),
        callbacks.PredictionWriter(),
        callbacks.Interruption(),
    ]


def _plain(optimizer: Namespace) -> dict[str, Any]:
    """The optimizer's settings as numbers, strings and lists, as they are written to files."""
    return json.loads(json.dumps(optimizer.as_dict()))


def default_precision() -> str:
    """bf16 where the processor multiplies it natively (GPUs from Ampere on, CPUs with AMX), else full precision.

    CPUs that only have AVX-512 BF16 gain nothing: the depthwise gradients lose what the matrix products win.
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return "bf16-mixed" if has_amx() else "32-true"


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of Lightning tells something about this very run."""
    return not _EXPECTED_MESSAGES.search(record.getMessage())


def main(args: list[str] | None = None) -> None:
    """Run ``gscnn-fit`` with the arguments of the command line, or those given.

    Args:
        args: arguments as on the command line; `sys.argv` by default.
    """
    keep_memory()
    take_any_text()
    given = sys.argv[1:] if args is None else args
    if not given or given[0] not in (*SUBCOMMANDS, "-h", "--help"):
        given = ["fit", *given]
    if given[0] in ("validate", "test"):
        # RunSummary prints the scores; Lightning's table of everything logged is there for those who ask for it.
        given = [given[0], "--verbose", "false", *given[1:]]
    if args is None:
        sys.argv[1:] = given  # Lightning starts the other processes of a distributed run from these
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_news)
    try:
        GSCNNCLI(None if args is None else given)
        finish_wandb(0)
    except GSCNNError as error:
        if os.environ.get("GSCNN_DEBUG"):
            traceback.print_exc()
        message = str(error)
        sys.stderr.write(f"gscnn-fit: error: {message}\n")
        finish_wandb(2, message)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # before the training had begun
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            stop.code = 128 + signal.SIGINT  # Lightning's is 1
        if stop.code not in (None, 0):
            stopped = isinstance(stop.code, int) and stop.code > 128
            reason = "stopped by a signal" if stopped else "refused; the output of the run says why"
            finish_wandb(2, reason)
        raise


if __name__ == "__main__":
    main()
