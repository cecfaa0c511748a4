"""The ``gscnn-fit`` command: LightningCLI with the task fixed and the data module chosen by class path."""

import difflib
import inspect
import json
import logging
import math
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.callbacks import ProgressBar as AnyProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from torch.optim import Optimizer

from gscnn_lightning import callbacks  # with the data modules: also makes short names such as `Pictures` known
from gscnn_lightning import data as data_modules
from gscnn_lightning.allocator import keep_memory
from gscnn_lightning.checkpoint import check_checkpoint
from gscnn_lightning.checkpoint_io import WholeCheckpoints
from gscnn_lightning.errors import GSCNNError, SettingError
from gscnn_lightning.optim import SGD
from gscnn_lightning.parsing import HelpFormatter
from gscnn_lightning.run_folder import BEST, LAST
from gscnn_lightning.score_names import MIOU
from gscnn_lightning.shipped_configs import find_config, is_written_out
from gscnn_lightning.task import GSCNNTask
from gscnn_lightning.terminal import take_any_text
from gscnn_lightning.tracking import check_installed, finish_wandb, log_config, run_loggers, saved_wandb_run_id

SUBCOMMANDS = ("fit", "validate", "test", "predict")

# Said by the libraries below on every run, about nothing that a user can or should change.
_EXPECTED_WARNINGS = (
    r".*isinstance\(treespec, LeafSpec\)",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # frozen stages are meant to be
    r"The dirpath has changed from",  # a resumed run has a folder of its own
    r"It is recommended to use `self.log\(.*sync_dist=True`",  # scores are the same in every process already
)
_EXPECTED_MESSAGES = re.compile(r"💡|TPU available|`Trainer.fit` stopped|model summary callbacks")

DESCRIPTION = """Train and evaluate Gated-SCNN. Without a subcommand it fits.

examples:
  gscnn-fit --config scenes                          drawn street scenes, nothing to download
  gscnn-fit --config camvid --data.root CamVid
  gscnn-fit --config camvid --model.shape_stream false   the matched control
  gscnn-fit --config cityscapes --trainer.devices 8 --trainer.strategy ddp
  gscnn-fit --config camvid --trainer.logger WandbLogger   also TensorBoardLogger
  gscnn-fit --config my/own.yaml                     a path means a path, a bare name a shipped config
  gscnn-fit validate --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  gscnn-fit fit --help                               every setting
With --ckpt_path, the model's settings are those in the checkpoint.
"""


class _Parser(LightningArgumentParser):
    """Parser whose errors are one message with a remedy, not a page of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        # Half a name would be taken for the whole, and a misspelling for another setting.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what was wrong and what may have been meant, and exit with 2."""
        parser = getattr(ex, "subcommand_parser", None) or self
        prog = parser.prog.replace(" [options]", "")
        sys.stderr.write(f"{prog}: error: {message}{_suggestion(message, parser)}\nAll settings: {prog} --help\n")
        sys.exit(2)


def _suggestion(message: str, parser: ArgumentParser) -> str:
    """The settings that are spelt most like the unknown ones in a message."""
    known = {option[2:] for option in parser._option_string_actions if "." in option}
    data: Any = data_modules
    for module in (getattr(data, name) for name in data.__all__):
        if isinstance(module, type) and issubclass(module, LightningDataModule):
            known |= {f"data.{parameter}" for parameter in inspect.signature(module).parameters}
    close: list[str] = []
    for word in {a or b for a, b in re.findall(r"--([\w.]+)|[\"']([\w.]+)[\"']", message)} - known:
        # Nested errors name a setting without the part before the dot.
        names = {name if "." in word else name.rpartition(".")[2]: name for name in sorted(known)}
        close += [names[k] for k in difflib.get_close_matches(word, names, n=2, cutoff=0.75)]
    return f"\nDid you mean {' or '.join('--' + k for k in dict.fromkeys(close))}?" if close else ""


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
    """LightningCLI that links what the task must know about the data, and reports on every run."""

    def __init__(self, args: list[str] | None = None) -> None:
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

    def instantiate_classes(self) -> None:
        """As Lightning does, but settings out of range are reported in the words of what refused them.

        Raises:
            GSCNNError: a setting is out of range, or a file that it names cannot be used.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:
            # Data may also be null, and a parser that has tried every type of a setting lists all that was wrong.
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, GSCNNError):
                    raise cause from None
                cause = cause.__cause__
            raise

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
        parser.add_optimizer_args((Optimizer,))
        parser.set_defaults({"optimizer": SGD})
        parser.link_arguments("optimizer", "model.optimizer", compute_fn=_plain)
        for name in ("num_classes", "class_names", "class_colors", "ignore_index"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse, with shipped configs by their names."""
        args = sys.argv[1:] if args is None else args
        with warnings.catch_warnings():
            # They are those of the command line, or of a command that hands them on.
            warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended to run from within Python")
            super().parse_arguments(parser, _with_paths(args) if isinstance(args, list) else args)
        self.check_before_start()

    def check_before_start(self) -> None:
        """Check checkpoint and loggers before minutes are spent on anything else.

        Raises:
            WeightsError: the checkpoint cannot be read.
            SettingError: a logger needs a package that is missing, or `checkpoint_minutes` is out of range.
        """
        config = self.config[self.config["subcommand"]]
        minutes = config["checkpoint_minutes"]
        if not 0 <= minutes < math.inf:
            raise SettingError(f"checkpoint_minutes is {minutes}: give minutes between checkpoints, or 0 for none")
        check_checkpoint(config.get("ckpt_path"))
        logger = config["trainer"]["logger"]
        check_installed([part["class_path"] for part in _listed(logger) if isinstance(part, Namespace)])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """The trainer, with our progress bar unless bars are off or the config lists another one.

        Its loggers keep their files in the run's own directory, and a `CSVLogger` is always among them.
        """
        trainer = self._get(self.config_init, "trainer")
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
        return super().instantiate_trainer(**kwargs)

    def _loggers(self, made: Any) -> Any:  # noqa: ANN401
        """Loggers of one run in place of those that the config made; none if it has none."""
        loggers = _listed(made)
        if not loggers or not all(isinstance(logger, Logger) for logger in loggers):
            return made
        config = self._get(self.config, "trainer")["logger"]
        parts = [part.as_dict() for part in _listed(config)]
        settings = [{**part.get("init_args", {}), **part.get("dict_kwargs", {})} for part in parts]
        resumed = self._get(self.config, "ckpt_path") if self.subcommand == "fit" else None
        return run_loggers(loggers, settings, saved_wandb_run_id(resumed))

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


def _config_path(given: str) -> str:
    """Path of a config; what is written out as YAML, or an address, stays as it is."""
    return given if is_written_out(given) else str(find_config(given))


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
        # A loading process hands its error over with its traceback in front.
        message = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
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
            reason = (
                "stopped by a signal"
                if stopped
                else "the settings do not go together; the output of the run says which"
            )
            finish_wandb(2, reason)
        raise


if __name__ == "__main__":
    main()
