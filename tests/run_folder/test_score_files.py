import csv
import math

from gscnn_lightning.run_folder.score_files import write_table


def test_table_keeps_every_digit_and_leaves_out_what_is_missing(tmp_path):
    path = tmp_path / "t.csv"
    write_table(path, {"road, wet": {"iou": 1 / 3, "f": math.nan}, "sky": {"iou": None, "g": 1}}, first="class")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["class", "iou", "f", "g"], ["road, wet", repr(1 / 3), "", ""], ["sky", "", "", "1.0"]]
