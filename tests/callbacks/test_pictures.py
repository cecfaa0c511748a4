from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

from gscnn_lightning.callbacks import Pictures
from gscnn_lightning.data import label_boundaries
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.score_files import write_image_scores
from gscnn_lightning.scores import ImageScores

MAPS = ["boundary.png", "boundary_truth.png", "gate_1.png", "gate_2.png", "gate_3.png"]
PHOTO = ["labels.png", "photo.jpg", "prediction.png"]


def folders(run):
    return sorted(str(p.parent.relative_to(run / "pictures")) for p in run.rglob("photo.jpg"))


def pixels(path):
    return np.asarray(Image.open(path))


def sheet_size(path):
    return cv2.imread(str(path / "contact_sheet.png")).shape[:2]


def test_fit_shows_the_best_checkpoint_and_restores_the_last(make_trainer, color_task, squares_data, tmp_path):
    task, best = color_task(), ModelCheckpoint(monitor="val/miou", mode="max")
    make_trainer([Pictures(num_images=2), best]).fit(task, datamodule=squares_data())
    assert sheet_size(tmp_path / "run")[1] == 2 * 12 + 8 * 320 + 7 * 6
    saved = torch.load(best.best_model_path, weights_only=False)["state_dict"]["network.1.bias"]
    final = task.network[1].bias.detach()
    assert not torch.equal(saved, final), "the best epoch is not the last in this test"
    assert all(torch.equal(bias, saved) for bias in task.seen_weights[-2:])


def test_network_is_evaluated_and_left_in_its_modes(make_trainer, color_task, squares_data):
    task = color_task()
    task.network[0].eval()
    make_trainer([Pictures(num_images=3)], max_epochs=1).fit(task, datamodule=squares_data())
    assert task.forward_modes == [True] * 3 + [False] * 3
    assert torch.equal(task.seen_weights[-1], task.network[1].bias)
    assert [module.training for module in task.network.modules()] == [True, False, True]


def test_validate_draws_the_weights_it_was_given(make_trainer, color_task, squares_data, tmp_path):
    task = color_task(shape_stream=False)
    make_trainer([Pictures()]).validate(task, datamodule=squares_data(), verbose=False)
    assert sheet_size(tmp_path / "run")[1] == 2 * 12 + 4 * 320 + 3 * 6


def test_images_are_spread_over_the_set(make_trainer, color_task, squares_data, tmp_path):
    heights = []
    for wanted in (1, 2, 50):
        trainer = make_trainer([Pictures(num_images=wanted)])
        trainer.validate(color_task(), datamodule=squares_data(length=3), verbose=False)
        heights.append(sheet_size(tmp_path / "run")[0])
    # Two rows more from 1 to 3 images: never an image twice.
    assert heights[2] - heights[1] == heights[1] - heights[0] == 240 + 24


def test_labels_reach_the_picture_in_class_colours(make_trainer, color_task, squares_data, tmp_path):
    make_trainer([Pictures(num_images=1)]).validate(color_task(), datamodule=squares_data(), verbose=False)
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "run" / "contact_sheet.png")), cv2.COLOR_BGR2RGB)
    labels = sheet[34 : 34 + 240, 12 + 326 : 12 + 326 + 320]
    np.testing.assert_array_equal(labels[120, [10, 100, 315]], [(200, 40, 40), (40, 200, 40), (0, 0, 0)])


def test_files_hold_what_the_network_says(make_trainer, color_task, squares_data, tmp_path):
    task, data = color_task(), squares_data()
    make_trainer([Pictures(num_images=2)]).validate(task, datamodule=data, verbose=False)
    assert folders(tmp_path / "run") == ["epoch_000/000_00", "epoch_000/005_05"]
    folder, sample = tmp_path / "run/pictures/epoch_000/005_05", data.loader().dataset[5]
    assert sorted(p.name for p in folder.iterdir()) == sorted([*MAPS, *PHOTO])
    output = task.eval()(sample["image"][None])
    for name, ids in (("labels", sample["mask"]), ("prediction", output.seg_logits[0].argmax(0))):
        picture = Image.open(folder / f"{name}.png")
        assert picture.mode == "P"
        np.testing.assert_array_equal(pixels(folder / f"{name}.png"), ids)
        colors = np.asarray([*data.class_colors, *[(0, 0, 0)] * 253])
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), colors[ids])
    assert 255 in pixels(folder / "labels.png"), "void is there"
    prob = output.boundary_logits[0, 0].sigmoid().detach().numpy()
    np.testing.assert_array_equal(pixels(folder / "boundary.png"), np.rint(255 * prob))
    np.testing.assert_array_equal(pixels(folder / "boundary_truth.png"), 255 * label_boundaries(sample["mask"].numpy()))
    for index, gate in enumerate(output.gates, start=1):
        np.testing.assert_array_equal(pixels(folder / f"gate_{index}.png"), np.rint(255 * gate[0, 0].detach().numpy()))
    photo = sample["image"].permute(1, 2, 0).numpy().astype(int)
    assert abs(pixels(folder / "photo.jpg") - photo).mean() < 12


def test_control_has_neither_boundary_nor_gates(make_trainer, color_task, squares_data, tmp_path):
    trainer = make_trainer([Pictures(num_images=1)])
    trainer.validate(color_task(shape_stream=False), datamodule=squares_data(), verbose=False)
    names = sorted(p.name for p in (tmp_path / "run/pictures/epoch_000/000_00").iterdir())
    assert names == sorted(["boundary_truth.png", *PHOTO])


@pytest.mark.parametrize(
    ("every", "validated", "expected"), [(None, 1, [1, 2, 3, 4, 5]), (2, 1, [2, 4, 5]), (3, 2, [4, 5]), (9, 1, [5])]
)
def test_epochs_of_the_pictures(every, validated, expected, make_trainer, color_task, squares_data, tmp_path):
    task = color_task(scores=(0.1, 0.2, 0.3, 0.4, 0.5))
    callbacks = [Pictures(num_images=1, every_n_epochs=every, num_worst=0)]
    trainer = make_trainer(callbacks, max_epochs=5, check_val_every_n_epoch=validated)
    trainer.fit(task, datamodule=squares_data())
    assert folders(tmp_path / "run") == [f"epoch_{epoch:03}/000_00" for epoch in expected]


def test_the_end_shows_the_epoch_of_the_best_checkpoint(make_trainer, color_task, squares_data, tmp_path):
    callbacks = [Pictures(num_images=1, every_n_epochs=9), ModelCheckpoint(monitor="val/miou", mode="max")]
    make_trainer(callbacks).fit(color_task(), datamodule=squares_data())
    assert folders(tmp_path / "run") == ["epoch_002/000_00"]


def test_worst_images_are_those_with_the_lowest_boundary_score(make_trainer, color_task, squares_data, tmp_path):
    scores = [0.5, 0.1, float("nan"), 0.9, 0.3, 0.2]
    names = ("boundary_f1_1px", "boundary_f1_3px", "miou")
    images = [ImageScores(i, str(i), dict(zip(names, (1 - i / 9, f, 0.5), strict=True))) for i, f in enumerate(scores)]
    (tmp_path / "run").mkdir()
    write_image_scores(RunFolder(tmp_path / "run"), images)
    callback = Pictures(num_images=1, num_worst=3)
    make_trainer([callback]).validate(color_task(), datamodule=squares_data(), verbose=False)
    assert folders(tmp_path / "run")[1:] == ["worst/00_01", "worst/01_05", "worst/02_04"]


def test_without_scores_of_images_there_are_no_worst_ones(make_trainer, color_task, squares_data, tmp_path):
    (tmp_path / "run").mkdir()
    write_image_scores(RunFolder(tmp_path / "run"), [])
    make_trainer([Pictures(num_images=1)]).validate(color_task(), datamodule=squares_data(), verbose=False)
    assert folders(tmp_path / "run") == ["epoch_000/000_00"]


@pytest.mark.parametrize(("epochs", "number"), [(5, 5), (10, 10), (19, 10), (20, 10), (-1, 2)])
def test_pictures_are_made_about_ten_times(epochs, number):
    callback, drawn = Pictures(), 0
    for epoch in range(epochs if epochs > 0 else 25):
        trainer = SimpleNamespace(max_epochs=epochs, current_epoch=epoch)
        if callback._is_time(trainer) or epoch + 1 == epochs:
            callback._latest, drawn = epoch + 1, drawn + 1
    assert drawn == number


def test_without_a_logger_nothing_is_written(make_trainer, color_task, squares_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_trainer([Pictures()], max_epochs=1, logger=False).fit(color_task(), datamodule=squares_data())
    make_trainer([Pictures()], fast_dev_run=True).fit(color_task(), datamodule=squares_data())
    assert [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.jpg")] == []


@pytest.mark.parametrize(("name", "value"), [("num_images", 0), ("every_n_epochs", 0), ("num_worst", -1)])
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        Pictures(**{name: value})
