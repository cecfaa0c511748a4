import math

import cv2
import pytest

from gscnn_lightning.drawing.plots import plot_distance_curves, plot_learning_curves, plot_reliability
from gscnn_lightning.errors import DataError
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.metrics_csv import read_metrics

METRICS = """epoch,train/lr,step,train/loss_step,train/loss_epoch,train/loss_attention,val/miou,val/boundary_f1_3px
0,0.1,0,,,,,
0,,0,4.0,,0.0,,
0,,9,2.0,,0.1,,
0,,9,,3.0,,0.25,0.1
1,0.05,10,,,,,
1,,19,1.0,,0.1,,
1,,19,,1.5,,nan,0.3
"""


def draw(folder):
    plot_learning_curves(*read_metrics(RunFolder(folder)), folder / "curves.png")


def test_learning_curves_have_a_panel_per_kind(tmp_path):
    (tmp_path / "metrics.csv").write_text(METRICS)
    draw(tmp_path)
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture.shape[1] == pytest.approx(3 * 5.2 * 130, abs=2)
    assert (picture < 128).mean() > 0.005


def test_learning_curves_of_losses_alone(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,1.0\n1,0.5\n")
    draw(tmp_path)
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
        draw(tmp_path)
    assert "nothing to draw" in message or str(path) in str(error.value)


def test_curves_are_drawn_even_with_gaps(tmp_path):
    plot_distance_curves({"A": {"0": 0.8, "200": math.nan}, "B": {"0": 0.7, "200": 0.5}}, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_reliability_is_drawn_even_with_empty_bins(tmp_path):
    nothing = {"pixels": [0.0] * 3, "confidence": [math.nan] * 3, "accuracy": [math.nan] * 3}
    some = {"pixels": [0.0, 5.0, 95.0], "confidence": [math.nan, 0.6, 0.9], "accuracy": [math.nan, 0.2, 0.9]}
    sizes = []
    for name, bins in (("nothing", nothing), ("some", some)):
        plot_reliability(
            {"all": bins, "boundary": nothing}, {"all": 0.1, "boundary": math.nan}, tmp_path / f"{name}.png"
        )
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        sizes.append((picture.shape, int((picture != 255).sum())))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[0][1] < sizes[1][1], "a curve more"
