"""From the task of a checkpoint to a file that was compared with it before it got its name."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gscnn_lightning.errors import ExportError
from gscnn_lightning.exporting.agreement import (
    LEAST_EQUAL,
    LEAST_EQUAL_INT8,
    MOST,
    Difference,
    check_pictures,
    difference,
)
from gscnn_lightning.exporting.facts import facts_of
from gscnn_lightning.exporting.files import traced, write_onnx, write_program
from gscnn_lightning.exporting.graph import ExportedGraph
from gscnn_lightning.exporting.int8 import quantise
from gscnn_lightning.exporting.runtimes import load

_CALIBRATION_SIDE = 1024


@dataclass(frozen=True)
class Exported:
    """An export that is done.

    Attributes:
        difference: of the file in float from its checkpoint.
        int8: of the 8-bit file, on the calibration pictures; None without.
        seconds: that everything took.
        size: of the file in bytes.
    """

    difference: Difference
    int8: Difference | None
    seconds: float
    size: int


def export_network(
    task: Any,  # noqa: ANN401
    checkpoint: str,
    out: Path,
    size: tuple[int, int] | None = None,
    gates: bool = False,
    calibration: Sequence[npt.NDArray[np.uint8]] | None = None,
) -> Exported:
    """Write a network as .onnx or .pt2, and give the file its name once it agrees with the checkpoint.

    Args:
        task: of the checkpoint, in evaluation mode, not folded, on the CPU.
        checkpoint: path of its file.
        out: file to write; its suffix says what.
        size: height and width that the file is for; None for any.
        gates: whether the attention maps are outputs.
        calibration: pictures (H, W, 3) to make an 8-bit file with; None for one in float.

    Raises:
        ExportError: the network cannot be exported, or the file says something else than the checkpoint.
    """
    start = time.perf_counter()
    name = f"{checkpoint} ({task.settings.backbone})"
    graph = ExportedGraph(task.network, gates, fixed=size is not None)
    facts = facts_of(task, checkpoint, gates, size)
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = [out.with_name(f".{out.stem}.{os.getpid()}.{kind}{out.suffix}") for kind in ("part", "int8")]
    try:
        program = traced(graph, size, name)
        write = write_program if out.suffix.lower() == ".pt2" else write_onnx
        write(program, graph, facts, parts[0])
        try:
            found = difference(task.network, load(str(parts[0])), check_pictures(size))
        except Exception as error:  # a runtime refuses operations and sizes in its own way
            if isinstance(error, ExportError) and error.__cause__ is None:
                raise  # it is not installed
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise ExportError(f"{name} was exported, but cannot be run ({reason}): {_remedy(size)}") from error
        if not found.is_none:
            raise ExportError(
                f"{name} was exported, but the file says something else than the checkpoint: {found}. At most {MOST:g} "
                f"and at least {100 * LEAST_EQUAL:g} % are right, and nothing was written: {_remedy(size)}"
            )
        quantised = None
        if calibration is not None:
            pictures = [_calibration(picture, size) for picture in calibration]
            quantise(parts[0], parts[1], facts, pictures)
            quantised = difference(task.network, load(str(parts[1])), pictures)
            if not quantised.equal >= LEAST_EQUAL_INT8:
                raise ExportError(
                    f"{name} in 8 bits agrees with the checkpoint on {100 * quantised.equal:.1f} % of the pixels of "
                    f"the calibration pictures, and has to on {100 * LEAST_EQUAL_INT8:g} %: leave --int8 out, or "
                    "calibrate with more pictures of what it is for"
                )
        done = parts[0] if calibration is None else parts[1]
        done.replace(out)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return Exported(found, quantised, time.perf_counter() - start, out.stat().st_size)


def _remedy(size: tuple[int, int] | None) -> str:
    return "fix the sizes (--size [512,1024])" if size is None else "choose another backbone or image gradient"


def _calibration(picture: npt.NDArray[np.uint8], size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """The middle of a picture, of the size that the file takes, with its border repeated where it is smaller."""
    height, width = size or (_CALIBRATION_SIDE, _CALIBRATION_SIDE)
    top, left = (max(0, (n - most) // 2) for n, most in zip(picture.shape, (height, width), strict=False))
    middle = picture[top : top + height, left : left + width]
    least = size or (32, 32)
    below, right = (max(0, n - side) for n, side in zip(least, middle.shape, strict=False))
    return np.pad(middle, ((0, below), (0, right), (0, 0)), mode="edge")
