"""Exported files, written: ONNX with sizes left free or fixed, and programs of torch."""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gscnn_lightning.errors import ExportError
from gscnn_lightning.exporting.facts import Facts
from gscnn_lightning.exporting.graph import INPUT, ExportedGraph
from gscnn_lightning.exporting.runtimes import FACTS, needed

OPSET = 18
"""What torch's exporter writes without a conversion, the first with the minima that Canny's search needs, and one that
ONNX Runtime, also in browsers, OpenVINO and TensorRT have had for years."""

# Multiples of all strides, so that no branch is taken which is for odd sizes alone; and all three different.
_EXAMPLE = (2, 96, 160)


def traced(graph: ExportedGraph, size: tuple[int, int] | None, name: str) -> Any:  # noqa: ANN401
    """A network as a program of torch's operators, for pictures in any number.

    Args:
        graph: the network.
        size: height and width of the pictures; None for any.
        name: what messages call it.

    Raises:
        ExportError: torch cannot follow it.
    """
    free = torch.export.Dim.DYNAMIC
    sides = _EXAMPLE[1:] if size is None else size
    image = torch.zeros(_EXAMPLE[0], *sides, 3, dtype=torch.uint8)
    shapes = {0: free, 1: free, 2: free} if size is None else {0: free}
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(graph.eval(), (image,), dynamic_shapes=(shapes,))
    except Exception as error:  # what exporters refuse they refuse each in its own way
        remedy = "fix the sizes (--size [512,1024])" if size is None else "choose another backbone"
        raise ExportError(f"{name} cannot be exported ({_first_line(error)}): {remedy}") from error


def write_onnx(program: Any, graph: ExportedGraph, facts: Facts, path: Path) -> None:  # noqa: ANN401
    """Write a traced network as ONNX.

    Args:
        program: from `traced`.
        graph: that it is of.
        facts: metadata.
        path: file to write.

    Raises:
        ExportError: an operation has no counterpart in ONNX, or a package is missing.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needed(module, "gscnn export to ONNX")
    try:
        with quiet():
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=graph.outputs,
                opset_version=OPSET,
                verbose=False,
            )
            _tidy(made.model)
            made.model.metadata_props.update(facts.texts())
            made.save(str(path), external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise ExportError(
            f"{facts.backbone} cannot be written as ONNX ({_first_line(error)}): export a .pt2"
        ) from error


def write_program(program: Any, graph: ExportedGraph, facts: Facts, path: Path) -> None:  # noqa: ANN401
    """Write a traced network for torch.

    Args:
        program: from `traced`.
        graph: that it is of.
        facts: metadata.
        path: file to write.
    """
    texts = {**facts.texts(), "outputs": json.dumps(graph.outputs)}
    with quiet():
        # Without the traces of where in whose folders each operation stands.
        for module in program.graph_module.modules():
            for node in getattr(module, "graph", torch.fx.Graph()).nodes:
                node.meta.pop("stack_trace", None)
        torch.export.save(program, path, extra_files={FACTS: json.dumps(texts)})


def _tidy(model: Any) -> None:  # noqa: ANN401
    """Readable names of free sizes, and nothing about the machine that the file was made on."""
    import onnx_ir

    shape = model.graph.inputs[0].shape
    names = {str(shape[axis]): name for axis, name in enumerate(("batch", "height", "width"))}
    names = {old: new for old, new in names.items() if re.fullmatch(r"s\d+", old)}
    # Of sizes that follow from these, the exporter's own word is kept, in their names.
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    values = [*model.graph.inputs]
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
        if value.shape is not None and names:
            sides = [
                pattern.sub(lambda found: names[found[1]], str(side.value))
                if isinstance(side, onnx_ir.SymbolicDim) and side.value
                else side
                for side in value.shape
            ]
            value.shape = onnx_ir.Shape(sides)
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.producer_name, model.doc_string = "gscnn-lightning", None


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters and quantisers tell of their own work."""
    # The quantiser of ONNX Runtime has no logger of its own.
    loggers = [logging.getLogger(name) for name in ("root", "onnx_ir", "onnxscript", "torch.onnx", "torch.export")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _first_line(error: Exception) -> str:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
    text = " ".join(re.sub(r"\x1b\[\d*m", "", str(causes[-1])).split())
    return f"{type(causes[-1]).__name__}: {text[:160]}"
