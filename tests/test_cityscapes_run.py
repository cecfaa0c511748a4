"""Real Cityscapes frames through the command line: minutes on two cores, so behind the slow marker."""

import json
import resource

import cv2
import pytest
from tests.test_cli import CONFIGS

from gscnn_lightning.cli import main

REDUCED = """
--trainer.accelerator cpu --trainer.precision 32-true --trainer.enable_progress_bar false
--model.backbone tf_efficientnet_lite0 --model.output_stride 16 --model.dilation false
--model.channels 64 --model.skip_channels 32 --model.shape_channels 32
"""
# Windows of the size of the crops: the image pooling has learnt by heart what is around a pixel there.
RECIPE = """
--trainer.max_epochs 8 --trainer.check_val_every_n_epoch 4 --trainer.gradient_clip_val 5 --model.warmup_steps 20
--data.samples_per_epoch 1000 --data.batch_size 4 --data.crop_size [128,192] --data.scale [1.0,1.0]
--data.class_uniform 0.85 --data.color_jitter 0 --data.blur 0 --data.flip 0
--optimizer AdamW --optimizer.lr 0.003 --optimizer.weight_decay 0 --model.backbone_lr_scale 0.25
--model.freeze_stages 2 --model.window [128,192] --model.overlap 0.5
"""


@pytest.fixture
def train_frames_as_val(cityscapes_root, tmp_path):
    """The official layout in which validation sees the training frames; not compressed, as decoding would take most."""
    root = tmp_path / "cityscapes"
    for path in cityscapes_root.glob("*/train/*/*.png"):
        kind, _, city, name = path.relative_to(cityscapes_root).parts
        for split in ("train", "val"):
            target = root / kind / split / city / name
            target.parent.mkdir(parents=True, exist_ok=True)
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(target), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
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
