"""Matrix products of com.microsoft."""
import numpy as np

from cases import case, f, f32, i8, i32, u8


def zero(value, t=np.uint8):
    return np.array(value, t)


def floats():
    case("fused_matmul", "FusedMatMul", {"a": f(2, 5, 3), "b": f(2, 4, 5)}, transA=1, transB=1, alpha=0.3)
    case("fused_matmul_batch_a", "FusedMatMul", {"a": f(3, 2, 5), "b": f(2, 5, 4)}, transBatchA=1)
    case("fused_matmul_batch_b", "FusedMatMul", {"a": f(2, 4, 3, 5), "b": f(6, 2, 4, 5)}, transBatchB=1, transB=1)
    case("fused_matmul_batch_both", "FusedMatMul", {"a": f(5, 2, 3), "b": f(5, 2, 4)}, transBatchA=1, transA=1, transBatchB=1)
    case("transpose_matmul", "TransposeMatMul", {"a": f(2, 5, 3), "b": f(2, 5, 4)}, transA=1, alpha=2.0)
    for act, params in (("Relu", {}), ("LeakyRelu", {"activation_alpha": 0.2}), ("Sigmoid", {}), ("Tanh", {}),
                        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}), ("Elu", {"activation_alpha": 0.7}),
                        ("Softplus", {}), ("Softsign", {}), ("Selu", {"activation_alpha": 1.1, "activation_gamma": 1.3}),
                        ("ThresholdedRelu", {"activation_alpha": 0.4})):
        case(f"fused_gemm_{act}", "FusedGemm", {"a": f(3, 5), "b": f(4, 5), "c": f(4)}, transB=1, activation=act, alpha=0.5,
             beta=0.7, **params)
    case("fused_gemm_no_c", "FusedGemm", {"a": f(5, 3), "b": f(5, 4)}, transA=1, activation="Relu")


def integers():
    scales = {"sa": f32([0.1]), "sb": f(4), "za": u8(1), "zb": u8(4), "bias": f(4)}
    for t, make in (("u8", u8), ("i8", i8)):
        z = {} if t == "u8" else {"za": u8(1), "zb": i8(4)}
        case(f"integer_to_float_{t}", "MatMulIntegerToFloat", {"a": u8(3, 6), "b": make(6, 4), **scales, **z})
        case(f"integer_to_float_{t}_no_zero", "MatMulIntegerToFloat",
             {"a": u8(3, 6), "b": make(6, 4), "sa": f32(0.1), "sb": f32(0.3), "za": None, "zb": None, "bias": f(4)})
        case(f"dynamic_quantize_matmul_{t}", "DynamicQuantizeMatMul",
             {"a": f(3, 6), "b": make(6, 4), "sb": np.abs(f(4)), "zb": make(4), "bias": f(4)})
    case("dynamic_quantize_matmul_short", "DynamicQuantizeMatMul", {"a": f(2, 3, 6), "b": u8(6, 4), "sb": f32([0.1])})
    a = {"a": u8(3, 6), "sa": f32(0.1), "za": zero(7)}
    c = {"c": rng_i32(-99, 99, 4), "sy": f32(3.0), "zy": zero(9)}
    case("qgemm", "QGemm", {**a, "b": u8(4, 6), "sb": f32(0.05), "zb": zero(3), **c}, transB=1)
    case("qgemm_float", "QGemm", {**a, "b": u8(6, 4), "sb": f32(0.05), "zb": zero(3)}, alpha=0.5)
    case("qgemm_columns", "QGemm", {"a": u8(6, 3), "sa": f32(0.1), "za": zero(7), "b": i8(6, 4), "sb": np.abs(f(4)), "zb": i8(4),
                                    "c": rng_i32(-99, 99, 3, 4)}, transA=1)
    case("qgemm_i8", "QGemm", {"a": i8(3, 6), "sa": f32(0.1), "za": zero(-7, np.int8), "b": i8(6, 4), "sb": f32(0.05),
                               "zb": zero(3, np.int8), "c": None, "sy": f32(0.5), "zy": zero(-9, np.int8)})


def rng_i32(lo, hi, *shape):
    from cases import rng

    return rng.integers(lo, hi, shape).astype(np.int32)


def nbits():
    for bits in (2, 4, 8):
        for k in (64, 40):
            blocks = (k + 31) // 32
            weights = {"b": u8(5, blocks, 32 * bits // 8), "s": f(5 * blocks)}
            attrs = {"K": k, "N": 5, "bits": bits, "block_size": 32}
            case(f"nbits_{bits}_{k}", "MatMulNBits", {"a": f(3, k)}, consts=weights, **attrs)
            weights["z"] = u8(5 * ((blocks * bits + 7) // 8))
            case(f"nbits_{bits}_{k}_zero", "MatMulNBits", {"a": f(2, 3, k)}, consts=weights, **attrs)
    weights = {"b": u8(5, 2, 16), "s": f(10), "z": f(10)}
    attrs = {"K": 64, "N": 5, "bits": 4, "block_size": 32}
    case("nbits_float_zero", "MatMulNBits", {"a": f(3, 64)}, consts=weights, **attrs)
    groups = np.arange(64) * 7 % 2
    weights = {"b": u8(5, 2, 16), "s": f(10), "z": None, "g": i32(groups)}
    case("nbits_groups", "MatMulNBits", {"a": f(3, 64)}, consts=weights, **attrs)
    weights["z"], x = u8(5), f(3, 64)  # ONNX Runtime forgets zero points that come with groups
    value, low = nibbles(weights["b"], 64), nibbles(weights["z"], 2)
    w = (value - low[:, groups]) * weights["s"].reshape(5, 2)[:, groups]
    case("nbits_groups_zero", "MatMulNBits", {"a": x}, consts=weights, expected=[(x @ w.T).astype(np.float32)], **attrs)
    weights = {"b": u8(5, 2, 16), "s": f(10), "z": u8(5), "g": None, "bias": f(5)}
    case("nbits_bias", "MatMulNBits", {"a": f(3, 64)}, consts=weights, **attrs)
    for bits in (2, 4, 8):  # weights that are no constants
        attrs = {"K": 40, "N": 5, "bits": bits, "block_size": 32}
        weights = {"a": f(2, 3, 40), "b": u8(5, 2, 32 * bits // 8), "s": f(10)}
        case(f"nbits_late_{bits}", "MatMulNBits", weights, **attrs)
        case(f"nbits_late_{bits}_zero", "MatMulNBits", weights | {"z": u8(5 * ((2 * bits + 7) // 8))}, **attrs)
    attrs = {"K": 64, "N": 5, "bits": 4, "block_size": 32}
    weights = {"a": f(3, 64), "b": u8(5, 2, 16), "s": f(10)}
    case("nbits_late_bias", "MatMulNBits", weights | {"z": f(10), "g": None, "bias": f(5)}, **attrs)
    case("nbits_late_groups", "MatMulNBits", weights | {"z": None, "g": i32(groups)}, **attrs)


def nibbles(x, n):
    return np.stack([x & 15, x >> 4], -1).reshape(5, n).astype(np.float64)


def make():
    floats()
    integers()
    nbits()
