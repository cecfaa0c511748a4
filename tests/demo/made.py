"""An exported network of a few operations, in the form that `gscnn export` writes."""

import json

import numpy as np
import pytest

NAMES = ("road", "sky <b>", "машина")
COLORS = ((128, 64, 128), (70, 130, 180), (0, 0, 142))


def write_network(path, layout="NHWC", kind="uint8", names=NAMES, size=(None, None), gates=True):
    """Classes by the strongest channel, boundaries by red, gates by green at half the size."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def constant(name, value):
        return numpy_helper.from_array(np.asarray(value), name)

    height, width = size
    shape = ["batch", height or "height", width or "width", 3]
    shape = shape if layout == "NHWC" else [shape[0], 3, *shape[1:3]]
    mixed = np.array([[1, -1, 0.2], [-0.5, 1, 0.1], [0.1, 0.2, 1]], np.float32).reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2])
        if layout == "NHWC"
        else helper.make_node("Identity", ["image"], ["planes"]),
        helper.make_node("Cast", ["planes"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["numbers", "most"], ["share"]),
        helper.make_node("Conv", ["share", "mixed"], ["seg_logits"]),
        helper.make_node("ArgMax", ["seg_logits"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
        helper.make_node("Slice", ["share", "zero", "one", "one"], ["boundary_prob"]),
        helper.make_node("Slice", ["share", "one", "two", "one"], ["green"]),
        helper.make_node("AveragePool", ["green"], ["gate_1"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    # `one` is the axis and the begin of the second slice at once.
    values = {"zero": [0], "one": [1], "two": [2]}
    constants = [constant(name, np.array(value, np.int64)) for name, value in values.items()]
    constants += [constant("mixed", mixed), constant("most", np.float32(255 if kind == "uint8" else 1))]
    of_type = TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT
    outputs = [
        helper.make_tensor_value_info("labels", TensorProto.UINT8, ["batch", "h", "w"]),
        helper.make_tensor_value_info("seg_logits", TensorProto.FLOAT, ["batch", 3, "h", "w"]),
        helper.make_tensor_value_info("boundary_prob", TensorProto.FLOAT, ["batch", 1, "h", "w"]),
    ]
    if gates:
        outputs.append(helper.make_tensor_value_info("gate_1", TensorProto.FLOAT, ["batch", 1, "h2", "w2"]))
    graph = helper.make_graph(
        nodes if gates else nodes[:-2],
        "made",
        [helper.make_tensor_value_info("image", of_type, shape)],
        outputs,
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if names is not None:
        helper.set_model_props(
            model, {"class_names": json.dumps(names), "class_colors": json.dumps(COLORS[: len(names)])}
        )
    onnx.save(model, str(path))
    return path
