import re

import pytest
from tests.tiny import write_config

from gscnn_lightning.bench.tracking import measure_tracking
from gscnn_lightning.errors import SettingError


def test_epochs_of_either_kind_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    measure_tracking(str(write_config(tmp_path / "tiny.yaml")), epochs=3)
    out = capsys.readouterr().out
    assert "1 epochs of either kind" in out
    assert re.search(r"with metrics.csv alone.* 1\.00", out)
    assert re.search(r"with W&B, pictures and records +[\d.]+ +\d+\.\d\d", out)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_too_few_epochs():
    with pytest.raises(SettingError, match="epochs is 2: give 3 or more"):
        measure_tracking("scenes", epochs=2)
