"""``gscnn score``."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from gscnn_lightning.classes import ClassTable
    from gscnn_lightning.scores import Scores
    from gscnn_lightning.scoring.folder import PredictedFolder

_SHOWN = 20


def score(
    predictions: str,
    /,
    labels: Path | None = None,
    classes: str | None = None,
    out: Path = Path("scores"),
    split: Literal["val", "test"] = "test",
    coding: Literal["trainids", "ids", "colors"] | None = None,
    boundary_maps: Path | None = None,
    probabilities: Path | None = None,
    tolerances: Sequence[float] | None = None,
    resize: bool = False,
    allow_missing: bool = False,
    workers: int = 1,
    window: tuple[int, int] | None = None,
    overlap: float = 0.25,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    device: str = "auto",
    runtime: Literal["onnxruntime", "openvino", "tensorrt"] | None = None,
    others: Sequence[str] = (),
) -> int:
    """Measure a folder of label maps that any program wrote, or a network: all scores of gscnn-fit test.

    Label maps are PNG, TIFF, BMP or PGM files of train ids, official ids or class colours, 8 or 16 bits, with or
    without a palette, or NumPy files (.npy, .npz) of whole numbers or of the scores of all classes. They are named as
    the frames, their images or their labels, with any ending, in any folders: as the Cityscapes server, mmsegmentation
    and gscnn predict name them. What the values are is found out where they leave no doubt. Frames are compared with
    the labels of --config or --data, or with those of --labels and --classes. Exits with 0 if all frames were
    measured, with 1 if scores are of a part of them, as --allow-missing allows, and with 2 if there are no scores.

    A network is an exported file, a checkpoint or a folder for a hub, and predicts the frames first.

    Examples:
      gscnn score predictions/ --config cityscapes --data.root CITYSCAPES
      gscnn score results/ --labels CITYSCAPES/gtFine/val --classes cityscapes --workers 4
      gscnn score masks/ --labels annotations/ --classes classes.yaml --coding colors --out theirs
      gscnn score model.onnx --config camvid --data.root CAMVID --runtime openvino

    Args:
        predictions: folder of label maps; or file of gscnn export (.onnx, .pt2), checkpoint, or network of a hub.
        labels: folder of the true label maps, in place of a config; official Cityscapes folders are known.
        classes: class table of --labels, a file or the name of a shipped one, such as cityscapes and camvid.
        out: folder for scores_test.json, scores_test.csv, image_scores.csv, confusion_matrix.csv, distance_curve.png
            and more, which gscnn report takes.
        split: which frames of the data.
        coding: what the values are: trainids, ids (those of the labels, such as official ids) or colors; found out by
            default.
        boundary_maps: folder of boundary maps, grey pictures of the probability, NAME_boundary.png or NAME.png.
        probabilities: folder with the probabilities of the classes, for the calibration error: NAME.npy or .npz, or
            NAME_0.png, NAME_1.png ... with 16 bits; predictions that are such arrays themselves need none.
        tolerances: of the boundary F-score, in pixels, or fractions of the diagonal below 1; by default those of the
            config, else 3, 5, 9 and 12.
        resize: bring predictions of another size to that of the labels, by nearest neighbour.
        allow_missing: make scores of the frames that can be measured, if others cannot be.
        workers: number of processes that measure label maps.
        window: height and width of sliding windows of a network, None for whole images.
        overlap: share of a window that it has in common with the next.
        scales: sizes of the images as factors; probabilities are averaged.
        flip: average with the mirrored images, too.
        device: cpu, cuda, cuda:1, mps, or auto for the fastest there is; exported networks run on the CPU.
        runtime: that runs .onnx files: onnxruntime, openvino or tensorrt, where they are installed.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.

    Returns:
        Exit code.

    Raises:
        GSCNNError: a setting, the data or the folder cannot be used, or frames cannot be measured.
    """
    from gscnn_lightning.errors import SettingError
    from gscnn_lightning.hub_files import is_hub_model
    from gscnn_lightning.run_folder import RunFolder
    from gscnn_lightning.run_folder.environment import environment
    from gscnn_lightning.run_folder.record import draw_stage, write_details, write_stage
    from gscnn_lightning.run_folder.score_files import write_json
    from gscnn_lightning.scoring.folder import PredictedFolder
    from gscnn_lightning.scoring.tables import facts_text, other_scores, score_table
    from gscnn_lightning.studies.measured_data import boundary_tolerances, find_truth
    from gscnn_lightning.studies.sides import is_network
    from gscnn_lightning.terminal import say

    if workers < 1:
        raise SettingError(f"workers is {workers}: give the number of processes, 1 or more")
    run = RunFolder(out)
    if any(path.exists() for path in (run.config, run.metrics, run.last_checkpoint, run.best_checkpoint)):
        raise SettingError(f"{out} is the folder of a training, whose scores would be replaced: give another --out")
    how: dict[str, Any] = {"window": window, "overlap": overlap, "scales": tuple(scales), "flip": flip}
    of_networks = {**how, "device": device, "runtime": runtime}
    of_folders: dict[str, Any] = {
        "labels": labels,
        "classes": classes,
        "coding": coding,
        "boundary_maps": boundary_maps,
    }
    of_folders |= {"probabilities": probabilities, "resize": resize, "allow_missing": allow_missing, "workers": workers}
    # What is not there is a folder, unless its name says otherwise.
    is_there = Path(predictions).exists() or Path(predictions).suffix.lower() in (".ckpt", ".onnx", ".pt2")
    if is_network(predictions) and (is_there or is_hub_model(predictions)):
        _refuse(of_folders, f"{predictions} is a network, and --{{}} is about folders of label maps")
        found = _of_network(predictions, out, split, tolerances, how, device, runtime, others)
    else:
        _refuse(of_networks, f"{predictions} holds predictions, and --{{}} is about networks")
        chosen = boundary_tolerances(tolerances, others)
        truth = find_truth(labels, classes, others, split)
        out.mkdir(parents=True, exist_ok=True)  # found out before minutes of scoring, if it cannot be made
        without = [out]
        folder = PredictedFolder(Path(predictions), truth, coding, resize, boundary_maps, probabilities, without)
        found = _of_folder(folder, chosen, workers, allow_missing)
    write_json(run.environment, {**environment(), "predictions": predictions, **found.made_with})
    write_json(run.classes, {"names": found.classes.names, "colors": [list(c) for c in found.classes.colors]})
    write_details(run, found.scores)
    write_stage(run, "test", found.scores)
    draw_stage(run, found.scores)
    measured, frames = found.made_with["frames"], found.made_with["frames_of_data"]
    say(
        score_table(found.scores, f"{predictions}: {'all' if measured == frames else f'{measured} of'} {frames} frames")
    )
    files = [*run.present(), ("scores", run.scores("test")), ("scores", run.class_table("test"))]
    say(facts_text([*other_scores(found.scores), *((label, str(path)) for label, path in files)]))
    say(found.time, stderr=True)
    return 0 if measured == frames else 1


class _Found(NamedTuple):
    """What was measured: scores, classes of the data, what is noted beside them, and a line on the time it took."""

    scores: "Scores"
    classes: "ClassTable"
    made_with: dict[str, Any]
    time: str


def _refuse(given: Mapping[str, Any], reason: str) -> None:
    """Raise if one of the settings was given."""
    from gscnn_lightning.errors import SettingError

    usual = inspect.signature(score).parameters
    for name, value in given.items():
        if value != usual[name].default:
            raise SettingError(f"{reason.format(name)}: leave it out")


def _of_network(
    path: str,
    out: Path,
    split: str,
    tolerances: Sequence[float] | None,
    how: Mapping[str, Any],
    device: str,
    runtime: Any,  # noqa: ANN401
    others: Sequence[str],
) -> _Found:
    """Scores of a network on a data module."""
    import time

    from gscnn_lightning.agreement import check_classes
    from gscnn_lightning.checkpoint import load_predictor, saved_classes
    from gscnn_lightning.fit_settings import arguments_for_checkpoint, data_module
    from gscnn_lightning.inference import check_settings
    from gscnn_lightning.metrics.evaluation import Evaluation
    from gscnn_lightning.scoring.network import score_network
    from gscnn_lightning.scoring.truth import truth_of_data
    from gscnn_lightning.studies.measured_data import boundary_tolerances

    check_settings(how["window"], how["overlap"], how["scales"])
    arguments = arguments_for_checkpoint(path, others)
    data: Any = data_module(arguments)
    data.setup("validate" if split == "val" else "test")
    truth = truth_of_data(data, split)
    out.mkdir(parents=True, exist_ok=True)
    check_classes(saved_classes(path, len(truth.classes)), truth.classes.names, f"network {path}", "the data")
    settings = {**how, "flip_average": how["flip"]}
    settings.pop("flip")
    network = load_predictor(path, device, runtime=runtime, **settings)
    own: Any = network.settings.boundary_tolerances
    chosen = boundary_tolerances(own if tolerances is None else tolerances, arguments)
    evaluation = Evaluation(truth.classes.names, truth.ignore_index, chosen, everything=True)
    start, frames = time.perf_counter(), len(truth.source)
    scores = score_network(network, evaluation, data, split)
    seconds = time.perf_counter() - start
    made_with = {
        "split": split,
        "runtime": runtime,
        **how,
        "device": device,
        "frames": frames,
        "frames_of_data": frames,
    }
    return _Found(scores, truth.classes, made_with, f"{seconds / frames:.3f} s per frame")


def _of_folder(folder: "PredictedFolder", tolerances: Sequence[float], workers: int, allow_missing: bool) -> _Found:
    """Scores of a folder of label maps; says what could not be measured, and what else is to be said."""
    from dataclasses import replace

    from gscnn_lightning.errors import DataError
    from gscnn_lightning.scoring.folder import score_folder
    from gscnn_lightning.terminal import say

    found, classes = score_folder(folder, tolerances, workers, allow_missing), folder.truth.classes
    for note in found.notes:
        say(f"note: {note}", stderr=True)
    for problem in found.problems[:_SHOWN]:
        say(f"not measured: {problem}", stderr=True)
    if len(found.problems) > _SHOWN:
        say(f"not measured: {len(found.problems) - _SHOWN} more", stderr=True)
    if found.scores is None:
        part = "" if allow_missing else ", or take the rest with --allow-missing true"
        raise DataError(
            f"{folder.folder} cannot be measured over all {found.frames} frames, for the reasons above: mend them{part}"
        )
    made_with = {
        "coding": found.coding,
        "frames": found.measured,
        "frames_of_data": found.frames,
        "notes": [*found.notes, *found.problems[:_SHOWN]],
    }
    share = found.read_seconds / max(found.seconds, 1e-9)
    time = f"{found.seconds / max(found.measured, 1):.3f} s per frame and process, {100 * share:.0f} % of it reading"
    return _Found(replace(found.scores, class_names=classes.names), classes, made_with, time)
