"""Real Cityscapes frames through the command line: minutes on two cores, so behind the slow marker."""

import json
import resource

import pytest
from tests.test_cli import CONFIGS

from gscnn_lightning.cli import main

REDUCED = """
--trainer.accelerator cpu --trainer.precision 32-true --trainer.enable_progress_bar false
--model.backbone tf_efficientnet_lite0 --model.output_stride 16 --model.dilation false
--model.channels 64 --model.skip_channels 32 --model.shape_channels 32
"""
RECIPE = """
--trainer.max_epochs 8 --trainer.check_val_every_n_epoch 8 --trainer.gradient_clip_val 5 --model.warmup_steps 20
--data.samples_per_epoch 240 --data.batch_size 4 --data.crop_size [256,384] --data.scale [0.8,1.2]
--data.class_uniform 0.7 --data.color_jitter 0 --data.blur 0 --data.flip 0
--optimizer AdamW --optimizer.lr 0.002 --optimizer.weight_decay 0
"""


@pytest.fixture
def train_frames_as_val(cityscapes_root, tmp_path):
    """The official layout in which validation sees the training frames."""
    root = tmp_path / "cityscapes"
    for kind in ("leftImg8bit", "gtFine"):
        (root / kind).mkdir(parents=True)
        for split in ("train", "val"):
            (root / kind / split).symlink_to(cityscapes_root / kind / "train")
    return root


@pytest.mark.slow
def test_overfits_two_real_frames(train_frames_as_val, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(CONFIGS / "cityscapes.yaml"), "--data.root", str(train_frames_as_val)]
    main(["fit", *config, *REDUCED.split(), *RECIPE.split()])
    scores = json.loads((tmp_path / "runs/cityscapes/version_0/scores_val.json").read_text())
    assert scores["means"]["miou"] > 0.9


@pytest.mark.slow
def test_validation_at_full_size_fits_into_memory(cityscapes_root, tmp_path, monkeypatch):
    """The shipped network, untrained, on whole 1024x2048 frames: below 16 GB at its peak."""
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(CONFIGS / "cityscapes.yaml"), "--data.root", str(cityscapes_root)]
    plain = ["--trainer.accelerator", "cpu", "--model.pretrained", "false"]
    main(["validate", *config, *plain, "--data.num_workers", "0"])
    assert (tmp_path / "runs/cityscapes/version_0/scores_val.json").is_file()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 16e6  # kilobytes
