"""The files that scores of a stage leave, whoever has measured them."""

from gscnn_lightning.drawing.plots import plot_confusion, plot_distance_curves, plot_reliability
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.score_files import (
    write_confusion,
    write_image_scores,
    write_reliability,
    write_scores,
    write_table,
)
from gscnn_lightning.score_names import ECE, ECE_BOUNDARY
from gscnn_lightning.scores import Scores


def write_details(run: RunFolder, scores: Scores) -> None:
    """Write scores of images and of pairs of classes: image_scores.csv, confusion_matrix.csv and .png.

    Args:
        run: where to write; its folder exists.
        scores: with the confusion matrix and the names of the classes.
    """
    assert scores.confusion is not None
    write_image_scores(run, scores.images)
    write_confusion(run, scores.confusion, scores.class_names)
    plot_confusion(scores.confusion, scores.class_names, run.confusion_picture)


def write_stage(run: RunFolder, stage: str, scores: Scores) -> None:
    """Write scores_val.json or scores_test.json; of a test also its table, and reliability.csv where it was measured.

    Args:
        run: where to write.
        stage: "val" or "test".
        scores: with the names of the classes.
    """
    write_scores(run, stage, scores)
    if stage == "test":
        write_table(run.class_table(stage), dict(scores.rows()), first="class")
        if scores.reliability:
            write_reliability(run, scores.reliability)


def draw_stage(run: RunFolder, scores: Scores) -> None:
    """Draw distance_curve.png and reliability.png, as far as they were measured.

    Args:
        run: where to write.
        scores: of a test.
    """
    if scores.crops:
        plot_distance_curves({"": scores.crops}, run.distance_curve)
    if scores.reliability:
        errors = {"all": scores.means[ECE], "boundary": scores.means[ECE_BOUNDARY]}
        plot_reliability(scores.reliability, errors, run.reliability_picture)
