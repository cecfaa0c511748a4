"""Trackers beside the local files: Weights & Biases and TensorBoard. All that is known about either stands here."""

import base64
import csv
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
import yaml
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from gscnn_lightning.drawing.maps import Color, overlay_labels
from gscnn_lightning.errors import SettingError, TrainingError
from gscnn_lightning.output import Prediction
from gscnn_lightning.run_folder.pictures import grey_maps
from gscnn_lightning.score_names import score_headings
from gscnn_lightning.scores import Scores
from gscnn_lightning.trust.checkpoints import read_content

PROJECT = "gscnn"
"""W&B project of runs whose config and environment name none."""

PATIENCE = 5.0
"""Seconds that W&B's server has for its first answer."""

_ENVIRONMENT = {
    # Seconds that the upload of the last data may take when a run ends; they are on disk in any case.
    "WANDB_FINISH_TIMEOUT": "60",
    # W&B's reports about itself wait for the network at the end even of an offline run.
    "WANDB_ERROR_REPORTING": "false",
}
"""Settings of W&B's own that keep it from waiting, unless the user has set them."""


class MetricsLogger(CSVLogger):
    """Lightning's logger of metrics, in UTF-8 whatever the locale: names of classes are in its header."""

    _has_told = False

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes ``metrics.csv``; made when it is first asked for, in the first process."""
        if not isinstance(self._experiment, _Utf8Writer):
            Path(self.root_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _Utf8Writer(log_dir=self.log_dir)
        return self._experiment

    @rank_zero_only
    def save(self) -> None:
        """Write the rows so far; those that cannot be written, which is said once, are tried again with the next."""
        try:
            super().save()
        except TrainingError as error:
            if not self._has_told:
                rank_zero_info(f"{error}. It is tried again with the next rows")
            self._has_told = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the last rows.

        Args:
            status: "success", or how the run has ended otherwise.

        Raises:
            TrainingError: they cannot be written, and nothing else has gone wrong.
        """
        if self._experiment is not None:
            self.experiment.save() if status == "success" else self.save()


class _Utf8Writer(ExperimentWriter):
    """Writes what Lightning's would, which opens files in the encoding of the locale."""

    def save(self) -> None:
        """Append the rows that are in memory; all of the file is written anew when there are other columns.

        Raises:
            TrainingError: they cannot be written; the file is as it was, and they stay in memory.
        """
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        rows: list[Any] = self.metrics
        columns = sorted({*self.metrics_keys, *chain.from_iterable(rows)})
        is_new = columns != self.metrics_keys or not path.is_file()
        if is_new and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [*csv.DictReader(file), *rows]
        place, size = (path.with_name(f".{path.name}.part"), 0) if is_new else (path, path.stat().st_size)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with place.open("w" if is_new else "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, columns)
                if is_new:
                    writer.writeheader()
                writer.writerows(rows)
            place.replace(path)
        except OSError as error:
            with suppress(OSError):
                place.unlink() if is_new else os.truncate(place, size)
            raise TrainingError(
                f"metrics {path} cannot be written ({error.strerror}): make room, or give the right to write there"
            ) from error
        self.metrics_keys, self.metrics = columns, []


def check_installed(class_paths: Sequence[str]) -> None:
    """Raise if a logger needs a package that is missing.

    Args:
        class_paths: of the loggers of a config.

    Raises:
        SettingError: TensorBoard is asked for and not installed.
    """
    wanted = any(path.endswith(".TensorBoardLogger") for path in class_paths)
    if wanted and not any(find_spec(package) for package in ("tensorboard", "tensorboardX")):
        raise SettingError("TensorBoard is not installed: pip install 'gscnn-lightning[tensorboard]'")


def run_loggers(loggers: Sequence[Logger], settings: Sequence[Mapping[str, Any]], wandb_id: str | None) -> list[Logger]:
    """Loggers of one run, whose files all lie in the run's own directory.

    The directory is that of the first `CSVLogger`. Where the config lists none, one is added with the folder and name
    of the first logger. It comes first, as Lightning takes the directory of a run from its first logger.

    Args:
        loggers: those of the config, with one at least.
        settings: the arguments that each was made with.
        wandb_id: id of the W&B run that is to be continued.

    Raises:
        OSError: the directory cannot be made.
        SettingError: W&B refuses the key.
    """
    listed = next((logger for logger in loggers if isinstance(logger, CSVLogger)), None)
    first = settings[0]
    own = listed or MetricsLogger(first.get("save_dir") or "runs", name=first.get("name") or "default")
    if type(own) is CSVLogger:
        own = MetricsLogger(**{"save_dir": own.save_dir, "name": own.name, **settings[loggers.index(own)]})
    if _is_first_process():
        _reserve(own)
    directory = Path(own.log_dir)
    result: list[Logger] = [own]
    for logger, given in zip(loggers, settings, strict=True):
        if isinstance(logger, WandbLogger):
            logger = wandb_logger(directory, wandb_id, **given)
        elif isinstance(logger, TensorBoardLogger):
            # The metric that this logger would invent is none of ours.
            place = {"save_dir": own.save_dir, "name": own.name, "version": own.version, "default_hp_metric": False}
            logger = type(logger)(**{**given, **place})
        if logger is not listed:
            result.append(logger)
    return result


def wandb_logger(directory: str | Path, run_id: str | None = None, **settings: Any) -> WandbLogger:  # noqa: ANN401
    """W&B logger that never asks and never waits long: online with a key, offline without one.

    `WANDB_MODE` and `wandb offline` are respected. Otherwise the run is online if there is a key (`WANDB_API_KEY` or
    `wandb login`) and W&B answers within five seconds, else offline, and one line says why and how to upload it later.

    Args:
        directory: the run's directory; W&B's files are in its folder ``wandb``.
        run_id: id of a W&B run that is to be continued.
        **settings: arguments of Lightning's `WandbLogger`. By default the project is that of `WANDB_PROJECT` or
            "gscnn", and the name that of the directory, such as "camvid/version_0".

    Raises:
        SettingError: W&B refuses the key.
    """
    directory = Path(directory)
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    import wandb  # slow to import, and not needed by runs without it

    given = {key: value for key, value in settings.items() if value is not None and key != "offline"}
    if run_id is not None and "WANDB_RUN_ID" not in os.environ and "version" not in given:
        given.setdefault("id", run_id)
    given["name"] = f"{given.get('name') or directory.absolute().parent.name}/{directory.name}"
    given.setdefault("project", os.environ.get("WANDB_PROJECT", PROJECT))
    if _is_first_process():
        given["mode"] = "offline" if settings.get("offline") else given.get("mode") or _wandb_mode(directory)
        directory.mkdir(parents=True, exist_ok=True)  # W&B writes elsewhere if its folder is not there
    if given.get("mode") == "offline":
        given["resume"] = None  # means nothing without a server, and W&B would say so
    own = given.pop("settings", None) or {}
    # Its banners would cut through progress bars and tables.
    merged = {"silent": True, **(own if isinstance(own, Mapping) else own.model_dump(exclude_unset=True))}
    return WandbLogger(**{**given, "save_dir": directory, "settings": wandb.Settings(**merged)})


def wandb_run_id(loggers: Sequence[Logger]) -> str | None:
    """Id of the W&B run of a trainer, None without one."""
    return next((logger.version for logger in loggers if isinstance(logger, WandbLogger)), None)


def saved_wandb_run_id(checkpoint: str | None) -> str | None:
    """Id of the W&B run that a checkpoint comes from, None if it comes from none."""
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    return read_content(checkpoint).get("wandb_run_id")


def announce(loggers: Sequence[Logger]) -> None:
    """Say where the W&B run can be seen."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and (url := getattr(logger.experiment, "url", None)):
            rank_zero_info(f"W&B: {url}")


def finish_wandb(exit_code: int, message: str = "") -> None:
    """End the W&B run of this process, if there is one.

    A run of a sweep that failed before its logger was made is begun for this, so that the sweep shows what became of
    the combination.

    Args:
        exit_code: 0 for success; anything else marks the run as failed.
        message: why it failed, kept in the summary of the run as "error".
    """
    wandb = sys.modules.get("wandb")
    run = None if wandb is None else wandb.run
    if run is None and exit_code and "WANDB_SWEEP_ID" in os.environ and _is_first_process():
        run = wandb_logger(Path("runs") / "failed").experiment
    if run is not None:
        if message:
            run.summary["error"] = message
        run.finish(exit_code=exit_code)


def log_record(loggers: Sequence[Logger], name: str, values: Mapping[str, Any]) -> None:
    """Record plain data about a run with the trackers that keep such things.

    Args:
        loggers: of the trainer.
        name: heading of the data.
        values: anything that JSON can say.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.config.update({name: dict(values)}, allow_val_change=True)


def log_config(loggers: Sequence[Logger], config: str) -> None:
    """Record the resolved config of a run, with which it can be started again.

    W&B gets it as values to filter by, and as the file ``gscnn-fit.yaml``.

    Args:
        loggers: of the trainer.
        config: YAML.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            run.config.update(yaml.safe_load(config), allow_val_change=True)
            path = Path(str(run.dir)) / "gscnn-fit.yaml"  # W&B has a config.yaml of its own
            if path.parent.is_dir():  # not in a disabled run
                path.write_text(config, encoding="utf-8")
                run.save(str(path), base_path=str(path.parent), policy="now")


def log_pictures(
    loggers: Sequence[Logger],
    key: str,
    pictures: Mapping[str, Prediction],
    class_names: Sequence[str],
    class_colors: Sequence[Color],
    step: int,
) -> None:
    """Show images with all their maps in every tracker that can.

    Args:
        loggers: of the trainer.
        key: what the pictures are, such as "pictures" or "worst".
        pictures: images by name.
        class_names: K names.
        class_colors: one RGB colour (0 to 255) per class.
        step: optimizer step.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _pictures_to_wandb(logger, key, pictures, class_names, step)
        elif isinstance(logger, TensorBoardLogger):
            _pictures_to_tensorboard(logger, key, pictures, class_colors, step)


def _pictures_to_wandb(
    logger: WandbLogger, key: str, pictures: Mapping[str, Prediction], class_names: Sequence[str], step: int
) -> None:
    """Photos with switchable masks, boundary maps and gates, all in one step of the run's history."""
    import wandb

    labels = {**dict(enumerate(class_names)), 255: "void"}
    images: dict[str, list[Any]] = {}
    for name, row in pictures.items():
        masks = {
            title: {"mask_data": mask, "class_labels": labels}
            for title, mask in (("prediction", row.preds), ("truth", row.labels))
            if mask is not None
        }
        photo = wandb.Image(row.photo, caption=name, masks=masks, file_type="jpg")
        images.setdefault(f"{key}/segmentation", []).append(photo)
        for kind, values in grey_maps(row).items():
            images.setdefault(f"{key}/{kind}", []).append(wandb.Image(values, caption=name))
    logger.log_metrics(images, step)  # type: ignore[arg-type]


def _pictures_to_tensorboard(
    logger: TensorBoardLogger, key: str, pictures: Mapping[str, Prediction], class_colors: Sequence[Color], step: int
) -> None:
    """One picture per tag, so that TensorBoard's slider goes through the steps of an image."""
    for name, row in pictures.items():
        shown: dict[str, npt.NDArray[np.uint8]] = {
            "prediction": overlay_labels(row.photo, row.preds, class_colors),
            **grey_maps(row),
        }
        if row.labels is not None:
            shown["truth"] = overlay_labels(row.photo, row.labels, class_colors)
        for kind, picture in shown.items():
            form = "HWC" if picture.ndim == 3 else "HW"
            logger.experiment.add_image(f"{key}_{kind}/{name}", picture, step, dataformats=form)


def log_scores(loggers: Sequence[Logger], stage: str, scores: Scores, step: int) -> None:
    """Show scores per class in every tracker that can, and the confusion matrix in W&B.

    Args:
        loggers: of the trainer.
        stage: "val" or "test".
        scores: with the names of the classes.
        step: optimizer step.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            _scores_to_wandb(logger, stage, scores, step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(f"{stage}/classes", _markdown(scores), step)


def _scores_to_wandb(logger: WandbLogger, stage: str, scores: Scores, step: int) -> None:
    import wandb

    rows = [
        [name, *(None if np.isnan(value) else value for value in values.values())] for name, values in scores.rows()
    ]
    shown: dict[str, Any] = {f"{stage}/classes": wandb.Table(columns=["class", *scores.classes], data=rows)}
    if scores.confusion is not None:
        shown[f"{stage}/confusion_matrix"] = _confusion_chart(scores.confusion, scores.class_names)
    logger.log_metrics(shown, step)


def _confusion_chart(confusion: npt.NDArray[np.integer], class_names: Sequence[str]) -> Any:  # noqa: ANN401
    """W&B's chart of a confusion matrix; its own function for that wants every single pixel."""
    import wandb

    cells = [
        [truth, predicted, int(confusion[row, column])]
        for row, truth in enumerate(class_names)
        for column, predicted in enumerate(class_names)
    ]
    columns = ["Actual", "Predicted", "nPredictions"]
    return wandb.plot_table(
        vega_spec_name="wandb/confusion_matrix/v1",
        data_table=wandb.Table(columns=columns, data=cells),
        fields={column: column for column in columns},
        string_fields={"title": "pixels by true and predicted class"},
    )


def _markdown(scores: Scores) -> str:
    lines = [["class", *score_headings(list(scores.classes))], ["-"] * (1 + len(scores.classes))]
    for name, values in scores.rows():
        cells = ["" if np.isnan(value) else f"{100 * value:.1f}" for value in values.values()]
        lines.append([name.replace("|", r"\|"), *cells])
    return "\n".join(f"|{'|'.join(cells)}|" for cells in lines)


def _reserve(own: CSVLogger) -> None:
    """Make the directory of a run, and its version the first that nobody else has: another run may have come between.

    A directory that is asked for by its version is gone on with where it exists.
    """
    chosen = own._version is not None
    while True:
        try:
            Path(own.log_dir).mkdir(parents=True, exist_ok=chosen)
            return
        except FileExistsError:
            if chosen or not isinstance(own.version, int):
                raise
            own._version = own.version + 1


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _wandb_mode(directory: Path) -> str:
    """W&B's mode for a new run; says so if it is offline."""
    import wandb

    settings = wandb.setup(wandb.Settings(silent=True)).settings
    if settings.mode == "disabled":
        return "disabled"
    reason = f"the mode is {settings.mode!r}" if settings.mode not in ("online", "run") else _why_offline(settings)
    if not reason:
        return "online"
    rank_zero_info(f"W&B is offline, as {reason}. To upload the run: wandb sync {directory}/wandb/offline-run-*")
    return "offline"


def _why_offline(settings: Any) -> str:  # noqa: ANN401
    """Why a run cannot be online; empty if it can."""
    import wandb

    try:
        key = wandb.api.api_key
    except wandb.Error as error:
        raise SettingError(f"the W&B key is unusable ({error}): `wandb login` again, or WANDB_MODE=offline") from error
    if not key and not settings.identity_token_file:
        return "there is no key (`wandb login` stores one)"
    accepted = _ask(settings.base_url, key)
    if accepted is None:
        return f"{settings.base_url} does not answer"
    if key and not accepted:
        raise SettingError(f"{settings.base_url} refuses the W&B key: `wandb login` again, or WANDB_MODE=offline")
    return ""


def _ask(url: str, key: str | None) -> bool | None:
    """Whether W&B accepts a key; None if it does not answer in time."""
    answers: list[bool] = []

    def ask() -> None:
        credentials = base64.b64encode(f"api:{key or ''}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"}
        request = Request(f"{url}/graphql", b'{"query": "query { viewer { id } }"}', headers)
        try:
            with urlopen(request, timeout=PATIENCE) as response:
                answers.append(json.load(response)["data"]["viewer"] is not None)
        except HTTPError as error:
            if error.code in (401, 403):
                answers.append(False)
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            pass  # no network, or somebody else's answer, such as a hotel's log-in page

    # Looking up a name has no time limit of its own, hence the thread that is left behind.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answers[0] if answers else None
