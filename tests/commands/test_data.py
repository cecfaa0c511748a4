import cv2
import numpy as np
import pytest
import yaml
from tests.data import made

from gscnn_lightning.commands.main import main


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def config(tmp_path):
    """A config of a training, network and optimizer included, and the data it names."""
    made.folder(tmp_path / "data")
    content = {
        "trainer": {"max_epochs": 3},
        "model": {"backbone": "resnet101", "pretrained": True},
        "data": {
            "class_path": "gscnn_lightning.data.FolderDataModule",
            "init_args": {"root": "data", "classes": "classes.yaml", "batch_size": 2, "crop_size": [40, 50]},
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return "run.yaml"


def stopped(args, code):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == code


def test_check_of_good_data(config, capsys):
    main(["data", "check", "--config", config])
    out = capsys.readouterr().out
    assert "no problems" in out
    row = next(line for line in out.splitlines() if " ground " in line)
    assert [word for word in row.split() if word[0].isdigit()] == ["50.00", "3", "50.00", "2"]
    assert "16x12" in out


def test_check_of_bad_data_lists_problems_and_fails(config, tmp_path, capsys):
    for i in range(3):
        made.save(tmp_path / f"data/masks/train/f{i}.png", np.full((12, 16), 9, np.uint8))
    stopped(["data", "check", "--config", config, "--splits", "[train]"], 1)
    out = capsys.readouterr().out
    assert out.count("has label values that the data set does not define: 9 (192 pixels)") == 3
    assert "3 problems" in out
    assert " val " not in out


def test_settings_of_the_data_can_be_changed(config, capsys):
    stopped(["data", "check", "--config", config, "--data.root", "elsewhere", "--data.classes", "data/classes.yaml"], 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gscnn data check: error: folder elsewhere does not exist: correct root")
    assert len(said.err.splitlines()) == 1


def test_what_is_converted_is_a_note_and_no_problem(config, tmp_path, capsys):
    for i in range(3):
        (tmp_path / f"data/images/train/f{i}.{'png' if i % 2 else 'jpg'}").unlink()
        cv2.imwrite(
            str(tmp_path / f"data/images/train/f{i}.png"), np.dstack([made.picture(i), made.picture(i)[..., 0]])
        )
    main(["data", "check", "--config", config, "--splits", "[train]"])
    out = capsys.readouterr().out
    assert "note: train: read without transparency: 3 of 3 pictures, the first is f0" in out
    assert "no problems" in out


def test_a_problem_of_several_splits_is_said_once(config, tmp_path, capsys):
    (tmp_path / "data/masks").rename(tmp_path / "data/labels")
    stopped(["data", "check", "--config", config], 1)
    out = capsys.readouterr().out
    assert out.count("data/masks/train is missing") == 1
    assert out.count("data/masks/val is missing") == 1
    assert "2 problems" in out
    made.save(tmp_path / "data/masks/train/f0.png", made.raw_mask())
    stopped(["data", "check", "--config", config], 1)
    out = capsys.readouterr().out
    assert out.count("2 of 3 images in data/images/train and data/masks/train have no label map") == 1
    assert out.count("data/masks/val is missing") == 1
    assert "2 problems" in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--config", "none.yaml"], "none.yaml"),
        (["--data", "CamVidDataModule", "--data.rot", "x"], "--data.root"),
        (
            ["--config", "run.yaml", "--data.classes", "none.yaml"],
            "cannot read the class table none.yaml",
        ),
        (["--config", "run.yaml", "--splits", "[training]"], "splits"),
    ],
)
def test_mistakes_are_one_message(args, words, config, capsys):
    stopped(["data", "check", *args], 2)
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert len(error.splitlines()) <= 4


def test_preview_shows_the_samples_a_training_starts_with(config, tmp_path, capsys):
    main(["data", "preview", "--config", config, "--samples", "3", "--out", "sheet.png", "--data.flip", "0"])
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    # Two samples side by side, three pictures of 320 pixels each.
    assert sheet.shape[1] == 2 * 12 + 6 * 320 + 5 * 6
    assert "3 training samples are drawn in sheet.png" in capsys.readouterr().out
    colours = {tuple(color) for color in sheet[:, :, ::-1].reshape(-1, 3).tolist()}
    assert (128, 64, 128) in colours  # ground, in the labels
    assert (255, 235, 60) in colours  # boundaries


def test_preview_of_another_epoch_and_without_a_place_to_write(config, tmp_path, capsys):
    for epoch in (0, 1):
        main(["data", "preview", "--config", config, "--samples", "2", "--out", f"{epoch}.png", "--epoch", str(epoch)])
    first, second = (cv2.imread(str(tmp_path / f"{epoch}.png")) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    for out in ("none/x.png", "x.txt"):
        stopped(["data", "preview", "--config", config, "--out", out], 2)
        assert f"cannot write {out}" in capsys.readouterr().err
    stopped(["data", "preview", "--config", config, "--samples", "0"], 2)


@pytest.mark.parametrize("tool", ["check", "preview"])
def test_help_shows_what_concerns_the_tool(tool, capsys):
    stopped(["data", tool, "--help"], 0)
    out = capsys.readouterr().out
    assert f"gscnn data {tool} --config camvid" in out
    assert "all other arguments: those of gscnn-fit that are about data, such as --config FILE, --data CLASS" in out
    assert "--trainer" not in out
    assert "--optimizer" not in out


def test_tools_are_listed(capsys):
    stopped(["--help"], 0)
    out = capsys.readouterr().out
    assert "data" in out
    assert "bench" in out
    stopped(["data", "--help"], 0)
    assert "Read a whole data set and report" in capsys.readouterr().out


def test_bench_measures_and_compares(tmp_path, capsys):
    for split in ("train", "val"):
        labels = np.full((64, 128), 7, np.uint8)
        labels[20:40] = 26
        made.cityscapes(tmp_path / "city", split, ["aachen_000000_000019", "ulm_000000_000019"], labels=labels)
    made.camvid(tmp_path / "camvid")
    for split in ("train", "val"):
        for i in range(3, 8):
            made.save(tmp_path / f"camvid/{split}/f{i}.png", made.picture(i))
            made.save(tmp_path / f"camvid/{split}annot/f{i}.png", np.zeros((12, 16), np.uint8))
    main(["bench", "data", "--cityscapes", "city", "--camvid", "camvid", "--repeats", "1"])
    out = capsys.readouterr().out
    for words in ("Boundaries, radius 2", "2 training samples of 720x720", "8 CamVid samples", "processes: identical"):
        assert words in out
