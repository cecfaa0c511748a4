"""The ``gscnn`` command: everything beside training, one function per tool."""

import sys
from pathlib import Path

from jsonargparse import auto_cli
from rich.console import Console

from gscnn_lightning.errors import GSCNNError


def scenes(out: Path, train: int = 200, val: int = 50, size: tuple[int, int] = (256, 512), seed: int = 0) -> None:
    """Write drawn street scenes in the official Cityscapes layout.

    The real data module reads them: gscnn-fit --config configs/cityscapes.yaml --data.root OUT

    Args:
        out: folder to create; it must be empty or not exist.
        train: number of training scenes.
        val: number of validation scenes.
        size: height and width in pixels; height at least 64, width one to three times the height.
        seed: another seed is another data set.
    """
    from gscnn_lightning.data.scenes import write_scenes

    write_scenes(out, train, val, seed, size)
    Console().print(f"{train} training and {val} validation scenes are in {out}", soft_wrap=True)


def main(args: list[str] | None = None) -> None:
    """Run ``gscnn`` with the arguments of the command line, or those given.

    Args:
        args: arguments as on the command line; `sys.argv` by default.
    """
    try:
        auto_cli(
            {"scenes": scenes}, args=args, prog="gscnn", description="Tools beside gscnn-fit.", as_positional=False
        )
    except GSCNNError as error:
        sys.stderr.write(f"gscnn: error: {error}\n")
        sys.exit(2)
