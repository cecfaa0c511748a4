"""The folder of a network for a model hub, made of a run or a checkpoint, and read back before it is called done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gscnn_lightning.checkpoint import load_task, read_checkpoint
from gscnn_lightning.classes import ClassTable
from gscnn_lightning.data.pictures import read_picture
from gscnn_lightning.drawing.files import write_picture
from gscnn_lightning.drawing.maps import heat_map, overlay_labels
from gscnn_lightning.errors import GSCNNError, SettingError, WeightsError
from gscnn_lightning.hub_files import CARD, CONFIG, WEIGHTS, is_hub_model, needed
from gscnn_lightning.publishing.card import CardFacts, model_card, weights_license
from gscnn_lightning.run_folder import RunFolder, run_of_checkpoint
from gscnn_lightning.run_folder.run import Run, load_run
from gscnn_lightning.task import GSCNNTask

PICTURE = "picture.jpg"
"""Name of the card's picture in the folder."""

NO_PICTURE = "none"

_WIDEST = 2000


def make_folder(
    source: str,
    out: Path,
    name: str | None = None,
    repo: str | None = None,
    license_id: str | None = None,
    data_license: str | None = None,
    picture: str | None = None,
    scores: Path | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a network as a folder for a model hub, and load it from there to see that it computes the same.

    Args:
        source: folder of a run, or a checkpoint, or a network of a hub.
        out: folder to write; it is made.
        name: title of the card; that of the run, or of the file, by default.
        repo: OWNER/NAME on the hub, as far as it is known.
        license_id: licence of the weights, as hubs write it, such as "apache-2.0".
        data_license: licence of the data, in words.
        picture: photo that is predicted for the card, or "none"; the run's contact sheet by default.
        scores: run of ``gscnn-fit test`` or folder of ``gscnn score`` with the scores of this network.
        overwrite: replace a network that is there.

    Returns:
        What the user should know, one line each.

    Raises:
        GSCNNError: something cannot be read, written, or does not go together.
    """
    needed("safetensors.torch")  # before anything is made
    checkpoint, run = _found(source)
    if is_hub_model(out) and not overwrite:
        raise SettingError(f"{out} has a network already: choose another --out, or --overwrite true")
    task = load_task(checkpoint, "cpu")
    table = ClassTable(tuple(task.class_names), tuple(task.class_colors))
    measured, notes = _scores(run, scores, read_checkpoint(checkpoint), table.names)
    out.mkdir(parents=True, exist_ok=True)
    shown, caption = _picture(picture, run, task, out)
    title = name or (repo or "").rpartition("/")[2] or _title(task, run)
    facts = CardFacts(
        title,
        task.network.arguments,
        table,
        sum(parameter.numel() for parameter in task.network.parameters()),
        run,
        {} if measured is None else measured.stages,
        [] if measured is None else measured.image_scores,
        repo or "OWNER/NAME",
        license_id,
        data_license,
        shown,
        caption,
    )
    task.network.save_pretrained(
        out,
        class_names=table.names,
        class_colors=table.colors,
        ignore_index=task.settings.ignore_index,
        boundary_tolerances=task.settings.boundary_tolerances,
        card=model_card(facts),
    )
    _check_same(task, out)
    if weights_license(facts) is None:
        notes.append(f"the card states no licence of the weights: give --license, or edit {out / CARD}")
    if shown is not None and run is not None and picture is None and _data_class(run) not in ("", "ScenesDataModule"):
        notes.append(f"{out / shown} has frames of the data in it: see whether their licence lets you show them")
    return notes


def _found(source: str) -> tuple[str, Run | None]:
    """The checkpoint that is meant, and its run if it lies in one."""
    run = RunFolder(Path(source))
    if run.path.is_dir() and not is_hub_model(source):
        checkpoint = next((path for path in (run.best_checkpoint, run.last_checkpoint) if path.is_file()), None)
        if checkpoint is None:
            raise SettingError(
                f"{source} is a folder without checkpoints/best.ckpt: give the folder of a run, or a checkpoint"
            )
        source = str(checkpoint)
    own = None if is_hub_model(source) else run_of_checkpoint(source)
    return source, None if own is None else _loaded(own.path)


def _loaded(path: Path) -> Run | None:
    try:
        return load_run(path)
    except SettingError:  # a training without scores and metrics so far
        return None


def _scores(
    run: Run | None, scores: Path | None, content: Mapping[str, Any], names: tuple[str, ...]
) -> tuple[Run | None, list[str]]:
    """The run whose scores are those of a checkpoint, and what is to be said about it."""
    if scores is not None:
        found = load_run(scores)
        if found.class_names != names or not found.stages:
            what = "has no scores" if not found.stages else f"is of other classes ({', '.join(found.class_names[:3])})"
            raise SettingError(f"--scores {scores} {what}: give the run of a test of this network")
        return found, []
    if run is None or not run.stages:
        return None, ["the card has no scores: none were found beside the checkpoint; give --scores RUN_OF_TEST"]
    epoch = content.get("epoch")
    stage = run.stages.get("val")
    if stage is not None and stage.epoch is not None and epoch is not None and stage.epoch != epoch + 1:
        return None, [
            f"the card has no scores: those of the run are of epoch {stage.epoch}, the checkpoint of epoch {epoch + 1}"
        ]
    return run, []


def _picture(picture: str | None, run: Run | None, task: GSCNNTask, out: Path) -> tuple[str | None, str]:
    """Name and caption of the picture of the card, which is written."""
    if picture == NO_PICTURE:
        return None, ""
    if picture is not None:
        photo = read_picture(Path(picture))
        with torch.inference_mode():
            output = task.predict_output(torch.from_numpy(photo.transpose(2, 0, 1).copy())[None], gates=False)
        panels = [photo, overlay_labels(photo, output.labels[0].numpy(), task.class_colors)]
        if output.boundary_prob is not None:
            panels.append(heat_map(output.boundary_prob[0, 0].numpy()))
        _write(out / PICTURE, np.concatenate(panels, axis=1))
        return PICTURE, "Photo, prediction" + (", boundaries" if len(panels) > 2 else "")
    if run is None or not run.folder.contact_sheet.is_file():
        return None, ""
    _write(out / PICTURE, read_picture(run.folder.contact_sheet))
    return PICTURE, "Validation images: photo, labels, prediction, true and predicted boundaries, and gates"


def _write(path: Path, picture: np.ndarray[Any, Any]) -> None:
    if picture.shape[1] > _WIDEST:
        height = round(picture.shape[0] * _WIDEST / picture.shape[1])
        picture = cv2.resize(picture, (_WIDEST, height), interpolation=cv2.INTER_AREA)
    write_picture(path, np.ascontiguousarray(picture, np.uint8), overwrite=True)


def _title(task: GSCNNTask, run: Run | None) -> str:
    kind = "Gated-SCNN" if task.settings.shape_stream else "DeepLabv3+"
    data = "" if run is None else _data_class(run).removesuffix("DataModule")
    return f"{kind} {task.settings.backbone}{f' {data}' if data else ''}"


def _data_class(run: Run) -> str:
    return str(run.config.get("data.class_path") or run.config.get("data") or "").rpartition(".")[2]


def _check_same(task: GSCNNTask, folder: Path) -> None:
    """Raise unless the network of a folder computes what the task does, to the bit; else its files are removed."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, 97, 129), dtype=torch.uint8, generator=generator)
    problem = ""
    try:
        with torch.inference_mode():
            own, read = task(image), load_task(str(folder), "cpu")(image)
        if not torch.equal(own.seg_logits, read.seg_logits):
            problem = f"logits differ by up to {(own.seg_logits - read.seg_logits).abs().max():g}"
    except GSCNNError as error:
        problem = str(error)
    if problem:
        for name in (WEIGHTS, CONFIG):
            (folder / name).unlink(missing_ok=True)
        raise WeightsError(f"what was written to {folder} is not the same network ({problem}): it was removed")
