import numpy as np

from gscnn_lightning.output import Prediction
from gscnn_lightning.run_folder.pictures import folder_name, grey_maps, palette_picture, shrunk


def test_wide_images_shrink_and_labels_keep_their_values():
    rng = np.random.default_rng(0)
    labels = np.kron(rng.choice([0, 7, 18, 255], (16, 32)), np.ones((8, 8), int))
    photo, gates = rng.integers(0, 256, (128, 256, 3), np.uint8), (labels / 255.0, labels[::4, ::4] / 255.0)
    row = Prediction("a", photo, labels, labels / 255.0, gates, labels, labels == 7)
    small = shrunk(row, width=64)
    assert small.photo.shape == (32, 64, 3)
    for values in (small.labels, small.preds):
        np.testing.assert_array_equal(values, labels[::4, ::4])
    np.testing.assert_array_equal(small.boundary, labels[::4, ::4] == 7)
    np.testing.assert_allclose(small.boundary_prob, labels[::4, ::4] / 255, atol=1e-6)
    assert [gate.shape for gate in small.gates] == [(32, 64), (32, 64)]
    assert shrunk(row).photo is row.photo


def test_folder_names_are_safe():
    assert folder_name(3, "a/b: c*\\ü.d") == "003_b_c_.d"
    assert folder_name(3, "b", digits=2) == "03_b"


def test_palette_has_the_class_colours_and_black():
    picture = palette_picture(np.array([[0, 1, 255]]), [(1, 2, 3), (4, 5, 6)])
    assert np.asarray(picture.convert("RGB")).tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]


def test_probabilities_that_are_no_numbers_are_black():
    labels = np.zeros((2, 3), np.uint8)
    row = Prediction("a", np.zeros((2, 3, 3), np.uint8), labels, np.full((2, 3), np.nan, np.float32))
    assert not grey_maps(row)["boundary"].any()
