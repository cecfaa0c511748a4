import cv2
import numpy as np
import pytest

from gscnn_lightning.errors import DataError
from gscnn_lightning.prediction.inputs import find_inputs, read_frames, video_properties


@pytest.fixture
def touch(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def names(inputs):
    return [item.name for item in find_inputs([str(x) for x in inputs]).inputs]


def test_folders_keep_their_structure_and_odd_files_are_named(touch):
    root = touch("in/b.png", "in/sub/a.JPG", "in/drive.mp4", "in/notes.txt", "in/.hidden.png")
    inputs, others, _ = find_inputs([str(root / "in")])
    assert [(item.name, item.is_video) for item in inputs] == [("b", False), ("drive", True), ("sub/a", False)]
    assert others == [root / "in/notes.txt"]


def test_files_and_patterns(touch):
    root = touch("x/a.png", "x/y/b.png", "x/c.odd")
    assert names([root / "x/c.odd"]) == ["c"], "a file that is named is tried whatever its suffix"
    assert names([root / "x/*.png"]) == ["a"]
    assert names([root / "x/**/*.png"]) == ["a", "b"]
    assert names([root / "x", root / "x/a.png", root / "x/**/b.png"]) == ["a", "y/b"], "every file once"


def test_folders_with_brackets_are_meant_as_they_are_called(touch):
    root = touch("day [1]/a.png", "day [1]/b.jpg", "day 1/c.png")
    assert names([root / "day [1]/*.png"]) == ["a"]
    assert names([root / "day [1]/?.*"]) == ["a", "b"]
    assert names([root / "day [12]/*.png"]) == ["c"], "where no folder is called so, it is a pattern"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "input '' cannot be a path .it is empty.: correct it"),
        ("~nosuchuser/x.png", "input ~nosuchuser/x.png cannot be a path .Could not determine home"),
        ("a" * 300, r"input aaaaa.*\(300 characters\) cannot be a path .File name too long.: correct it"),
        ("a\0b", "does not exist and matches nothing|cannot be a path"),
    ],
)
def test_what_cannot_be_a_path(given, words):
    with pytest.raises(DataError, match=words):
        find_inputs([given])


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["p/a.png", "q/a.png", "q/b.png"], ["p/a", "q/a", "b"]),
        (["a.png", "a.jpg", "b.png"], ["a_png", "a_jpg", "b"]),
        (["a.png", "p/a.png"], ["a", "p/a"]),
        (["p/r/a.png", "q/r/a.png", "q/r/a.jpg"], ["p/r/a", "q/r/a_png", "q/r/a_jpg"]),
        (["a.jpg", "a.JPG"], ["a_jpg_1", "a_jpg_2"]),
    ],
)
def test_equal_names_are_told_apart(touch, files, expected):
    root = touch(*files)
    assert names([root / file for file in files]) == expected


def test_equal_names_below_two_folders(touch):
    root = touch("one/s/a.png", "two/s/a.png")
    assert names([root / "one", root / "two"]) == ["one/s/a", "two/s/a"]


def test_nothing_there(touch):
    root = touch("empty/notes.txt")
    with pytest.raises(DataError, match="no images or videos"):
        find_inputs([str(root / "empty")])
    with pytest.raises(DataError, match=r"none\*.png does not exist and matches nothing"):
        find_inputs([str(root / "none*.png")])


def test_frames_of_a_video(tmp_path, video):
    path = video(6)
    frames = dict(read_frames(path))
    assert list(frames) == list(range(6))
    assert [round(float(frame.mean()), -1) for frame in frames.values()] == [0, 40, 80, 120, 160, 200]
    some = dict(read_frames(path, [False, True, False, False, True]))
    assert list(some) == [1, 4, 5]
    np.testing.assert_array_equal(some[4], frames[4])
    assert video_properties(path) == (6, 10.0)


def test_file_that_is_no_video(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"x.mp4: is no video"):
        list(read_frames(tmp_path / "x.mp4"))


def test_an_index_that_promises_frames_without_end_takes_no_memory(tmp_path):
    path = tmp_path / "drive.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
    for level in (0, 40, 80):
        video.write(np.full((64, 64, 3), level, np.uint8))
    video.release()
    content = bytearray(path.read_bytes())
    for place in (content.index(b"avih") + 24, content.index(b"strh") + 40):
        content[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(content)
    assert video_properties(path)[0] <= len(content)
    with pytest.raises(DataError, match=r"drive\.avi: ends after 3 of 2147483647 frames"):
        list(read_frames(path))
