import csv
import io
import json

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console
from tests.metrics.test_evaluation import part
from tests.tiny import write_checkpoint

from gscnn_lightning.classes import CAMVID, CITYSCAPES
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.data import ScenesDataModule
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.studies.bootstrap import blocks_of, bootstrap_weights
from gscnn_lightning.studies.comparison import Difference, _table, all_differences, differences

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


def test_one_block_alone_has_no_interval(evaluation):
    a, b = states(evaluation, 0.3, 1), states(evaluation, 0.25, 1)
    d = differences(evaluation, a, b, resamples=50)["miou"]
    assert d.a != d.b
    assert np.isnan([d.low, d.high]).all()


def test_score_that_one_member_lacks_has_no_interval(evaluation):
    with_scores, without = states(evaluation, 0.3), states(evaluation, 0.25)
    for state in without:
        state["scores.confmat"] = state["scores.confmat"].clone()
        state["scores.confmat"][2] = state["scores.confmat"][:, 2] = 0
    found = all_differences(evaluation, [[with_scores], [without, with_scores]], np.arange(8), 50)[0]["iou/2"]
    assert np.isnan([found.b, found.low, found.high]).all()


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


def test_blocks_and_seeds_are_drawn_as_an_explicit_bootstrap_draws_them(evaluation):
    """Blocks of frames, the same for all; then seeds of each side that has several; the score is their mean."""
    a, b, c = states(evaluation, 0.3), states(evaluation, 0.25), states(evaluation, 0.1)
    blocks = blocks_of([f"a_{index}" for index in range(8)], 3)
    against_b, against_c = all_differences(evaluation, [[a], [b, c], [c]], blocks, 50, seed=5)

    def accuracy(frames, weights):
        confusion = sum(float(w) * frame["scores.confmat"].double() for w, frame in zip(weights, frames, strict=True))
        return float(confusion.diagonal().sum() / confusion.sum())

    rng = np.random.default_rng(5)
    weights = bootstrap_weights(blocks, 50, rng)
    share = rng.multinomial(2, [0.5, 0.5], 51)[1:] / 2
    change = [
        seeds @ [accuracy(b, row), accuracy(c, row)] - accuracy(a, row)
        for row, seeds in zip(weights, share, strict=True)
    ]
    d = against_b["accuracy"]
    assert d.b == pytest.approx((accuracy(b, np.ones(8)) + accuracy(c, np.ones(8))) / 2, abs=1e-12)
    assert (d.low, d.high) == pytest.approx(tuple(np.quantile(change, [0.025, 0.975])), abs=1e-12)
    assert (blocks[[0, 2]] == blocks[1]).all()
    alone = all_differences(evaluation, [[a], [c]], blocks, 50, seed=5)[0]["accuracy"]
    assert against_c["accuracy"] == alone


def write_labels(folder, task, data, change=0):
    """What a network predicts for the frames of a data module, as any program might write it."""
    folder.mkdir(parents=True)
    for batch in data.test_dataloader():
        labels = task.predict_output(batch["image"]).labels[0].byte().numpy()
        labels[:change] = (labels[:change] + 1) % 19
        cv2.imwrite(str(folder / f"{batch['name'][0].replace('/', '_')}_pred.png"), labels)


def test_checkpoints_runs_and_folders_of_label_maps_are_sides(tmp_path, monkeypatch, capsys):
    """A folder of what a checkpoint predicts scores as the checkpoint."""
    monkeypatch.chdir(tmp_path)
    task = write_checkpoint(tmp_path / "run/checkpoints/best.ckpt", CITYSCAPES, seed=1)
    write_checkpoint(tmp_path / "other.ckpt", CITYSCAPES, seed=2)
    data = ScenesDataModule(size=(64, 128), val_samples=3, num_workers=0)
    data.setup("test")
    write_labels(tmp_path / "same", task, data)
    write_labels(tmp_path / "worse", task, data, change=30)
    tools(["compare", "run", "same", "worse", "other.ckpt,run", *SCENES, "--resamples", "20", "--coding", "trainids"])
    out = capsys.readouterr().out
    for words in (
        "A  run/checkpoints/best.ckpt",
        "B  same",
        "C  worse",
        "D  other.ckpt, run/",
        "(mean of 2)",
        "IoU: C beside A",
    ):
        assert words in out
    saved = json.loads((tmp_path / "comparison/comparison.json").read_text())
    assert (saved["a"], saved["d"]) == ("run/checkpoints/best.ckpt", ["other.ckpt", "run/checkpoints/best.ckpt"])
    for name, row in saved["scores"].items():
        # Label maps have neither boundary maps nor probabilities.
        if name not in ("boundary_ods", "ece", "ece_boundary") and row["a"] is not None:
            assert row["b"] == row["a"], name
            assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
    miou = saved["scores"]["accuracy"]
    assert miou["difference_c"] == pytest.approx(miou["c"] - miou["a"])
    assert miou["low_c"] <= miou["difference_c"] <= miou["high_c"]
    assert saved["scores"]["boundary_ods"]["c"] is saved["scores"]["ece"]["c"] is None
    assert saved["scores"]["ece"]["a"] > 0
    assert saved["scores"]["ece"]["difference_d"] is not None
    with (tmp_path / "comparison/comparison.csv").open() as file:
        columns = next(file).strip().split(",")
    assert {"a", "b", "difference", "low", "high", "c", "difference_c", "low_c", "d", "high_d"} < set(columns)


def test_folders_alone_are_compared_with_labels_of_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = {"classes": [{"name": name, "color": [index, 2, 3]} for index, name in enumerate("xyz")]}
    (tmp_path / "classes.yaml").write_text(json.dumps(table))
    for frame in range(6):
        labels = rng.integers(0, 3, (20, 30)).astype(np.uint8)
        for folder, wrong in (("truth", 0), ("one", 8), ("two", 3)):
            (tmp_path / folder).mkdir(exist_ok=True)
            pred = np.where(np.arange(20)[:, None] < wrong, (labels + 1) % 3, labels).astype(np.uint8)
            cv2.imwrite(f"{folder}/drive_{frame}.png", pred)
    of = ["--labels", "truth", "--classes", "classes.yaml", "--resamples", "30"]
    tools(["compare", "one", "two", *of, "--block", "2", "--workers", "2"])
    assert "6 frames in 3 blocks" in capsys.readouterr().out
    accuracy = json.loads((tmp_path / "comparison/comparison.json").read_text())["scores"]["accuracy"]
    assert (accuracy["a"], accuracy["b"]) == (pytest.approx(0.6), pytest.approx(0.85))
    (tmp_path / "two/drive_3.png").unlink()
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored/scores_test.json").touch()
    write_checkpoint(tmp_path / "net.ckpt", CAMVID)
    for args, words in (
        (
            ["one", "two", *of],
            "two cannot be compared, which takes all frames: 1 of 6 frames have no prediction in two",
        ),
        (["one", "one", *of, "--block", "6"], "block is 6, and the 6 frames are one block"),
        (["one", *of], "1 sides: give 2 to 26"),
        (["one", "one"], "which labels? Give --config or --data"),
        (["one", "one,", *of], "side 'one,' has an empty part"),
        (["one", "scored", *of], "scored has neither checkpoints nor label maps"),
        (["one", "net.ckpt", *of], "checkpoint net.ckpt needs images"),
        (["one", "nowhere", *of], "nowhere does not exist"),
    ):
        with pytest.raises(SystemExit) as stop:
            tools(["compare", *args])
        assert stop.value.code == 2
        assert words in capsys.readouterr().err


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
