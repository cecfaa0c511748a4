"""The benchmarks of networks, losses and the training loop, through the command line, on tiny networks."""

import json
import sys

import pytest
import torch
from tests.tiny import write_checkpoint, write_config
from torch import nn

from gscnn_lightning.bench import Timing, record, subjects
from gscnn_lightning.bench.counts import counted_flop, saved_bytes
from gscnn_lightning.bench.machine import checked_precision, convolution_peak, peak_shape, torch_threads
from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.commands.main import main
from gscnn_lightning.errors import SettingError

QUICK = ["--repeats", "1", "--threads", "1", "--device", "cpu"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / "tiny.yaml"))


def refused(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def rows_of(content, index=0):
    return {row["name"]: row for row in content["tables"][index]["rows"]}


def test_step_is_measured_written_and_compared(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    arguments = ["bench", "step", "--config", config, "--size", "[2,64,96]", *QUICK]
    main([*arguments, "--out", "made/step.json"])
    out = capsys.readouterr().out
    assert "one training step, test_resnet, 2x3x64x96" in out
    assert "kept for the backward pass (ratio to 'control'): two-stream" in out
    assert "no row for smp DeepLabV3+: " in out
    content = json.loads((tmp_path / "made/step.json").read_text())
    assert content["bench"] == "step"
    assert content["environment"]["torch"] == torch.__version__.split("+")[0]
    assert content["environment"]["threads"] == 1
    assert content["environment"]["processor"]
    assert content["settings"]["size"] == [2, 64, 96]
    assert content["peak_gflops"] > 0
    rows = rows_of(content)
    assert list(rows) == ["two-stream", "control"]
    for row in rows.values():
        assert len(row["rounds"]) == 1
        assert row["seconds"] == row["rounds"][0] > 0
        assert row["gflops"] == pytest.approx(row["gflop"] / row["seconds"])
        assert row["utilisation"] == pytest.approx(row["gflops"] / content["peak_gflops"])
    assert rows["control"]["ratio"] == 1
    assert rows["two-stream"]["gflop"] > rows["control"]["gflop"] > 0
    saved = content["remarks"]["saved_bytes"]
    assert saved["two-stream"] > saved["control"] > 0

    content["environment"]["processor"] = "Another 9000"
    (tmp_path / "other.json").write_text(json.dumps(content))
    arguments = ["bench", "step", "--config", config, "--model.norm", "group", *QUICK]  # at the size of the config
    main([*arguments, "--compare", "other.json", "--out", "new.json"])
    out = capsys.readouterr().out
    assert "OTHER machine or settings, old and new: processor Another 9000 and" in out
    assert "size [2, 64, 96] and [2, 64, 64]" in out
    content = json.loads((tmp_path / "new.json").read_text())
    assert content["settings"]["size"] == [2, 64, 64]
    assert content["settings"]["arguments"][-2:] == ["--model.norm", "group"]


def test_step_of_mixed_precision_trains_the_whole_network(config):
    subject = subjects.chosen_subject(["--config", config], "camvid", "cpu", "bf16-mixed")
    batch = subject.batch((2, 64, 64))
    assert batch["boundary"].shape == (2, 1, 64, 64)
    assert (batch["mask"][:, -4:] == 255).all()
    task, step = subjects.task_step(subject)
    before = {name: p.detach().clone() for name, p in task.network.named_parameters() if p.requires_grad}
    loss = step(batch)
    assert loss.isfinite()
    after = dict(task.network.named_parameters())
    assert all(p.dtype == torch.float32 for p in after.values())
    same = [name for name, p in before.items() if torch.equal(after[name], p)]
    assert all(".bn" in name for name in same)  # timm starts residual branches at 0, which have no gradient yet


def test_subjects_have_the_same_weights_at_every_call(config):
    subject = subjects.chosen_subject(["--config", config], "camvid", "cpu", "config")
    first, second = (subject.task().state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_losses_of_several_sides(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["bench", "losses", "--sides", "[64,32]", *QUICK, "--out", "losses.json"])
    out = capsys.readouterr().out
    assert "losses of 1x19x32x32, with gradient" in out
    assert "ns per pixel" in out
    assert "GFLOP/s" not in out  # nothing that is counted
    content = json.loads((tmp_path / "losses.json").read_text())
    assert [table["title"] for table in content["tables"]] == [
        f"losses of 1x19x{side}x{side}, with gradient" for side in (32, 64)
    ]
    rows = rows_of(content)
    terms = ("joint", "segmentation", "boundary", "regularizer", "attention")
    assert set(rows) == {"torch cross-entropy", *(f"{t}, {v}" for t in terms for v in ("paper", "release"))}
    small, large = (rows_of(content, index)["joint, paper"]["seconds"] for index in (0, 1))
    per_pixel = content["remarks"]["per_pixel"]["joint, paper"]
    assert per_pixel["ns"] == pytest.approx({"32": small / 32**2 * 1e9, "64": large / 64**2 * 1e9})
    assert per_pixel["growth"] == pytest.approx(large / small / 4)
    main(["bench", "losses", "--sides", "[64,32]", *QUICK, "--compare", "losses.json"])
    out = capsys.readouterr().out
    assert "compared with losses.json: same machine and settings" in out
    assert f" {rows['joint, paper']['seconds'] * 1e3:.2f} " in out
    assert f" {rows['joint, paper']['ratio']:.2f} " in out


@pytest.mark.slow
def test_compiled_losses(tmp_path):
    path = tmp_path / "losses.json"
    main(["bench", "losses", "--sides", "[32]", *QUICK, "--compile", "true", "--out", str(path)])
    assert {"joint, paper, compiled", "joint, release, compiled"} <= set(rows_of(json.loads(path.read_text())))


@pytest.mark.slow
def test_compiled_steps(config, tmp_path):
    main(["bench", "step", "--config", config, *QUICK, "--compile", "true", "--out", "step.json"])
    rows = rows_of(json.loads((tmp_path / "step.json").read_text()))
    assert rows["two-stream, compiled"]["gflop"] == rows["two-stream"]["gflop"]


def test_inference_in_both_memory_formats(config, tmp_path, capsys):
    arguments = ["--size", "[64,96]", "--formats", "both", *QUICK, "--out", "inference.json"]
    main(["bench", "inference", "--config", config, *arguments])
    assert "logits of one image, test_resnet, 64x96" in capsys.readouterr().out
    content = json.loads((tmp_path / "inference.json").read_text())
    assert content["tables"][0]["baseline"] == "control, contiguous"
    rows = rows_of(content)
    layouts = ("contiguous", "channels_last")
    assert set(rows) == {f"{name}, {layout}" for name in ("two-stream", "control") for layout in layouts}
    assert rows["control, contiguous"]["gflop"] == rows["control, channels_last"]["gflop"]


def test_loops_over_the_same_batches_end_at_the_same_loss(config, tmp_path, capsys):
    main(["bench", "loop", "--config", config, "--batches", "3", *QUICK, "--out", "loop.json"])
    out = capsys.readouterr().out
    assert "one step of an epoch of 3 batches" in out
    assert "seconds per step: gscnn-fit" in out
    content = json.loads((tmp_path / "loop.json").read_text())
    losses = content["remarks"]["last_losses"]
    assert losses["gscnn-fit"] == pytest.approx(losses["bare loop"], rel=1e-5)
    rows = rows_of(content)
    assert rows["bare loop"]["ratio"] == 1
    assert rows["gscnn-fit"]["gflop"] == rows["bare loop"]["gflop"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.json", "tiny.yaml"]


def test_peer_takes_over_what_the_encoder_freezes(config):
    pytest.importorskip("segmentation_models_pytorch")
    arguments = ["--config", config, "--model.backbone", "resnet18", "--model.output_stride", "16"]
    arguments += ["--model.freeze_stages", "2", "--model.dilation", "false"]
    subject = subjects.chosen_subject(arguments, "camvid", "cpu", "config")
    task = subject.task().train()
    batch = subject.batch((2, 64, 64))
    peer = subjects.chosen_peer(task, batch["image"])
    ours, theirs = task.network.backbone.encoder, peer.network.encoder.model
    frozen = {name for name, p in ours.named_parameters() if not p.requires_grad}
    assert frozen
    assert {name for name, p in theirs.named_parameters() if not p.requires_grad} == frozen
    modes = {name: module.training for name, module in ours.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {name: module.training for name, module in theirs.named_modules() if name in modes} == modes
    assert {m.dilation for m in theirs.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert subjects.TrainingStep(subject, peer.loss, peer)(batch).isfinite()
    assert "does not take this size" in subjects.chosen_peer(task, batch["image"][..., :40])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["step", "--size", "[2,16,64]"], "size 2x16x64 is too small: use at least one image and 32x32 pixels"),
        (["step", "--size", "[0,64,64]"], "size 0x64x64 is too small"),
        (["step", "--size", "[1,64,64]"], "size is of one image"),
        (["step", "--data.crop_size", "null"], "the config trains on whole frames: give --size"),
        (["step", "--repeats", "0"], "repeats must be 1 or more, got 0"),
        (["step", "--precision", "8-bit"], "precision"),
        (["step", "--trainer.precision", "64-true"], "precision is 64-true: use one of 32-true, bf16-mixed, 16-mixed"),
        (["step", "--precision", "16-mixed", "--device", "cpu"], "precision 16-mixed is for GPUs"),
        (["step", "--threads", "0"], "threads is 0: give 1 or more"),
        (["step", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["step", "--compare", "none.json"], "none.json cannot be read (No such file or directory): give a file that"),
        (["step", "--compare", "foreign.json"], "foreign.json is no file of gscnn bench"),
        (["step", "--compare", "losses.json"], "losses.json is of gscnn bench losses"),
        (["step", "--compare", "damaged.json"], "damaged.json is damaged"),
        (["step", "--compare", "tiny.yaml"], "tiny.yaml cannot be read (no JSON)"),
        (["step", "--out", "."], ". is a folder: give --out a file"),
        (["inference", "--size", "[16,64]"], "size 16x64 is too small"),
        (["inference", "--formats", "sparse"], "formats"),
        (["inference", "--repeats", "0"], "repeats must be 1 or more, got 0"),
        (["loop", "--batches", "2"], "batches is 2: give 3 or more"),
        (["loop", "--batches", "90", "--repeats", "1"], "batches is 90, but an epoch of the config has 4: give fewer"),
    ],
)
def test_mistakes_are_refused_in_one_message(words, said, config, tmp_path, capsys):
    (tmp_path / "foreign.json").write_text("[1, 2]")
    (tmp_path / "losses.json").write_text('{"bench": "losses"}')
    (tmp_path / "damaged.json").write_text('{"bench": "step", "tables": [{"title": "a"}]}')
    message = refused(["bench", words[0], "--config", config, *words[1:]], capsys)
    assert said in message
    assert len(message.strip().splitlines()) <= 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sides", "[16]"], "size 1x16x16 is too small"),
        (["--sides", "[64,64]"], "sides are [64, 64]: give each of them once"),
        (["--batch", "0"], "size 0x192x192 is too small"),
    ],
)
def test_mistakes_about_losses(words, said, capsys):
    assert said in refused(["bench", "losses", *words], capsys)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_cost_the_forward_pass_twice(groups, transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    network = nn.Sequential(*(kind(8, 8, 3, stride=1, padding=1, groups=groups) for _ in range(2)))
    image = torch.randn(2, 8, 12, 10, requires_grad=True)
    forward, _ = counted_flop(lambda: network(image))
    assert forward == 2 * (2 * 9 * 8 * (8 // groups) * 12 * 10) * 2
    step, value = counted_flop(lambda: network(image).sum().backward())
    assert step == 3 * forward
    assert value is None
    image.requires_grad_(False)
    assert counted_flop(lambda: network(image).sum().backward())[0] == 2.5 * forward


def test_saved_bytes_count_every_storage_once_and_no_parameter():
    weight = torch.ones(100, requires_grad=True)
    image = torch.ones(3, 100, requires_grad=True)
    # The product keeps image and weight; the two squares share the product.
    product_of = lambda: (p := image * weight) ** 2 + p[:2].square().sum()  # noqa: E731
    size, result = saved_bytes(product_of, [weight])
    assert size == image.nbytes + 3 * 100 * 4
    assert result.shape == (3, 100)
    assert saved_bytes(product_of, [])[0] == size + weight.nbytes


@pytest.mark.parametrize(
    ("rate", "unit", "shown", "peak"),
    [(9.9994e12, "GFLOP/s", ("9999.4", "1.0"), "340.0 TFLOP/s"), (142.2092e12, "TFLOP/s", ("142.2", "0.0"), "340.0 T")],
)
def test_rates_of_large_machines_are_shown_in_tflops(rate, unit, shown, peak, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(record, "convolution_peak", lambda device, precision: 340e12)
    found = record.BenchRecord("step", {}, torch.device("cpu"), "32-true", tmp_path / "step.json")
    timings = {"fast": Timing((0.5,), None), "slow": Timing((2.0,), None)}
    found.add("steps", timings, "slow", {"fast": int(rate / 2), "slow": int(2e9)})
    found.save()
    out = capsys.readouterr().out
    assert unit in out
    fast, slow = (next(line.split() for line in out.splitlines() if f" {name} " in line[:8]) for name in timings)
    assert (fast[3], slow[3]) == shown
    assert f"peak: {peak}" in out
    assert "a 3x3 convolution of 256 to 256 channels on 64x64 pixels" in out
    rows = rows_of(json.loads((tmp_path / "step.json").read_text()))
    assert rows["fast"]["gflops"] == pytest.approx(rate / 1e9)
    assert rows["slow"]["gflops"] == pytest.approx(1)


def test_machine():
    with torch_threads(1) as count:
        assert count == torch.get_num_threads() == 1
    assert convolution_peak(torch.device("cpu"), "32-true", repeats=1) > 0
    assert not torch.backends.cudnn.benchmark
    assert [peak_shape(torch.device(name)) for name in ("cpu", "cuda:1")] == [(1, 256, 64), (32, 512, 64)]
    assert checked_precision("32", torch.device("cpu")) == "32-true"
    with pytest.raises(SettingError, match="precision is transformer-engine"):
        checked_precision("transformer-engine", torch.device("cpu"))


def test_prediction_is_measured_alone_and_with_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        write_checkpoint(tmp_path / f"{name}.ckpt", CITYSCAPES)
    quick = ["--size", "[64,96]", "--pictures", "3", "--repeats", "1", "--threads", "1"]
    main(["bench", "predict", "a.ckpt", "b.ckpt", *quick, "--out", "out.json"])
    content = json.loads((tmp_path / "out.json").read_text())
    alone, whole = (rows_of(content, index) for index in range(2))
    assert list(alone) == list(whole) == ["a.ckpt", "b.ckpt"]
    for name, row in whole.items():
        rate = content["remarks"]["pictures_per_second"][name]
        assert rate == pytest.approx(3 / row["seconds"])
        assert content["remarks"][name] == pytest.approx(rate * alone[name]["seconds"])
    assert " pictures per second, " in capsys.readouterr().out
    assert "nowhere.onnx does not exist" in refused(["bench", "predict", "nowhere.onnx", *quick], capsys)
    assert "0 pictures" in refused(["bench", "predict", "a.ckpt", "--pictures", "0"], capsys)


@pytest.mark.slow
def test_prediction_is_measured_compiled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "a.ckpt", CITYSCAPES)
    quick = ["--size", "[64,96]", "--pictures", "1", "--repeats", "1", "--compiled", "true"]
    main(["bench", "predict", "a.ckpt", *quick, "--out", "out.json"])
    content = json.loads((tmp_path / "out.json").read_text())
    assert list(rows_of(content, 0)) == ["a.ckpt", "a.ckpt, compiled"]
    assert list(rows_of(content, 1)) == ["a.ckpt"]
