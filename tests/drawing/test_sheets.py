from dataclasses import replace

import numpy as np
import pytest

from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.classes import CAMVID
from gscnn_lightning.drawing.maps import colorize_labels, heat_map
from gscnn_lightning.drawing.sheets import SuspectCrop, contact_sheet, suspect_sheet
from gscnn_lightning.output import Prediction


@pytest.fixture
def row():
    rng = np.random.default_rng(0)
    labels = np.zeros((48, 64), np.uint8)
    labels[10:30, 20:40] = 3
    labels[40:] = 255
    gates = tuple(rng.random((24, 32)).astype(np.float32) for _ in range(3))
    prob = rng.random((48, 64)).astype(np.float32)
    photo = rng.integers(0, 256, (48, 64, 3), np.uint8)
    return Prediction("val/a", photo, labels, prob, gates, labels, label_boundaries(labels))


def test_contact_sheet_puts_pictures_where_titles_say(row):
    sheet = contact_sheet([row, row], CAMVID.names, CAMVID.colors, cell_width=64)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * 12 + 8 * 64 + 7 * 6
    top = 17 * 2
    for column, picture in enumerate([row.photo, colorize_labels(row.labels, CAMVID.colors)]):
        left = 12 + column * 70
        np.testing.assert_array_equal(sheet[top : top + 48, left : left + 64], picture)
    np.testing.assert_array_equal(sheet[top : top + 48, 12 + 4 * 70 :][:, :64], heat_map(row.boundary_prob))
    legend = {tuple(color) for color in sheet[top + 2 * (48 + 24) :].reshape(-1, 3).tolist()}
    assert set(CAMVID.colors) <= legend, "every class colour is in the legend"


def test_contact_sheet_of_the_control_has_four_columns(row):
    control = replace(row, boundary_prob=None, gates=())
    sheet = contact_sheet([control], CAMVID.names, CAMVID.colors, cell_width=100)
    assert sheet.shape[1] == 2 * 12 + 4 * 100 + 3 * 6
    with pytest.raises(ValueError, match="equal columns"):
        contact_sheet([row, control], CAMVID.names, CAMVID.colors)
    with pytest.raises(ValueError, match="0 rows"):
        contact_sheet([], CAMVID.names, CAMVID.colors)


def test_constant_gates_and_long_names_can_be_drawn(row):
    flat = replace(row, name="x" * 400, boundary_prob=None, gates=(np.ones((3, 4), np.float32),))
    sheet = contact_sheet([flat], ["c" * 200] * 11, CAMVID.colors, cell_width=40)
    gate = sheet[34 : 34 + 30, 12 + 4 * 46 :][:, :40].reshape(-1, 3)
    assert len(np.unique(gate, axis=0)) == 1


def test_suspects_have_their_region_outlined_in_three_pictures_of_one_size():
    labels = np.zeros((30, 40), np.uint8)
    labels[10:20, 10:20] = 1
    region = labels == 1
    photo = np.full((30, 40, 3), 90, np.uint8)
    crop = SuspectCrop(photo, labels, np.zeros_like(labels), region, ("city/a", "label: car", "predicted: road"))
    tall = SuspectCrop(photo[:, :10], labels[:, :10], labels[:, :10], region[:, :10], ("b", "", ""))
    sheet = suspect_sheet([crop, tall, crop], ("road", "car"), ((128, 64, 128), (0, 0, 142)), cell_width=80)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * 12 + 6 * 80 + 5 * 6
    below = 2 * 17  # the titles
    cells = [sheet[below : below + 60, 12 + place * 86 : 12 + place * 86 + 80] for place in range(3)]
    for cell, inside, outside in zip(
        cells, (90, (0, 0, 142), (128, 64, 128)), (90, *[(128, 64, 128)] * 2), strict=True
    ):
        assert (cell[30, 30] == inside).all()
        assert (cell[5, 70] == outside).all()
        assert (cell[20, 21:39] == 255).all(), "a light line on the region's edge"
        assert (cell[18, 21:39] <= cell[5, 70]).all(), "with a dark one around it"
    upright = sheet[below : below + 80, 12 + 3 * 86 : 12 + 3 * 86 + 80]
    assert (upright[:, :20] == 90).all(), "as high as others are wide, at most"
    assert (upright[:80, 30:] == 255).all()
    with pytest.raises(ValueError, match="no crops"):
        suspect_sheet([], ("road",), ((0, 0, 0),))
