"""Fused activations, convolutions, normalizations and embeddings of com.microsoft."""
import numpy as np

from cases import case, f, i32


def activations():
    for op in ("Gelu", "FastGelu", "QuickGelu"):
        case(op, op, {"x": f(3, 5)})
    case("QuickGelu_alpha", "QuickGelu", {"x": f(3, 5)}, alpha=0.7)
    case("FastGelu_bias", "FastGelu", {"x": f(2, 3, 5), "b": f(5)})
    case("BiasGelu", "BiasGelu", {"x": f(2, 3, 5), "b": f(5)})
    case("trilu", "Trilu", {"a": f(3, 6)}, upper=0)
    case("trilu_k", "Trilu", {"a": f(2, 4, 6), "k": np.array(1, np.int64)})
    case("trilu_below", "Trilu", {"a": np.arange(20, dtype=np.int64).reshape(4, 5), "k": np.array(-1, np.int64)}, upper=0)


def convolutions():
    x, w, b = f(2, 3, 6, 7), f(4, 3, 3, 3), f(4)
    attrs = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    for act, params in (("Relu", []), ("Sigmoid", []), ("Tanh", []), ("LeakyRelu", [0.2]), ("Clip", [-0.3, 0.8]),
                        ("HardSigmoid", [0.3, 0.4])):
        more = {"activation_params": params} if params else {}
        case(f"fused_conv_{act}", "FusedConv", {"x": x, "w": w, "b": b}, activation=act, **attrs, **more)
    case("fused_conv_sum", "FusedConv", {"x": x, "w": w, "b": b, "z": f(2, 4, 6, 7)}, activation="Relu", **attrs)
    case("fused_conv_sum_no_bias", "FusedConv", {"x": x, "w": f(3, 1, 3, 3), "b": None, "z": f(2, 3, 3, 4)}, activation="Relu",
         group=3, strides=[2, 2], **attrs)
    for name, op in (("nhwc_conv", "NhwcConv"), ("nhwc_fused_conv", "NhwcFusedConv")):
        last = np.ascontiguousarray(np.moveaxis(x, 1, 3))
        y = conv(x, w, b)
        more = {}
        ins = {"x": last, "w": w, "b": b}
        if op == "NhwcFusedConv":
            ins["z"] = f(2, 6, 7, 4)
            y = np.maximum(y + np.moveaxis(ins["z"], 3, 1), 0)
            more = {"activation": "Relu"}
        case(name, op, ins, expected=[np.ascontiguousarray(np.moveaxis(y, 1, 3))], **attrs, **more)


def conv(x, w, b):
    """3x3, padding 1."""
    p = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (1, 1), (1, 1)])
    y = sum(np.einsum("nchw,mc->nmhw", p[:, :, i : i + x.shape[2], j : j + x.shape[3]], w[:, :, i, j].astype(np.float64))
            for i in range(3) for j in range(3))
    return (y + b[None, :, None, None]).astype(np.float32)


def normalizations():
    x, s, g, b, e = f(2, 3, 8), f(2, 3, 8), f(8), f(8), f(8)
    skip = {"x": x, "s": s, "g": g}
    case("skip_ln", "SkipLayerNormalization", {**skip, "b": b, "e": e}, outputs=("y", "", "", "sum"))
    case("skip_ln_eps", "SkipLayerNormalization", {**skip, "b": b}, epsilon=0.1)
    case("skip_ln_no_beta", "SkipLayerNormalization", {**skip, "b": None, "e": e})
    for name, row in (("row", f(1, 3, 8)), ("rows", f(3, 8))):
        case(f"skip_ln_{name}", "SkipLayerNormalization", {**skip, "s": row, "b": b}, outputs=("y", "", "", "sum"))
    case("skip_ln_stats", "SkipLayerNormalization", {**skip, "b": b}, outputs=("y", "m", "r"),
         expected=[*ln(x + s, g, b)])
    case("skip_rms", "SkipSimplifiedLayerNormalization", {**skip, "e": e}, outputs=("y", "", "", "sum"))
    case("skip_rms_matrix", "SkipSimplifiedLayerNormalization", {"x": x[0], "s": s[0], "g": g}, epsilon=0.01)
    case("rms", "SimplifiedLayerNormalization", {"x": x, "g": g}, domain="ai.onnx", outputs=("y", "r"), axis=-1, epsilon=1e-3,
         stash_type=1)
    case("rms_axis", "SimplifiedLayerNormalization", {"x": x, "g": f(3, 8)}, domain="ai.onnx", axis=1)
    ids, seg = np.array([[1, 5, 2], [4, 0, 3]], np.int32), np.array([[0, 0, 1], [1, 1, 0]], np.int32)
    table = {"words": f(6, 8), "pos": f(4, 8), "types": f(2, 8), "g": g, "b": b}
    case("embed", "EmbedLayerNormalization", {"ids": ids, "seg": seg, **table, "m": i32([[1, 1, 0], [1, 1, 1]])},
         outputs=("y", "index", "sum"))
    case("embed_no_mask", "EmbedLayerNormalization", {"ids": ids, "seg": seg, **table}, outputs=("y", "index"))
    case("embed_positions", "EmbedLayerNormalization",
         {"ids": ids, "seg": None, **{**table, "types": None}, "m": None, "at": i32([[2, 0, 3], [1, 1, 2]])}, outputs=("y", ""),
         epsilon=0.01)


def ln(x, g, b):
    m = x.mean(-1, keepdims=True)
    r = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return ((x - m) * r * g + b).astype(np.float32), m.astype(np.float32), r.astype(np.float32)


def images():
    x, g, b = f(2, 6, 4, 5), f(6), f(6)
    y = groupnorm(x, g, b, 3)
    last = np.ascontiguousarray(np.moveaxis(x, 1, 3))
    case("group_norm", "GroupNorm", {"x": last, "g": g, "b": b}, groups=3, activation=1,
         expected=[np.ascontiguousarray(np.moveaxis(y / (1 + np.exp(-y)), 1, 3)).astype(np.float32)])
    s, e = f(2, 6), f(6)
    total = x + s[:, :, None, None] + e[None, :, None, None]
    case("skip_group_norm", "SkipGroupNorm", {"x": x, "g": g, "b": b, "s": s, "e": e}, groups=2, activation=0, channels_last=0,
         outputs=("y", "sum"), expected=[groupnorm(total, g, b, 2).astype(np.float32), total])
    x = f(2, 3, 8)
    case("bias_add", "BiasAdd", {"x": x, "b": e[:1] * np.ones(8, np.float32), "s": f(2, 3, 8) * 0 + 1},
         expected=[x + e[0] + 1])
    b = f(8)
    a, c = np.split(x + b, 2, -1)
    case("bias_split_gelu", "BiasSplitGelu", {"x": x, "b": b}, expected=[(a * gelu(c)).astype(np.float32)])
    b = f(2, 1, 4)
    x = f(2, 3, 4)
    z = np.exp(x + b)
    case("bias_softmax", "BiasSoftmax", {"x": x, "b": b}, axis=2, is_inner_broadcast=1, expected=[z / z.sum(-1, keepdims=True)])


def gelu(x):
    from math import erf

    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def groupnorm(x, g, b, groups):
    v = x.reshape(x.shape[0], groups, -1).astype(np.float64)
    v = (v - v.mean(-1, keepdims=True)) / np.sqrt(v.var(-1, keepdims=True) + 1e-5)
    return v.reshape(x.shape) * g[None, :, None, None] + b[None, :, None, None]


def inverse():
    case("inverse", "Inverse", {"x": f(2, 3, 5, 5)})
    case("inverse_pivots", "Inverse", {"x": np.array([[0, 2.0], [4, 0]])})
    case("inverse_one", "Inverse", {"x": f(4, 1, 1)})


def make():
    inverse()
    activations()
    convolutions()
    normalizations()
    images()
