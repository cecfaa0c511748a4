"""`gscnn export`, and what takes its files, as a user calls them; every network here is tiny and untrained."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.tiny import write_checkpoint

from gscnn_lightning.checkpoint import load_predictor
from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.commands.main import main as tools
from gscnn_lightning.exporting import making
from gscnn_lightning.exporting.agreement import SIZES
from gscnn_lightning.exporting.graph import ExportedGraph
from gscnn_lightning.models.image_gradient import ImageGradient
from gscnn_lightning.models.layers import resize_by_area

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run(*args):
    return tools([*map(str, args)])


def refused(capsys, *args):
    """The one line that a call ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(*args)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def photo(seed=0, size=(60, 80)):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    (folder / "photos").mkdir()
    for name, size in {"wide": (60, 91), "odd": (75, 77), "dot": (5, 3)}.items():
        cv2.imwrite(str(folder / f"photos/{name}.png"), photo(len(name), size))
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder):
    path = folder / "best.ckpt"
    return path, write_checkpoint(path, CITYSCAPES, image_gradient="sobel")


@pytest.fixture(scope="module")
def free(folder, checkpoint):
    """Of any size, with gates: the one export here that takes more than a few seconds."""
    path = folder / "model.onnx"
    run("export", checkpoint[0], "--out", path, "--gates", "true")
    return path


def fixed(folder, name, size=(64, 96), **settings):
    path = folder / f"{name}.ckpt"
    task = write_checkpoint(path, CITYSCAPES, **settings)
    return path, task, ("--size", f"[{size[0]},{size[1]}]")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_extensions_are_exported_for_any_size(folder, suffix, capsys):
    """Which the command finds out itself, at odd sizes, too."""
    path = folder / "extended.ckpt"
    write_checkpoint(path, CITYSCAPES, image_gradient="sobel", refine="convex", separable=True)
    run("export", path, "--out", path.with_suffix(suffix))
    assert "labels are equal on 100.000 % of the pixels, at" in capsys.readouterr().out


@pytest.mark.parametrize("size", [*SIZES, (32, 32), (67, 130)])
def test_file_says_what_the_checkpoint_says_at_any_size(free, checkpoint, size):
    session = ort.InferenceSession(str(free))
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["batch", "height", "width", 3])
    names = [output.name for output in session.get_outputs()]
    assert names == ["labels", "seg_logits", "boundary_prob", "gate_1", "gate_2", "gate_3"]
    image = np.stack([photo(seed, size) for seed in range(3)])
    found = dict(zip(names, session.run(None, {"image": image}), strict=True))
    with torch.no_grad():
        output = checkpoint[1](torch.from_numpy(image).permute(0, 3, 1, 2).contiguous())
    assert found["labels"].dtype == np.uint8
    np.testing.assert_array_equal(found["labels"], found["seg_logits"].argmax(1))
    assert (found["labels"] == output.labels.numpy()).mean() > 0.999
    np.testing.assert_allclose(found["seg_logits"], output.seg_logits, atol=1e-4)
    np.testing.assert_allclose(found["boundary_prob"], output.boundary_prob, atol=1e-5)
    for index, gate in enumerate(output.gates):
        np.testing.assert_allclose(found[f"gate_{index + 1}"], gate, atol=1e-5)


def test_metadata_say_what_a_caller_needs_and_nothing_of_the_machine(free, checkpoint):
    model = onnx.load(str(free))
    texts = {prop.key: prop.value for prop in model.metadata_props}
    assert texts.pop("format") == "gscnn-lightning export 1"
    facts = {key: json.loads(value) for key, value in texts.items()}
    assert facts["class_names"] == list(CITYSCAPES.names)
    assert [tuple(color) for color in facts["class_colors"]] == list(CITYSCAPES.colors)
    assert facts["boundary_tolerances"] == [1, 3]
    expected = {"ignore_index": 255, "shape_stream": True, "gates": 3, "size": None, "int8": False, "smallest": 32}
    assert facts.items() >= {**expected, "backbone": "test_resnet", "image_gradient": "sobel"}.items()
    assert len(facts["checkpoint"]) == 64
    assert {entry.version for entry in model.opset_import if not entry.domain} == {18}
    content = free.read_bytes()
    for place in (str(Path.cwd()), str(Path(torch.__file__).parent), "site-packages", ".py"):
        assert place.encode() not in content


def assert_same_pictures(first, second):
    files = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    assert files
    assert files == sorted(path.relative_to(second) for path in second.rglob("*.png"))
    for file in files:
        a, b = (cv2.imread(str(folder / file), cv2.IMREAD_UNCHANGED) for folder in (first, second))
        np.testing.assert_array_equal(a, b, err_msg=str(file))


@pytest.mark.parametrize(
    "how", [(), ("--window", "[48,64]", "--overlap", "0.5"), ("--flip", "true"), ("--runtime", "openvino")]
)
def test_predict_writes_the_same_files(free, checkpoint, folder, tmp_path, how):
    if "openvino" in how:
        pytest.importorskip("openvino")
    formats = ("--formats", "[labels,color,boundary]")
    plain = () if "openvino" in how else how
    run("predict", checkpoint[0], folder / "photos", "--out", tmp_path / "a", *plain, *formats)
    run("predict", free, folder / "photos", "--out", tmp_path / "b", *how, *formats)
    assert_same_pictures(tmp_path / "a", tmp_path / "b")


SCENES = ("--data", "ScenesDataModule", "--data.size", "[64,128]", "--data.val_samples", "2")
SCENES += ("--data.num_workers", "0", "--split", "val")


def test_score_takes_exported_networks(free, checkpoint, tmp_path):
    found = []
    for path, *how in ((checkpoint[0],), (free,), (free, "--runtime", "openvino")):
        if "openvino" in how and not importlib.util.find_spec("openvino"):
            continue
        run("score", path, *SCENES, *how, "--out", tmp_path / "s")
        found.append(json.loads((tmp_path / "s/scores_test.json").read_text())["means"])
    for scores in found[1:]:
        assert scores == pytest.approx(found[0], abs=1e-5, nan_ok=True)


def test_compare_takes_exported_networks(free, checkpoint, tmp_path, capsys):
    run("compare", checkpoint[0], free, *SCENES, "--out", tmp_path / "c")
    found = json.loads((tmp_path / "c/comparison.json").read_text())
    assert str(free) in json.dumps(found)
    table = (tmp_path / "c/comparison.csv").read_text().splitlines()
    row = next(line.split(",") for line in table if line.startswith(("miou", "mIoU")))
    assert float(row[1]) == pytest.approx(float(row[2]), abs=1e-5)


@pytest.mark.parametrize(
    "kind", ["canny", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("none", "release"))]
)
def test_every_image_gradient_is_exported(folder, kind):
    path, task, size = fixed(folder, kind, image_gradient=kind)
    out = folder / f"{kind}.onnx"
    run("export", path, "--out", out, *size)
    image = torch.from_numpy(photo(3, (64, 96))).permute(2, 0, 1)[None]
    with torch.no_grad():
        wanted, found = task(image).seg_logits, load_predictor(str(out))(image).seg_logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_control_is_a_program_of_torch_that_windows_make_up_any_size_with(folder, tmp_path):
    path, _, size = fixed(folder, "control", shape_stream=False)
    out = folder / "control.pt2"
    run("export", path, "--out", out, *size)
    assert load_predictor(str(out)).facts.shape_stream is False
    run("predict", path, folder / "photos", "--out", tmp_path / "a", "--window", "[64,96]", "--formats", "[labels]")
    run("predict", out, folder / "photos/odd.png", "--out", tmp_path / "b", "--formats", "[labels]")
    a, b = (cv2.imread(str(tmp_path / side / "odd_labels.png"), 0) for side in "ab")
    # The picture is narrower than the window, and padded where the checkpoint takes it as it is.
    assert a.shape == b.shape


def test_kernels_chosen_for_torch_stay_out_of_files(checkpoint):
    task = checkpoint[1].eval()
    task(torch.rand(1, 3, 64, 64))
    graph = ExportedGraph(task.network)
    assert (task.network.skip_project.dilation, graph.network.skip_project.dilation) == ((2, 2), (1, 1))


def test_area_as_matrices_is_the_area():
    x = torch.rand(2, 3, 37, 50)
    for size in ((37, 50), (10, 13), (19, 25), (1, 7)):
        graph = torch.export.export(Area(size), (x,)).module()
        torch.testing.assert_close(graph(x), resize_by_area(x, size), atol=1e-6, rtol=0)


class Area(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return resize_by_area(x, self.size)


def test_canny_for_exporters_is_canny():
    image = torch.from_numpy(photo(1, (131, 93))).permute(2, 0, 1)[None]
    edges = ImageGradient("canny")
    assert 0.02 < edges(image).mean() < 0.5
    assert torch.equal(torch.export.export(edges, (image,)).module()(image), edges(image))


def test_file_that_differs_is_refused_and_not_left_behind(folder, capsys, monkeypatch):
    path, _, size = fixed(folder, "altered", shape_stream=False)
    write = making.write_program

    def altered(program, *args):
        weights = dict(program.named_parameters())
        with torch.no_grad():
            next(weight for name, weight in weights.items() if name.endswith("decoder.2.weight")).mul_(1.01)
        write(program, *args)

    monkeypatch.setattr(making, "write_program", altered)
    line = refused(capsys, "export", path, "--out", folder / "altered.pt2", *size)
    assert "gscnn export: error:" in line
    assert "the file says something else than the checkpoint: logits differ by at most" in line
    assert "nothing was written" in line
    assert not [file for file in folder.iterdir() if file.name.endswith(".pt2") and "altered" in file.name]


def test_eight_bits(free, checkpoint, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(making, "traced", lambda *_: None)  # the float file is that of the fixture
    monkeypatch.setattr(making, "write_onnx", lambda program, graph, facts, path: path.write_bytes(free.read_bytes()))
    monkeypatch.setattr(making, "LEAST_EQUAL_INT8", 0.2)  # untrained scores are close to each other
    out = tmp_path / "small.onnx"
    run("export", checkpoint[0], "--out", out, "--int8", "true", "--calibrate", folder / "photos")
    assert "in 8 bits, on 3 calibration pictures: labels equal on" in capsys.readouterr().out
    assert load_predictor(str(out)).facts.int8
    graph = onnx.load(str(out)).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("DequantizeLinear") > 20
    float_weights = [i.name for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT and len(i.dims) == 4]
    assert any("shape_stream.boundary.weight" in name for name in float_weights)
    assert any("decoder.2.weight" in name for name in float_weights)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--out", "model.pb"), "out is model.pb: give a file that ends in .onnx or .pt2"),
        (("--int8", "true"), "give --calibrate and pictures"),
        (("--calibrate", "[photos]"), "give --int8 true, or leave --calibrate out"),
        (("--size", "[16,64]"), "size is [16, 64]: give height and width in pixels, 32 at least"),
        (("--out", "there.onnx"), "there.onnx is there already: choose another --out"),
    ],
)
def test_settings_that_do_not_go(checkpoint, tmp_path, monkeypatch, capsys, args, told):
    monkeypatch.chdir(tmp_path)
    Path("there.onnx").touch()
    assert told in refused(capsys, "export", checkpoint[0], *args)


def test_gates_of_the_control(folder, capsys):
    path, _, size = fixed(folder, "no_gates", shape_stream=False)
    line = refused(capsys, "export", path, "--out", folder / "no_gates.onnx", "--gates", "true", *size)
    assert "this network has none: leave --gates out" in line


def test_runtimes_that_are_not_there(free, checkpoint, folder, capsys, monkeypatch):
    photos = folder / "photos"
    assert "runtime tensorrt is not installed here" in refused(capsys, "predict", free, photos, "--runtime", "tensorrt")
    line = refused(capsys, "predict", checkpoint[0], photos, "--runtime", "openvino")
    assert "is a checkpoint, which torch runs: --runtime openvino is for .onnx files" in line
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert "pip install openvino" in refused(capsys, "predict", free, photos, "--runtime", "openvino")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'gscnn-lightning[export]'" in refused(capsys, "predict", free, photos)
    line = refused(capsys, "export", checkpoint[0], "--out", folder / "x.onnx")
    assert (
        "gscnn export to ONNX needs onnxruntime, which is not installed: pip install 'gscnn-lightning[export]'" in line
    )


def foreign():
    """An ONNX file of somebody else."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ports = [helper.make_tensor_value_info(name, kind, [1]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "g", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_files_of_others_end_in_one_line(free, folder, tmp_path, capsys, runtime):
    pytest.importorskip(runtime)
    how = (folder / "photos", "--out", tmp_path / "out", "--runtime", runtime)
    path = tmp_path / "a.onnx"
    assert "does not exist: check the path" in refused(capsys, "predict", path, *how)
    for content in (b"", b"no network", free.read_bytes()[:20000]):
        path.write_bytes(content)
        line = refused(capsys, "predict", path, *how)
        assert "cannot be read" in line or "was not made by gscnn export" in line
    model = foreign()
    onnx.save(model, path)
    assert "was not made by gscnn export" in refused(capsys, "predict", path, *how)
    texts = {prop.key: prop.value for prop in onnx.load(str(free)).metadata_props}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, path)
    assert "takes a and gives b, where its metadata promise image" in refused(capsys, "predict", path, *how)
    onnx.helper.set_model_props(model, {**texts, "class_names": "[1,2]"})
    onnx.save(model, path)
    assert "it was altered. Export it again" in refused(capsys, "predict", path, *how)


def test_openvino_leaves_signals_alone(free):
    """Networks that are let go in another order, or by another thread, than they were loaded."""
    pytest.importorskip("openvino")
    program = f"""if True:
        import signal, subprocess, sys, threading
        from gscnn_lightning.exporting.runtimes import load

        ends = []
        signal.signal(signal.SIGCHLD, lambda *_: ends.append(1))
        networks = [load({str(free)!r}, "openvino") for _ in range(2)]
        del networks[0]
        thread = threading.Thread(target=networks.clear)
        thread.start()
        thread.join()
        ends.clear()
        subprocess.run([sys.executable, "-c", ""], check=True)
        print(len(ends))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_programs_of_others_run_nothing(folder, tmp_path, capsys):
    path, _, size = fixed(folder, "hostile", shape_stream=False)
    out, mark = tmp_path / "a.pt2", tmp_path / "mark"
    run("export", path, "--out", out, *size)
    whole = zipfile.ZipFile(out)
    model = next(name for name in whole.namelist() if name.endswith(".json") and "/models/" in name)
    weights = next(name for name in whole.namelist() if name.endswith("weights_config.json"))
    text = whole.read(model).decode()
    evil = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    changed = {
        model: text.replace('"expr_str": "', f'"expr_str": "{evil} + ', 1),
        weights: whole.read(weights).decode().replace('"use_pickle": false', '"use_pickle": true', 1),
    }
    other = text.replace("torch.ops.aten.conv2d.default", "torch.hub.load", 1)
    for name, content in (*changed.items(), (model, other)):
        assert content != whole.read(name).decode()
        path = tmp_path / "b.pt2"
        with zipfile.ZipFile(path, "w") as file:
            for part in whole.namelist():
                file.writestr(part, content if part == name else whole.read(part))
        line = refused(capsys, "predict", path, folder / "photos", "--out", tmp_path / "out")
        assert "it was altered or comes from elsewhere, and nothing of it was used" in line
    assert not mark.exists()


# Names that a user may choose, with real sizes of their maps: minutes each.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "gradient", "out"),
    [
        ("efficientnet_lite0", "sobel", ["a.onnx"]),
        ("tf_efficientnet_lite0", "sobel", ["a.onnx"]),
        ("resnet18", "canny", ["a.onnx"]),
        ("resnet18", "sobel", ["a.pt2"]),
        ("resnet50", "sobel", ["a.onnx"]),
        ("convnext_tiny", "sobel", ["a.onnx"]),
        ("vit_tiny_patch16_224", "sobel", ["a.onnx", "--size", "[96,160]"]),
    ],
)
def test_backbones(tmp_path, backbone, gradient, out, capsys):
    stride = {} if "vit" in backbone else {"output_stride": 16}
    write_checkpoint(tmp_path / "a.ckpt", CITYSCAPES, backbone=backbone, image_gradient=gradient, **stride)
    run("export", tmp_path / "a.ckpt", "--out", tmp_path / out[0], *out[1:])
    with capsys.disabled():
        print(backbone, gradient, capsys.readouterr().out)  # noqa: T201
