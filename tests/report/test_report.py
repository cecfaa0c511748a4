import base64
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from tests.made_run import NAMES, write_rows, write_run, write_scores

from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.drawing.plots import plot_reliability
from gscnn_lightning.errors import DataError, SettingError
from gscnn_lightning.report import render_report
from gscnn_lightning.report.charts import as_line, draw
from gscnn_lightning.report.gallery import LAYERS, fixed_gallery, worst_gallery
from gscnn_lightning.report.page import _chart_groups, _taken_for
from gscnn_lightning.run_folder import RunFolder
from gscnn_lightning.run_folder.metrics_csv import read_metrics
from gscnn_lightning.run_folder.pictures import folder_name
from gscnn_lightning.run_folder.run import load_run, load_runs
from gscnn_lightning.scores import worst_images

VOID_TAGS = {"img", "input", "meta", "br", "path", "circle"}


class Page(HTMLParser):
    """Elements of a document as (tag, attributes), its text without scripts and styles, and the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.rows, self.open = [], [], [], []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append({**dict(attrs), "text": ""})

    def handle_endtag(self, tag):
        assert tag in VOID_TAGS or self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1]["text"] += data.strip()

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    control = write_run(root / "control/version_0", miou=0.5, shape_stream=False)
    return control, write_run(root / "both/version_0", miou=0.6)


@pytest.fixture(scope="module")
def html(two_runs):
    return render_report(load_runs(two_runs))


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def pixels(uri, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA").convert(mode))


def test_document_loads_nothing_and_describes_every_picture(page, html):
    for tag, attributes in page.elements:
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#")), (tag, attributes[name][:60])
    assert not page.find("link")
    assert "http://" not in html
    assert "https://" not in html
    policy = next(meta["content"] for meta in page.find("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")
    images = page.find("img")
    # Per image: 3 shared, and per run 2 or 6 of its own, in 2 epochs; the worst ones once.
    assert len(images) == 2 * (3 + 2 * 2 + 2 * 6) + 2 * (3 + 2 + 6)
    assert all(image["alt"] for image in images)
    assert "Gate 2 of 01_a_b by both, epoch 4" in {image["alt"] for image in images}
    assert not page.open


def test_document_has_an_outline_and_named_controls(page):
    levels = [int(tag[1]) for tag, _ in page.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    labelled = {label["for"] for label in page.find("label")}
    assert {control["id"] for control in page.find("input")} == labelled
    assert {link["href"][1:] for link in page.find("a")} <= set(ids)
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.find("svg"))


def test_tables_have_the_numbers_of_the_runs(page, two_runs):
    records = [json.loads((run / "scores_val.json").read_text()) for run in two_runs]
    rows = {row[0]["text"]: row[1:] for row in page.rows if len(row) == 10 and any("data-value" in c for c in row)}
    assert list(rows) == [*NAMES, "mean"]
    for name, cells in rows.items():
        for place, key in enumerate(("iou", "boundary_f1_1px", "boundary_f1_3px")):
            of_run = [
                r["means"]["miou" if key == "iou" else key] if name == "mean" else r["classes"][name][key]
                for r in records
            ]
            first, second, change = cells[3 * place : 3 * place + 3]
            if of_run[0] is None:
                assert [first["data-value"], first["text"], change["text"]] == ["", "–", "–"]
                continue
            for cell, value in ((first, of_run[0]), (second, of_run[1]), (change, of_run[1] - of_run[0])):
                assert float(cell["data-value"]) == pytest.approx(100 * value, abs=1e-9)
            assert [first["text"], change["text"]] == [f"{100 * of_run[0]:.1f}", "+10.0"]
    assert "60.0 +10.0" in page.text
    assert "1:23 min" in page.text
    assert "4 of 4" in page.text


def test_reliability_is_shown_of_runs_that_were_tested(tmp_path, html):
    assert "Reliability" not in html
    run = write_run(tmp_path / "run")
    assert RunFolder(run).reliability_picture.name == "reliability.png"
    bins = {"pixels": [0.0, 8.0], "confidence": [math.nan, 0.9], "accuracy": [math.nan, 0.7]}
    plot_reliability({"all": bins, "boundary": bins}, {"all": 0.2, "boundary": 0.2}, run / "reliability.png")
    record = json.loads((run / "scores_val.json").read_text())
    record["means"] |= {"ece": 0.0213, "ece_boundary": None}
    (run / "scores_test.json").write_text(json.dumps(record))
    page = Page(render_report(load_runs([run])))
    (image,) = [image for image in page.find("img") if image["alt"].startswith("Accuracy against confidence")]
    assert image["alt"].endswith(", calibration error (ECE) 2.1 %, ECE within 3 px of boundaries – %")
    assert base64.b64decode(image["src"].partition(",")[2]) == (run / "reliability.png").read_bytes()
    assert {"href": "#reliability"} in page.find("a")
    assert {link["href"][1:] for link in page.find("a")} <= {a["id"] for _, a in page.elements if "id" in a}
    (run / "reliability.png").write_bytes(b"damaged")
    assert "Reliability" not in render_report(load_runs([run]))


def test_less_is_better_of_calibration_errors(tmp_path):
    run = write_run(tmp_path / "run")
    write_rows(run / "metrics.csv", ["epoch", "step", "val/ece", "val/miou"], [[0, 9, 0.1, 0.5], [1, 19, 0.05, 0.4]])
    charts = {chart.title: chart for _, group in _chart_groups(load_runs([run])) for chart in group}
    assert charts["Mean IoU"].curves[0].best is not None
    assert charts["Calibration error (ECE)"].curves[0].best is None, "the largest error is no best value"
    assert charts["Calibration error (ECE)"].curves[0].value == "5.0"


def test_text_of_the_user_is_escaped(page, html):
    assert "<script>alert" not in html
    assert "alert(1)" in page.text
    assert "a&b.yaml" in page.text
    assert len(page.find("script")) == 1 + sum("data-box" in figure for figure in page.find("figure"))


def test_only_what_differs_is_listed_as_different(page):
    listed = [row[0]["text"] for row in page.rows if "model.shape_stream" in row[0]["text"]]
    assert len(listed) == 2, "among those that differ and among all"
    assert [cell["text"] for cell in next(r for r in page.rows if r[0]["text"] == "model.shape_stream")] == [
        "model.shape_stream",
        "false",
        "true",
    ]
    assert sum(row[0]["text"] == "model.lr" for row in page.rows) == 1
    assert any([c["text"] for c in row] == ["gpus", "none", "none"] for row in page.rows)
    assert any([c["text"] for c in row] == ["data.seed", "0", "0"] for row in page.rows)


def test_gallery_puts_runs_side_by_side(two_runs):
    runs = load_runs(two_runs)
    gallery = fixed_gallery(runs, lambda score: [("F", f"{score.values['boundary_f1_3px']:.2f}")], 640)
    assert gallery.epochs == [2, 4]
    assert list(gallery.layers) == list(LAYERS)
    exhibit = gallery.exhibits[1]
    assert (exhibit.name, exhibit.width, exhibit.height) == ("city/01_a b", 32, 24)
    control, both = exhibit.panels
    assert [plate.layer for plate in control.plates] == ["prediction", "errors"] * 2
    assert "without shape stream" in control.note
    assert control.scores == both.scores == [("F", "0.85")]
    assert [p.layer for p in both.plates if p.epoch == 4] == [
        layer for layer in LAYERS if layer not in ("photo", "labels", "boundary_truth")
    ]
    gates = [plate for plate in both.plates if plate.layer == "gate_1"]
    assert {plate.note for plate in gates} == {"0.16 to 1.00"}, "one range through all epochs"
    worst = worst_gallery(runs, lambda _: [], 640)
    assert [e.name for e in worst.exhibits] == ["city/01_a b", "city/00_a b"]
    assert worst.epochs == []


def test_label_maps_are_exact_and_errors_are_marked(two_runs):
    exhibit = fixed_gallery(load_runs(two_runs[1:]), lambda _: [], 640).exhibits[0]
    plates = {plate.layer: plate for plate in [*exhibit.shared, *exhibit.panels[0].plates]}
    labels = pixels(plates["labels"].src)
    assert labels[0, 0].tolist() == [128, 64, 128]
    assert labels[-1, 0].tolist() == [0, 0, 142]
    assert labels[0, -1].tolist() == [0, 0, 0]
    errors = pixels(plates["errors"].src, "RGBA")
    assert (errors[:, :8] == [255, 64, 48, 235]).all(), "the left quarter is wrong"
    assert (errors[:, 8:-1, 3] == 178).all()
    assert (errors[:, -1] == [128, 132, 140, 205]).all(), "void is neither right nor wrong"
    assert plates["photo"].src.startswith("data:image/webp")


def test_pictures_are_no_wider_than_asked(two_runs):
    exhibit = fixed_gallery(load_runs(two_runs), lambda _: [], 16).exhibits[0]
    assert (exhibit.width, exhibit.height) == (16, 12)
    for plate in [*exhibit.shared, *(plate for panel in exhibit.panels for plate in panel.plates)]:
        assert pixels(plate.src).shape == (12, 16, 3), plate.layer


def test_pictures_of_many_epochs_are_spread(tmp_path):
    run = load_runs([write_run(tmp_path / "run", epochs=range(1, 21), images=1)])
    gallery = fixed_gallery(run, lambda _: [], 640)
    assert gallery.epochs == [1, 5, 9, 12, 16, 20]
    assert gallery.notes == ["tmp/run has pictures of 20 epochs; 6 of them are shown.".replace("tmp", tmp_path.name)]


def test_two_runs_with_twelve_photographs_fit_into_eight_megabytes(tmp_path):
    data = pytest.importorskip("skimage.data")
    transform = pytest.importorskip("skimage.transform")
    scenes = [data.coffee(), data.chelsea(), data.astronaut(), data.rocket()]
    photos = [transform.resize(np.roll(s, 7 * k, 1), (360, 480), anti_aliasing=True) for k in range(3) for s in scenes]
    photos = [(255 * photo).astype(np.uint8) for photo in photos]
    runs = [write_run(tmp_path / name, epochs=(18,), photos=photos, images=12) for name in ("a", "b")]
    assert 1e6 < len(render_report(load_runs(runs)).encode()) < 8e6


def test_what_is_missing_is_said_in_its_place(tmp_path, two_runs):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(two_runs[0] / "metrics.csv", bare)
    text = Page(render_report(load_runs([bare]))).text
    for words in (
        "No scores: the run was not validated",
        "bare has no pictures of validation images",
        "bare has no pictures of its worst images",
        "bare has no scores of single images",
        "No run has scores of its classes",
        "bare has no confusion matrix",
        "bare has no config.yaml",
        "bare has no environment.json",
    ):
        assert words in text, words
    assert "Mean IoU" in text
    both = Page(render_report(load_runs([two_runs[1], bare])))
    assert "bare has no pictures" in both.text
    assert "bare has no scores_val.json" in both.text


def test_scores_alone_and_damaged_pictures_are_enough(tmp_path):
    only = tmp_path / "only"
    only.mkdir()
    write_scores(only / "scores_test.json", NAMES, 0.5)
    assert "only has logged nothing that could be drawn" in Page(render_report(load_runs([only]))).text
    run = write_run(tmp_path / "run", images=1)
    for path in (run / "pictures").rglob("*.*"):
        path.write_bytes(path.read_bytes()[:20])
    assert "its prediction is missing or damaged" in Page(render_report(load_runs([run]))).text


def test_confusions_add_up(two_runs):
    run = load_run(two_runs[0])
    shares = _taken_for(run, 1, NAMES, ["#000000"] * 3)
    assert [(share.name, share.percent) for share in shares] == [("car", 10), (NAMES[2], 60), ("road", 30)]
    assert _taken_for(run, 2, NAMES, ["#000000"] * 3) == [], "a class without pixels"


def test_runs_are_called_by_what_differs_in_their_paths(two_runs, tmp_path):
    assert [run.label for run in load_runs(two_runs)] == ["control", "both"]
    assert [run.label for run in load_runs(two_runs[:1])] == ["control/version_0"]
    assert [run.label for run in load_runs(two_runs, ["A", "B"])] == ["A", "B"]
    nested = write_run(tmp_path / "run"), write_run(tmp_path / "run/again")
    assert [run.label for run in load_runs(nested)] == ["run", "run/again"]


def test_frames_of_one_name_are_told_apart_by_rank(tmp_path):
    run = write_run(tmp_path / "run", images=1)
    lines = "name,index,boundary_f1_3px,miou\nulm/a,0,0.4,0.5\nbonn/a,1,0.2,0.5\nbonn/b,2,,0.5\n"
    (run / "image_scores.csv").write_text(lines)
    shutil.move(run / "pictures/worst/00_00_a_b", run / "pictures/worst/00_a")
    shutil.copytree(run / "pictures/worst/00_a", run / "pictures/worst/01_a")
    gallery = worst_gallery([load_run(run)], lambda score: [(score.name, "")], 640)
    assert [exhibit.name for exhibit in gallery.exhibits] == ["bonn/a", "ulm/a"]
    assert gallery.exhibits[1].panels[0].scores == [("ulm/a", "")]


@pytest.mark.parametrize("name", ["a/frame.001", "x.v2_left", "straße_1"])
def test_worst_images_are_found_whatever_they_are_called(name, tmp_path):
    run = write_run(tmp_path / "run", images=1)
    (run / "image_scores.csv").write_text(
        f"name,index,boundary_f1_12px,boundary_f1_3px\nb,0,0.9,0.1\n{name},1,0.2,0.3\n"
    )
    shutil.move(run / "pictures/worst/00_00_a_b", run / "pictures/worst" / folder_name(0, name, 2))
    loaded = load_run(run)
    assert [score.name for score in worst_images(loaded.image_scores)] == [name, "b"]
    assert loaded.sample_name(loaded.worst[0], ranked=True) == name


def test_class_names_may_have_a_slash(tmp_path):
    run = write_run(tmp_path / "run", images=1)
    (run / "metrics.csv").write_text("epoch,step,val/iou_road/lane\n0,1,0.5\n1,3,0.6\n")
    assert "IoU of the classes road/lane % run 60.0" in Page(render_report([load_run(run)])).text


def test_curves_of_a_resumed_training_are_whole(tmp_path):
    (tmp_path / "metrics_1.csv").write_text("epoch,step,train/loss\n0,0,4.0\n0,1,3.0\n")
    (tmp_path / "metrics_2.csv").write_text("epoch,step,train/loss\n0,1,2.5\n")
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n1,2,2.0\n")
    steps, values = read_metrics(RunFolder(tmp_path))[0]["train/loss"]
    assert (steps.tolist(), values.tolist()) == ([0, 1, 2], [4.0, 2.5, 2.0])


def test_curves_go_through_their_values():
    line = as_line(1, "run", (np.array([9.0, 19.0, 29.0]), np.array([0.5, np.nan, 0.7])), 10, 100)
    chart = draw("score", "%", [line], best=True)
    (curve,) = chart.curves
    assert [point[2:] for point in curve.points] == [[1.0, 50.0], [3.0, 70.0]]
    assert len(curve.lines) == 2, "a gap where there is no number"
    assert curve.value == "70.0"
    assert curve.best == curve.points[-1][:2]
    ticks = {tick.label: tick.at for tick in chart.y_ticks}
    assert ticks["70"] == pytest.approx(curve.points[-1][1], abs=0.06)
    assert [tick.label for tick in chart.x_ticks] == ["0", "1", "2", "3"]
    assert chart.left < curve.points[0][0] < curve.points[1][0] == chart.right


def test_long_curves_are_smoothed_and_thinned_out():
    steps = np.arange(5000.0)
    line = as_line(0, "run", (steps, np.where(steps % 2, 1.0, 3.0)), 500, 1, noisy=True)
    assert len(line.x) == 240
    assert line.y[1:-1] == pytest.approx(np.full(238, 2.0), abs=0.1)
    rate = as_line(0, "run", (steps, steps), 500, 1)
    assert rate.raw is None
    assert rate.y + 1 == pytest.approx(500 * rate.x), "thinned out, but not smoothed"
    falling = as_line(0, "run", (steps, 10 ** (-steps / 1000)), 500, 1)
    chart = draw("loss", "loss", [falling], may_be_log=True)
    assert chart.unit == "loss, logarithmic"
    assert len(chart.y_ticks) >= 3
    heights = [point[1] for point in chart.curves[0].points]
    assert np.diff(heights, 2) == pytest.approx(0, abs=0.4), "a straight line on this axis"


def test_command_writes_and_replaces_only_reports(tmp_path, two_runs, capsys):
    out = tmp_path / "report.html"
    args = ["report", *map(str, two_runs), "--names", "[first,second]", "--out", str(out)]
    tools(args)
    assert "report.html (" in capsys.readouterr().out
    assert "<title>first · second</title>" in out.read_text()
    tools(args)
    out.write_text("mine")
    with pytest.raises(SystemExit) as stop:
        tools(args)
    assert stop.value.code == 2
    assert "exists and is no report" in capsys.readouterr().err
    assert out.read_text() == "mine"
    tools([*args, "--overwrite", "true"])
    assert "<!DOCTYPE html>" in out.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_mistakes_get_one_message(tmp_path, two_runs, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = str(two_runs[0])
    write_run(tmp_path / "nested/version_3", images=0)
    others = write_run(tmp_path / "others", names=("road", "car", "bus"), images=0)
    for args, words in (
        ([], "which run?"),
        (["nowhere"], "nowhere is no directory"),
        (
            ["nested"],
            "nested is no run: it has neither metrics.csv nor scores_val.json; did you mean nested/version_3?",
        ),
        ([run, run], "a run is given twice"),
        ([run, str(others)], "has 3 classes road, car, <script>alert(1)</script>, ..., "),
        ([run, "--names", "[a,b]"], "give 1 different ones"),
        ([run, "--width", "4"], "width is 4"),
        ([run, "--out", "report.pdf"], "--out is an .html file"),
        ([run, "--out", "no/report.html"], "in a folder that exists"),
    ):
        with pytest.raises(SystemExit) as stop:
            tools(["report", *args])
        message = capsys.readouterr().err
        assert stop.value.code == 2
        assert words in message
        assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", "epoch,step,train/loss\n0,9,many\n"),
        ("metrics.csv", "\0\n1\n"),
        ("scores_val.json", '{"stage": "val", "means": '),
        ("scores_val.json", "[]"),
        ("classes.json", '{"names": ["road"], "colors": []}'),
        ("config.yaml", "a: [1"),
        ("environment.json", "7"),
        ("confusion_matrix.csv", "truth,road\ncar,1\n"),
        ("confusion_matrix.csv", ""),
        ("image_scores.csv", "name,index,miou\na,first,0.5\n"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    run = write_run(tmp_path / "run", images=0)
    (run / name).write_text(content)
    with pytest.raises(DataError, match=name):
        load_run(run)


def test_a_single_name_is_enough_for_one_run(two_runs):
    with pytest.raises(SettingError, match="give 2 different ones"):
        load_runs(two_runs, ["same", "same"])


def test_text_has_enough_contrast_in_both_themes(html):
    colors = {name: pair for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", html)}

    def luminance(color):
        channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ (0.2126, 0.7152, 0.0722)

    for text in ("ink", "faint", "accent", "gain", "loss"):
        for ground in ("paper", "raised", *(["bar"] if text == "ink" else [])):
            for theme in (0, 1):
                low, high = sorted(luminance(colors[name][theme]) for name in (text, ground))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground, theme)


@pytest.mark.slow
def test_page_comes_alive_in_a_browser(tmp_path, html):
    browser = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("no chromium to open the page with")
    (tmp_path / "report.html").write_text(html)
    command = [browser, "--headless=new", "--no-sandbox", "--enable-logging=stderr", "--virtual-time-budget=3000"]
    command += [f"--user-data-dir={tmp_path}/profile", "--dump-dom", (tmp_path / "report.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    live = Page(done.stdout)
    galleries = [section for section in live.find("section") if "gallery" in section.get("class", "")]
    assert [section["class"] for section in galleries] == ["gallery live"] * 2
    assert sum(control.get("class") == "wipe" for control in live.find("input")) == 2 * 2 * 2
    assert sum("aria-current" in button for button in live.find("button")) == 4
    assert sum("on" in figure.get("class", "").split() for figure in live.find("figure")) >= 4
