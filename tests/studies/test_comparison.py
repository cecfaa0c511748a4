import csv
import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from tests.metrics.test_evaluation import part
from tests.tiny import write_checkpoint

from gscnn_lightning.classes import CAMVID, CITYSCAPES
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.studies.comparison import Difference, _table, differences

SCENES = ["--data", "ScenesDataModule", "--data.size", "[64,128]", "--data.val_samples", "3", "--data.num_workers", "0"]


@pytest.fixture
def evaluation():
    return Evaluation(CITYSCAPES.names, 255, [1], everything=True)


def states(evaluation, error, number=8):
    """Frames of which a share of the pixels is wrong, more so in later ones."""
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 3, (number, 5, 6))).repeat_interleave(6, 1).repeat_interleave(6, 2)
    wrong = torch.from_numpy(rng.random(labels.shape)) < error * torch.arange(1, number + 1)[:, None, None] / number
    frames = (torch.where(wrong, (labels + 1) % 3, labels), None, {"mask": labels})
    result = []
    for index in range(number):
        evaluation.reset()
        evaluation.update(*part(frames, slice(index, index + 1)))
        result.append(evaluation.state())
    return result


def test_intervals_are_those_of_an_explicit_paired_bootstrap(evaluation):
    a, b = states(evaluation, 0.3), states(evaluation, 0.25)
    result = differences(evaluation, a, b, resamples=200, seed=5)

    def miou(frames, chosen):
        confusion = sum(frames[i]["scores.confmat"].double() for i in chosen)[:3, :3]
        hit = confusion.diagonal()
        return float((hit / (confusion.sum(0) + confusion.sum(1) - hit)).mean())

    drawn = np.random.default_rng(5).multinomial(8, np.full(8, 1 / 8), 200)
    chosen = [np.repeat(np.arange(8), row) for row in drawn]
    change = [miou(b, rows) - miou(a, rows) for rows in chosen]
    d = result["miou"]
    assert d.a == pytest.approx(miou(a, range(8)), abs=1e-12)
    assert d.b == pytest.approx(miou(b, range(8)), abs=1e-12)
    assert (d.low, d.high) == pytest.approx(tuple(np.quantile(change, [0.025, 0.975])), abs=1e-12)
    assert 0 < d.low < d.b - d.a < d.high


def test_a_network_does_not_differ_from_itself(evaluation):
    a = states(evaluation, 0.3)
    result = differences(evaluation, a, a, resamples=20)
    assert all(d.a == d.b and (d.low, d.high) == (0, 0) for d in result.values() if np.isfinite(d.a))
    assert np.isnan(result["iou/7"].a)


def test_command_compares_a_checkpoint_with_its_control(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "control.ckpt", CITYSCAPES, shape_stream=False)
    write_checkpoint(tmp_path / "gscnn.ckpt", CITYSCAPES, seed=1)
    tools(["compare", "control.ckpt", "gscnn.ckpt", *SCENES, "--resamples", "20", "--out", "both"])
    out = capsys.readouterr().out
    for words in ("3 frames", "mean IoU, crop 200", "F 3 px", "Boundary IoU", "frequency-weighted IoU", "road"):
        assert words in out
    saved = json.loads((tmp_path / "both/comparison.json").read_text())
    assert saved["frames"] == 3
    with (tmp_path / "both/comparison.csv").open() as file:
        rows = {row["score"]: row for row in csv.DictReader(file)}
    assert float(rows["miou"]["difference"]) == pytest.approx(saved["scores"]["miou"]["difference"])
    assert rows["boundary_ods"]["a"] == "", "the control has no boundary map"
    assert 0 < float(rows["boundary_ods"]["b"]) < 1
    assert (tmp_path / "both/distance_curve.png").stat().st_size > 10_000


def test_data_are_those_of_the_first_run_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "run/checkpoints/best.ckpt", CITYSCAPES)
    data = {"size": [64, 128], "val_samples": 2, "num_workers": 0}
    config = {"data": {"class_path": "gscnn_lightning.data.ScenesDataModule", "init_args": data}, "trainer": {}}
    (tmp_path / "run/config.yaml").write_text(json.dumps(config))
    both = ["run/checkpoints/best.ckpt"] * 2
    tools(["compare", *both, "--resamples", "1"])
    assert "2 frames" in capsys.readouterr().out
    tools(["compare", *both, "--resamples=1", "--data.val_samples", "1", "--out", "b", "--split", "val"])
    assert "1 frames" in capsys.readouterr().out


def test_of_a_config_only_the_data_count(tmp_path, monkeypatch, capsys):
    """It may be that of another subcommand, and name what is not installed here."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "city.ckpt", CITYSCAPES)
    data = {"class_path": "ScenesDataModule", "init_args": {"size": [64, 128], "val_samples": 2, "num_workers": 0}}
    trainer = {"callbacks": [{"class_path": "my_module.MyCallback"}]}
    (tmp_path / "validate.yaml").write_text(json.dumps({"data": data, "trainer": trainer, "verbose": False}))
    tools(["compare", "city.ckpt", "city.ckpt", "--config", "validate.yaml", "--resamples", "1"])
    assert "2 frames" in capsys.readouterr().out
    tools(["compare", "city.ckpt", "city.ckpt", "--config", json.dumps({"data": data}), "--resamples", "1"])
    assert "2 frames" in capsys.readouterr().out
    (tmp_path / "none.yaml").write_text("trainer: {max_epochs: 3}")
    with pytest.raises(SystemExit) as stop:
        tools(["compare", "city.ckpt", "city.ckpt", "--config", "none.yaml"])
    assert stop.value.code == 2
    assert "config none.yaml names no data" in capsys.readouterr().err


def test_mistakes_get_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "city.ckpt", CITYSCAPES)
    write_checkpoint(tmp_path / "camvid.ckpt", CAMVID)
    for args, words in (
        (["city.ckpt", "city.ckpt"], "which data? city.ckpt lies in no run"),
        (["city.ckpt", "none.ckpt", *SCENES], "none.ckpt does not exist"),
        (["city.ckpt", "camvid.ckpt", *SCENES], "camvid.ckpt has 11 classes (sky"),
        (["city.ckpt", "city.ckpt", *SCENES, "--resamples", "0"], "resamples is 0"),
        (["city.ckpt", "city.ckpt", "--config", "none.yaml"], "there is no file 'none.yaml'"),
    ):
        with pytest.raises(SystemExit) as stop:
            tools(["compare", *args])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert words in message
        assert "Traceback" not in message


def test_score_that_a_control_has_not_is_a_dash():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_table("mean scores", {"boundary map, best F": Difference(np.nan, 0.6267, np.nan, np.nan)}))
    row = next(line for line in console.export_text().splitlines() if "boundary map" in line)
    assert row.split()[-4:] == ["-", "62.67", "-", "-"]


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.001, 0.012, ["+0.10", "to", "+1.20", "*"]),
        (-0.012, -0.001, ["-1.20", "to", "-0.10", "*"]),
        (-0.012, -0.00001, ["-1.20", "to", "+0.00"]),
        (0.0, 0.0, ["+0.00", "to", "+0.00"]),
    ],
)
def test_star_where_the_interval_as_shown_leaves_out_zero(low, high, shown):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_table("mean scores", {"mean IoU": Difference(0.5, 0.5, low, high)}))
    row = next(line for line in console.export_text().splitlines() if "mean IoU" in line)
    assert row.split()[5:] == shown
