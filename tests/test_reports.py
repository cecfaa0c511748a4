import csv
import math

from gscnn_lightning.reports import plot_distance_curves, write_table


def test_table_keeps_every_digit_and_leaves_out_what_is_missing(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, {"road, wet": {"iou": 1 / 3, "f": math.nan}, "sky": {"iou": None, "g": 1}}, first="class")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["class", "iou", "f", "g"], ["road, wet", repr(1 / 3), "", ""], ["sky", "", "", "1.0"]]


def test_curves_are_drawn_even_with_gaps(tmp_path):
    plot_distance_curves({"A": {"0": 0.8, "200": math.nan}, "B": {"0": 0.7, "200": 0.5}}, tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
