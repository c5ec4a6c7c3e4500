"""Writes a small quantised network: convolutions (3x3, strided 1x1, depthwise, grouped) and products of matrices of many rows and
of one, int8 and uint8 activations, weights that reach -128. Usage: make_qdq.py OUT.onnx"""
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(5)
nodes, weights = [], []


def const(name, value):
    weights.append(numpy_helper.from_array(value, name))
    return name


def quantised(name, kind, shape=None, scale=0.02, zero=3):
    """QuantizeLinear and DequantizeLinear of `name`; with a shape: DequantizeLinear of drawn weights."""
    s, z = const(name + "_s", np.float32(scale)), const(name + "_z", np.array(zero, kind))
    source = name
    if shape is not None:
        info = np.iinfo(kind)
        source = const(name, rng.integers(info.min, info.max + 1, shape).astype(kind))
    else:
        nodes.append(helper.make_node("QuantizeLinear", [name, s, z], [name + "_q"]))
        source = name + "_q"
    nodes.append(helper.make_node("DequantizeLinear", [source, s, z], [name + "_d"]))
    return name + "_d"


def conv(x, name, kind, shape, **attributes):
    x = quantised(x, kind)
    w = quantised(name + "_w", np.int8, shape, 0.002, 0)
    bias = const(name + "_b", rng.uniform(-1, 1, shape[0]).astype(np.float32))
    nodes.append(helper.make_node("Conv", [x, w, bias], [name + "_y"], **attributes))
    nodes.append(helper.make_node("Relu", [name + "_y"], [name]))
    return name


y = conv("x", "first", np.uint8, (16, 3, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
y = conv(y, "depth", np.int8, (16, 1, 3, 3), pads=[1, 1, 1, 1], group=16)
y = conv(y, "point", np.int8, (24, 16, 1, 1))
y = conv(y, "wide", np.uint8, (20, 24, 3, 3), pads=[0, 1, 1, 0])
y = conv(y, "groups", np.int8, (12, 10, 3, 3), group=2, strides=[2, 2])
nodes.append(helper.make_node("Reshape", [y, const("rows_of", np.array([1, 6, 50]))], ["rows"]))
a, b = quantised("rows", np.int8), quantised("across", np.int8, (50, 9), 0.002, 0)
nodes.append(helper.make_node("MatMul", [a, b], ["rows_sum"]))
nodes.append(helper.make_node("Flatten", ["rows_sum"], ["flat"], axis=1))
a, b = quantised("flat", np.uint8), quantised("matrix", np.int8, (6 * 9, 10), 0.002, 0)
nodes.append(helper.make_node("MatMul", [a, b], ["sum"]))
quantised("sum", np.int8, scale=0.5)
graph = helper.make_graph(nodes, "qdq", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 24, 24])],
                          [helper.make_tensor_value_info("sum_q", TensorProto.INT8, [1, 10])], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)
onnx.save(model, sys.argv[1])
