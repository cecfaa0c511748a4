import cv2
import numpy as np
import pytest
import torch

from gscnn_lightning.callbacks import PredictionWriter
from gscnn_lightning.errors import DataError
from gscnn_lightning.output import TRUST


def predict(make_trainer, task, data, callback, **settings):
    make_trainer([callback], **settings).predict(task, datamodule=data, return_predictions=False)


def test_every_image_has_its_pictures(make_trainer, color_task, squares_data, tmp_path):
    task = color_task()
    predict(make_trainer, task, squares_data(), PredictionWriter())
    folder = tmp_path / "run" / "predictions" / "city"
    kinds = ("boundary", "color", "labels", "overlay")
    assert sorted(p.name for p in folder.iterdir()) == [f"{i:02}_{kind}.png" for i in range(6) for kind in kinds]
    sample = squares_data().predict_dataloader().dataset[5]
    output = task.eval()(sample["image"][None])
    labels = cv2.imread(str(folder / "05_labels.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(labels, output.seg_logits.argmax(1)[0].numpy())
    color = cv2.imread(str(folder / "05_color.png"))[..., ::-1]
    np.testing.assert_array_equal(color, np.asarray(squares_data.class_colors)[labels])
    prob = cv2.imread(str(folder / "05_boundary.png"), cv2.IMREAD_UNCHANGED) / 255
    np.testing.assert_allclose(prob, output.boundary_logits.sigmoid()[0, 0].detach().numpy(), atol=0.5 / 255 + 1e-6)


def test_trust_is_written_where_it_is_asked_for(make_trainer, color_task, squares_data, tmp_path):
    task = color_task()
    predict(make_trainer, task, squares_data(2), PredictionWriter(formats=["entropy", "confidence"]))
    folder = tmp_path / "run" / "predictions" / "city"
    assert sorted(p.name for p in folder.iterdir()) == [f"{i:02}_{k}.png" for i in (0, 1) for k in TRUST]
    output = task.eval()(squares_data(2).predict_dataloader().dataset[1]["image"][None])
    prob = output.seg_logits.detach().softmax(1)[0].numpy()
    found = {kind: cv2.imread(str(folder / f"01_{kind}.png"), cv2.IMREAD_UNCHANGED) for kind in TRUST}
    np.testing.assert_array_equal(found["confidence"], np.rint(255 * prob.max(0)))
    np.testing.assert_allclose(found["entropy"] / 255, -(prob * np.log(prob)).sum(0) / np.log(3), atol=0.003)


def test_writers_of_other_formats_side_by_side(make_trainer, color_task, squares_data, tmp_path):
    writers = [PredictionWriter(formats=["confidence"]), PredictionWriter(formats=["labels"])]
    make_trainer(writers).predict(color_task(), datamodule=squares_data(1), return_predictions=False)
    names = sorted(path.name for path in (tmp_path / "run" / "predictions" / "city").iterdir())
    assert names == ["00_confidence.png", "00_labels.png"]


def test_overlay_shows_photo_tint_and_outlines(make_trainer, color_task, squares_data, tmp_path):
    task = color_task()
    # Class = strongest colour channel.
    task.network[1].weight.data.copy_(torch.eye(3)[..., None, None])
    task.network[1].bias.data.zero_()
    predict(make_trainer, task, squares_data(1), PredictionWriter(tmp_path / "out"))
    overlay = cv2.imread(str(tmp_path / "out" / "city" / "00_overlay.png"))[..., ::-1]
    assert overlay[0, 0].tolist() == [200, 40, 40], "photo and class have the same colour"
    assert overlay[12, 10].tolist() == [40, 200, 40]
    assert overlay[12, 3].tolist() == overlay[12, 4].tolist() == [255, 255, 255], "both sides of the outline"


def test_control_has_no_boundary_picture(make_trainer, color_task, squares_data, tmp_path):
    predict(make_trainer, color_task(shape_stream=False), squares_data(1), PredictionWriter())
    names = sorted(path.name for path in (tmp_path / "run" / "predictions" / "city").iterdir())
    assert names == ["00_color.png", "00_labels.png", "00_overlay.png"]


def test_nothing_is_overwritten(make_trainer, color_task, squares_data, tmp_path):
    predict(make_trainer, color_task(), squares_data(1), PredictionWriter())
    path = tmp_path / "run" / "predictions" / "city" / "00_labels.png"
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"00_labels.png exists already.*output_dir"):
        predict(make_trainer, color_task(), squares_data(1), PredictionWriter())
    assert path.read_bytes() == before


def test_no_place_to_write_is_said_before_work_begins(make_trainer, color_task, squares_data):
    task = color_task()
    with pytest.raises(DataError, match="no place to write"):
        predict(make_trainer, task, squares_data(), PredictionWriter(), logger=False)
    assert task.forward_modes == []
