"""Operators of ai.onnx in the forms that opsets 1 to 12 gave them, and the experimental ones of the first releases.

ONNX Runtime has no kernels below opset 7, so the expected results are the formulas of the old schemas, in numpy.
"""
import numpy as np
import onnx.helper as h
from onnx import TensorProto

import cases
from cases import f, f32


def case(name, op, inputs, expected, opset, consts=None, outputs=None, **attrs):
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    cases.case(f"{name}_{opset}", op, inputs, domain="ai.onnx", expected=[np.asarray(e) for e in expected], consts=consts,
               outputs=outputs or [f"y{i}" for i in range(len(expected))], opsets=[("", opset)], **attrs)


def i64(*v):
    return np.array(v, np.int64)


def broadcast():
    a, b = f(2, 3, 4, 5), f(3, 4)
    wide, pos = b[None, :, :, None], np.abs(a) + 0.5
    ops = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    for name, fn in ops.items():
        case(name, name, {"a": a, "b": b}, fn(a, wide), 6, broadcast=1, axis=1)
        case(name + "_last", name, {"a": a, "b": b[0, :1]}, fn(a, b[0, :1]), 6, broadcast=1)
        case(name + "_suffix", name, {"a": a, "b": a[0, 0]}, fn(a, a[0, 0]), 6, broadcast=1)
        case(name + "_plain", name, {"a": a, "b": a + 1}, fn(a, a + 1), 1, consumed_inputs=[0, 0])
        case(name + "_negative", name, {"a": a, "b": b}, fn(a, wide), 6, broadcast=1, axis=-3)
    case("Pow", "Pow", {"a": pos, "b": b}, pos**wide, 1, broadcast=1, axis=1)
    for name, fn in {"Greater": np.greater, "Less": np.less}.items():
        case(name, name, {"a": a, "b": b}, fn(a, wide), 1, broadcast=1, axis=1)
    i, j = np.arange(12).reshape(2, 3, 2) % 3, np.arange(3)
    case("Equal", "Equal", {"a": i, "b": j}, i == j[None, :, None], 1, broadcast=1, axis=1)
    for name, fn in {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}.items():
        case(name, name, {"a": i > 0, "b": j > 1}, fn(i > 0, (j > 1)[None, :, None]), 1, broadcast=1, axis=1)
    s = f(3)
    case("PRelu", "PRelu", {"x": a, "s": s}, np.where(a < 0, a * s[None, :, None, None], a), 6)
    case("PRelu_one", "PRelu", {"x": a, "s": s[:1]}, np.where(a < 0, a * s[0], a), 1, consumed_inputs=[0, 0])
    x, y, z = f(3, 4), f(4, 5), f(5)
    case("Gemm", "Gemm", {"a": x, "b": y, "c": z}, 0.5 * (x @ y) + 2 * z, 6, alpha=0.5, beta=2.0, broadcast=1)
    case("Gemm_full", "Gemm", {"a": x.T.copy(), "b": y, "c": f(3, 5) * 0 + 1}, x @ y + 1, 1, transA=1)


def normalizations():
    x, s, b = f(2, 3, 4, 5), f(3), f(3)
    m, v = f(3), np.abs(f(3)) + 0.1
    col = (None, slice(None), None, None)
    y = (x - m[col]) / np.sqrt(v[col] + 1e-3) * s[col] + b[col]
    stats = {"s": s, "b": b, "m": m, "v": v}
    case("BatchNormalization", "BatchNormalization", {"x": x, **stats}, y, 1, is_test=1, epsilon=1e-3,
         consumed_inputs=[0, 0, 0, 1, 1])
    case("BatchNormalization", "BatchNormalization", {"x": x, **stats}, y, 6, is_test=1, epsilon=1e-3)
    case("BatchNormalization", "BatchNormalization", {"x": x, **stats}, y, 9, epsilon=1e-3, momentum=0.5)
    s, b, m, v = f(3, 4, 5), f(3, 4, 5), f(3, 4, 5), np.abs(f(3, 4, 5)) + 0.1
    y = (x - m) / np.sqrt(v + 1e-5) * s + b
    for opset, more in ((6, {"is_test": 1}), (7, {})):
        case("BatchNormalization_each", "BatchNormalization", {"x": x, "s": s, "b": b, "m": m, "v": v}, y, opset, spatial=0,
             **more)
    for opset, more in ((1, {"is_test": 1, "consumed_inputs": [0]}), (6, {"is_test": 1}), (7, {}), (10, {})):
        case("Dropout", "Dropout", {"x": x}, x, opset, ratio=0.3, **more)
    m, v = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    s, b = f(3), f(3)
    case("InstanceNormalization", "InstanceNormalization", {"x": x, "s": s, "b": b},
         (x - m) / np.sqrt(v + 1e-5) * s[col] + b[col],
         1, consumed_inputs=[0, 0, 0])
    square = np.pad(x**2, [(0, 0), (1, 1), (0, 0), (0, 0)])
    total = square[:, :-2] + square[:, 1:-1] + square[:, 2:]
    case("LRN", "LRN", {"x": x}, x / (2 + 1e-2 / 3 * total) ** 0.75, 1, size=3, alpha=1e-2, bias=2.0)
    for axes, across in (((2, 3), 0), ((1, 2, 3), 1)):
        c = x - x.mean(axes, keepdims=True)
        case(f"MeanVarianceNormalization_{across}", "MeanVarianceNormalization", {"x": x}, c / x.std(axes, keepdims=True), 1,
             across_channels=across)
        case(f"MeanVarianceNormalization_{across}_mean", "MeanVarianceNormalization", {"x": x}, c, 1, across_channels=across,
             normalize_variance=0)


def shapes():
    x = f(2, 3, 4)
    case("Reshape", "Reshape", {"x": x}, x.reshape(2, 12), 1, shape=[0, -1], consumed_inputs=[0])
    case("Concat", "Concat", {"a": x, "b": x[:, :1]}, np.concatenate([x, x[:, :1]], 1), 1)
    case("Concat_axis", "Concat", {"a": x, "b": x}, np.concatenate([x, x], 2), 3, axis=2)
    case("Pad", "Pad", {"x": x}, np.pad(x, [(0, 1), (1, 0), (2, 1)], constant_values=0.5), 1, paddings=[0, 1, 2, 1,
         0, 1], value=0.5)
    case("Pad", "Pad", {"x": x}, np.pad(x, [(0, 0), (1, 2), (1, 0)], "reflect"), 2, pads=[0, 1, 1, 0, 2, 0], mode="reflect")
    case("Pad", "Pad", {"x": x}, np.pad(x, [(0, 0), (1, 2), (1, 0)], "edge"), 10, pads=[0, 1, 1, 0, 2, 0], mode="edge")
    case("Pad_crop", "Pad", {"x": x}, np.pad(x[:, 1:], [(0, 0), (0, 2), (0, 0)]), 2, pads=[0, -1, 0, 0, 2, 0])
    case("Slice", "Slice", {"x": x}, x[:, 1:3, -2:-1], 1, axes=[1, 2], starts=[1, -2], ends=[1000, -1])
    case("Slice_all", "Slice", {"x": x}, x[0:1, 1:2], 9, starts=[0, 1], ends=[1, 2])
    first, second = np.split(x, [1], 1)
    case("Split", "Split", {"x": x}, [first, second], 1, axis=1, split=[1, 2])
    case("Split_input", "Split", {"x": x, "sizes": np.array([1, 2], np.float32)}, [first, second], 1, axis=1)
    case("Split_halves", "Split", {"x": x}, np.split(x, 2, 0), 2)
    case("Split_sizes", "Split", {"x": x}, np.split(x, [3], -1), 11, axis=-1, split=[3, 1])
    case("Squeeze", "Squeeze", {"x": x[:, :1]}, x[:, 0], 1, axes=[1])
    case("Squeeze_all", "Squeeze", {"x": x[:1, :1]}, x[0, 0], 11)
    case("Unsqueeze", "Unsqueeze", {"x": x}, x[None, :, None], 1, axes=[0, 2])
    case("Unsqueeze", "Unsqueeze", {"x": x}, x[..., None], 11, axes=[-1])
    case("Tile", "Tile", {"x": x}, np.tile(x, (1, 3, 1)), 1, consts={"tiles": f32(3), "axis": f32(1)})
    case("Tile", "Tile", {"x": x}, np.tile(x, (2, 1, 3)), 6, consts={"repeats": i64(2, 1, 3)})
    case("Flatten", "Flatten", {"x": x}, x.reshape(6, 4), 1, axis=2)
    case("Expand", "Expand", {"x": x[:, :1]}, np.broadcast_to(x[:, :1], (2, 3, 4)), 8, consts={"s": i64(2, 3, 1)})
    for to, t in (("INT32", np.int32), ("DOUBLE", np.float64), ("BOOL", np.bool_)):
        case(f"Cast_{to}", "Cast", {"x": x * 9}, (x * 9).astype(t), 1, to=to)
    case("Cast", "Cast", {"x": x * 9}, (x * 9).astype(np.int64), 6, to=TensorProto.INT64)
    d = f(1, 8, 2, 3)
    case("DepthToSpace", "DepthToSpace", {"x": d}, d.reshape(1, 2, 2, 2, 2, 3).transpose(0, 3, 4, 1, 5, 2).reshape(1, 2, 4, 6), 1,
         blocksize=2)
    hot = np.eye(4, dtype=np.float32)[[1, 3]] * 4 - 1
    case("OneHot", "OneHot", {"i": i64(1, 3)}, hot, 9, consts={"d": i64(4), "v": f32([-1, 3])})
    case("OneHot_half", "OneHot", {"i": i64(1, 3), "d": np.array(4, np.float16)}, hot, 11, consts={"v": f32([-1, 3])})
    case("GatherND", "GatherND", {"x": x, "i": np.array([[0, 1], [1, 2]])}, x[[0, 1], [1, 2]], 11)
    up = x.copy()
    np.put_along_axis(up, np.array([[[2, 0, 1, 1]]]), 9, 1)
    case("Scatter", "Scatter", {"x": x[:1], "i": np.array([[[2, 0, 1, 1]]]), "u": np.full((1, 1, 4), 9, np.float32)},
         up[:1], 9, axis=1)


def elementwise():
    x = f(3, 4)
    sig = 1 / (1 + np.exp(-x))
    one = {"consumed_inputs": [0]}
    simple = {"Relu": np.maximum(x, 0), "Sigmoid": sig, "Tanh": np.tanh(x), "Exp": np.exp(x), "Abs": np.abs(x), "Neg": -x,
              "Floor": np.floor(x), "Ceil": np.ceil(x)}
    for name, y in simple.items():
        case(name, name, {"x": x}, y, 1, **one)
    case("Log", "Log", {"x": np.abs(x)}, np.log(np.abs(x)), 1, **one)
    case("Sqrt", "Sqrt", {"x": np.abs(x)}, np.sqrt(np.abs(x)), 1, **one)
    case("Reciprocal", "Reciprocal", {"x": x}, 1 / x, 1, **one)
    case("Clip", "Clip", {"x": x}, np.clip(x, -0.3, 0.4), 6, min=-0.3, max=0.4)
    case("Clip_max", "Clip", {"x": x}, np.minimum(x, 0.4), 1, max=0.4, **one)
    case("Clip_none", "Clip", {"x": x}, x, 6)
    case("LeakyRelu", "LeakyRelu", {"x": x}, np.where(x < 0, 0.01 * x, x), 1, **one)
    case("Elu", "Elu", {"x": x}, np.where(x < 0, 0.7 * (np.exp(x) - 1), x), 1, alpha=0.7, **one)
    case("Selu", "Selu", {"x": x}, 1.0507 * np.where(x < 0, 1.6732 * (np.exp(x) - 1), x), 1, **one)
    case("HardSigmoid", "HardSigmoid", {"x": x}, np.clip(0.2 * x + 0.5, 0, 1), 1, **one)
    for name, fn in (("Sum", sum), ("Mean", lambda v: sum(v) / 3), ("Max", lambda v: np.max(v, 0)), ("Min",
         lambda v: np.min(v, 0))):
        v = [f(3, 4) for _ in range(3)]
        case(name, name, dict(zip("abc", v)), fn(v), 1, consumed_inputs=[0, 0, 0])
    big = f(2, 3, 4)
    for opset, axis in ((1, 1), (11, -2), (9, 2)):
        flat = big.reshape(2, -1) if axis != 2 else big.reshape(6, 4)
        e = np.exp(flat - flat.max(1, keepdims=True))
        p = e / e.sum(1, keepdims=True)
        case(f"Softmax_{axis}", "Softmax", {"x": big}, p.reshape(big.shape), opset, axis=axis)
        case(f"LogSoftmax_{axis}", "LogSoftmax", {"x": big}, np.log(p).reshape(big.shape), opset, axis=axis)
        hard = np.eye(flat.shape[1], dtype=np.float32)[flat.argmax(1)]
        case(f"Hardmax_{axis}", "Hardmax", {"x": big}, hard.reshape(big.shape), opset, axis=axis)
    e = np.exp(big.reshape(2, -1))
    case("Softmax_default", "Softmax", {"x": big}, (e / e.sum(1, keepdims=True)).reshape(big.shape), 1)


def reductions():
    x = f(2, 3, 4)
    ops = {"ReduceSum": np.sum, "ReduceMean": np.mean, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod,
           "ReduceL1": lambda v, a, keepdims: np.abs(v).sum(a, keepdims=keepdims),
           "ReduceL2": lambda v, a, keepdims: np.sqrt((v * v).sum(a, keepdims=keepdims)),
           "ReduceSumSquare": lambda v, a, keepdims: (v * v).sum(a, keepdims=keepdims),
           "ReduceLogSumExp": lambda v, a, keepdims: np.log(np.exp(v).sum(a, keepdims=keepdims))}
    for name, fn in ops.items():
        case(name, name, {"x": x}, fn(x, (0, 2), keepdims=True), 1, axes=[0, 2])
        case(name, name, {"x": x}, fn(x, (1,), keepdims=False), 11, axes=[-2], keepdims=0)
    case("ReduceSum_all", "ReduceSum", {"x": x}, x.sum(keepdims=True), 1)
    case("ArgMax", "ArgMax", {"x": x}, x.argmax(1)[:, None], 1, axis=1)
    order = np.argsort(-x, -1)[..., :2]
    best = [np.take_along_axis(x, order, -1), order]
    case("TopK", "TopK", {"x": x}, best, 1, k=2)
    case("TopK", "TopK", {"x": x}, best, 10, consts={"k": i64(2)})


def pools():
    x = f(1, 2, 4, 4)
    blocks = x.reshape(1, 2, 2, 2, 2, 2)
    case("MaxPool", "MaxPool", {"x": x}, blocks.max((3, 5)), 1, kernel_shape=[2, 2], strides=[2, 2])
    edge = np.pad(x, [(0, 0), (0, 0), (1, 0), (1, 0)])[:, :, :2, :2].sum((2, 3))
    y = sum(np.pad(x, [(0, 0), (0, 0), (1, 0), (1, 0)])[:, :, i : i + 4, j : j + 4] for i in range(2) for j in range(2))
    count = np.array([[1, 2, 2, 2], [2, 4, 4, 4], [2, 4, 4, 4], [2, 4, 4, 4]], np.float32)
    assert np.allclose(y[:, :, 0, 0], edge)
    case("AveragePool", "AveragePool", {"x": x}, y / count, 1, kernel_shape=[2, 2], pads=[1, 1, 0, 0])
    case("AveragePool_count", "AveragePool", {"x": x}, y / 4, 7, kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
    case("LpPool", "LpPool", {"x": x}, np.sqrt((blocks**2).sum((3, 5))), 1, kernel_shape=[2, 2], strides=[2, 2], p=2.0)
    case("GlobalLpPool", "GlobalLpPool", {"x": x}, np.abs(x**3).sum((2, 3), keepdims=True) ** (1 / 3), 1, p=3.0)
    tall = x.repeat(2, 2).repeat(3, 3)
    case("Upsample", "Upsample", {"x": x}, tall, 1, height_scale=2.0, width_scale=3.0, mode="nearest")
    case("Upsample", "Upsample", {"x": x}, tall, 7, scales=[1.0, 1.0, 2.0, 3.0])
    case("Upsample", "Upsample", {"x": x}, tall, 9, consts={"s": f32([1, 1, 2, 3])})
    at = np.minimum(np.arange(8) / 2, 3)
    lo, w = np.floor(at).astype(int), at - np.floor(at)
    row = x[:, :, :, lo] * (1 - w) + x[:, :, :, np.minimum(lo + 1, 3)] * w
    case("Upsample_linear", "Upsample", {"x": x}, row.astype(np.float32), 9, consts={"s": f32([1, 1, 1, 2])}, mode="linear")
    case("Upsample_bilinear", "Upsample", {"x": x}, row.astype(np.float32), 1, height_scale=1.0, width_scale=2.0, mode="bilinear")
    case("Resize", "Resize", {"x": x}, x[:, :, ::2], 10, consts={"s": f32([1, 1, 0.5, 1])})


def experimental():
    x = f(1, 3, 5, 6)
    case("ImageScaler", "ImageScaler", {"x": x}, x * 0.5 + f32([1, 2, 3])[:, None, None], 1, scale=0.5, bias=[1.0, 2.0, 3.0])
    case("Crop", "Crop", {"x": x}, x[:, :, 2:4, 1:3], 1, border=[1, 2, 3, 1])
    case("Crop_size", "Crop", {"x": x}, x[:, :, 2:4, 1:5], 1, border=[1, 2, 0, 0], scale=[2, 4])
    case("Affine", "Affine", {"x": x}, x * 0.5 + 0.25, 1, alpha=0.5, beta=0.25)
    case("Scale", "Scale", {"x": x}, x * 0.5, 1, scale=0.5)
    case("ScaledTanh", "ScaledTanh", {"x": x}, 1.7 * np.tanh(0.6 * x), 1, alpha=1.7, beta=0.6)
    case("ParametricSoftplus", "ParametricSoftplus", {"x": x}, 0.7 * np.log(1 + np.exp(1.3 * x)), 1, alpha=0.7, beta=1.3)
    case("ThresholdedRelu", "ThresholdedRelu", {"x": x}, np.where(x > 1, x, 0), 1)
    case("ThresholdedRelu_alpha", "ThresholdedRelu", {"x": x}, np.where(x > 0.3, x, 0), 6, alpha=0.3)
    case("GivenTensorFill", "GivenTensorFill", {}, f32([[1, 2, 3], [4, 5, 6]]), 1, shape=[2, 3], values=[1.0, 2.0,
         3.0, 4.0, 5.0, 6.0])
    case("ConstantFill", "ConstantFill", {"x": x}, np.full(x.shape, 2, np.float32), 1, value=2.0)
    case("ConstantFill_shape", "ConstantFill", {}, np.full((2, 2), 3, np.int32), 1, shape=[2, 2], value=3.0, dtype=6)
    case("ConstantFill_extra", "ConstantFill", {"x": x}, np.full((*x.shape, 2), 1, np.float32), 1, value=1.0, extra_shape=[2])
    case("ConstantFill_input", "ConstantFill", {"s": i64(2, 3)}, np.full((2, 3), 1, np.float32), 1, value=1.0, input_as_shape=1)
    case("DynamicSlice", "DynamicSlice", {"x": x}, x[:, :, 1:3, -2:], 1, consts={"b": i64(1, -2), "e": i64(3, 99),
         "a": i64(2, 3)})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def recurrent():
    t, b, i, n = 3, 2, 4, 5
    x = f(t, b, i)
    w, r, bias = f(1, n, i), f(1, n, n), f(1, 2 * n)
    state, ys = np.zeros((b, n)), []
    for s in range(t):
        state = np.tanh(x[s] @ w[0].T + state @ r[0].T + bias[0, :n] + bias[0, n:])
        ys.append(state)
    y = [np.array(ys, np.float32)[:, None], state[None].astype(np.float32)]
    case("RNN", "RNN", {"x": x, "w": w, "r": r, "b": bias}, y, 1, hidden_size=n, output_sequence=1)
    case("RNN_last", "RNN", {"x": x, "w": w, "r": r, "b": bias}, y[1:], 1, outputs=["", "h"], hidden_size=n)
    w, r, bias = f(1, 3 * n, i), f(1, 3 * n, n), f(1, 6 * n)
    for opset, before in ((1, 0), (3, 1), (7, 0)):
        state, ys = np.zeros((b, n)), []
        wb, rb = bias[0, : 3 * n], bias[0, 3 * n :]
        for s in range(t):
            g, k = x[s] @ w[0].T + wb, state @ r[0].T
            z = sigmoid(g[:, :n] + k[:, :n] + rb[:n])
            e = sigmoid(g[:, n : 2 * n] + k[:, n : 2 * n] + rb[n : 2 * n])
            c = e * (k[:, 2 * n :] + rb[2 * n :]) if before else (e * state) @ r[0, 2 * n :].T + rb[2 * n :]
            state = (1 - z) * np.tanh(g[:, 2 * n :] + c) + z * state
            ys.append(state)
        more = {"linear_before_reset": before} if opset >= 3 else {}
        more.update({"output_sequence": 1} if opset < 7 else {})
        y = [np.array(ys, np.float32)[:, None], state[None].astype(np.float32)]
        case("GRU", "GRU", {"x": x, "w": w, "r": r, "b": bias}, y, opset, hidden_size=n, **more)
    w, r, bias = f(1, 4 * n, i), f(1, 4 * n, n), f(1, 8 * n)
    state, cell, ys = np.zeros((b, n)), np.zeros((b, n)), []
    for s in range(t):
        g = x[s] @ w[0].T + state @ r[0].T + bias[0, : 4 * n] + bias[0, 4 * n :]
        a, o, e, c = (g[:, k * n : (k + 1) * n] for k in range(4))
        cell = sigmoid(e) * cell + sigmoid(a) * np.tanh(c)
        state = sigmoid(o) * np.tanh(cell)
        ys.append(state)
    y = [np.array(ys, np.float32)[:, None], state[None].astype(np.float32), cell[None].astype(np.float32)]
    case("LSTM", "LSTM", {"x": x, "w": w, "r": r, "b": bias}, y, 1, hidden_size=n, output_sequence=1)
    case("LSTM", "LSTM", {"x": x, "w": w, "r": r, "b": bias}, y, 7, hidden_size=n)


def control():
    one = h.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    info = h.make_tensor_value_info

    def graph(nodes, inputs, outputs, held=()):
        return h.make_graph(nodes, "body", inputs, outputs, list(held))

    body = graph(
        [h.make_node("Add", ["s", "one"], ["s1"]), h.make_node("Identity", ["c"], ["c1"]), h.make_node("Mul", ["s1",
             "s1"], ["q"])],
        [info("i", TensorProto.INT64, []), info("c", TensorProto.BOOL, []), info("s", TensorProto.FLOAT, [1])],
        [info("c1", TensorProto.BOOL, []), info("s1", TensorProto.FLOAT, [1]), info("q", TensorProto.FLOAT, [1])], [one])
    case("Loop", "Loop", {"m": np.array(3), "c": np.array(True), "s": f32([0.5])},
         [f32([3.5]), f32([[2.25], [6.25], [12.25]])], 8, body=body)
    branches = [graph([h.make_node(op, ["one", "one"], ["y"])], [], [info("y", TensorProto.FLOAT, [1])], [one])
                for op in ("Add", "Sub")]
    case("If", "If", {"c": np.array(False)}, f32([0]), 7, then_branch=branches[0], else_branch=branches[1])
    step = graph([h.make_node("Add", ["s", "x"], ["s1"]), h.make_node("Identity", ["s1"], ["y"])],
                 [info("s", TensorProto.FLOAT, [2]), info("x", TensorProto.FLOAT, [2])],
                 [info("s1", TensorProto.FLOAT, [2]), info("y", TensorProto.FLOAT, [2])])
    x, s = f(2, 3, 2), f(2, 2)
    y = s[:, None] + np.cumsum(x, 1)
    case("Scan", "Scan", {"n": None, "s": s, "x": x}, [y[:, -1], y], 8, body=step, num_scan_inputs=1)
    back = s[:, None] + np.cumsum(x[:, ::-1], 1)
    case("Scan_reverse", "Scan", {"n": None, "s": s, "x": x}, [back[:, -1], back], 8, body=step, num_scan_inputs=1,
         directions=[1])


def make():
    broadcast()
    normalizations()
    shapes()
    elementwise()
    reductions()
    pools()
    experimental()
    recurrent()
    control()
