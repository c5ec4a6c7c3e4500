"""Quantized operators of com.microsoft."""
import numpy as np
import onnx.helper as h

from cases import case, f, f32, i8, i32, u8


def q(name, x, scale, zero):
    return {name: x, "s" + name: f32(scale), "z" + name: None if zero is None else np.array(zero, x.dtype)}


def elementwise():
    for t, make, z in (("u8", u8, 100), ("i8", i8, -3)):
        a, b = q("a", make(2, 3, 5), 0.02, z), q("b", make(3, 1), 0.03, z + 2)
        end = {"sy": f32(0.05), "zy": np.array(z, a["a"].dtype)}
        case(f"qadd_{t}", "QLinearAdd", {**a, **b, **end})
        case(f"qmul_{t}", "QLinearMul", {**a, **b, **end})
        case(f"qsigmoid_{t}", "QLinearSigmoid", {**a, "sy": f32(0.004), "zy": np.array(0, a["a"].dtype)})
        case(f"qsigmoid_{t}_no_zero", "QLinearSigmoid", {**q("a", make(4), 0.02, None), "sy": f32(0.008), "zy": None})
        case(f"qleaky_{t}", "QLinearLeakyRelu", {**a, **end}, alpha=0.2)
        soft = {**q("a", make(3, 4, 5), 0.02, z), "sy": f32(1 / 256), "zy": np.array(0 if t == "u8" else -128, a["a"].dtype)}
        case(f"qsoftmax_{t}", "QLinearSoftmax", soft, opset=13)
        case(f"qsoftmax_{t}_axis", "QLinearSoftmax", soft, opset=13, axis=1)
        case(f"qsoftmax_{t}_old", "QLinearSoftmax", soft, opset=11, axis=1)
        case(f"qsoftmax_{t}_default", "QLinearSoftmax", soft, opset=11)
        parts = {"sy": f32(0.04), "zy": np.array(z, a["a"].dtype), **q("a", make(2, 3), 0.02, z),
                 **q("b", make(2, 4), 0.03, z + 1)}
        case(f"qconcat_{t}", "QLinearConcat", parts, axis=1)
        pick = {"c": np.array([True, False, True]), **q("a", make(2, 3), 0.02, z), **q("b", make(2, 3), 0.03, z + 1), **end}
        case(f"qwhere_{t}", "QLinearWhere", pick)


def pools():
    for t, make, z in (("u8", u8, 100), ("i8", i8, -3)):
        x = make(2, 3, 6, 7)
        end = {"sy": f32(0.015), "zy": np.array(z, x.dtype)}
        last = np.ascontiguousarray(np.moveaxis(x, 1, 3))
        for name, v, more in (("", x, {}), ("_last", last, {"channels_last": 1})):
            ins = {**q("a", v, 0.02, z), **end}
            case(f"qavg_{t}{name}", "QLinearAveragePool", ins, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], **more)
            case(f"qavg_{t}_count{name}", "QLinearAveragePool", ins, kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                 count_include_pad=1, strides=[2, 2], **more)
            case(f"qavg_{t}_ceil{name}", "QLinearAveragePool", ins, kernel_shape=[3, 3], ceil_mode=1, strides=[2, 2], **more)
            case(f"qglobal_{t}{name}", "QLinearGlobalAveragePool", ins, **more)
        case(f"nhwc_max_{t}", "NhwcMaxPool", {"x": last}, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])
        case(f"nhwc_max_{t}_ceil", "NhwcMaxPool", {"x": last}, kernel_shape=[2, 2], dilations=[2, 1], ceil_mode=1, strides=[2, 2])


def convolutions():
    x, w = u8(2, 6, 7, 4), i8(6, 4, 3, 3)
    ins = {**q("x", x, 0.02, 100), "w": w, "sw": np.abs(f(6)) * 0.01 + 0.01, "zw": np.zeros(6, np.int8), "sy": f32(0.1),
           "zy": np.array(110, np.uint8), "b": np.arange(-300, 300, 100).astype(np.int32)}
    case("qconv_last", "QLinearConv", ins, channels_last=1, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 1])
    first = {**ins, "x": np.ascontiguousarray(np.moveaxis(x, 3, 1))}
    case("qconv_first", "QLinearConv", first, oracle=None, kernel_shape=[3, 3])
    deep = {**ins, "w": i8(4, 1, 3, 3), "sw": f32(0.02), "zw": np.array(0, np.int8), "b": None}
    case("qconv_depthwise", "QLinearConv", deep, channels_last=1, kernel_shape=[3, 3], group=4)


def linear():
    x = f(3, 5)
    case("quantize", "QuantizeLinear", {"x": x, "s": f32(0.01), "z": np.array(30000, np.uint16)})
    case("quantize_i16", "QuantizeLinear", {"x": x, "s": np.abs(f(5)) * 0.01, "z": np.zeros(5, np.int16)}, axis=1)
    x = np.arange(6, dtype=np.int16).reshape(2, 3) * 99
    case("dequantize", "DequantizeLinear", {"x": x, "s": f32(0.01), "z": np.array(5, np.int16)})
    case("dequantize_i32", "DequantizeLinear", {"x": np.arange(6, dtype=np.int32).reshape(2, 3) * 99999, "s": f32(0.01)})


def lstm():
    """The same weights in an LSTM; ONNX Runtime's own quantizes the other factors, too, so it must only come near."""
    from cases import model_of, run

    t, b, i, n = 4, 2, 3, 5
    for name, dirs, columns in (("forward", 1, False), ("bidirectional", 2, True)):
        size = (dirs, 4 * n) if columns else (dirs,)
        w, r, quant = u8(dirs, i, 4 * n), u8(dirs, n, 4 * n), {}
        for k in "wr":
            quant["s" + k], quant["z" + k] = np.abs(f(*size)) * 0.002 + 0.002, np.full(size, 120, np.uint8)
        ins = {"x": f(t, b, i), "w": w, "r": r, "b": f(dirs, 8 * n) * 0.3, "n": i32([4, 2]), "h": f(dirs, b, n),
               "c": f(dirs, b, n), "p": f(dirs, 3 * n) * 0.2}
        plain = dict(ins)
        for k in "wr":
            s, z = (v.reshape(dirs, 1, -1) for v in (quant["s" + k], quant["z" + k]))
            plain[k] = np.ascontiguousarray(((ins[k].astype(np.float32) - z) * s).transpose(0, 2, 1))
        attrs = {"hidden_size": n, "direction": name}
        ys = [("y", None), ("h1", None), ("c1", None)]
        expected = run(model_of([h.make_node("LSTM", list(plain), [o for o, _ in ys], **attrs)], plain, ys, {}), plain)
        full = {k: v for k, v in ins.items() if k not in "wr"}
        near = {"w": ins["w"], "r": ins["r"], **quant}
        node = h.make_node("DynamicQuantizeLSTM", [*ins, *quant], [o for o, _ in ys], domain="com.microsoft", **attrs)
        for e, g in zip(expected, run(model_of([node], full, ys, near), full)):
            assert np.abs(e - g).max() < 0.05, np.abs(e - g).max()
        case(f"dynamic_lstm_{name}", "DynamicQuantizeLSTM", {**ins, **quant}, outputs=("y", "h1", "c1"), expected=expected,
             **attrs)


def make():
    lstm()
    elementwise()
    pools()
    convolutions()
    linear()
