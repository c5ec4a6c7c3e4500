"""com.microsoft's forms of standard operators, integer sums, distances and windows."""
import numpy as np

from cases import case, f, f32, i8, i32, rng, u8


def i64(*value):
    return np.array(value, np.int64)


def standard_forms():
    case("range", "Range", {"a": f32(0.5), "b": f32(4.1), "d": f32(0.7)})
    case("range_vectors", "Range", {"a": i64(3), "b": i64(9)})
    case("expand_dims", "ExpandDims", {"x": f(2, 3)}, consts={"axis": np.array(1, np.int32)})
    case("expand_dims_back", "ExpandDims", {"x": f(2, 3)}, consts={"axis": np.array(-1, np.int32)})
    case("pad", "Pad", {"x": f(2, 3)}, consts={"p": i64(1, 0, -1, 2), "v": f32([0.5])})
    case("pad_edge", "Pad", {"x": f(2, 3)}, consts={"p": np.array([[0, 2, 1, 0]], np.int64)}, mode="edge")
    case("pad_late", "Pad", {"x": f(2, 3), "p": i64(1, 0, 0, 2), "v": f32([0.25])}, dims={"p": [4]})
    case("gathernd", "GatherND", {"x": f(3, 4, 2), "i": i32([[0, 1], [2, 3]])})
    grid = rng.uniform(-1.2, 1.2, (1, 3, 5, 2)).astype(np.float32)
    for mode in ("bilinear", "nearest", "bicubic"):
        case(f"gridsample_{mode}", "GridSample", {"x": f(1, 2, 4, 6), "g": grid}, mode=mode)
    case("unique", "Unique", {"x": f32([2, 1, 1, 3, 4, 3])}, outputs=("y", "i", "n"))
    case("torch_embedding", "TorchEmbedding", {"w": (w := f(5, 3)), "i": (i := np.array([[4, 0], [2, 2]]))}, expected=[w[i]])
    case("conv_transpose_pads", "ConvTransposeWithDynamicPads", {"x": f(1, 2, 4, 5), "w": f(2, 3, 3, 3)},
         consts={"p": i64(1, 1, 1, 1), "b": f(3)}, strides=[2, 2], output_padding=[1, 1])
    x, b, r = f(2, 3), f(3), f(2, 3)
    case("bias_dropout", "BiasDropout", {"x": x, "b": b, "r": r}, outputs=("y", "m"), expected=[x + b + r, np.ones((2, 3), bool)])
    case("fused_matmul_activation", "FusedMatMulActivation", {"a": (a := f(5, 3)), "b": (c := f(5, 4))}, transA=1, alpha=0.5,
         activation="LeakyRelu", activation_alpha=0.1, expected=[np.where((y := 0.5 * (a.T @ c)) < 0, np.float32(0.1) * y, y)])


def integers():
    a, b = u8(3, 4), u8(4)
    z = [np.array(v, np.uint8) for v in (7, 130)]
    case("mul_integer", "MulInteger", {"a": a, "za": z[0], "b": b, "zb": z[1]},
         expected=[(a.astype(np.int32) - 7) * (b.astype(np.int32) - 130)])
    a, b = i8(3, 4), i8(3, 1)
    case("mul_integer_i8", "MulInteger", {"a": a, "za": None, "b": b}, expected=[a.astype(np.int32) * b])
    a, b = (rng.integers(-3000, 3000, s).astype(np.int16) for s in ((2, 3, 5), (5, 4)))
    case("matmul_integer16", "MatMulInteger16", {"a": a, "b": b})
    x = i8(2, 3, 4)
    case("reduce_sum_integer", "ReduceSumInteger", {"x": x}, axes=[1], keepdims=0, expected=[x.sum(1, dtype=np.int32)])
    x, s, t = u8(2, 3, 4), f32(0.02), f32(0.011)
    mean = (x.astype(np.float32) - 100).astype(np.float32).mean(2, keepdims=True) * s / t
    case("qlinear_reduce_mean", "QLinearReduceMean", {"x": x, "s": s, "z": np.array(100, np.uint8), "t": t,
                                                      "w": np.array(128, np.uint8)},
         axes=[2], keepdims=1, expected=[np.clip(np.rint(mean) + 128, 0, 255).astype(np.uint8)])


def compositions():
    for metric in ("euclidean", "sqeuclidean"):
        case(f"cdist_{metric}", "CDist", {"a": f(4, 3), "b": f(5, 3)}, metric=metric)
    case("unfold", "UnfoldTensor", {"x": f(2, 7, 3)}, dim=1, size=3, step=2)
    case("unfold_last", "UnfoldTensor", {"x": f(2, 7)}, dim=-1, size=4)
    bad, worse = f(2, 3), f(4)
    bad[1, 1], worse[2] = np.inf, np.nan
    for name, ins, attrs, want in (("", {"x": f(3), "v": f(2, 2)}, {}, True), ("_inf", {"x": bad, "v": f(2)}, {}, False),
                                   ("_nan_only", {"x": bad}, {"isnan_only": 1}, True), ("_nan", {"x": worse}, {}, False),
                                   ("_inf_only", {"x": worse}, {"isinf_only": 1}, True)):
        case(f"all_finite{name}", "IsAllFinite", ins, expected=[np.array(want)], **attrs)
    x, w, b = f(3, 5), f(5, 4), f(4)
    case("gemm_fast_gelu", "GemmFastGelu", {"x": x, "w": w, "b": b}, expected=[gelu(x @ w + b)])
    x = f(2, 3, 8)
    y = np.fft.rfft(x.astype(np.float64))
    case("rfft", "Rfft", {"x": x}, signal_ndim=1, expected=[np.stack([y.real, y.imag], -1).astype(np.float32)])


def gelu(x):
    return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))).astype(np.float32)


def make():
    standard_forms()
    integers()
    compositions()
