"""Cases of operators outside the ONNX node tests, with ONNX Runtime's results: com.microsoft products and ai.onnx.ml models.

usage: make_cases.py FOLDER (test folders are written into it, as `zenithc check` reads them)
"""
import os
import sys

import numpy as np
import onnx
import onnx.helper as h
import onnxruntime as ort
from onnx import numpy_helper as nh

out = sys.argv[1]
rng = np.random.default_rng(1)
KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def u8(*shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


def f32(value):
    return np.array(value, np.float32)


def zero(value):
    return np.array(value, np.uint8)


def case(name, op, inputs, domain="com.microsoft", consts=None, outputs=(("y", 1),), **attrs):
    consts = consts or {}
    node = h.make_node(op, [*inputs, *consts], [o for o, _ in outputs], domain=domain, **attrs)
    values = [h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in inputs.items()]
    results = [h.make_tensor_value_info(o, t, None) for o, t in outputs]
    graph = h.make_graph([node], name, values, results, [nh.from_array(a, n) for n, a in consts.items()])
    opsets = [h.make_opsetid("", 18), h.make_opsetid("com.microsoft", 1), h.make_opsetid("ai.onnx.ml", 3)]
    model = h.make_model(graph, opset_imports=opsets, ir_version=8)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, inputs)
    folder = f"{out}/{name}/test_data_set_0"
    os.makedirs(folder, exist_ok=True)
    onnx.save(model, f"{out}/{name}/model.onnx")
    for what, arrays in (("input", inputs.values()), ("output", expected)):
        for i, a in enumerate(arrays):
            with open(f"{folder}/{what}_{i}.pb", "wb") as file:
                file.write(nh.from_array(np.asarray(a)).SerializeToString())


def contrib():
    case("fused_matmul", "FusedMatMul", {"a": f(2, 5, 3), "b": f(2, 4, 5)}, transA=1, transB=1, alpha=0.3)
    case("fused_gemm_relu", "FusedGemm", {"a": f(3, 5), "b": f(4, 5), "c": f(4)}, transB=1, activation="Relu", alpha=0.5)
    case("fused_gemm_leaky", "FusedGemm", {"a": f(3, 5), "b": f(5, 4)}, activation="LeakyRelu", activation_alpha=0.2)
    scales = {"sa": f32([0.1]), "sb": f(4), "za": u8(1), "zb": u8(4), "bias": f(4)}
    case("matmul_integer_to_float", "MatMulIntegerToFloat", {"a": u8(3, 6), "b": u8(6, 4), **scales})
    case("dynamic_quantize_matmul", "DynamicQuantizeMatMul",
         {"a": f(3, 6), "b": u8(6, 4), "sb": f32([0.1]), "zb": u8(1), "bias": f(4)})
    a = {"a": u8(3, 6), "sa": f32(0.1), "za": zero(7)}
    c = {"c": rng.integers(-99, 99, 4).astype(np.int32), "sy": f32(3.0), "zy": zero(9)}
    case("qgemm", "QGemm", {**a, "b": u8(4, 6), "sb": f32(0.05), "zb": zero(3), **c}, outputs=(("y", 2),), transB=1)
    case("qgemm_float", "QGemm", {**a, "b": u8(6, 4), "sb": f32(0.05), "zb": zero(3)}, alpha=0.5)
    case("trilu", "Trilu", {"a": f(3, 6)}, upper=0)
    for k in (64, 40):
        blocks = (k + 31) // 32
        weights = {"b": u8(5, blocks, 16), "s": f(5 * blocks)}
        attrs = {"K": k, "N": 5, "bits": 4, "block_size": 32}
        case(f"matmul_nbits_{k}", "MatMulNBits", {"a": f(3, k)}, consts=weights, **attrs)
        weights["z"] = u8(5 * ((blocks + 1) // 2))
        case(f"matmul_nbits_{k}_zero", "MatMulNBits", {"a": f(3, k)}, consts=weights, **attrs)


def classical():
    ml = {"domain": "ai.onnx.ml"}
    for norm in ("L1", "L2"):
        case(f"normalizer_{norm}", "Normalizer", {"x": f(4, 5)}, norm=norm, **ml)
    categories = {"cats_int64s": [3, 1, 7], "zeros": 1}
    case("one_hot_encoder", "OneHotEncoder", {"x": np.array([[1, 3], [9, 7]])}, **categories, **ml)
    case("one_hot_encoder_float", "OneHotEncoder", {"x": f32([1, 3, 7])}, **categories, **ml)
    for post in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
        case(f"linear_regressor_{post}", "LinearRegressor", {"x": f(4, 5)}, coefficients=f(10).tolist(),
             intercepts=f(2).tolist(), targets=2, post_transform=post, **ml)
        for labels in ([5, 2, 9], [5, 2]):
            n = len(labels)
            case(f"linear_classifier_{n}_{post}", "LinearClassifier", {"x": f(6, 5)}, coefficients=f(5 * n).tolist(),
                 intercepts=f(n).tolist(), classlabels_ints=labels, post_transform=post, outputs=(("l", 7), ("y", 1)), **ml)
    for kernel in KERNELS:
        case(f"svm_regressor_{kernel}", "SVMRegressor", {"x": f(4, 5)}, coefficients=f(6).tolist(),
             support_vectors=f(30).tolist(), kernel_params=[0.3, 0.5, 3.0], kernel_type=kernel, n_supports=6, rho=[0.7], **ml)
    case("svm_regressor_linear_form", "SVMRegressor", {"x": f(4, 5)}, coefficients=f(5).tolist(),
         kernel_params=[0.3, 0.5, 3.0], kernel_type="LINEAR", rho=[0.7], **ml)


contrib()
classical()
