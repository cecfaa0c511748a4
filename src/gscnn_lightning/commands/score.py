"""``gscnn score``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_SHOWN = 20


def score(
    predictions: Path,
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
    others: Sequence[str] = (),
) -> int:
    """Measure a folder of label maps that any program wrote: all scores of gscnn-fit test on the same frames.

    Label maps are PNG, TIFF, BMP or PGM files of train ids, official ids or class colours, 8 or 16 bits, with or
    without a palette, or NumPy files (.npy, .npz) of whole numbers or of the scores of all classes. They are named as
    the frames, their images or their labels, with any ending, in any folders: as the Cityscapes server, mmsegmentation
    and gscnn predict name them. What the values are is found out where they leave no doubt. Frames are compared with
    the labels of --config or --data, or with those of --labels and --classes. Exits with 0 if all frames were
    measured, with 1 if scores are of a part of them, as --allow-missing allows, and with 2 if there are no scores.

    Examples:
      gscnn score predictions/ --config cityscapes --data.root CITYSCAPES
      gscnn score results/ --labels CITYSCAPES/gtFine/val --classes cityscapes --workers 4
      gscnn score masks/ --labels annotations/ --classes classes.yaml --coding colors --out theirs

    Args:
        predictions: folder of the label maps.
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
        workers: number of processes.
        others: those of gscnn-fit that are about data, such as --config FILE, --data CLASS and --data.root PATH.

    Returns:
        Exit code.

    Raises:
        GSCNNError: a setting, the data or the folder cannot be used, or frames cannot be measured.
    """
    from dataclasses import replace

    from gscnn_lightning.errors import DataError, SettingError
    from gscnn_lightning.run_folder import RunFolder
    from gscnn_lightning.run_folder.environment import environment
    from gscnn_lightning.run_folder.record import draw_stage, write_details, write_stage
    from gscnn_lightning.run_folder.score_files import write_json
    from gscnn_lightning.scoring.folder import PredictedFolder, score_folder
    from gscnn_lightning.scoring.tables import facts_text, other_scores, score_table
    from gscnn_lightning.studies.measured_data import boundary_tolerances, find_truth
    from gscnn_lightning.terminal import say

    if workers < 1:
        raise SettingError(f"workers is {workers}: give the number of processes, 1 or more")
    run = RunFolder(out)
    if any(path.exists() for path in (run.config, run.metrics, run.last_checkpoint, run.best_checkpoint)):
        raise SettingError(f"{out} is the folder of a training, whose scores would be replaced: give another --out")
    chosen = boundary_tolerances(tolerances, others)
    truth = find_truth(labels, classes, others, split)
    out.mkdir(parents=True, exist_ok=True)  # found out before minutes of scoring, if it cannot be made
    predicted = PredictedFolder(predictions, truth, coding, resize, boundary_maps, probabilities, without=[out])
    found = score_folder(predicted, chosen, workers, allow_missing)
    for note in found.notes:
        say(f"note: {note}", stderr=True)
    for problem in found.problems[:_SHOWN]:
        say(f"not measured: {problem}", stderr=True)
    if len(found.problems) > _SHOWN:
        say(f"not measured: {len(found.problems) - _SHOWN} more", stderr=True)
    if found.scores is None:
        part = "" if allow_missing else ", or take the rest with --allow-missing true"
        raise DataError(
            f"{predictions} cannot be measured over all {found.frames} frames, for the reasons above: mend them{part}"
        )
    scores = replace(found.scores, class_names=truth.classes.names)
    made_with = {
        "predictions": str(predictions),
        "coding": found.coding,
        "frames": found.measured,
        "frames_of_data": found.frames,
        "notes": [*found.notes, *found.problems[:_SHOWN]],
    }
    write_json(run.environment, {**environment(), **made_with})
    write_json(run.classes, {"names": list(truth.classes.names), "colors": [list(c) for c in truth.classes.colors]})
    write_details(run, scores)
    write_stage(run, "test", scores)
    draw_stage(run, scores)
    all_of = "all" if found.measured == found.frames else f"{found.measured} of"
    say(score_table(scores, f"{predictions}: {all_of} {found.frames} frames"))
    files = [*run.present(), ("scores", run.scores("test")), ("scores", run.class_table("test"))]
    say(facts_text([*other_scores(scores), *((label, str(path)) for label, path in files)]))
    share = found.read_seconds / max(found.seconds, 1e-9)
    say(
        f"{found.seconds / max(found.measured, 1):.3f} s per frame and process, {100 * share:.0f} % of it reading",
        stderr=True,
    )
    return 0 if found.measured == found.frames else 1
