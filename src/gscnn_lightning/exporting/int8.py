"""Exported networks whose convolutions compute in 8 bits, by ONNX Runtime's static quantisation."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gscnn_lightning.exporting.facts import Facts
from gscnn_lightning.exporting.files import quiet
from gscnn_lightning.exporting.graph import INPUT
from gscnn_lightning.exporting.runtimes import needed

# Share of the regular stream, from the image on, that stays in float. Ranges differ most from channel to channel there:
# of a tf_efficientnet_lite0 trained on CamVid it is what costs 2 points of mean IoU in 8 bits, and takes no more time.
_EARLY = 0.2

# Parts that stay in float: few operations, and what they say is drawn at every pixel.
_FLOAT = ("shape_stream.", "boundary_fusion.", "image_gradient.", "refinement.")


def quantise(source: Path, path: Path, facts: Facts, pictures: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Write an 8-bit copy of an ONNX file: activations per tensor, weights per channel (QDQ format).

    The first fifth of the regular stream, the classifier, the shape stream and what refines stay in float.

    Args:
        source: the file in float.
        path: file to write.
        facts: of the source.
        pictures: (H, W, 3) each, of any sizes that the file takes; ranges of activations are measured on them.

    Raises:
        ExportError: a package is missing.
    """
    onnx = needed("onnx", "--int8")
    quantization: Any = needed("onnxruntime.quantization", "--int8")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._images: Iterator[npt.NDArray[np.uint8]] = iter(pictures)

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            picture = next(self._images, None)
            return None if picture is None else {INPUT: np.ascontiguousarray(picture[None])}

    model = onnx.load(str(source))
    with quiet():
        quantization.quantize_static(
            model,
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=kept_in_float(model.graph),
        )
    made = onnx.load(str(path))
    onnx.helper.set_model_props(made, replace(facts, int8=True).texts())
    onnx.save(made, str(path))


def kept_in_float(graph: Any) -> list[str]:  # noqa: ANN401
    """Names of the convolutions of a graph that stay as they are."""
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    weights = {node.name: node.input[1].removeprefix("network.") for node in convolutions}
    stream = [node.name for node in convolutions if weights[node.name].startswith("backbone.")]
    early = {*stream[: max(1, int(_EARLY * len(stream)))], *(node.name for node in convolutions[:1])}
    classes = max((name for name in weights.values() if name.startswith("decoder.")), default="")
    return [
        node.name
        for node in convolutions
        if node.name in early or weights[node.name] == classes or weights[node.name].startswith(_FLOAT)
    ]
