"""``gscnn scenes``."""

from pathlib import Path


def scenes(out: Path, /, train: int = 200, val: int = 50, size: tuple[int, int] = (256, 512), seed: int = 0) -> None:
    """Write drawn street scenes in the official Cityscapes layout.

    The real data module reads them: gscnn-fit --config cityscapes --data.root OUT

    Examples:
      gscnn scenes --out street --train 500 --val 100

    Args:
        out: folder to create; it must be empty or not exist.
        train: number of training scenes.
        val: number of validation scenes.
        size: height and width in pixels; height at least 64, width one to three times the height.
        seed: another seed is another data set.
    """
    from gscnn_lightning.data.scenes import write_scenes
    from gscnn_lightning.terminal import say

    write_scenes(out, train, val, seed, size)
    say(f"{train} training and {val} validation scenes are in {out}")
