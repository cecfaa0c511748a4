"""An exported network of a few operations, in the form that `gscnn export` writes."""

import numpy as np
import pytest

from gscnn_lightning.exporting.facts import Facts

NAMES = ("road", "sky <b>", "машина")
COLORS = ((128, 64, 128), (70, 130, 180), (0, 0, 142))


def write_network(path, names=NAMES, size=None, gates=True):
    """Classes by the strongest channel, boundaries by red, gates by green at half the size."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    height, width = size or ("height", "width")
    mixed = np.array([[1, -1, 0.2], [-0.5, 1, 0.1], [0.1, 0.2, 1]], np.float32).reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "most"], ["share"]),
        helper.make_node("Conv", ["share", "mixed"], ["seg_logits"]),
        helper.make_node("ArgMax", ["seg_logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
        # `one` is the axis, too.
        helper.make_node("Slice", ["share", "zero", "one", "one"], ["boundary_prob"]),
        helper.make_node("Slice", ["share", "one", "two", "one"], ["green"]),
        helper.make_node("AveragePool", ["green"], ["gate_1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Neg", ["gate_1"], ["gate_2"]),
        helper.make_node("Abs", ["gate_2"], ["gate_3"]),
    ]
    values = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    constants += [numpy_helper.from_array(mixed, "mixed"), numpy_helper.from_array(np.float32(255), "most")]
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", "h", "w"]),
        helper.make_tensor_value_info("seg_logits", TensorProto.FLOAT, ["batch", 3, "h", "w"]),
        helper.make_tensor_value_info("boundary_prob", TensorProto.FLOAT, ["batch", 1, "h", "w"]),
    ]
    for number in (1, 2, 3) if gates else ():
        shape = ["batch", 1, "h2", "w2"]
        outputs.append(helper.make_tensor_value_info(f"gate_{number}", TensorProto.FLOAT, shape))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])
    graph = helper.make_graph(nodes if gates else nodes[:-4], "made", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if names is not None:
        colors = COLORS[: len(names)]
        facts = Facts(names, colors, 255, (3.0,), True, 3 if gates else 0, "sobel", "resnet18", None, size)
        helper.set_model_props(model, facts.texts())
    onnx.save(model, str(path))
    return path
