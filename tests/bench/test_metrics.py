import re

import cv2
import numpy as np
import pytest
from tests.metrics.maps import blobs

from gscnn_lightning.bench import metrics as bench


@pytest.fixture
def pair():
    target = blobs(np.random.default_rng(0), (1, 60, 90), 19, 255)[0].numpy().astype(np.uint8)
    return bench.displaced(target, reach=2.0), target


def test_scores_that_differ_are_reported(pair):
    scores = bench.fscore_by_distance_maps(*pair, [1.0, 3.0])
    assert 0.1 < np.nanmean(scores) < 0.95
    bench.check_equal({"ours": scores, "theirs": scores.copy()})
    with pytest.raises(AssertionError, match="theirs against ours"):
        bench.check_equal({"ours": scores, "theirs": scores + 1e-9})


def test_table_compares_with_ours_and_needs_equal_values(pair, tmp_path, capsys):
    path = tmp_path / "x_labelIds.png"
    cv2.imwrite(str(path), np.random.default_rng(1).integers(0, 34, (40, 60), np.uint8).repeat(3, 0).repeat(3, 1))
    bench.measure_metrics(path, (1, 3), distance=4, reach=3.0, repeats=1, threads=1)
    out = capsys.readouterr().out
    assert re.search(r"boundary F at 1, 3 px \(120x180", out)
    assert "Boundary IoU at 4 px" in out
    assert len(re.findall(r"^.*gscnn_lightning .*1\.00", out, re.MULTILINE)) == 2
    assert "values equal to 1e-12" in out


def test_file_that_is_no_label_map(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(bench.DataError, match=r"photo.png is no 8-bit label map"):
        bench.measure_metrics(tmp_path / "photo.png", (1,), 4, 3.0, 1, 1)
