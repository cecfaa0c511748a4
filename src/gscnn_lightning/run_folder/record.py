"""The files that scores of a stage leave, whoever has measured them."""

from gscnn_lightning.drawing.plots import plot_confusion, plot_distance_curves
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.score_files import write_confusion, write_image_scores, write_scores, write_table
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
    """Write scores_val.json or scores_test.json; of a test also its table, and distance_curve.png.

    Args:
        run: where to write.
        stage: "val" or "test".
        scores: with the names of the classes.
    """
    write_scores(run, stage, scores)
    if stage == "test":
        write_table(run.class_table(stage), dict(scores.rows()), first="class")
        if scores.crops:
            plot_distance_curves({"": scores.crops}, run.distance_curve)
