"""The folder of a run: names of files, and scores that come back as they were written."""

import csv
import json
import math

import numpy as np
import pytest

from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.run_folder import RunFolder, find_run, run_of_checkpoint
from gscnn_lightning.run_folder.score_files import (
    read_confusion,
    read_image_scores,
    read_scores,
    write_confusion,
    write_image_scores,
    write_scores,
)
from gscnn_lightning.scores import ImageScores, Scores, most_changed_images, worst_images


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def test_scores_come_back_as_they_were(run):
    scores = Scores(
        means={"miou": 1 / 3, "boundary_f1_3px": math.nan},
        classes={"iou": [0.1, math.nan], "boundary_f1_3px": [0.2, 0.3]},
        class_names=("road", "a/b: [c]"),
        categories={"flat": {"category_iou": 0.5}},
        crops={"0": 0.4, "400": math.nan},
        epoch=4,
        training_seconds=12.3456,
    )
    write_scores(run, "val", scores)
    assert json.loads(run.scores("val").read_text())["epoch"] == 3, "in the file it is Lightning's, from 0"
    found = read_scores(run, "val")
    assert found.training_seconds == 12.346
    np.testing.assert_equal({**vars(found), "training_seconds": 12.3456}, vars(scores))
    assert found.of_class("a/b: [c]")["boundary_f1_3px"] == 0.3
    assert found.of_class("unknown") == {}


def test_scores_of_images_and_pairs_of_classes_come_back(run):
    images = [ImageScores(0, "a, b", {"miou": 1 / 3}), ImageScores(2, "c", {"miou": math.nan})]
    write_image_scores(run, images)
    np.testing.assert_equal([vars(image) for image in read_image_scores(run)], [vars(image) for image in images])
    write_confusion(run, np.array([[1, 2], [3, 4]]), ["x", "y"])
    assert read_confusion(run, ["x", "y"]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="not the classes of the run"):
        read_confusion(run, ["x", "z"])


def test_what_was_not_measured_is_empty(run):
    assert read_image_scores(run) == []
    assert read_confusion(run, []) is None
    write_image_scores(run, [])
    assert read_image_scores(run) == []


def test_most_changed_images_are_far_from_each_other_and_means_of_seeds():
    def side(*values):
        return [ImageScores(i, str(i), {"boundary_f1_1px": v}) for i, v in enumerate(values)]

    zero = side(*[0.5] * 40)
    changes = [0.0] * 40
    changes[10], changes[11], changes[20], changes[30], changes[31] = 0.4, 0.3, 0.1, -0.4, -0.2
    changes[5] = math.nan
    one = side(*(0.5 + c for c in changes))
    found = most_changed_images([(zero, one), (zero, zero)], "boundary_f1_1px", 4)
    assert [place for place, _ in found] == [10, 20, 30], "11 and 31 are next to others"
    assert [change for _, change in found] == pytest.approx([0.2, 0.05, -0.2])
    assert most_changed_images([(one, one)], "boundary_f1_1px", 4) == []


def test_worst_images_are_those_of_the_loosest_boundary_score():
    def image(index, strict, loose):
        return ImageScores(index, str(index), {"boundary_f1_1px": strict, "boundary_f1_3px": loose, "miou": 0.5})

    images = [image(0, 0.1, 0.9), image(1, 0.5, 0.2), image(2, 0.3, math.nan), image(3, 0.2, 0.5)]
    assert [found.index for found in worst_images(images)] == [1, 3, 0]
    assert worst_images([]) == []
    assert worst_images([ImageScores(0, "a", {"miou": 1.0})]) == []


def test_metrics_that_are_put_aside_are_numbered_and_listed_in_order(run):
    for part in range(12):
        run.metrics.write_text(str(part))
        run.keep_metrics()
    run.keep_metrics()
    assert [path.read_text() for path in run.earlier_metrics] == [str(part) for part in range(12)]


def test_pictures_of_epochs_are_found_by_number(run):
    for epoch in (2, 1000, 30):
        run.epoch_pictures(epoch).mkdir(parents=True)
    run.worst_pictures.mkdir()
    assert list(run.pictured_epochs) == [2, 30, 1000]


def test_a_checkpoint_knows_its_run(run):
    run.best_checkpoint.parent.mkdir()
    assert run_of_checkpoint(run.best_checkpoint) is None
    run.config.write_text("{}")
    assert run_of_checkpoint(run.best_checkpoint) == run


def test_a_folder_of_runs_is_no_run(tmp_path):
    inside = RunFolder(tmp_path / "camvid/version_3")
    inside.path.mkdir(parents=True)
    with pytest.raises(
        SettingError, match=r"it has neither metrics\.csv nor scores_val\.json; give the folder of a run"
    ):
        find_run(tmp_path)
    with inside.metrics.open("w", newline="") as file:
        csv.writer(file).writerow(["step"])
    assert find_run(inside.path) == inside
    with pytest.raises(SettingError, match=r"did you mean .*camvid/version_3\?"):
        find_run(tmp_path)
