import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.metrics.maps import blobs

from gscnn_lightning.bench import score as bench
from gscnn_lightning.errors import DataError
from gscnn_lightning.prediction.files import official_ids


@pytest.fixture
def folder(tmp_path):
    for index in range(2):
        ids = official_ids(blobs(np.random.default_rng(index), (1, 60, 90), 19)[0].numpy().astype(np.uint8))
        cv2.imwrite(str(tmp_path / f"a_{index}_gtFine_labelIds.png"), ids)
        cv2.imwrite(
            str(tmp_path / f"a_{index}_gtFine_instanceIds.png"), np.where(ids == 26, 26001, ids).astype(np.uint16)
        )
    return tmp_path


def test_table_of_both_programs_which_have_to_agree(folder, capsys):
    pytest.importorskip("cityscapesscripts")
    bench.measure_score(folder, frames=3, reach=2.0, threads=1)
    out = capsys.readouterr().out
    assert re.search(r"gscnn_lightning, all scores +[\d.]+ +[\d.]+", out)
    assert re.search(r"cityscapesscripts, IoU and iIoU +[\d.]+ +1\.00", out)
    assert "mean IoU equal to 1e-9; reading and decoding are" in out


def test_frames_are_different(folder, tmp_path):
    truth, preds = bench.make_frames(folder, tmp_path / "made", 5, 2.0)
    first, third = (cv2.imread(truth[index], cv2.IMREAD_UNCHANGED) for index in (0, 2))
    assert (third == np.roll(first, 97, axis=1)[:, ::-1]).all()
    assert sorted(np.unique(first)) == sorted(np.unique(third))
    assert len({Path(path).read_bytes() for path in preds}) == 5


def test_folder_without_label_maps(tmp_path):
    with pytest.raises(DataError, match=r"no \*_labelIds.png with \*_instanceIds.png"):
        bench.make_frames(tmp_path, tmp_path / "made", 1, 2.0)
