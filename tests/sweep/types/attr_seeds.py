"""Seeds for attributes that no node test sets to another value than their default (coverage.py finds them)."""
import copy

import numpy as np
import onnx.helper as h
from onnx import TensorProto, numpy_helper as nh

from own_seeds import ML, f, i64, rng, seed
from retype import set_attr


def quantized(*shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


def reductions():
    for op in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
        x = np.abs(f(2, 3)) + 0.5
        yield seed("noop", "Reduce" + op, [x], noop_with_empty_axes=1)
        yield seed("noop_empty", "Reduce" + op, [x, i64()], noop_with_empty_axes=1)
        yield seed("axes", "Reduce" + op, [x], axes=[1], keepdims=0)  # as versions before 18 (13) had them
        yield seed("noop_axis", "Reduce" + op, [x, i64(1)], noop_with_empty_axes=1, keepdims=0)


def convolutions():
    x, w = quantized(1, 4, 7, 6), quantized(2, 4, 3, 3)
    zero = [np.uint8(3), np.uint8(5)]
    scales = [np.float32(0.02), np.uint8(120), w, np.float32(0.01), np.uint8(128), np.float32(0.5), np.uint8(100)]
    forms = (("dilated", {"dilations": [2, 1], "kernel_shape": [3, 3], "pads": [1, 0, 2, 1]}), ("upper",
            {"auto_pad": "SAME_UPPER",
             "strides": [2, 3]}), ("lower", {"auto_pad": "SAME_LOWER", "strides": [3, 2]}), ("valid", {"auto_pad": "VALID"}))
    for name, attrs in forms:
        yield seed(name, "ConvInteger", [x, w] + zero, **attrs)
        yield seed(name, "QLinearConv", [x] + scales, **attrs)
    grouped = quantized(4, 2, 3, 3)
    yield seed("groups", "ConvInteger", [x, grouped] + zero, group=2)
    yield seed("groups", "QLinearConv", [x] + scales[:2] + [grouped] + scales[3:], group=2)
    yield seed("strides", "DeformConv", [f(1, 2, 7, 7), f(2, 2, 2, 2), f(1, 8, 3, 3) * 0.3], strides=[2, 2], pads=[0, 0, 0, 0])
    yield seed("dilated", "DeformConv", [f(1, 2, 6, 6), f(2, 2, 2, 2), f(1, 8, 4, 4) * 0.3], dilations=[2, 2], pads=[0, 0,
            0, 0])
    yield seed("groups", "DeformConv", [f(1, 2, 4, 4), f(2, 1, 2, 2), f(1, 8, 3, 3) * 0.3], group=2, pads=[0, 0, 0, 0])
    yield seed("ceil", "LpPool", [f(1, 2, 6, 6)], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, p=3)
    yield seed("unpads", "MaxUnpool", [f(1, 1, 2, 2), i64(0, 2, 6, 8).reshape(1, 1, 2, 2)], kernel_shape=[2, 2],
            strides=[2, 2],
               pads=[1, 0, 0, 1])


def types_and_rounding():
    x = np.array([0.3, 0.75, 1.5, 2.9, 5.0, 100.0, 3e-5], np.float32)
    for mode in ("up", "down", "nearest"):
        yield seed(mode, "Cast", [x], to=TensorProto.FLOAT8E8M0, round_mode=mode)
        yield seed(mode, "CastLike", [x, np.array([1.0]).astype(h.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E8M0))],
                round_mode=mode)
    big = np.array([500.0, -1e6, 3.0, np.inf, np.nan], np.float32)
    for name in ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"):
        code = getattr(TensorProto, name)
        for saturate in (0, 1):
            yield seed(f"{name}_{saturate}", "Cast", [big], to=code, saturate=saturate)
            yield seed(f"{name}_{saturate}", "QuantizeLinear", [big, np.float32(0.5),
                    np.array(0).astype(h.tensor_dtype_to_np_dtype(code))],
                       saturate=saturate)
    for code in (TensorProto.FLOAT, TensorProto.FLOAT16):
        yield seed(f"precision_{code}", "QuantizeLinear", [f(3, 4), np.float32(0.03), np.int8(3)], precision=code)
    for code in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        yield seed(f"result_{code}", "DequantizeLinear", [quantized(3, 4), np.float32(0.03), np.uint8(100)], output_dtype=code)
    for code in (TensorProto.FLOAT, TensorProto.DOUBLE):
        yield seed(f"stash_{code}", "Range", [np.float16(0.5), np.float16(4.0), np.float16(0.3)], stash_type=code)
        yield seed(f"stash_{code}", "GroupNormalization", [f(2, 4, 3), f(4), f(4)], num_groups=2, stash_type=code)
        yield seed(f"stash_{code}", "RMSNormalization", [f(2, 4, 3), f(3)], stash_type=code)
    sparse = h.make_sparse_tensor(nh.from_array(np.array([2.5, -1.0], np.float32)), nh.from_array(i64(1, 5)), [2, 3])
    yield seed("sparse", "Constant", [], sparse_value=sparse)


def recurrent():
    x = f(4, 3, 2)
    yield seed("alpha", "GRU", [x, f(1, 15, 2) * 0.4, f(1, 15, 5) * 0.4], num_out=2, hidden_size=5,
               activations=["HardSigmoid", "ScaledTanh"], activation_alpha=[0.3, 0.8], activation_beta=[0.4, 0.7])
    yield seed("alpha", "LSTM", [x, f(1, 20, 2) * 0.4, f(1, 20, 5) * 0.4], num_out=3, hidden_size=5,
               activations=["HardSigmoid", "Affine", "ScaledTanh"], activation_alpha=[0.3, 0.8, 0.9], activation_beta=[0.4,
                       0.1, 0.7])


def others():
    yield seed("scale", "RoiAlign", [f(1, 2, 8, 8), np.array([[0, 0, 9, 9], [2, 3, 11, 14]], np.float32), i64(0, 0)],
            spatial_scale=0.5,
               output_height=2, output_width=3, sampling_ratio=2)
    yield seed("twosided", "STFT", [f(1, 16, 1), np.int64(4), None, np.int64(8)], onesided=0)
    yield seed("locale", "StringNormalizer", [np.array(["Ab", "cD"], object)], case_change_action="LOWER", locale="en_US")
    yield seed("unsorted", "TopK", [f(3, 6), i64(6)], num_out=2, sorted=0, axis=1)
    v, x = [h.make_tensor_value_info(n, 1, [3]) for n in ("v", "e")], f(3, 4)
    body = h.make_graph([h.make_node("Add", ["v", "e"], ["w"]), h.make_node("Mul", ["v", "e"], ["s"])], "b", v,
                        [h.make_tensor_value_info(n, 1, [3]) for n in ("w", "s")])
    yield seed("directions", "Scan", [f(3), x], num_out=2, body=body, num_scan_inputs=1, scan_input_axes=[1],
            scan_input_directions=[1],
               scan_output_axes=[1], scan_output_directions=[1])
    yield seed("axis", "TensorScatter", [f(2, 4, 3), f(2, 2, 3), i64(1, 0)], axis=1)
    for post in ("SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
        sv = {"coefficients": f(6).tolist(), "support_vectors": f(30).tolist(), "kernel_params": [0.3, 0.5, 3.0],
                "kernel_type": "RBF"}
        yield seed(post, "SVMClassifier", [f(4, 5)], num_out=2, rho=[0.2], vectors_per_class=[3, 3], classlabels_ints=[4, 7],
                   post_transform=post, **sv, **ML)
        yield seed(post, "SVMRegressor", [f(4, 5)], n_supports=6, rho=[0.7], post_transform=post, **sv, **ML)
    grams = {"mode": "TFIDF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1, "ngram_counts": [0, 2],
             "ngram_indexes": [0, 2, 1], "weights": [2.0, 0.5, 3.0]}
    yield seed("words", "TfIdfVectorizer", [np.array(["a", "b", "a", "c"], object)], pool_strings=["a", "b", "a", "c"], **grams)
    yield seed("numbers", "TfIdfVectorizer", [i64(3, 4, 3, 5)], pool_int64s=[3, 4, 3, 5], **grams)


# node test -> (name, attributes to change)
VARIANTS = {
    "linear_attention_gated_delta": [("chunked", {"chunk_size": 2})],
    "adam": [("post", {"norm_coefficient_post": 0.25})],
    "flexattention": [("precise", {"softmax_precision": 11})],
    "ai_onnx_ml_tree_ensemble_single_tree": [
        (f"aggregate{a}_post{p}", {"aggregate_function": a, "post_transform": p}) for a in range(4) for p in range(5)]
    + [("missing", {"nodes_missing_value_tracks_true": [0, 1, 1], "nodes_hitrates": nh.from_array(np.ones(3))})]}


def variants(tests):
    for found in tests.values():
        for s in list(found):
            for name, attrs in VARIANTS.get(s.name, []):
                new = copy.deepcopy(s)
                new.name, new.outputs = name, []
                for a, v in attrs.items():
                    set_attr(new.node, a, v)
                yield new


def seeds_of(tests):
    for source in (reductions(), convolutions(), types_and_rounding(), recurrent(), others(), variants(tests)):
        yield from source
