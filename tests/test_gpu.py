"""What only a GPU can show: the numbers of the CPU, both mixed precisions, one graph, and no wait within a step."""

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from skimage import data as photos
from tests.tiny import SETTINGS, write_checkpoint, write_config

from gscnn_lightning import GSCNN
from gscnn_lightning.bench.losses import made_maps
from gscnn_lightning.bench.subjects import chosen_subject, drawn_frames, task_step
from gscnn_lightning.boundaries import label_boundaries
from gscnn_lightning.classes import CITYSCAPES
from gscnn_lightning.cli import main as fit
from gscnn_lightning.commands.main import main
from gscnn_lightning.losses import GSCNNLoss, dual_task_loss, image_class_weights
from gscnn_lightning.losses.dual_task import gumbel_noise
from gscnn_lightning.metrics.evaluation import Evaluation
from gscnn_lightning.models import canny, sobel
from gscnn_lightning.models.folding import folded
from gscnn_lightning.output import GSCNNOutput

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(autouse=True)
def _whole_floats():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(write_config(tmp_path / "tiny.yaml"))


def on_gpu(config, *arguments):
    return ["--config", config, "--trainer.accelerator", "gpu", "--trainer.devices", "1", *arguments]


@pytest.mark.parametrize("gradient", ["canny", "sobel", "release"])
def test_network_computes_what_it_does_on_the_cpu(gradient):
    settings = {key: SETTINGS[key] for key in ("backbone", "pretrained", "channels", "skip_channels", "shape_channels")}
    network = GSCNN(19, image_gradient=gradient, **settings).eval()
    images = drawn_frames(2, 97, 131, 19)[0]
    with torch.no_grad():
        expected, found = network(images), network.cuda()(images.cuda())
        also = folded(network)(images.cuda())
    for output in (found, also):
        torch.testing.assert_close(output.seg_logits.cpu(), expected.seg_logits, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(output.boundary_logits.cpu(), expected.boundary_logits, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_losses_and_gradients_are_those_of_the_cpu(variant):
    found = {}
    given = made_maps(2, 96, torch.device("cpu"), "32-true")
    noise = gumbel_noise(given.logits.detach())
    for device in ("cpu", "cuda"):
        logits, edges = (x.detach().to(device).requires_grad_() for x in (given.logits, given.boundary_logits))
        labels, boundaries = given.labels.to(device), given.boundaries.to(device)
        terms = GSCNNLoss(19, variant=variant)(GSCNNOutput(logits, edges, ()), labels, boundaries, noise.to(device))
        terms["loss"].backward()
        found[device] = {**terms, "logits": logits.grad * 96**2, "edges": edges.grad * 96**2}
    for name, value in found["cpu"].items():
        torch.testing.assert_close(found["cuda"][name].cpu(), value, atol=2e-4, rtol=1e-4, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("ignore_index", [255, 0, 3, -1])
def test_class_weights_are_those_of_the_cpu(ignore_index):
    labels = drawn_frames(3, 97, 131, 19)[1].long()
    labels = labels.where(labels != 255, ignore_index)
    labels[1] = ignore_index
    found = image_class_weights(labels.cuda(), 19, ignore_index)
    torch.testing.assert_close(found.cpu(), image_class_weights(labels, 19, ignore_index))


def test_plain_regularizer_of_double_precision_is_the_operators():
    given = made_maps(2, 65, torch.device("cpu"), "32-true")
    logits = given.logits.detach().double().requires_grad_()
    noise = gumbel_noise(logits.detach())
    values = [dual_task_loss(logits.to(d), given.labels.to(d), noise=noise.to(d)).cpu() for d in ("cpu", "cuda")]
    torch.testing.assert_close(values[1], values[0], rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-15)


def test_compiled_losses_are_one_graph_with_the_same_numbers():
    given = made_maps(2, 96, torch.device("cuda"), "32-true")
    noise = gumbel_noise(given.logits.detach())
    output, joint = GSCNNOutput(given.logits, given.boundary_logits, ()), GSCNNLoss(19)
    expected = joint(output, given.labels, given.boundaries, noise)
    found = torch.compile(joint, fullgraph=True, dynamic=False)(output, given.labels, given.boundaries, noise)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_boundaries_and_edges_are_those_of_the_cpu_bit_for_bit():
    labels = drawn_frames(2, 193, 254, 19)[1]
    for radius in (1, 2, 4.5):
        for void in ("exclude", "boundary"):
            expected = label_boundaries(labels, radius, void=void)
            assert torch.equal(label_boundaries(labels.cuda(), radius, void=void).cpu(), expected)
            assert torch.equal(torch.from_numpy(label_boundaries(labels.numpy(), radius, void=void)), expected)
    for name in ("astronaut", "coffee", "chelsea"):
        image = torch.from_numpy(getattr(photos, name)().transpose(2, 0, 1).copy())[None]
        assert torch.equal(canny(image.cuda(), 10, 100).cpu(), canny(image, 10, 100)), name
        torch.testing.assert_close(sobel(image.cuda() / 255).cpu(), sobel(image / 255))


def test_scores_are_those_of_the_cpu():
    labels = drawn_frames(3, 96, 128, 19)[1].long()
    preds = labels.where(labels != 255, 3).roll(2, dims=-1)
    edges = torch.rand(3, 1, 96, 128)
    boundary = label_boundaries(labels, 2)[:, None]
    found = {}
    for device in ("cpu", "cuda"):
        metrics = Evaluation([*CITYSCAPES.names[:-1], "bike"], 255, (1, 3, 0.01), everything=True).to(device)
        batch = {"mask": labels.to(device), "boundary": boundary.to(device), "name": ["a", "b", "c"]}
        metrics.update(preds.to(device), edges.to(device), batch)
        found[device] = metrics.compute()
    for kind in ("means", "crops"):
        expected = getattr(found["cpu"], kind)
        assert getattr(found["cuda"], kind) == pytest.approx(expected, abs=1e-6, nan_ok=True)
    np.testing.assert_array_equal(found["cuda"].confusion, found["cpu"].confusion)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("compile", [False, True])
def test_a_step_does_not_wait_for_the_device(config, precision, compile):
    others = ["--config", config, "--trainer.gradient_clip_val", "1"]
    subject = chosen_subject(others, "camvid", "cuda", precision)
    task, step = task_step(subject, compile=compile)
    batch = subject.batch((2, 64, 64))
    before = [parameter.detach().clone() for parameter in task.parameters()]
    # The compiler and the first calls may wait. The scaler of 16-bit floats skips steps until it has found its scale.
    losses = [step(batch) for _ in range(12 if precision == "16-mixed" else 3)]
    torch.cuda.synchronize()
    # The scaler looks whether a gradient overflowed: torch's, and its only wait.
    torch.cuda.set_sync_debug_mode("default" if precision == "16-mixed" else "error")
    try:
        with torch.no_grad():
            subject.data.on_after_batch_transfer({k: batch[k] for k in ("image", "mask")}, 0)
        losses += [step(batch) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert any(not torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))


class Waits(pl.Callback):
    """Makes every wait for the device an error from the third batch of an epoch until the one before its last."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error" if 2 <= batch_idx < trainer.num_training_batches - 1 else "default")

    def on_exception(self, trainer, pl_module, exception):
        torch.cuda.set_sync_debug_mode("default")


def test_the_trainers_loop_does_not_wait_for_the_device(config, monkeypatch):
    from gscnn_lightning import cli

    made = cli.GSCNNCLI.instantiate_trainer

    def with_callback(self, **kwargs):
        trainer = made(self, **kwargs)
        trainer.callbacks.append(Waits())
        return trainer

    monkeypatch.setattr(cli.GSCNNCLI, "instantiate_trainer", with_callback)
    longer = ["--data.train_samples", "16", "--trainer.log_every_n_steps", "50", "--trainer.precision", "bf16-mixed"]
    fit(["fit", *on_gpu(config, *longer, "--trainer.enable_progress_bar", "false")])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_gscnn_fit_trains_validates_tests_and_goes_on(config, tmp_path, precision, capsys):
    chosen = ("--trainer.precision", precision, "--model.window", "[64,64]")
    fit(["fit", *on_gpu(config, *chosen)])
    run = tmp_path / "runs/tiny/version_0"
    scores = json.loads((run / "scores_val.json").read_text())
    assert 0 < scores["means"]["miou"] < 1
    fit(["test", *on_gpu(config, *chosen, "--ckpt_path", str(run / "checkpoints/last.ckpt"))])
    last = str(run / "checkpoints/last.ckpt")
    fit(["fit", *on_gpu(config, *chosen, "--trainer.max_epochs", "3", "--ckpt_path", last)])
    assert "epoch 3/3" in capsys.readouterr().out


@pytest.mark.parametrize("compile", ["false", "true"])
def test_one_process_of_nccl(config, tmp_path, compile):
    sync = "[gscnn_lightning.sync_batchnorm.TimmSyncBatchNorm]"
    more = ("--trainer.strategy", "ddp", "--trainer.plugins", sync, "--model.compile", compile)
    fit(["fit", *on_gpu(config, *more, "--trainer.precision", "bf16-mixed")])
    assert (tmp_path / "runs/tiny/version_0/scores_val.json").is_file()
    torch.distributed.destroy_process_group()


def test_pictures_are_predicted_as_on_the_cpu(tmp_path):
    import cv2

    write_checkpoint(tmp_path / "net.ckpt", CITYSCAPES)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), drawn_frames(1, 96, 160 + index, 19)[0][0].permute(1, 2, 0).numpy())
    for device in ("cpu", "cuda"):
        more = ["--device", device, "--window", "[64,96]", "--formats", "[labels]"]
        main(["predict", str(tmp_path / "net.ckpt"), str(folder), "--out", str(tmp_path / device), *more])
    for path in sorted((tmp_path / "cpu").rglob("*.png")):
        other = cv2.imread(str(tmp_path / "cuda" / path.relative_to(tmp_path / "cpu")), cv2.IMREAD_UNCHANGED)
        assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) != other).mean() < 0.01


def test_networks_are_scored_and_compared_as_on_the_cpu(config, tmp_path):
    for seed in (0, 1):
        fit(["fit", *on_gpu(config, "--seed_everything", str(seed), "--trainer.logger.name", f"seed{seed}")])
    a, b = (str(tmp_path / f"runs/seed{seed}/version_0/checkpoints/last.ckpt") for seed in (0, 1))
    for device in ("cpu", "cuda"):
        main(["score", a, "--config", config, "--device", device, "--out", f"score_{device}"])
        main(["compare", a, b, "--config", config, "--device", device, "--out", f"compare_{device}"])
    cpu, gpu = (json.loads((tmp_path / f"score_{device}/scores_test.json").read_text()) for device in ("cpu", "cuda"))
    assert gpu["means"] == pytest.approx(cpu["means"], abs=0.01, nan_ok=True)
    cpu, gpu = (json.loads((tmp_path / f"compare_{d}/comparison.json").read_text()) for d in ("cpu", "cuda"))
    for name in ("miou", "boundary_f1_3px"):
        for key, value in cpu["scores"][name].items():
            assert gpu["scores"][name][key] == pytest.approx(value, abs=0.01), (name, key)


def test_an_ablation_has_intervals_and_pictures(config, tmp_path):
    more = ["--seeds", "0", "--equal", "time", "--out", "out"]
    main(["ablate", "--config", config, "--rows", "control,dual_task", *more])
    record = json.loads((tmp_path / "out/ablation.json").read_text())
    assert {"miou", "boundary_f1_3px"} <= set(record["intervals"]["rows"]["+ dual task"])
    assert (tmp_path / "out/contact_sheets.png").is_file()


def test_benchmarks_measure_a_gpu(config, tmp_path, capsys):
    quick = ["--device", "cuda", "--repeats", "2"]
    main(["bench", "step", "--config", config, "--size", "[2,64,96]", "--precision", "bf16-mixed", *quick])
    main(["bench", "inference", "--config", config, "--size", "[64,96]", "--formats", "both", *quick])
    main(["bench", "losses", "--sides", "[64]", "--precision", "bf16-mixed", "--out", "losses.json", *quick])
    main(["bench", "loop", "--config", config, "--batches", "4", *quick])
    content = json.loads((tmp_path / "losses.json").read_text())
    assert content["environment"]["device"] == "cuda:0" or content["environment"]["device"] == "cuda"
    assert content["environment"]["gpus"]
    # A loss of few maps may fit what the gradients of the call before leave behind; the joint ones do not.
    assert all(row["memory"] > 0 for row in content["tables"][0]["rows"] if row["name"].startswith("joint"))
    out = capsys.readouterr().out
    assert "extra MB" in out
    assert "a 3x3 convolution of 512 to 512 channels on 64x64 pixels" in out
