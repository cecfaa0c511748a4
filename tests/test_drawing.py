import cv2
import numpy as np
import pytest

from gscnn_lightning.data.boundaries import label_boundaries
from gscnn_lightning.data.classes import CAMVID, CITYSCAPES
from gscnn_lightning.drawing import (
    SheetRow,
    colorize_labels,
    contact_sheet,
    heat_map,
    overlay_boundaries,
    overlay_labels,
    plot_learning_curves,
)
from gscnn_lightning.errors import DataError


@pytest.fixture
def row():
    rng = np.random.default_rng(0)
    labels = np.zeros((48, 64), np.uint8)
    labels[10:30, 20:40] = 3
    labels[40:] = 255
    gates = tuple(rng.random((24, 32)).astype(np.float32) for _ in range(3))
    prob = rng.random((48, 64)).astype(np.float32)
    photo = rng.integers(0, 256, (48, 64, 3), np.uint8)
    return SheetRow("val/a", photo, labels, labels, label_boundaries(labels), prob, gates)


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
    control = SheetRow(row.name, row.photo, row.labels, row.preds, row.boundary)
    sheet = contact_sheet([control], CAMVID.names, CAMVID.colors, cell_width=100)
    assert sheet.shape[1] == 2 * 12 + 4 * 100 + 3 * 6
    with pytest.raises(ValueError, match="equal columns"):
        contact_sheet([row, control], CAMVID.names, CAMVID.colors)
    with pytest.raises(ValueError, match="0 rows"):
        contact_sheet([], CAMVID.names, CAMVID.colors)


def test_constant_gates_and_long_names_can_be_drawn(row):
    flat = SheetRow("x" * 400, row.photo, row.labels, row.preds, row.boundary, None, (np.ones((3, 4), np.float32),))
    sheet = contact_sheet([flat], ["c" * 200] * 11, CAMVID.colors, cell_width=40)
    gate = sheet[34 : 34 + 30, 12 + 4 * 46 :][:, :40].reshape(-1, 3)
    assert len(np.unique(gate, axis=0)) == 1


METRICS = """epoch,train/lr,step,train/loss_step,train/loss_epoch,train/loss_attention,val/miou,val/boundary_f1_3px
0,0.1,0,,,,,
0,,0,4.0,,0.0,,
0,,9,2.0,,0.1,,
0,,9,,3.0,,0.25,0.1
1,0.05,10,,,,,
1,,19,1.0,,0.1,,
1,,19,,1.5,,nan,0.3
"""


def test_learning_curves_have_a_panel_per_kind(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    plot_learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape[1] == pytest.approx(3 * 5.2 * 130, abs=2)
    assert (picture < 128).mean() > 0.005


def test_learning_curves_of_losses_alone(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,1.0\n1,0.5\n")
    plot_learning_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).shape[1] == pytest.approx(5.2 * 130, abs=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("step,other\n0,1\n", "nothing to draw"),
        ("", "nothing to draw"),
        ("train/loss\n1\n", "not a metrics file"),
        ("step,train/loss\n0,high\n", "not a metrics file.*high"),
        (None, "not a metrics file"),
    ],
)
def test_useless_metrics_files_are_named(tmp_path, content, message):
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        plot_learning_curves(path, tmp_path / "curves.png")
    assert str(path) in str(error.value)
