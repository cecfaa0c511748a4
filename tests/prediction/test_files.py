import cv2
import numpy as np
import pytest

from gscnn_lightning.classes import CAMVID, CITYSCAPES, CITYSCAPES_TRAIN_ID_TO_ID
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.output import Prediction
from gscnn_lightning.prediction.files import PredictionFiles

ALL = ("labels", "ids", "color", "overlay", "boundary", "gates", "confidence", "entropy")


@pytest.fixture
def prediction():
    rng = np.random.default_rng(0)
    labels = np.arange(20, dtype=np.uint8).repeat(3).reshape(6, 10).repeat(4, 0).repeat(4, 1) % 19
    photo = rng.integers(0, 256, (*labels.shape, 3), np.uint8)
    gates = tuple(rng.random((5, 7)).astype(np.float32) for _ in range(3))
    prob, confidence, entropy = rng.random((3, *labels.shape)).astype(np.float32)
    return Prediction("city/a", photo, labels, prob, gates, confidence=confidence, entropy=entropy)


def read(path):
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return picture[..., ::-1] if picture.ndim == 3 else picture


def test_every_format(prediction, tmp_path):
    files = PredictionFiles(tmp_path, CITYSCAPES.names, CITYSCAPES.colors, ALL)
    files.write(prediction)
    paths = files.paths("city/a", shape_stream=True)
    assert sorted(paths) == sorted((tmp_path / "city").iterdir())
    assert len(paths) == 10
    np.testing.assert_array_equal(read(tmp_path / "city/a_labels.png"), prediction.preds)
    ids = read(tmp_path / "city/a_ids.png")
    np.testing.assert_array_equal(ids, np.vectorize(CITYSCAPES_TRAIN_ID_TO_ID.get)(prediction.preds))
    np.testing.assert_array_equal(read(tmp_path / "city/a_color.png"), np.array(CITYSCAPES.colors)[prediction.preds])
    prob = read(tmp_path / "city/a_boundary.png") / 255
    np.testing.assert_allclose(prob, prediction.boundary_prob, atol=0.5 / 255 + 1e-6)
    for kind in ("confidence", "entropy"):
        share = read(tmp_path / f"city/a_{kind}.png")
        assert (share.dtype, share.shape) == (np.uint8, prediction.preds.shape)
        np.testing.assert_allclose(share / 255, getattr(prediction, kind), atol=0.5 / 255 + 1e-6)
    assert read(tmp_path / "city/a_gate3.png").shape == (*prediction.preds.shape, 3)


def test_network_without_shape_stream_lacks_its_files(prediction, tmp_path):
    files = PredictionFiles(tmp_path, CAMVID.names, CAMVID.colors, ("labels", "boundary", "gates"))
    files.write(Prediction("a", prediction.photo, prediction.preds))
    assert [path.name for path in tmp_path.iterdir()] == ["a_labels.png"]
    assert files.paths("a", shape_stream=False) == [tmp_path / "a_labels.png"]


def test_nothing_is_overwritten_without_being_told(prediction, tmp_path):
    files = PredictionFiles(tmp_path, CITYSCAPES.names, CITYSCAPES.colors, ("labels", "color"))
    path = tmp_path / "city/a_labels.png"
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(DataError, match=r"a_labels.png exists already.*same name"):
        files.write(prediction)
    files.write(prediction, missing_only=True)
    assert path.read_text() == "mine"
    assert sorted(p.name for p in path.parent.iterdir()) == ["a_color.png", "a_labels.png"], "no remains"
    PredictionFiles(tmp_path, CITYSCAPES.names, CITYSCAPES.colors, ("labels",), overwrite=True).write(prediction)
    np.testing.assert_array_equal(read(path), prediction.preds)


def test_formats_that_cannot_be(tmp_path):
    with pytest.raises(SettingError, match=r"unknown formats \['jpeg'\].*labels, ids"):
        PredictionFiles(tmp_path, CITYSCAPES.names, CITYSCAPES.colors, ("jpeg",))
    with pytest.raises(SettingError, match="official ids need the 19 Cityscapes classes"):
        PredictionFiles(tmp_path, CAMVID.names, CAMVID.colors, ("ids",))


def test_records_without_what_is_to_be_written(prediction, tmp_path):
    files = PredictionFiles(tmp_path, CAMVID.names, CAMVID.colors, ("labels", "entropy"))
    with pytest.raises(ValueError, match=r"a has no entropy: make its record with trust=\('entropy',\)"):
        files.write(Prediction("a", prediction.photo, prediction.preds))
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(prediction, tmp_path):
    (tmp_path / "file").touch()
    files = PredictionFiles(tmp_path / "file", CITYSCAPES.names, CITYSCAPES.colors, ("labels",))
    with pytest.raises(DataError, match="cannot write"):
        files.write(prediction)
