"""``gscnn score`` on label maps in every form in which programs leave them."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.metrics.maps import blobs
from tests.tiny import write_checkpoint, write_config

from gscnn_lightning.classes import CITYSCAPES, CITYSCAPES_ID_TO_TRAIN_ID, CITYSCAPES_TRAIN_ID_TO_ID
from gscnn_lightning.cli import main as fit
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.drawing.maps import colorize_labels
from gscnn_lightning.metrics import CalibrationError
from gscnn_lightning.prediction.files import official_ids

NAMES = [f"{city}_000000_{number:06d}" for city, number in (("ulm", 1), ("ulm", 2), ("bonn", 1))]
IDS = ["--labels", "truth", "--classes", "cityscapes"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def preds():
    """Official labels with instances in `truth`, as the archive has them; train ids predicted for each frame."""
    rng = np.random.default_rng(0)
    predicted = {}
    for name in NAMES:
        labels, pred = (blobs(rng, (1, 48, 64), 19)[0].numpy().astype(np.uint8) for _ in range(2))
        labels[20:30] = pred[20:30]
        labels[:4] = 255
        raw = official_ids(labels)
        raw[:2] = 3  # out of roi
        folder = Path("truth", name.split("_")[0])
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{name}_gtFine_labelIds.png", raw)
        instances = raw.astype(np.uint16)
        instances[labels == 13] = 26001
        write(folder / f"{name}_gtFine_instanceIds.png", instances)
        write(folder / f"{name}_gtFine_color.png", colorize_labels(labels, CITYSCAPES.colors)[..., ::-1])
        predicted[name] = pred
    return predicted


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def score(*args, out="out", code=0):
    """Scores of a call, or nothing; its exit code has to be this."""
    shutil.rmtree(out, ignore_errors=True)
    if code:
        with pytest.raises(SystemExit) as stop:
            tools(["score", *map(str, args), "--out", out])
        assert stop.value.code == code
    else:
        tools(["score", *map(str, args), "--out", out])
    path = Path(out, "scores_test.json")
    return json.loads(path.read_text()) if path.is_file() else None


def as_train_ids(preds, folder="plain"):
    for name, pred in preds.items():
        write(Path(folder, f"{name}.png"), pred)
    return folder


def one_hot(pred):
    return np.eye(19, dtype=np.float32)[pred] * 0.7 + 0.01


def palette(path, pred):
    picture = Image.fromarray(pred, "P")
    picture.putpalette([part for color in CITYSCAPES.colors for part in color])
    picture.save(path)


WRITERS = {
    "ids of the server": lambda f, n, p: write(f / f"{n}_leftImg8bit_pred.png", official_ids(p)),
    "named as labels, in folders": lambda f, n, p: write(
        f / "val" / n.split("_")[0] / f"{n}_gtFine_labelIds.png", official_ids(p)
    ),
    "mmsegmentation --out": lambda f, n, p: write(f / f"{n}_leftImg8bit.png", p),
    "16 bits": lambda f, n, p: write(f / f"{n}.png", p.astype(np.uint16)),
    "palette": lambda f, n, p: palette(f / f"{n}.png", p),
    "colours": lambda f, n, p: write(f / f"{n}_color.png", colorize_labels(p, CITYSCAPES.colors)[..., ::-1]),
    "colours with opacity": lambda f, n, p: write(
        f / f"{n}.png", cv2.cvtColor(colorize_labels(p, CITYSCAPES.colors), cv2.COLOR_RGB2BGRA)
    ),
    "int64 array": lambda f, n, p: np.save(f / f"{n}.npy", p.astype(np.int64)),
    "array of a batch of one": lambda f, n, p: np.savez(f / f"{n}.npz", p[None].astype(np.int32)),
    "array of colours": lambda f, n, p: np.save(f / f"{n}.npy", colorize_labels(p, CITYSCAPES.colors)),
    "scores, classes first": lambda f, n, p: np.save(f / f"{n}.npy", np.moveaxis(one_hot(p), -1, 0)),
    "scores, classes last": lambda f, n, p: np.savez_compressed(f / f"{n}.npz", probs=one_hot(p).astype(np.float16)),
    "gscnn predict": lambda f, n, p: [
        write(f / f"{n}_{kind}.png", pixels)
        for kind, pixels in {"labels": p, "ids": official_ids(p), "overlay": 0 * p, "boundary": 0 * p}.items()
    ],
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_form_gives_the_same_scores(writer, preds, capsys):
    expected = score(as_train_ids(preds), *IDS, "--coding", "trainids")
    folder = Path("theirs")
    folder.mkdir()
    for name, pred in preds.items():
        WRITERS[writer](folder, name, pred)
    capsys.readouterr()
    assert score(folder, *IDS) == expected
    notes = capsys.readouterr().err
    assert ("found out from" in notes) is not writer.startswith("scores"), "one line says what it was found out to be"


def test_scores_equal_those_of_the_official_script(preds, official):
    for name, pred in preds.items():
        pred[30:33] = 255  # no class
        write(Path("ids", f"{name}.png"), official_ids(pred))
    ours = score("ids", *IDS)
    truth = [f"truth/{name.split('_')[0]}/{name}_gtFine_labelIds.png" for name in NAMES]
    theirs = official.evaluateImgLists([f"ids/{name}.png" for name in NAMES], truth, official.args)
    for name, scores in ours["classes"].items():
        assert scores["iou"] == pytest.approx(theirs["classScores"][name], abs=1e-9)
    assert ours["classes"]["car"]["iiou"] == pytest.approx(theirs["classInstScores"]["car"], abs=1e-9)
    for name, scores in ours["categories"].items():
        assert scores["category_iou"] == pytest.approx(theirs["categoryScores"][name], abs=1e-9)
    assert ours["means"]["miou"] == pytest.approx(theirs["averageScoreClasses"], abs=1e-9)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A test of a tiny network on drawn scenes, and its own predictions as files."""
    folder = tmp_path_factory.mktemp("tested")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    config = yaml.safe_load(write_config(Path("tiny.yaml")).read_text())
    write_checkpoint(Path("tiny.ckpt"), CITYSCAPES)
    common = {key: config[key] for key in ("trainer", "data", "model")}
    common["trainer"] |= {"enable_progress_bar": False}
    common["trainer"].pop("max_epochs")
    Path("test.yaml").write_text(yaml.safe_dump({**common, "ckpt_path": "tiny.ckpt"}))
    fit(["test", "--config", "test.yaml"])
    fit(["predict", "--config", "test.yaml"])
    patch.undo()
    return folder


def test_own_predictions_score_as_in_the_test(tested):
    """To the last bit, in tables of classes, images and pairs of classes, with one process and with two."""
    (run,) = {path.parent for path in tested.rglob("scores_test.json")}
    (predictions,) = {path.parents[1] for path in tested.rglob("*_labels.png")} | {
        path.parent for path in tested.rglob("*_labels.png") if path.parent.name == "predictions"
    }
    ours = score(predictions, "--config", tested / "test.yaml")
    theirs = json.loads((run / "scores_test.json").read_text())
    assert theirs["means"].pop("boundary_ods") >= 0  # of the boundary map, which was not given
    assert [theirs["means"].pop(name) > 0 for name in ("ece", "ece_boundary")]  # of probabilities, neither
    assert ours == theirs
    for name in ("image_scores.csv", "confusion_matrix.csv", "scores_test.csv", "classes.json"):
        assert Path("out", name).read_text() == (run / name).read_text()
    again = score(predictions, "--config", tested / "test.yaml", "--workers", "2", out="two")
    assert again == ours
    assert Path("two/image_scores.csv").read_text() == Path("out/image_scores.csv").read_text()
    with_maps = score(predictions, "--config", tested / "test.yaml", "--boundary-maps", predictions)
    rounded = with_maps["means"].pop("boundary_ods")
    assert rounded == pytest.approx(
        json.loads((run / "scores_test.json").read_text())["means"]["boundary_ods"], abs=0.02
    )
    assert with_maps == ours


def test_report_reads_the_folder(preds, capsys):
    score(as_train_ids(preds), *IDS)
    tools(["report", "out", "--out", "page.html"])
    page = Path("page.html").read_text()
    assert "traffic light" in page
    assert "out" in page


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([7, 11], "train ids or ids of the data set: they have the values 7, 11"),
        ([0, 7, 8, 255], "train ids or ids of the data set"),
        ([3, 7, 11, 11, 11], "train ids or ids of the data set"),
        ([0, 255], "train ids or ids of the data set: they have the values 0, 255"),
        ([40, 7], "mean nothing with these classes: 7, 40"),
    ],
)
def test_what_cannot_be_told_is_refused(values, said, preds, capsys):
    for name, pred in preds.items():
        write(Path("odd", f"{name}.png"), np.array(values, np.uint8)[pred % len(values)])
    assert score("odd", *IDS, code=2) is None
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("gscnn score: error: the predictions in odd ")
    assert said in message
    if "nothing" not in said:
        assert "--coding trainids" in message
        assert score("odd", *IDS, "--coding", "trainids")["means"]["miou"] > 0


def test_later_files_that_contradict_are_named(preds, capsys):
    """What was found out from some files does not make values of others mean anything."""
    numbers = [f"{index:06d}" for index in range(12)]
    for number in numbers:
        write(Path("many", f"a_{number}.png"), np.tile(np.arange(19, dtype=np.uint8), (19, 1)))
        write(Path("pred", f"a_{number}.png"), np.tile(np.arange(19, dtype=np.uint8), (19, 1)))
    write(Path("pred/a_000011.png"), np.full((19, 19), 26, np.uint8))
    Path("classes.yaml").write_text(
        yaml.safe_dump({"classes": [{"name": n, "color": [i, 9, 9]} for i, n in enumerate(CITYSCAPES.names)]})
    )
    assert score("pred", "--labels", "many", "--classes", "classes.yaml", code=2) is None
    message = capsys.readouterr().err
    assert "a_000011: pred/a_000011.png has values that are no train ids: 26 (361 pixels)" in message


def test_everything_that_is_wrong_is_named(preds, capsys):
    folder = as_train_ids(preds)
    write(Path(folder, "paris_000000_000001.png"), preds[NAMES[0]])
    write(Path(folder, "ulm_000000_000003_leftImg8bit.png"), preds[NAMES[0]])
    Path(folder, f"{NAMES[0]}.png").unlink()
    write(Path(folder, f"{NAMES[1]}.png"), preds[NAMES[1]][:40])
    content = Path(folder, f"{NAMES[2]}.png").read_bytes()
    Path(folder, f"{NAMES[2]}.png").write_bytes(content[: len(content) // 2])
    assert score(folder, *IDS, "--coding", "trainids", code=2) is None
    err = capsys.readouterr().err
    assert "surplus in plain: 2 files are of no frame: plain/paris_000000_000001.png, plain/ulm_000000_000003" in err
    assert f"1 of 3 frames have no prediction in plain: ulm/{NAMES[0]}" in err
    assert f"{NAMES[1]}.png is 64x40 pixels, its labels 64x48: predict at that size, or give --resize true" in err
    assert f"{NAMES[2]}.png is truncated after" in err
    assert "error: plain cannot be measured over all 3 frames" in err.splitlines()[-1]
    assert "Traceback" not in err
    found = score(folder, *IDS, "--coding", "trainids", "--allow-missing", "true", "--resize", "true", code=1)
    err = capsys.readouterr().err
    assert found["means"]["miou"] > 0
    assert f"resized: 1 predictions, the first is ulm/{NAMES[1]}" in err
    with Path("out/image_scores.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [f"ulm/{NAMES[1]}"]
    assert json.loads(Path("out/environment.json").read_text())["frames"] == 1


def test_a_part_that_was_asked_for_scores_as_that_part(preds, capsys):
    score(as_train_ids(preds), *IDS)
    with Path("out/image_scores.csv").open() as file:
        rows = {row["name"]: row["miou"] for row in csv.DictReader(file)}
    Path("plain", f"{NAMES[0]}.png").unlink()
    score("plain", *IDS, "--allow-missing", "true", code=1)
    with Path("out/image_scores.csv").open() as file:
        assert {r["name"]: r["miou"] for r in csv.DictReader(file)} == {
            n: v for n, v in rows.items() if NAMES[0] not in n
        }


def test_files_of_frames_of_one_name_are_told_apart_by_their_folders(capsys):
    rng = np.random.default_rng(5)
    for drive in ("a", "b"):
        labels = rng.integers(0, 3, (20, 30)).astype(np.uint8)
        write(Path("truth", drive, "0001.png"), labels)
        write(Path("pred/run", drive, "0001_mask.png"), labels)
        write(Path("flat", f"0001_{drive}x.png"), labels)
        write(Path("joined", f"{drive}_0001.png"), labels)
    Path("classes.yaml").write_text(
        "classes: [{name: x, color: [1,2,3]}, {name: y, color: [4,5,6]}, {name: z, color: [7,8,9]}]"
    )
    of = ["--labels", "truth", "--classes", "classes.yaml"]
    assert score("pred", *of)["means"]["miou"] == score("joined", *of)["means"]["miou"] == 1
    assert score("flat", *of, code=2) is None
    assert "may be a prediction of a/0001 or of b/0001" in capsys.readouterr().err


def test_two_files_of_a_frame_that_nothing_tells_apart_are_refused(preds, capsys):
    folder = as_train_ids(preds)
    np.save(f"{folder}/{NAMES[0]}.npy", preds[NAMES[0]])
    score(folder, *IDS, code=2)
    assert f"may both be the prediction of ulm/{NAMES[0]}: remove one of them" in capsys.readouterr().err


def test_predicted_void_is_said_and_missed(preds, capsys):
    for pred in preds.values():
        pred[24:36] = 255
    found = score(as_train_ids(preds), *IDS)
    assert "no class is predicted for 27.27 % of the labelled pixels, which are missed" in capsys.readouterr().err
    assert found["means"]["accuracy"] < 0.4


def test_custom_classes_and_their_raw_values(capsys):
    rng = np.random.default_rng(6)
    table = {
        "masks": "ids",
        "void": [9],
        "classes": [
            {"name": "road", "color": [1, 2, 3], "values": [3]},
            {"name": "car", "color": [4, 5, 6], "values": [0, 7]},
        ],
    }
    Path("classes.yaml").write_text(yaml.safe_dump(table))
    of = ["--labels", "truth", "--classes", "classes.yaml"]
    labels = rng.integers(0, 2, (20, 30)).astype(np.uint8)
    write(Path("truth/f1.png"), np.array([3, 7], np.uint8)[labels])
    write(Path("train/f1.png"), labels)
    write(Path("raw/f1.png"), np.array([3, 7], np.uint8)[labels])
    for folder in ("train", "raw"):
        assert score(folder, *of)["means"]["miou"] == 1
    write(Path("white/f1.png"), 255 * labels)
    score("white", "--labels", "train", "--classes", "camvid", code=2)
    assert "may be a mask of one class in black and white: if they are train ids" in capsys.readouterr().err
    write(Path("both/f1.png"), 0 * labels)
    score("both", *of, code=2)
    assert "can be train ids or ids of the data set: they have the values 0" in capsys.readouterr().err


def test_mistakes_get_one_message(preds, capsys):
    as_train_ids(preds)
    Path("run").mkdir()
    Path("run/metrics.csv").touch()
    Path("empty").mkdir()
    np.save("plain/x.npy", np.zeros(3))
    for args, words in (
        (["plain"], "which labels? Give --config or --data as to gscnn-fit, or --labels"),
        (["plain", "--labels", "truth"], "give --classes FILE"),
        (["plain", *IDS, "--config", "scenes"], "labels are given twice"),
        (["nowhere", *IDS], "nowhere is no folder"),
        (["empty", *IDS], "no prediction in empty is of one of the 3 frames"),
        (["plain", "--labels", "nowhere", "--classes", "cityscapes"], "nowhere is no folder"),
        (["plain", "--labels", "truth", "--classes", "citscapes"], "did you mean cityscapes?"),
        (["plain", *IDS, "--workers", "0"], "workers is 0"),
        (["plain", *IDS, "--tolerances", "[-1]"], "tolerances is [-1.0]"),
        (["plain", *IDS, "--coding", "colors"], "has values and no colours"),
        (["plain", *IDS, "--out", "run"], "run is the folder of a training"),
    ):
        with pytest.raises(SystemExit) as stop:
            tools(["score", *args])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert words in message
        assert "Traceback" not in message


def test_arrays_that_are_no_predictions_are_named(preds, capsys):
    for array, words in (
        (np.zeros((48, 64)), "store whole numbers, such as .astype(numpy.uint8)"),
        (np.full((48, 64), -1), "values from -1 to -1"),
        (np.zeros((5, 48, 64), np.float32), "scores of the classes (19, H, W) or (H, W, 19)"),
        (np.full((19, 48, 64), np.nan, np.float32), "not a number (NaN)"),
        (np.array([{}], object), "is no readable array"),
    ):
        shutil.rmtree("arrays", ignore_errors=True)
        Path("arrays").mkdir()
        for name in NAMES:
            np.save(f"arrays/{name}.npy", array, allow_pickle=True)
        score("arrays", *IDS, code=2)
        assert words in capsys.readouterr().err


def test_files_of_other_kinds_than_those_looked_at_are_not_guessed(preds, capsys):
    """Neither do scores tell what values of another file are, nor do colours."""
    Path("many").mkdir()
    for number in range(12):
        labels = np.tile(np.arange(19, dtype=np.uint8), (8, 1))
        write(Path("numbers", f"a_{number:06d}.png"), labels)
        np.save(f"many/a_{number:06d}.npy", np.moveaxis(one_hot(labels), -1, 0))
        write(Path("colors", f"a_{number:06d}.png"), colorize_labels(labels, CITYSCAPES.colors)[..., ::-1])
    write(Path("many/a_000011.png"), labels)
    Path("many/a_000011.npy").unlink()
    write(Path("colors/a_000011.png"), labels)
    named = zip(CITYSCAPES.names, CITYSCAPES.colors, strict=True)
    rows = [{"name": name, "color": list(color)} for name, color in named]
    Path("classes.yaml").write_text(yaml.safe_dump({"classes": rows}))
    of = ["--labels", "numbers", "--classes", "classes.yaml"]
    score("many", *of, code=2)
    assert "a_000011.png is a label map among scores of the classes" in capsys.readouterr().err
    assert score("many", *of, "--coding", "trainids")["means"]["miou"] == 1
    score("colors", *of, code=2)
    assert "a_000011.png has values and no colours" in capsys.readouterr().err


def test_shipped_table_is_that_of_the_data_module():
    from gscnn_lightning.data.mask_classes import read_classes
    from gscnn_lightning.shipped_configs import find_config

    read = read_classes(find_config("cityscapes", "classes"))
    assert read.classes == CITYSCAPES
    assert {raw: int(read.table[raw % 256]) for raw in CITYSCAPES_ID_TO_TRAIN_ID} == CITYSCAPES_ID_TO_TRAIN_ID
    assert all(read.table[CITYSCAPES_TRAIN_ID_TO_ID[train_id]] == train_id for train_id in range(19))


def soft(preds):
    """Probabilities (19, H, W) by frame, whose largest is that of the predicted class."""
    rng = np.random.default_rng(1)
    found = {}
    for name, pred in preds.items():
        values = rng.random((19, *pred.shape)) + 2 * np.eye(19)[pred].transpose(2, 0, 1) * rng.random(pred.shape)
        found[name] = values / values.sum(0)
        preds[name] = found[name].argmax(0).astype(np.uint8)
    return found


def expected_errors(probs):
    metric = CalibrationError()
    for name, values in probs.items():
        raw = cv2.imread(f"truth/{name.split('_')[0]}/{name}_gtFine_labelIds.png", cv2.IMREAD_UNCHANGED)
        labels = np.vectorize(lambda value: CITYSCAPES_ID_TO_TRAIN_ID.get(value, 255))(raw)
        metric.update(torch.from_numpy(values)[None], torch.from_numpy(labels)[None])
    return {name: float(metric.compute()[name]) for name in ("ece", "ece_boundary")}


def test_probabilities_give_the_calibration_error(preds, capsys):
    probs = soft(preds)
    expected = expected_errors(probs)
    assert 0.05 < expected["ece"] < 0.95
    folder = as_train_ids(preds)
    plain = score(folder, *IDS)
    assert "ece" not in plain["means"]
    for kind in ("exact", "half", "logits", "pictures", "folders", "bytes"):
        for name, values in probs.items():
            Path(kind, name).mkdir(parents=True, exist_ok=True)
            if kind in ("exact", "half", "logits"):
                stored = np.log(values) + 3 if kind == "logits" else values
                np.save(f"{kind}/{name}.npy", stored.astype(np.float16 if kind == "half" else np.float32))
            for k, values_of_class in enumerate(values):
                label = CITYSCAPES.names[k].replace(" ", "_")
                if kind in ("pictures", "bytes"):
                    largest, dtype = (65535, np.uint16) if kind == "pictures" else (255, np.uint8)
                    write(Path(kind, f"{name}_{k}.png"), np.rint(values_of_class * largest).astype(dtype))
                elif kind == "folders":
                    write(Path(kind, name, f"{label}.png"), np.rint(values_of_class * 65535).astype(np.uint16))
        found = score(folder, *IDS, "--probabilities", kind)
        near = {"half": 2e-3, "bytes": 3e-2}.get(kind, 2e-4)
        for measure, value in expected.items():
            assert found["means"].pop(measure) == pytest.approx(value, abs=near), kind
        assert found["means"] == plain["means"]
    assert Path("out/reliability.png").is_file()
    # Predictions that are such arrays themselves need not be named twice.
    capsys.readouterr()
    own = score("exact", *IDS)
    assert own["means"]["ece"] == pytest.approx(expected["ece"], abs=1e-6)
    assert "logits" not in capsys.readouterr().err
    assert score("logits", *IDS)["means"]["ece"] == pytest.approx(expected["ece"], abs=1e-5)
    assert "of 3 frames, scores of the classes are taken for logits" in capsys.readouterr().err
    two = score(folder, *IDS, "--probabilities", "pictures", "--workers", 2)
    assert two["means"] == score(folder, *IDS, "--probabilities", "pictures")["means"]


def test_probabilities_that_are_none_are_said(preds, capsys):
    folder = as_train_ids(preds)
    for name, pred in preds.items():
        Path("sigmoid").mkdir(exist_ok=True)
        np.save(f"sigmoid/{name}.npy", np.full((19, *pred.shape), 0.5, np.float32))
    assert "ece" not in score("sigmoid", *IDS)["means"]
    assert "do not add up to 1: no calibration" in capsys.readouterr().err
    score(folder, *IDS, "--probabilities", "sigmoid", code=2)
    assert "which add up to 1, or logits" in capsys.readouterr().err
    score(folder, *IDS, "--probabilities", folder, code=2)
    said = capsys.readouterr().err
    assert "3 of 3 frames have no probabilities in plain" in said
    assert "NAME_0.png to NAME_18.png with 16 bits" in said


def refused(capsys, *args):
    """The one line that a call ends with."""
    capsys.readouterr()
    score(*args, code=2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_network_gets_the_scores_of_its_test_run(capsys):
    fit(["--config", str(write_config(Path("tiny.yaml"), epochs=1)), "--trainer.logger.save_dir", "runs"])
    (run,) = Path("runs").rglob("version_0")
    checkpoint = run / "checkpoints/best.ckpt"
    with_flip = ["--model.flip_average", "true"]
    fit(["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(checkpoint), *with_flip])
    (tested,) = [path for path in Path().rglob("scores_test.json") if path.is_file()]
    wanted = json.loads(tested.read_text())
    found = score(checkpoint, "--flip", "true")
    assert found["means"] == pytest.approx(wanted["means"], rel=1e-6, nan_ok=True)
    assert found["classes"] == wanted["classes"]
    assert "confusion_matrix.csv" in {path.name for path in Path("out").iterdir()}
    with Path("out/image_scores.csv").open() as ours, (tested.parent / "image_scores.csv").open() as theirs:
        assert [row["name"] for row in csv.DictReader(ours)] == [row["name"] for row in csv.DictReader(theirs)]
    assert score(checkpoint) != found
    for name, value in {"coding": "ids", "workers": "2", "resize": "true", "labels": "truth"}.items():
        line = refused(capsys, checkpoint, f"--{name}", value)
        assert f"best.ckpt is a network, and --{name} is about folders of label maps: leave it out" in line
    assert "is no folder" in refused(capsys, "nowhere", "--config", "scenes")
    assert "does not exist" in refused(capsys, "nowhere.ckpt", "--config", "scenes")


def test_settings_of_networks_are_none_of_label_maps(preds, capsys):
    line = refused(capsys, as_train_ids(preds), *IDS, "--flip", "true")
    assert "plain holds predictions, and --flip is about networks: leave it out" in line
