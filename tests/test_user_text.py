"""Names that users choose are text: never markup, never in the way of a file, and the same in every locale."""

import csv
import locale
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tests.data import made
from tests.test_cli import TINY

from gscnn_lightning.cli import main
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.drawing.plots import plot_confusion
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.metrics_csv import read_metrics
from gscnn_lightning.run_folder.run import load_run
from gscnn_lightning.run_folder.score_files import (
    read_confusion,
    read_image_scores,
    write_confusion,
    write_image_scores,
)
from gscnn_lightning.scores import ImageScores
from gscnn_lightning.terminal import new_table, progress, say, take_any_text
from gscnn_lightning.tracking import MetricsLogger

NAMES = (
    "road [/left]",
    "[red]",
    ":car: 🚗",
    '100% {x} "q" \'s, |',
    "天空",
    "a.b/c",
    "$x_1$",
    "x" * 300,
    "</script><b>",
    "door step",
    "door",
    "snake_case",
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def _ascii_files():
    """Files that are opened without an encoding are in ASCII, as in the locale POSIX."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    if locale.getpreferredencoding(False).lower().startswith("utf"):
        pytest.skip("this Python is in UTF-8 mode")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


def table(names):
    rows = [{"name": name, "color": [i, 10 * i, 200], "values": [i]} for i, name in enumerate(names)]
    return yaml.safe_dump({"void": [255], "classes": rows}, allow_unicode=True)


def folder_of(names, root=Path("da[ta]")):
    made.folder(root)
    (root / "classes.yaml").write_text(table(names), encoding="utf-8")
    for index, path in enumerate(sorted(root.glob("masks/*/*"))):
        mask = np.random.default_rng(index).integers(0, len(names), (12, 16), np.uint8)
        made.save(path, np.kron(mask, np.ones((6, 6), np.uint8)))
    for index, path in enumerate(sorted(root.glob("images/*/*"))):
        made.save(path, made.picture(index, (72, 96)))
    return root


@pytest.mark.usefixtures("_ascii_files")
def test_a_run_with_names_of_every_kind(capsys):
    root = folder_of(NAMES)
    odd = os.fsdecode(b"[x] {} %s gr\xc3\xbc\xdf")  # the last letter is in Latin-1
    for kind in ("images", "masks"):
        (path,) = (root / kind / "val").glob("f1.*")
        path.rename(path.with_name(f"{odd}{path.suffix}"))
    given = ["--data", "FolderDataModule", "--data.root", str(root), "--data.classes", "classes.yaml"]
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "runs", "--trainer.logger.name", "n[/ame]"]
    crops = ["--data.batch_size", "2", "--data.crop_size", "[64,64]"]
    main([*TINY, *given, *logger, *crops, "--trainer.max_epochs", "1"])
    out = capsys.readouterr().out
    for name in NAMES:
        assert (name if len(name) < 28 else name[:27] + "…") in out
    run = RunFolder(Path("runs/n[/ame]/version_0"))
    with run.metrics.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert {f"val/iou_{name.replace(' ', '_')}" for name in NAMES} <= set(header)
    loaded = load_run(run.path)
    assert loaded.class_names == NAMES
    assert tuple(loaded.stages["val"].class_names) == NAMES
    assert odd in [image.name for image in loaded.image_scores]
    assert loaded.confusion is not None
    tools(["report", str(run.path), "--out", "report.html"])
    page = Path("report.html").read_text(encoding="utf-8")
    assert "snake_case" in page
    assert "天空" in page
    assert "</script><b>" not in page
    tools(["data", "check", *given])
    tools(["predict", str(run.best_checkpoint), str(root / "images/val"), "--out", "o[/ut]"])
    assert Path(f"o[/ut]/{odd}_labels.png").exists()


@pytest.mark.usefixtures("_ascii_files")
def test_files_are_in_utf_8_whatever_the_locale():
    logger = MetricsLogger("runs", name="a")
    logger.log_metrics({"val/iou_天空": 0.5}, step=1)
    logger.save()
    logger.log_metrics({"val/iou_天空": 0.75, "val/iou_grün": 1.0}, step=2)
    logger.save()
    logger.log_metrics({"val/iou_grün": 0.25}, step=3)
    logger.save()
    run = RunFolder(Path("runs/a/version_0"))
    assert run.metrics.read_text(encoding="utf-8").splitlines() == [
        "step,val/iou_grün,val/iou_天空",
        "1,,0.5",
        "2,1.0,0.75",
        "3,0.25,",
    ]
    assert {name: values.tolist() for name, (_, values) in read_metrics(run)[0].items()} == {
        "val/iou_天空": [0.5, 0.75],
        "val/iou_grün": [1.0, 0.25],
    }
    undecodable = os.fsdecode(b"gr\xfcn")
    images = [ImageScores(0, name, {"miou": 0.5}) for name in ("天空", "a\nb", undecodable)]
    write_image_scores(run, images)
    assert read_image_scores(run) == images
    write_confusion(run, np.eye(2, dtype=np.int64), ["天空", 'a"b,'])
    assert read_confusion(run, ["天空", 'a"b,']).tolist() == [[1, 0], [0, 1]]


def test_metrics_of_a_class_called_step_are_its_own():
    run = RunFolder(Path("run"))
    run.path.mkdir()
    run.metrics.write_text("step,train/loss_step,val/iou_door,val/iou_door_step\n0,1.5,0.25,0.75\n")
    series, _ = read_metrics(run)
    assert {name: values.tolist() for name, (_, values) in series.items()} == {
        "train/loss": [1.5],
        "val/iou_door": [0.25],
        "val/iou_door_step": [0.75],
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a b", "a_b"], "classes 'a b' and 'a_b' have one name in logs, iou_a_b: rename one of them"),
        (["a\nb", "c"], r"class name 'a\nb' is empty or has control characters: write a name in one line"),
        (["a\x1b[31m", "c"], "has control characters"),
        (["a", "  "], "class name '  ' is empty"),
        (["=1+1", "c"], "class name '=1+1' is a formula for spreadsheets: begin it with something else"),
        (["a", "a"], "class 'a' is there twice"),
        ([True, "c"], "the name of class 0 is True, no text: write it in quotes"),
    ],
)
def test_names_that_cannot_be_told_apart_or_shown_are_refused(names, words, capsys):
    root = folder_of(["x", "y"])
    (root / "classes.yaml").write_text(table(names), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main([*TINY, "--data", "FolderDataModule", "--data.root", str(root), "--data.classes", "classes.yaml"])
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(message.splitlines()) == 1
    assert words in message


def test_tables_and_bars_print_text_as_it_is(capsys, monkeypatch):
    shown = new_table("[/title]")
    shown.add_column("[red]head")
    shown.add_row("[/cell] :car:")
    say(shown)
    say("[/line] :car:")
    out = capsys.readouterr().out
    for text in ("[/title]", "[red]head", "[/cell] :car:", "[/line] :car:"):
        assert text in out
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress(2, "[/bar]") as move:
        move(1, 2, "[/other]")


def test_what_a_stream_cannot_encode_is_printed_as_an_escape(capfdbinary):
    take_any_text()
    say(f"天空 {os.fsdecode(bytes([0xDF]))}")
    assert b"\\udcdf" in capfdbinary.readouterr().out


def test_confusion_matrices_of_long_and_foreign_names_are_drawn_without_a_word(recwarn):
    plot_confusion(np.eye(3, dtype=np.int64), ["天空", "x" * 500, "$a"], Path("c.png"))
    assert cv2.imread("c.png").shape[0] > 100
    assert [str(warning.message) for warning in recwarn] == []
