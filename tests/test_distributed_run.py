"""``gscnn-fit`` with several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from tests.test_resumed_run import end_of
from tests.tiny import SETTINGS, write_config

from gscnn_lightning import GSCNNTask

STEPS = 5
EVERY_LOSS = ["--model.dice_weight=2", "--model.edge_weight=1", "--model.sync_losses=true"]
# Statistics of normalisation are those of a process, and CPUs cannot synchronise them.
NO_STATISTICS = ["--model.freeze_norm=true", "--model.norm=group"]
PLAIN_STEPS = [
    "--optimizer=SGD",
    "--optimizer.lr=0.003",
    "--optimizer.momentum=0.9",
    "--trainer.limit_val_batches=0",
    "--checkpoint.monitor=null",
    f"--trainer.max_steps={STEPS}",
    "--data.train_samples=20",
    "--trainer.enable_progress_bar=false",
]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]


class WithoutNoise(pl.Callback):
    """Takes the noise out of the regularizer: every process draws its own."""

    def on_fit_start(self, trainer, pl_module):
        dual_task = pl_module.loss.dual_task
        with_noise = dual_task.of_log_probs
        dual_task.of_log_probs = lambda log_probs, labels, noise: with_noise(
            log_probs, labels, torch.zeros_like(log_probs)
        )


def fit(folder, *arguments):
    write_config(folder / "tiny.yaml")
    command = [sys.executable, "-m", "gscnn_lightning", "fit", "--config", "tiny.yaml", *arguments]
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return end_of(folder / "runs/tiny/version_0")


def distance(one, other):
    """Of two trainings' weights, relative to these."""
    a, b = one["state_dict"], other["state_dict"]
    names = [name for name in a if name.startswith("network.") and a[name].is_floating_point()]
    squares = [((a[name] - b[name]).square().sum(), b[name].square().sum()) for name in names]
    apart, all_of_it = (float(sum(values)) for values in zip(*squares, strict=True))
    return (apart / all_of_it) ** 0.5


def test_two_processes_train_as_one_with_the_doubled_batch(tmp_path):
    common = [*NO_STATISTICS, *PLAIN_STEPS, f"--trainer.callbacks+={__name__}.WithoutNoise"]
    one = fit(tmp_path / "one", *EVERY_LOSS, *common, "--data.batch_size=4")
    two = fit(tmp_path / "two", *EVERY_LOSS, *common, *TWO, "--data.batch_size=2")
    alone = fit(tmp_path / "alone", *EVERY_LOSS, *common, *TWO, "--data.batch_size=2", "--model.sync_losses=false")
    assert one["global_step"] == two["global_step"] == STEPS
    assert distance(two, one) <= 1e-5
    assert distance(alone, one) > 1e-4


def test_two_processes_train_a_transformer_without_looking_for_unused_parameters(tmp_path):
    """In the second step the strategy refuses parameters that had no gradient in the first."""
    common = [*PLAIN_STEPS, "--model.backbone=test_vit", "--trainer.max_steps=3", "--data.train_samples=12"]
    two = fit(tmp_path, *common, *TWO)
    assert two["global_step"] == 3
    state = two["state_dict"]
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    assert any(name.endswith("backbone.encoder.trunk.model.pos_embed") for name in state)


VARIANTS = {
    "control": {"shape_stream": False},
    "control, supervised": {"shape_stream": False, "boundary_supervision": True},
    "control, convex": {"shape_stream": False, "refine": "convex"},
    "two-stream": {},
    "convex": {"refine": "convex", "dice_weight": 2.0, "edge_weight": 1.0},
    "separable": {"separable": True},
    "no gradient": {"image_gradient": "none"},
    "sobel": {"image_gradient": "sobel"},
    "release": {"image_gradient": "release", "loss_variant": "release"},
    "segmentation alone": {"boundary_weight": 0.0, "regularizer_weight": 0.0, "attention_weight": 0.0},
    "boundary alone": {"segmentation_weight": 0.0, "regularizer_weight": 0.0, "attention_weight": 0.0},
    "group": {"norm": "group", "freeze_norm": True},
    "frozen": {"freeze_stages": 2},
    "all frozen": {"freeze_stages": 4},
    "checkpointing": {"grad_checkpointing": True},
    "strided": {"loss_stride": 2},
    "stride 8": {"output_stride": 8},
}


# What a transformer has of its own: a stem that is never frozen, blocks that are computed twice.
VIT_VARIANTS = ("control", "two-stream", "frozen", "all frozen", "checkpointing")
CASES = [
    *((name, backbone) for name in VARIANTS for backbone in ("test_resnet", "test_convnext", "test_efficientnet")),
    *((name, "test_vit") for name in VIT_VARIANTS),
]


@pytest.mark.parametrize(("variant", "backbone"), CASES)
def test_every_parameter_has_a_gradient_in_every_step(variant, backbone):
    """Several processes would wait for one that has none, or have to look for it in every step."""
    task = GSCNNTask(5, **{**SETTINGS, "backbone": backbone, **VARIANTS[variant]}).train()
    labels = torch.randint(5, (2, 64, 64))
    labels[:, :32] = 255
    batch = {"image": torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8), "mask": labels}
    for boundary in (torch.zeros(2, 1, 64, 64), torch.ones(2, 1, 64, 64)):
        task.training_losses({**batch, "boundary": boundary.to(torch.uint8)})["loss"].backward()
        without = [name for name, p in task.named_parameters() if p.requires_grad and p.grad is None]
        assert not without
        task.zero_grad()
