"""The task with a real Trainer on drawn scenes."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger

import gscnn_lightning.task
from gscnn_lightning import GSCNNTask, ScenesDataModule
from gscnn_lightning.errors import SettingError
from gscnn_lightning.inference import predict_logits
from gscnn_lightning.metrics import SegmentationScores

TINY = {
    "backbone": "test_resnet",
    "pretrained": False,
    "channels": 16,
    "skip_channels": 8,
    "shape_channels": 16,
    "boundary_tolerances": [1, 0.01],
    "loss_stride": 2,
}


def scenes(**kwargs):
    settings = {"size": (64, 128), "train_samples": 8, "val_samples": 3, "batch_size": 4, "num_workers": 0}
    return ScenesDataModule(**{**settings, "crop_size": (64, 64), "color_jitter": 0.0, "blur": 0.0, **kwargs})


def fit(tmp_path, epochs=2, task=None, **kwargs):
    pl.seed_everything(1, verbose=False)
    task = task or GSCNNTask(num_classes=19, **TINY)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
        **kwargs,
    )
    trainer.fit(task, scenes())
    return task, trainer


def test_public_names_are_logged(tmp_path):
    _, trainer = fit(tmp_path, epochs=1)
    logged = set(trainer.logged_metrics) | set(trainer.callback_metrics)
    assert {
        "train/loss",
        "train/loss_boundary",
        "train/loss_segmentation",
        "train/loss_regularizer",
        "train/loss_attention",
        "val/miou",
        "val/accuracy",
        "val/boundary_f1_1px",
        "val/boundary_f1_0.01diag",
        "val/loss_segmentation",
    } <= logged


def test_same_seed_same_digits(tmp_path):
    first = fit(tmp_path / "a")[1].callback_metrics
    second = fit(tmp_path / "b")[1].callback_metrics
    assert {k: v.item() for k, v in first.items() if v == v} == {k: v.item() for k, v in second.items() if v == v}


def test_checkpoint_is_plain_and_self_contained(tmp_path):
    task, trainer = fit(tmp_path, epochs=1)
    path = trainer.checkpoint_callback.best_model_path
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["pretrained"] is False
    again = GSCNNTask.load_from_checkpoint(path, map_location="cpu").eval()
    image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(again(image).seg_logits, task.eval()(image).seg_logits)


def test_scores_equal_a_hand_count(tmp_path):
    task, trainer = fit(tmp_path, epochs=1)
    data = scenes()
    result = trainer.validate(task, data, verbose=False)[0]
    counts = np.zeros((19, 19))
    task.eval()
    for sample in data.val_dataloader().dataset:
        with torch.no_grad():
            preds = task(sample["image"][None]).seg_logits.argmax(1)[0].numpy()
        labels = sample["mask"].numpy()
        np.add.at(counts, (labels[labels != 255], preds[labels != 255]), 1)
    with np.errstate(invalid="ignore"):
        iou = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    assert result["val/miou"] == pytest.approx(np.nanmean(iou), rel=1e-6)
    assert result["val/accuracy"] == pytest.approx(counts.diagonal().sum() / counts.sum(), rel=1e-6)
    np.testing.assert_allclose(task.stage_scores["val"].classes["iou"], iou, rtol=1e-9)


def test_default_recipe_is_the_papers(tmp_path):
    task = GSCNNTask(num_classes=19, **{**TINY, "warmup_steps": 2})
    _, trainer = fit(tmp_path, epochs=5, task=task, limit_val_batches=0)
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, torch.optim.SGD)
    assert {g["momentum"] for g in optimizer.param_groups} == {0.9}
    assert {g["weight_decay"] for g in optimizer.param_groups} == {1e-4, 0.0}
    assert all(p.ndim > 1 for g in optimizer.param_groups if g["weight_decay"] for p in g["params"])
    # 5 epochs of 2 steps: the factor of every step, and what it has come to after the last.
    factors = [task._learning_rate_factor(s) for s in range(11)]
    np.testing.assert_allclose(factors, [1 / 3, 2 / 3, *[(1 - s / 8) ** 0.9 for s in range(9)]], atol=1e-12)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_optimizer_can_be_replaced_and_the_backbone_slowed():
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.002, "weight_decay": 0.01, "betas": [0.9, 0.99]}}
    task = GSCNNTask(num_classes=19, **TINY, optimizer=adam, backbone_lr_scale=0.1)
    optimizer = task.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.AdamW)
    assert sorted({g["initial_lr"] for g in optimizer.param_groups}) == pytest.approx([0.0002, 0.002])
    counted = sum(p.numel() for g in optimizer.param_groups for p in g["params"])
    assert counted == sum(p.numel() for p in task.network.parameters() if p.requires_grad)


def test_control_trains(tmp_path):
    task, trainer = fit(tmp_path, epochs=1, task=GSCNNTask(num_classes=19, **TINY, shape_stream=False))
    assert "train/loss_boundary" not in trainer.callback_metrics
    assert trainer.callback_metrics["train/loss"] == trainer.callback_metrics["train/loss_segmentation"]
    (prediction,) = trainer.predict(task, scenes())[0]
    assert prediction.boundary_prob is None


def test_predictions_are_label_maps_at_full_size(tmp_path):
    task, trainer = fit(tmp_path, epochs=1)
    (prediction,) = trainer.predict(task, scenes())[0]
    assert prediction.preds.shape == (64, 128)
    assert prediction.preds.dtype == np.uint8
    assert prediction.boundary_prob.shape == (64, 128)
    assert 0 <= prediction.boundary_prob.min() <= prediction.boundary_prob.max() <= 1
    assert prediction.photo.shape == (64, 128, 3)
    assert prediction.name.startswith("scenes/")


def test_windows_scales_and_flips_are_used_outside_of_training_and_stay_out_of_checkpoints(tmp_path):
    settings = {"window": (48, 64), "overlap": 0.5, "scales": [0.5, 1.0], "flip_average": True}
    task = GSCNNTask(num_classes=19, **TINY, **settings)
    _, trainer = fit(tmp_path, epochs=1, task=task)
    content = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert not set(settings) & set(content["hyper_parameters"])
    batch = next(iter(scenes().predict_dataloader()))
    expected = predict_logits(task.eval(), batch["image"], (48, 64), 0.5, (0.5, 1.0), flip=True)
    (prediction,) = task.predict_step(batch, 0)
    assert prediction.preds.tolist() == expected.seg_logits[0].argmax(0).tolist()
    np.testing.assert_array_equal(prediction.boundary_prob, expected.boundary_logits[0, 0].sigmoid())
    assert [gate.shape for gate in prediction.gates] == [(64, 128)] * 3
    with torch.no_grad():
        assert prediction.preds.tolist() != task(batch["image"]).seg_logits[0].argmax(0).tolist()
        scores = SegmentationScores(19)
        for sample in scenes().val_dataloader().dataset:
            output = predict_logits(task, sample["image"][None], (48, 64), 0.5, (0.5, 1.0), flip=True)
            scores.update(output.seg_logits.argmax(1), sample["mask"][None])
    result = trainer.validate(task, scenes(), verbose=False)[0]
    assert result["val/miou"] == pytest.approx(scores.compute()["miou"].item(), rel=1e-6)


def test_test_scores_everything(tmp_path):
    task, trainer = fit(tmp_path, epochs=1)
    result = trainer.test(task, scenes(), verbose=False)[0]
    names = ("boundary_iou", "boundary_ods", "fwiou", "mean_accuracy", "miou_crop_0", "miou_crop_400")
    assert {f"test/{name}" for name in names} < set(result)
    assert result["test/miou_crop_0"] == pytest.approx(result["test/miou"])
    assert list(task.stage_scores["test"].classes) == ["iou", "boundary_f1_1px", "boundary_f1_0.01diag", "boundary_iou"]
    assert "val/boundary_iou" not in trainer.callback_metrics


def test_half_precision_trains(tmp_path):
    _, trainer = fit(tmp_path, epochs=1, precision="bf16-mixed")
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_resuming_continues_where_it_stopped(tmp_path):
    whole = fit(tmp_path / "whole", epochs=2, limit_val_batches=0)[1]
    first = fit(tmp_path / "first", epochs=2, limit_val_batches=0, max_steps=2)[1]
    path = first.checkpoint_callback.best_model_path
    assert Path(path).is_file()
    task = GSCNNTask(num_classes=19, **TINY)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    resumed = pl.Trainer(max_epochs=2, accelerator="cpu", limit_val_batches=0, **quiet)
    resumed.fit(task, scenes(), ckpt_path=path)
    assert resumed.global_step == whole.global_step == 4
    for a, b in zip(resumed.optimizers[0].param_groups, whole.optimizers[0].param_groups, strict=True):
        assert a["lr"] == b["lr"]


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="3 class names for 2 classes"):
        GSCNNTask(num_classes=2, class_names=["a", "b", "c"], **TINY)
    with pytest.raises(ValueError, match="loss_stride is 0"):
        GSCNNTask(num_classes=2, **{**TINY, "loss_stride": 0})
    with pytest.raises(ValueError, match=r"window is \(8, 8\)"):
        GSCNNTask(num_classes=2, **TINY, window=(8, 8))


class MixedSizes(ScenesDataModule):
    """Drawn crops of one size for training, frames of several for validation."""

    def val_dataloader(self):
        samples = []
        for height, width in ((64, 96), (70, 130), (64, 96), (101, 67)):
            labels = (torch.arange(width) * 19 // width).expand(height, width)
            samples.append(
                {"image": torch.full((3, height, width), 90, dtype=torch.uint8), "mask": labels, "name": "a"}
            )
        return torch.utils.data.DataLoader(samples)


class Graphs(pl.Callback):
    """Number of graphs that were compiled by the end of every epoch."""

    def __init__(self):
        self.counts = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_training_is_compiled_once(monkeypatch, backend):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: compiled(function, backend=backend, **how))
    gscnn_lightning.task._compiled_losses.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    losses, graphs = [], Graphs()
    for compile_it in (True, False):
        pl.seed_everything(1, verbose=False)
        # Compiled code may draw other noise for the regularizer, and rounds otherwise, which large steps amplify.
        slow = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-4}}
        more = {"image_gradient": "sobel", "refine": "convex", "regularizer_weight": 0.0}
        task = GSCNNTask(19, **TINY, **more, compile=compile_it, optimizer=slow)
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[graphs] if compile_it else [],
        )
        settings = {"size": (64, 128), "train_samples": 8, "batch_size": 4, "num_workers": 0, "crop_size": (64, 64)}
        trainer.fit(task, MixedSizes(**settings, color_jitter=0.0, blur=0.0))
        losses.append(trainer.callback_metrics["train/loss"].item())
    gscnn_lightning.task._compiled_losses.cache_clear()
    # Network and losses in training, and what shows beforehand that the machine can compile.
    assert graphs.counts == [2, 2, 2]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow  # half a minute of compiling
def test_lightnings_own_way_of_compiling_trains_scores_and_predicts(tmp_path):
    torch._dynamo.reset()
    settings = {"size": (64, 128), "train_samples": 2, "val_samples": 1, "batch_size": 2, "num_workers": 0}
    data = ScenesDataModule(**settings, crop_size=(64, 64))
    whole = GSCNNTask(19, **TINY, image_gradient="sobel")
    task = torch.compile(whole, backend="eager")
    trainer = pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(task, data)
    (scores,) = trainer.validate(task, data, verbose=False)
    (prediction,) = trainer.predict(task, data)[0]
    torch._dynamo.reset()
    assert scores == pytest.approx(trainer.validate(whole, data, verbose=False)[0], nan_ok=True)
    assert (prediction.preds == trainer.predict(whole, data)[0][0].preds).all()


def test_a_machine_that_cannot_compile_is_told_so(tmp_path, monkeypatch):
    def broken(function, **how):
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(SettingError, match=r"no working C\+\+ compiler.*g\+\+, or leave --model.compile out"):
        fit(tmp_path, task=GSCNNTask(num_classes=19, **TINY, compile=True))


def test_compilation_is_no_part_of_a_checkpoint():
    task = GSCNNTask(num_classes=19, **TINY, compile=True)
    checkpoint = {"hyper_parameters": dict(task.hparams)}
    task.on_save_checkpoint(checkpoint)
    assert "compile" not in checkpoint["hyper_parameters"]


@pytest.mark.parametrize(("setting", "expected"), [(None, False), (True, True), (False, False)])
def test_memory_format_is_chosen_once_and_said(tmp_path, monkeypatch, caplog, setting, expected):
    monkeypatch.setattr(gscnn_lightning.task, "trains_faster_channels_last", lambda network, device: False)
    with caplog.at_level("INFO"):
        task, _ = fit(tmp_path, epochs=1, task=GSCNNTask(num_classes=19, **TINY, channels_last=setting))
    assert task.channels_last is expected
    assert task.network.decoder[0][0].weight.is_contiguous(memory_format=torch.channels_last) is expected
    # Who computes 1x1 convolutions follows it.
    assert task.network.skip_project.dilation == ((2, 2) if expected else (1, 1))
    assert caplog.text.count("kept contiguous") == (setting is None)
