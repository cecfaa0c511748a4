import numpy as np
import pytest

from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.drawing.maps import colorize_labels, heat_map, overlay_boundaries, overlay_labels


def test_labels_take_class_colours_and_void_is_black():
    labels = np.array([[0, 18], [255, 19]], np.uint8)
    colors = colorize_labels(labels, CITYSCAPES.colors)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[128, 64, 128], [119, 11, 32]], [[0, 0, 0], [0, 0, 0]]]


def test_negative_labels_are_black():
    assert colorize_labels(np.array([[-1]]), [(9, 9, 9)]).tolist() == [[[0, 0, 0]]]


def test_overlays_change_only_what_they_mark():
    photo = np.full((2, 2, 3), 100, np.uint8)
    tinted = overlay_labels(photo, np.array([[0, 255], [0, 0]]), [(200, 0, 50)])
    assert tinted[0, 1].tolist() == [100, 100, 100]
    assert tinted[0, 0].tolist() == [150, 50, 75]
    painted = overlay_boundaries(photo, np.array([[1, 0], [0, 0]]), color=(1, 2, 3))
    assert painted[0, 0].tolist() == [1, 2, 3]
    assert (painted.reshape(-1, 3)[1:] == 100).all()
    assert (photo == 100).all()


def test_heat_map_brightens_with_its_values_and_clips():
    ramp = heat_map(np.linspace(0, 1, 64)[None], low=0.0, high=1.0)
    luminance = ramp[0] @ [0.299, 0.587, 0.114]
    assert (np.diff(luminance) > 0).all()
    assert heat_map(np.array([[-5.0, 0.0]])).tolist() == [[[0, 0, 3], [0, 0, 3]]]
    with pytest.raises(ValueError, match="high must be above low"):
        heat_map(np.zeros((1, 1)), 1, 1)
