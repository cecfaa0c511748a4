"""What is there of a picture is judged by the file that it was made of, not by its name."""

import json
import os
import shutil
from pathlib import Path

import pytest

from gscnn_lightning.errors import DataError
from gscnn_lightning.prediction.inputs import Input, find_inputs
from gscnn_lightning.prediction.note import MadeFiles, settle

SETTINGS = {"checkpoint": "a" * 64, "flip": False}
OUT = Path("out")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    OUT.mkdir()


def write(path, content="picture"):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def decide(*paths, out=OUT, settings=SETTINGS, overwrite=False):
    inputs = find_inputs([str(path) for path in paths], MadeFiles()).inputs
    return settle(out / "predictions.json", out, settings, inputs, overwrite)


def predict(*paths, out=OUT, kinds=("labels", "color"), **kwargs):
    """As a prediction does, with files that tell what they were made of."""
    settled = decide(*paths, out=out, **kwargs)
    for item in settled.inputs:
        for kind in () if item.is_video else kinds:
            file = out / f"{item.name}_{kind}.png"
            if not file.exists():
                write(file, f"{kind} of {item.path.read_text()}")
    return settled


def names(settled):
    return [item.name for item in settled.inputs]


def test_the_same_file_is_completed_and_never_read(monkeypatch):
    predict(write("in/a.png"), write("in/b.png"))
    before = (OUT / "a_labels.png").stat().st_mtime_ns
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    settled = decide("in")
    assert (names(settled), settled.refused, settled.changed) == (["a", "b"], [], 0)
    assert (OUT / "a_labels.png").stat().st_mtime_ns == before


def test_another_file_of_the_same_name_is_refused_by_name_and_costs_nothing():
    predict(write("day1/a.png", "one"))
    settled = predict(write("day2/a.png", "two"), write("day2/b.png", "three"))
    assert names(settled) == ["b"]
    assert settled.refused == [
        "day2/a.png: out/a_color.png was made of day1/a.png: give another --out, or replace it with --overwrite true"
    ]
    assert (OUT / "a_labels.png").read_text() == "labels of one"
    assert predict("day2/a.png", overwrite=True).refused == []
    assert (OUT / "a_labels.png").read_text() == "labels of two"
    assert decide("day1/a.png").refused, "and now it is the other way round"


def test_files_of_equal_size_and_date_are_told_apart_by_their_place():
    one, two = write("day1/a.png", "one"), write("day2/a.png", "two")
    os.utime(one, (1, 1))
    os.utime(two, (1, 1))
    predict(one)
    assert len(decide(two).refused) == 1


def test_a_file_that_has_changed_is_predicted_anew():
    predict(write("in/a.png", "old"), kinds=("labels", "color", "gate1"))
    write("in/a.png", "newer")
    settled = predict("in/a.png", kinds=("labels",))
    assert (names(settled), settled.changed) == (["a"], 1)
    assert (OUT / "a_labels.png").read_text() == "labels of newer"
    assert not (OUT / "a_color.png").exists(), "nothing is left of the former file"
    assert not (OUT / "a_gate1.png").exists()


def test_frames_and_joined_video_of_a_changed_video_are_removed():
    predict(write("drive.mp4", "half"), kinds=())
    for name in ("drive/000000_color.png", "drive/000001_color.png", "drive_color.mp4", "drive/notes_color.png"):
        write(OUT / name)
    write("drive.mp4", "the whole video")
    assert decide("drive.mp4").changed == 1
    assert [path.name for path in OUT.rglob("*color*")] == ["notes_color.png"]


def test_pictures_and_predictions_may_be_moved_together_and_pictures_alone():
    predict(write("project/in/a.png"), out=Path("project"))
    shutil.move("project", "moved")
    assert decide("moved/in/a.png", out=Path("moved")) == ([Input(Path("moved/in/a.png"), "a")], [], 0)
    shutil.move("moved/in", "elsewhere")
    assert decide("elsewhere/a.png", out=Path("moved")) == ([Input(Path("elsewhere/a.png"), "a")], [], 0)
    assert decide("elsewhere/a.png", out=Path("moved")).refused == []


def test_files_that_nobody_knows_are_not_touched():
    picture = write("in/a.png")
    write(OUT / "a_labels.png", "by hand")
    assert decide(picture).refused == [
        "in/a.png: out/a_labels.png is there, and nothing says that it was made of this file: give another --out, or "
        "replace it with --overwrite true"
    ]
    assert (OUT / "a_labels.png").read_text() == "by hand"


def test_an_input_is_never_written_over():
    write("in/a.png")
    own = write("in/a_labels.png", "drawn by hand")
    for overwrite in (False, True):
        settled = decide("in", out=Path("in"), overwrite=overwrite)
        assert names(settled) == ["a_labels"]
        assert "in/a_labels.png is an input, too, and would be written over" in settled.refused[0]
        assert own.read_text() == "drawn by hand"


def test_other_settings_leave_nothing_of_unknown_make_behind():
    predict(write("in/a.png"), write("in/b.png"))
    other = {**SETTINGS, "flip": True}
    with pytest.raises(DataError, match="was made with flip False, and this would be made with True: choose another"):
        decide("in/a.png", settings=other)
    predict("in/a.png", settings=other, overwrite=True)
    settled = decide("in/a.png", "in/b.png", settings=other)
    assert names(settled) == ["a"]
    assert "b_color.png is there, and nothing says" in settled.refused[0]


def test_what_an_interrupted_overwriting_leaves_is_not_taken_for_new():
    predict(write("in/a.png", "old"))
    decide("in/a.png", settings={**SETTINGS, "flip": True}, overwrite=True)  # interrupted before the first file
    assert names(decide("in/a.png", settings={**SETTINGS, "flip": True})) == ["a"]
    assert not list(OUT.glob("a_*"))


def test_predictions_are_no_inputs_wherever_they_lie():
    write("in/s1.png")
    write("in/s2.png")
    write("in/drive.mp4")
    for out in (Path("in"), Path("in/predictions"), Path("in/deep/er")):
        predict("in", out=out)
        write(out / "drive/000000_color.png")
        write(out / "drive_color.mp4")
        found = find_inputs(["in"], MadeFiles())
        assert [item.name for item in found.inputs] == ["drive", "s1", "s2"]
        assert found.others == []
    by_shell = [str(path) for path in sorted(Path("in").glob("*.png"))]
    found = find_inputs(by_shell, MadeFiles())
    assert [item.name for item in found.inputs] == ["s1", "s2"]
    assert [path.name for path in found.made] == ["s1_color.png", "s1_labels.png", "s2_color.png", "s2_labels.png"]
    with pytest.raises(
        DataError, match=r"beside predictions of earlier calls, such as in/s1_color\.png: check the path"
    ):
        find_inputs(["in/s1_color.png"], MadeFiles())


def test_pictures_called_like_predictions_are_inputs_elsewhere():
    write("in/s1.png")
    write("in/s1_labels.png")
    assert names(predict("in")) == ["s1", "s1_labels"]
    assert names(predict("in")) == ["s1", "s1_labels"]


@pytest.mark.parametrize("content", ["{", "[]", '{"inputs": {"a": 3}}', '{"inputs": {"a": [1, 2]}}'])
def test_damaged_notes(content):
    write(OUT / "predictions.json", content)
    with pytest.raises(DataError, match=r"out/predictions\.json cannot be read .*: choose another --out, or remove it"):
        decide(write("in/a.png"))


def test_notes_hold_no_more_than_names_sizes_and_dates():
    predict(write("in/a.png", "four"))
    note = json.loads((OUT / "predictions.json").read_text())
    assert note == {**SETTINGS, "inputs": {"a": ["../in/a.png", 4, Path("in/a.png").stat().st_mtime_ns]}}
    assert not list(OUT.glob(".*"))


def test_a_picture_that_is_gone_is_left_to_the_reader():
    item = Input(Path("gone.png"), "gone")
    assert settle(OUT / "predictions.json", OUT, SETTINGS, [item], overwrite=False).inputs == [item]
