"""`gscnn predict` as a user calls it."""

import itertools
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.tiny import write_checkpoint

from gscnn_lightning.checkpoint import load_task
from gscnn_lightning.classes import CAMVID, CITYSCAPES
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.data.scenes.draw import write_scenes
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.inference import predict_logits
from gscnn_lightning.models import GSCNN
from gscnn_lightning.prediction import predictor
from gscnn_lightning.prediction.files import PredictionFiles
from gscnn_lightning.prediction.inputs import Input
from gscnn_lightning.prediction.submission import CITIES, check_submission


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    return str(path), write_checkpoint(path, CAMVID)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def photo(seed=0, size=(60, 80)):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def pictures(tmp_path):
    """A folder with everything that lies around in folders."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    bgr = photo()
    for name, picture in {
        "photo.jpg": bgr,
        "sub/photo.png": bgr[:, ::-1],
        "grey.png": bgr[..., 0],
        "deep.png": bgr.astype(np.uint16) * 257,
        "alpha.png": np.dstack([bgr, bgr[..., 0]]),
        "dot.png": bgr[:1, :1],
    }.items():
        cv2.imwrite(str(folder / name), picture)
    (folder / "corrupt.png").write_bytes((folder / "photo.jpg").read_bytes()[:-400])
    (folder / "notes.txt").write_text("not a picture")
    return folder


def run(*args, code=0):
    if not code:
        return tools(["predict", *map(str, args)])
    with pytest.raises(SystemExit) as stop:
        tools(["predict", *map(str, args)])
    assert stop.value.code == code
    return None


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_every_readable_picture_is_predicted_and_every_other_named(checkpoint, pictures, capsys):
    run(checkpoint[0], pictures, "--out", "out", code=1)
    message = capsys.readouterr().err
    assert "corrupt.png is truncated after" in message
    assert "notes.txt: neither image nor video" in message
    assert "6 of 7 inputs predicted into out" in message
    assert "Traceback" not in message
    labels = {p.relative_to("out").as_posix() for p in Path("out").rglob("*_labels.png")}
    names = ("alpha", "deep", "dot", "grey", "photo", "sub/photo")
    assert labels == {f"{name}_labels.png" for name in names}
    for name in names:
        stored = read(next(pictures.glob(f"{name}.*")))
        for kind in ("labels", "color", "overlay", "boundary"):
            assert read(f"out/{name}_{kind}.png").shape[:2] == stored.shape[:2]
    np.testing.assert_array_equal(read("out/deep_labels.png"), read("out/alpha_labels.png"))


def test_labels_are_the_networks(checkpoint, pictures):
    path, task = checkpoint
    run(path, "in/alpha.png", "in/sub/*.png", "--window", "[48,48]", "--flip", "true", "--scales", "[0.5,1]")
    image = torch.from_numpy(photo()[..., ::-1].copy()).permute(2, 0, 1)[None]
    output = predict_logits(task, image, window=(48, 48), scales=(0.5, 1.0), flip=True)
    np.testing.assert_array_equal(read("predictions/alpha_labels.png"), output.seg_logits[0].argmax(0))
    expected = output.boundary_logits[0, 0].sigmoid() * 255
    np.testing.assert_allclose(read("predictions/alpha_boundary.png"), expected, atol=0.5 + 1e-3)
    np.testing.assert_array_equal(read("predictions/photo_labels.png"), read("predictions/alpha_labels.png")[:, ::-1])


def test_second_call_makes_what_is_missing_and_nothing_else(checkpoint, pictures, capsys, tmp_path):
    command = (checkpoint[0], "in/photo.jpg", "in/deep.png", "--out", "out")
    run(*command)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    gone = tmp_path / "out/photo_color.png"
    before = gone.read_bytes()
    gone.unlink()
    run(*command, "--formats", "[labels,color,overlay,boundary,gates]")
    assert gone.read_bytes() == before
    assert all(path.stat().st_mtime_ns == time for path, time in made.items() if path != gone)
    assert len(list((tmp_path / "out").glob("*_gate?.png"))) == 6
    run(*command)
    assert "2 of 2 pictures were there already" in capsys.readouterr().err


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), DataError("disk full")])
def test_what_is_cut_short_leaves_whole_files_and_can_be_completed(checkpoint, tmp_path, monkeypatch, failure, capsys):
    (tmp_path / "in").mkdir()
    for index in range(60):
        cv2.imwrite(f"in/{index:02}.png", photo(index))
    run(checkpoint[0], "in", "--out", "whole")
    write, done, number = PredictionFiles.write, [], itertools.count(1)

    def cut_short(self, prediction, missing_only=False):
        write(self, prediction, missing_only)
        done.append(prediction.name)
        if next(number) == 4:
            raise failure

    with monkeypatch.context() as patched:
        patched.setattr(PredictionFiles, "write", cut_short)
        run(checkpoint[0], "in", "--out", "out", code=130 if isinstance(failure, KeyboardInterrupt) else 2)
    assert ("disk full" in capsys.readouterr().err) == isinstance(failure, DataError)
    assert len(done) < 60
    assert not list((tmp_path / "out").glob(".*")), "no remains"
    for path in (tmp_path / "out").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    run(checkpoint[0], "in", "--out", "out")
    assert {path.name for path in Path("out").iterdir()} == {path.name for path in Path("whole").iterdir()}


def test_folded_task_predicts_and_cannot_be_saved(checkpoint):
    task = load_task(checkpoint[0], "cpu", fold=True)
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    expected = checkpoint[1].predict_output(image).seg_logits
    assert (task.predict_output(image).seg_logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    with pytest.raises(SettingError, match="cannot be saved"):
        task.on_save_checkpoint({"hyper_parameters": {}})


def test_other_settings_do_not_mix_with_what_is_there(checkpoint, pictures, capsys):
    run(checkpoint[0], "in/photo.jpg", "--out", "out")
    capsys.readouterr()
    run(checkpoint[0], "in/photo.jpg", "--out", "out", "--flip", "true", code=2)
    message = capsys.readouterr().err
    assert "was made with flip False, and this would be made with True" in message
    assert "--overwrite" in message
    write_checkpoint(Path("other.ckpt"), CAMVID, seed=1)
    run("other.ckpt", "in/photo.jpg", "--out", "out", code=2)
    assert "was made with checkpoint" in capsys.readouterr().err
    Path("moved.ckpt").write_bytes(Path(checkpoint[0]).read_bytes())
    run("moved.ckpt", "in/photo.jpg", "--out", "out")
    run(checkpoint[0], "in/photo.jpg", "--out", "out", "--flip", "true", "--overwrite", "true")
    assert json.loads((pictures.parent / "out/predictions.json").read_text())["flip"] is True


def test_video_is_predicted_frame_by_frame_and_joined(checkpoint, video, tmp_path):
    video(4)
    run(checkpoint[0], "drive.mp4", "--out", "out", "--formats", "[labels,overlay]")
    frames = sorted(path.name for path in (tmp_path / "out/drive").iterdir())
    assert frames == [f"{i:06}_{kind}.png" for i in range(4) for kind in ("labels", "overlay")]
    joined = cv2.VideoCapture("out/drive_overlay.mp4")
    assert (joined.get(cv2.CAP_PROP_FRAME_COUNT), joined.get(cv2.CAP_PROP_FPS)) == (4, 10)
    assert read("out/drive/000002_labels.png").shape == (48, 64)
    kept = (tmp_path / "out/drive/000001_labels.png").stat().st_mtime_ns
    (tmp_path / "out/drive/000003_labels.png").unlink()
    run(checkpoint[0], "drive.mp4", "--out", "out", "--formats", "[labels,overlay]")
    assert (tmp_path / "out/drive/000003_labels.png").exists()
    assert (tmp_path / "out/drive/000001_labels.png").stat().st_mtime_ns == kept


def test_video_that_was_half_copied_and_is_copied_again(checkpoint, video, tmp_path, capsys):
    whole = video(6, "whole.avi", fourcc="MJPG", size=(320, 240))
    Path("drive.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    run(checkpoint[0], "drive.avi", "--out", "out", "--formats", "[overlay]", code=1)
    assert "not predicted: drive.avi: ends after" in capsys.readouterr().err
    Path("drive.avi").write_bytes(whole.read_bytes())
    run(checkpoint[0], "drive.avi", "--out", "out", "--formats", "[overlay]")
    assert "1 of 1 inputs have changed since, and are predicted anew" in capsys.readouterr().err
    assert cv2.VideoCapture("out/drive_overlay.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 6
    before = Path("out/drive_overlay.mp4").stat().st_mtime_ns
    run(checkpoint[0], "drive.avi", "--out", "out", "--formats", "[overlay]")
    assert Path("out/drive_overlay.mp4").stat().st_mtime_ns == before
    Path("out/drive/000002_overlay.png").unlink()
    run(checkpoint[0], "drive.avi", "--out", "out", "--formats", "[overlay]")
    assert Path("out/drive_overlay.mp4").stat().st_mtime_ns > before, "joined again when a frame was made again"


def test_two_folders_with_pictures_of_one_name(checkpoint, capsys):
    for day, size in (("day1", (48, 64)), ("day2", (32, 40))):
        Path(day).mkdir()
        cv2.imwrite(f"{day}/img.png", photo(size[0], size))
    run(checkpoint[0], "day1", "--out", "out")
    run(checkpoint[0], "day2", "--out", "out", code=1)
    assert "not predicted: day2/img.png: out/img_boundary.png was made of day1/img.png: give" in capsys.readouterr().err
    assert read("out/img_labels.png").shape == (48, 64)
    run(checkpoint[0], "day2", "--out", "out", "--overwrite", "true")
    assert read("out/img_labels.png").shape == (32, 40)


def test_output_into_the_folder_of_the_input_may_go_on(checkpoint, capsys):
    Path("in").mkdir()
    for index in range(2):
        cv2.imwrite(f"in/s{index}.png", photo(index))
    for _ in range(2):
        run(checkpoint[0], "in", "--out", "in")
    assert "left out: 8 predictions of earlier calls, the first is in/s0_boundary.png" in capsys.readouterr().err
    assert len(list(Path("in").iterdir())) == 2 + 2 * 4 + 1
    run(checkpoint[0], ".", "--out", "predictions")
    assert {path.name for path in Path("predictions/in").glob("*_labels.png")} == {"s0_labels.png", "s1_labels.png"}


def test_what_is_converted_is_said_once(checkpoint, pictures, capsys):
    run(checkpoint[0], pictures, "--out", "out", code=1)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert sorted(note.partition(": ")[2].partition(":")[0].partition(",")[0] for note in notes) == [
        "read without transparency",
        "reduced from 16 to 8 bits",
    ]
    assert all("1 of 6 pictures, the first is" in note for note in notes)


def test_names_too_long_for_their_predictions_are_refused_one_by_one(checkpoint, capsys):
    Path("in").mkdir()
    for name in ("a" * 245, "b"):
        cv2.imwrite(f"in/{name}.png", photo())
    run(checkpoint[0], "in", "--out", "out", code=1)
    message = capsys.readouterr().err
    assert "aaa.png: its name is so long that those of its predictions are too long: give it a shorter one" in message
    assert "1 of 2 inputs predicted" in message


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("/proc/x", "--out /proc/x cannot be a folder (No such file or directory): give another"),
        ("file", "--out file cannot be a folder (File exists): give another"),
        ("file/below", "--out file/below cannot be a folder (Not a directory): give another"),
        ("x" * 300, "(300 characters) cannot be a folder (File name too long): give another"),
        ("~nosuchuser/x", "--out ~nosuchuser/x cannot be a folder (Could not determine home directory"),
        ("", "--out is empty"),
    ],
)
def test_places_that_cannot_be_written_to(checkpoint, pictures, out, words, capsys):
    Path("file").write_text("somebody else's")
    run(checkpoint[0], pictures / "photo.jpg", f"--out={out}", code=2)
    message = capsys.readouterr().err
    assert words in message
    assert message.startswith("gscnn predict: error: ")
    assert len(message.splitlines()) <= 2, "one line, and one that names the help"


def test_confidence_and_entropy_are_those_of_the_averaged_probabilities(checkpoint, tmp_path):
    path, task = checkpoint
    cv2.imwrite("photo.png", photo())
    how = ["--window", "[32,64]", "--scales", "[0.5,1]", "--flip", "true"]
    run(path, "photo.png", "--out", "out", "--formats", "[labels,confidence,entropy]", *how)
    assert sorted(p.name for p in Path("out").glob("*.png")) == [
        f"photo_{kind}.png" for kind in ("confidence", "entropy", "labels")
    ]
    image = torch.from_numpy(photo()[..., ::-1].transpose(2, 0, 1).copy())[None]
    prob = predict_logits(task, image, (32, 64), scales=(0.5, 1), flip=True).seg_logits[0].softmax(0).numpy()
    near = {"atol": 0.5 / 255 + 1e-4}  # the command folds batch normalisation
    np.testing.assert_allclose(read("out/photo_confidence.png") / 255, prob.max(0), **near)
    np.testing.assert_allclose(read("out/photo_entropy.png") / 255, -(prob * np.log(prob)).sum(0) / np.log(11), **near)
    np.testing.assert_array_equal(read("out/photo_labels.png"), prob.argmax(0))
    run(path, "out", "photo.png", "--out", "out", "--formats", "[labels]", *how)  # what was made is no input
    assert len(list(Path("out").glob("*.png"))) == 3


def test_large_pictures_pass_in_blocks_and_small_memory_ends_no_run(checkpoint, monkeypatch, capsys):
    path, _ = checkpoint
    Path("in").mkdir()
    cv2.imwrite("in/large.png", photo(size=(700, 900)))
    cv2.imwrite("in/small.png", photo())
    kinds = "[labels,boundary,gates,overlay,confidence,entropy]"
    run(path, "in/large.png", "--out", "whole", "--formats", kinds, "--window", "[256,256]")
    monkeypatch.setattr(predictor, "_LARGE", 300 * 300)
    monkeypatch.setattr(predictor, "_SCORE_BYTES", 11 * 4 * 400 * 400)
    run(path, "in", "--out", "blocks", "--formats", kinds, "--window", "[256,256]")
    whole, blocks = (read(f"{folder}/large_labels.png") for folder in ("whole", "blocks"))
    assert blocks.shape == whole.shape == (700, 900)
    assert (whole == blocks).mean() > 0.9
    boundaries = [read(f"{folder}/large_boundary.png").astype(int) for folder in ("whole", "blocks")]
    assert np.abs(boundaries[0] - boundaries[1]).mean() < 8
    assert read("blocks/large_gate3.png").shape == (700, 900, 3)
    for kind in ("confidence", "entropy"):
        one, other = (read(f"{folder}/large_{kind}.png").astype(int) for folder in ("whole", "blocks"))
        assert np.abs(one - other).mean() < 4

    def no_memory(self, turns, name, picture):
        if name == "large":
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 bytes"
            )
        return passes(self, turns, name, picture)

    passes = predictor.Predictor._pass
    monkeypatch.setattr(predictor.Predictor, "_pass", no_memory)
    run(path, "in", "--out", "other", code=1)
    message = capsys.readouterr().err
    assert "not predicted: large: the network cannot take its 700x900 pixels ([enforce fail] Default" in message
    assert "--window [512,512] takes less memory" in message
    assert Path("other/small_labels.png").exists()
    monkeypatch.setattr(predictor, "read_picture", lambda path: np.empty((1 << 40, 1 << 20), np.uint8))
    run(path, "in", "--out", "none", code=1)
    message = capsys.readouterr().err
    assert message.count("it needs more memory than there is: cut it into tiles") == 2
    assert "Traceback" not in message


def test_blocks_make_up_the_whole():
    for length, side, margin in ((10, 7, 1), (10, 10, 2), (1000, 200, 20), (1001, 300, 64)):
        blocks = predictor._blocks(length, side, margin)
        assert [i for block in blocks for i in range(length)[block.middle]] == list(range(length))
        for block in blocks:
            seen = range(length)[block.seen]
            assert seen[block.own] == range(length)[block.middle]
            assert len(seen) <= side
            assert seen.start == 0 or block.middle.start - seen.start == margin
            assert seen.stop == length or seen.stop - block.middle.stop == margin


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (
            AssertionError("height (23)\nmust be divisible by window (7)"),
            r"\(height \(23\) must be divisible by window \(7\)\)",
        ),
        (torch.OutOfMemoryError("out of memory"), r"--window \[512,512\] takes less memory"),
    ],
)
def test_pictures_that_the_network_cannot_take_are_named_and_the_others_predicted(
    checkpoint, video, tmp_path, monkeypatch, capsys, error, remedy
):
    forward = GSCNN.forward

    def particular(self, image, *args, **kwargs):
        if image.shape[-2:] == (48, 64):
            raise error
        return forward(self, image, *args, **kwargs)

    (tmp_path / "in").mkdir()
    for index in range(3):
        cv2.imwrite(f"in/{index}.png", photo(index, (48, 64) if index == 1 else (60, 80)))
    video(2, "in/drive.mp4")
    with monkeypatch.context() as patched:
        patched.setattr(GSCNN, "forward", particular)
        run(checkpoint[0], "in", "--out", "out", code=1)
    assert sorted(path.name for path in Path("out").glob("*_labels.png")) == ["0_labels.png", "2_labels.png"]
    message = capsys.readouterr().err
    assert re.search(rf"not predicted: 1: the network cannot take its 48x64 pixels .*{remedy}", message)
    assert re.search(r"not predicted: in/drive.mp4: 2 frames are missing, the first is drive/000000: the net", message)
    assert "2 of 4 inputs predicted into out" in message
    assert "Traceback" not in message
    run(checkpoint[0], "in", "--out", "out")
    assert Path("out/1_labels.png").exists()


def test_broken_video_is_named(checkpoint, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"junk")
    run(checkpoint[0], "broken.mp4", code=1)
    assert "not predicted: broken.mp4: is no video" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none.ckpt", "in"], "checkpoint none.ckpt does not exist"),
        (["in/notes.txt", "in"], "cannot be read"),
        (["CKPT", "nowhere"], "nowhere does not exist and matches nothing"),
        (["CKPT"], "nothing to predict"),
        (["CKPT", "in", "--formats", "[ids]"], "official ids need the 19 Cityscapes classes"),
        (["CKPT", "in", "--window", "[8,8]"], "window is (8, 8)"),
        (["CKPT", "in", "--device", "cuda:7"], "device 'cuda:7' cannot be used"),
        (["CKPT", "in", "--cityscapes_submission", "valid"], "one split, train, val, test"),
        (["CKPT", "in", "--cityscapes_submission", "val"], "no images in"),
    ],
)
def test_mistakes_get_one_message(checkpoint, pictures, args, words, capsys):
    run(*(checkpoint[0] if arg == "CKPT" else arg for arg in args), code=2)
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_submission_is_what_the_official_script_looks_for(tmp_path, capsys, monkeypatch):
    write_scenes(tmp_path / "city", 1, 2, 0, (64, 128))
    write_checkpoint(tmp_path / "best.ckpt", CITYSCAPES)
    run("best.ckpt", "city", "--cityscapes-submission", "val", "--out", "submission", code=1)
    message = capsys.readouterr().err
    truths = sorted((tmp_path / "city/gtFine/val").rglob("*_labelIds.png"))
    cores = ["_".join(path.name.split("_")[:3]) for path in truths]
    assert sorted(path.name for path in (tmp_path / "submission").rglob("*")) == [f"{core}_ids.png" for core in cores]
    assert "of 174 frames of munster are missing" in message
    assert set(np.unique(read(tmp_path / f"submission/{cores[0]}_ids.png"))) <= {7, 8, *range(11, 34)}
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(tmp_path / "submission"))
    monkeypatch.setattr(official.args, "predictionPath", None)
    monkeypatch.setattr(official.args, "predictionWalk", None)
    found = [official.getPrediction(official.args, str(path)) for path in truths]
    assert found == [str(tmp_path / f"submission/{core}_ids.png") for core in cores]


def test_complete_and_incomplete_submissions(tmp_path):
    frames = [f"{city}_{index:06}_000019" for city, count in CITIES["val"].items() for index in range(count)]
    inputs = [Input(tmp_path / frame, frame) for frame in frames]
    for frame in frames:
        (tmp_path / f"{frame}_ids.png").touch()
    assert len(frames) == 500
    assert check_submission(tmp_path, "val", inputs) == []
    (tmp_path / "lindau_000001_000019_ids.png").unlink()
    (tmp_path / "munster_000002_000019_overlay.png").touch()
    (tmp_path / "berlin_000002_000019_ids.png").touch()
    assert check_submission(tmp_path, "val", inputs) == [
        "2 files for frame munster_000002_000019: remove all but one",
        "1 files are not of the val split, the first is berlin_000002_000019: remove them",
        "1 of 59 frames of lindau are missing",
    ]
    assert [sum(cities.values()) for cities in CITIES.values()] == [2975, 500, 1525]


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        tools(["predict", "--help"])
    assert stop.value.code == 0
    assert "gscnn predict best.ckpt street.jpg" in capsys.readouterr().out


@pytest.mark.slow
def test_picture_of_24_megapixels(checkpoint, tmp_path):
    cv2.imwrite("huge.jpg", photo(size=(4000, 6000)))
    run(checkpoint[0], "huge.jpg", "--formats", "[labels]")
    assert read("predictions/huge_labels.png").shape == (4000, 6000)


def test_folders_that_cannot_be_used_are_said(checkpoint, pictures, capsys):
    run(checkpoint[0], pictures / "photo.jpg", "--out", pictures / "notes.txt", code=2)
    assert "notes.txt" in capsys.readouterr().err
    write_checkpoint(Path("a/checkpoints/best.ckpt"), CAMVID)
    run("a", pictures / "photo.jpg", "--out", "out", code=2)
    assert "checkpoint a is a folder: did you mean a/checkpoints/best.ckpt?" in capsys.readouterr().err


def test_pictures_are_in_the_colours_of_the_training_data(pictures):
    colors = [(i, 2 * i, 255 - i) for i in range(len(CAMVID))]
    task = write_checkpoint(Path("own.ckpt"), CAMVID, class_colors=colors)
    run("own.ckpt", pictures / "photo.jpg", "--out", "out")
    labels, color = read("out/photo_labels.png"), read("out/photo_color.png")
    assert np.array_equal(color[..., ::-1], np.array(colors, np.uint8)[labels])
    assert task.class_colors == colors
