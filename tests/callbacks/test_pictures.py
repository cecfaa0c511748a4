import cv2
import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from gscnn_lightning.callbacks import ContactSheet


def sheet_size(path):
    return cv2.imread(str(path / "contact_sheet.png")).shape[:2]


def test_fit_shows_the_best_checkpoint_and_restores_the_last(make_trainer, color_task, squares_data, tmp_path):
    task, best = color_task(), ModelCheckpoint(monitor="val/miou", mode="max")
    make_trainer([ContactSheet(num_images=2), best]).fit(task, datamodule=squares_data())
    assert sheet_size(tmp_path / "run")[1] == 2 * 12 + 8 * 320 + 7 * 6
    saved = torch.load(best.best_model_path, weights_only=False)["state_dict"]["network.1.bias"]
    final = task.network[1].bias.detach()
    assert not torch.equal(saved, final), "the best epoch is not the last in this test"
    assert all(torch.equal(bias, saved) for bias in task.seen_weights[-2:])


def test_network_is_evaluated_and_left_in_its_modes(make_trainer, color_task, squares_data):
    task = color_task()
    task.network[0].eval()
    make_trainer([ContactSheet(num_images=3)], max_epochs=1).fit(task, datamodule=squares_data())
    assert task.forward_modes == [True] * 3 + [False] * 3
    assert torch.equal(task.seen_weights[-1], task.network[1].bias)
    assert [module.training for module in task.network.modules()] == [True, False, True]


def test_validate_draws_the_weights_it_was_given(make_trainer, color_task, squares_data, tmp_path):
    task = color_task(shape_stream=False)
    make_trainer([ContactSheet()]).validate(task, datamodule=squares_data(), verbose=False)
    assert sheet_size(tmp_path / "run")[1] == 2 * 12 + 4 * 320 + 3 * 6


def test_images_are_spread_over_the_set(make_trainer, color_task, squares_data, tmp_path):
    heights = []
    for wanted in (1, 2, 50):
        trainer = make_trainer([ContactSheet(num_images=wanted)])
        trainer.validate(color_task(), datamodule=squares_data(length=3), verbose=False)
        heights.append(sheet_size(tmp_path / "run")[0])
    # Two rows more from 1 to 3 images: never an image twice.
    assert heights[2] - heights[1] == heights[1] - heights[0] == 240 + 24


def test_labels_reach_the_picture_in_class_colours(make_trainer, color_task, squares_data, tmp_path):
    make_trainer([ContactSheet(num_images=1)]).validate(color_task(), datamodule=squares_data(), verbose=False)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "run" / "contact_sheet.png")), cv2.COLOR_BGR2RGB)
    labels = sheet[34 : 34 + 240, 12 + 326 : 12 + 326 + 320]
    np.testing.assert_array_equal(labels[120, [10, 100, 315]], [(200, 40, 40), (40, 200, 40), (0, 0, 0)])


def test_without_a_logger_nothing_is_written(make_trainer, color_task, squares_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_trainer([ContactSheet()], max_epochs=1, logger=False).fit(color_task(), datamodule=squares_data())
    make_trainer([ContactSheet()], fast_dev_run=True).fit(color_task(), datamodule=squares_data())
    assert list(tmp_path.rglob("*.png")) == []


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="num_images is 0"):
        ContactSheet(num_images=0)
