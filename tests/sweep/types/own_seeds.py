"""Seeds for operators whose node tests have several nodes, bodies, or do not exist; and for attributes that no node test sets."""
import numpy as np
import onnx
import onnx.helper as h
from onnx import numpy_helper as nh

from retype import NAMES, convert_value, parse, type_proto
from seeds import Seed

rng = np.random.default_rng(5)


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def spelled(value):
    if isinstance(value, list):
        return f"seq({spelled(value[0])})"
    return f"tensor({'string' if value.dtype.kind in 'OU' else NAMES[h.np_dtype_to_tensor_dtype(value.dtype)]})"


def seed(name, op, inputs, domain="", num_out=1, types=None, **attrs):
    named = {f"x{i}": v for i, v in enumerate(inputs) if v is not None or (types and types[i])}
    order = [f"x{i}" if f"x{i}" in named else "" for i in range(len(inputs))]
    node = h.make_node(op, order, [f"y{i}" for i in range(num_out)], domain=domain, **attrs)
    spell = {n: (types and types[int(n[1:])]) or spelled(v) for n, v in named.items()}
    return Seed(name, node, named, spell, 0)


def i64(*v):
    return np.array(v, np.int64)


def lists():
    items = [f(2, 3), f(2, 3), f(2, 3)]
    yield seed("at", "SequenceAt", [items, np.int64(1)])
    yield seed("at_end", "SequenceAt", [items, np.int64(-1)])
    yield seed("construct", "SequenceConstruct", [items[0], items[1]])
    yield seed("empty", "SequenceEmpty", [], dtype=1)
    yield seed("erase", "SequenceErase", [items, np.int64(1)])
    yield seed("erase_last", "SequenceErase", [items])
    yield seed("insert", "SequenceInsert", [items, f(2, 3), np.int64(1)])
    yield seed("length", "SequenceLength", [items])
    yield seed("concat", "ConcatFromSequence", [items], axis=1)
    yield seed("stack", "ConcatFromSequence", [items], axis=0, new_axis=1)
    yield seed("split", "SplitToSequence", [f(6, 2), i64(2, 3, 1)], axis=0)
    yield seed("split_each", "SplitToSequence", [f(6, 2)], axis=1, keepdims=0)
    yield seed("identity", "Identity", [items])
    for text, value in (("optional(tensor(float))", f(2, 3)), ("optional(seq(tensor(float)))", items)):
        for op in ("OptionalGetElement", "OptionalHasElement", "Identity"):
            yield seed("optional", op, [value], types=[text])
    for value in (f(2, 3), items):
        yield seed("plain", "OptionalGetElement", [value])
        yield seed("plain", "OptionalHasElement", [value])
        yield seed("given", "Optional", [value])
    yield seed("absent", "OptionalHasElement", [None], types=["optional(tensor(float))"])


def numbers():
    for name, op, attrs in (("uniform", "RandomUniform", {"low": -2.0, "high": 3.0}), ("normal", "RandomNormal",
            {"mean": 2.0, "scale": 3.0})):
        yield seed(name, op, [], shape=[3, 4], dtype=1, seed=7.0, **attrs)
        yield seed(name, op + "Like", [f(3, 4)], seed=7.0, dtype=1, **attrs)
    yield seed("some", "Multinomial", [np.log(np.abs(f(2, 5)) + 0.1)], sample_size=6, seed=3.0, dtype=6)
    yield seed("pool", "MaxRoiPool", [f(1, 2, 6, 6), np.array([[0, 0, 0, 3, 3], [0, 1, 2, 5, 5]], np.float32)],
            pooled_shape=[2, 2],
               spatial_scale=0.9)
    yield seed("pool", "GlobalLpPool", [f(2, 3, 4, 5)])
    yield seed("pool1", "GlobalLpPool", [f(2, 3, 4, 5)], p=1)
    yield seed("where", "Where", [np.array([True, False, True]), f(2, 3), f(2, 3)])
    for n, attrs in enumerate(({"value_float": 2.5}, {"value_floats": [1.0, -2.5]}, {"value_int": 7}, {"value_ints": [1, -2]},
                               {"value_string": "abc"}, {"value_strings": ["a", "bc"]}, {"value": nh.from_array(f(2, 3))})):
        yield seed(f"constant{n}", "Constant", [], **attrs)


ML = {"domain": "ai.onnx.ml"}
POSTS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def linear_models():
    for post in POSTS:
        yield seed(f"post_{post}", "LinearRegressor", [f(4, 5)], coefficients=(f(10) * 0.2).tolist(), intercepts=[0.4,
                0.5], targets=2,
                   post_transform=post, **ML) if post != "PROBIT" else seed(
                       "post_PROBIT", "LinearRegressor", [np.abs(f(4, 2)) * 0.05 + 0.2], coefficients=[0.5, 0.4],
                               intercepts=[0.3],
                       post_transform=post, **ML)
        if post == "PROBIT":
            continue
        yield seed(f"ints_{post}", "LinearClassifier", [f(6, 5)], num_out=2, coefficients=f(15).tolist(),
                intercepts=f(3).tolist(),
                   classlabels_ints=[5, 2, 9], post_transform=post, **ML)
    yield seed("strings", "LinearClassifier", [f(6, 5)], num_out=2, coefficients=f(10).tolist(), intercepts=f(2).tolist(),
               classlabels_strings=["no", "yes"], multi_class=1, **ML)
    for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID"):
        sv = {"coefficients": f(6).tolist(), "support_vectors": f(30).tolist(), "kernel_params": [0.3, 0.5, 3.0],
                "kernel_type": kernel}
        yield seed(kernel, "SVMRegressor", [f(4, 5)], n_supports=6, rho=[0.7], **sv, **ML)
        yield seed(kernel, "SVMClassifier", [f(4, 5)], num_out=2, rho=[0.2], vectors_per_class=[3, 3], classlabels_ints=[4,
                7], **sv, **ML)
    yield seed("one_class", "SVMRegressor", [f(4, 5)], n_supports=6, rho=[0.7], one_class=1, coefficients=f(6).tolist(),
               support_vectors=f(30).tolist(), kernel_params=[0.3, 0.5, 3.0], kernel_type="RBF", **ML)
    yield seed("strings_prob", "SVMClassifier", [f(4, 5)], num_out=2, rho=[0.2], vectors_per_class=[3, 3],
            classlabels_strings=["n", "y"],
               coefficients=f(6).tolist(), support_vectors=f(30).tolist(), kernel_params=[0.3, 0.5, 3.0], kernel_type="RBF",
               prob_a=[-0.8], prob_b=[0.1], **ML)


def features():
    for norm in ("MAX", "L1", "L2"):
        yield seed(norm, "Normalizer", [f(4, 5)], norm=norm, **ML)
    yield seed("each", "Scaler", [f(4, 3)], offset=[0.5, -1.0, 2.0], scale=[2.0, 0.5, 1.5], **ML)
    yield seed("one", "Scaler", [f(4, 3)], offset=[0.5], scale=[2.0], **ML)
    x = np.array([[1, 3], [9, 7]], np.int64)
    yield seed("ints", "OneHotEncoder", [x], cats_int64s=[3, 1, 7], **ML)
    yield seed("exact", "OneHotEncoder", [np.array([[1, 3], [3, 7]], np.int64)], cats_int64s=[3, 1, 7], zeros=0, **ML)
    yield seed("strings", "OneHotEncoder", [np.array(["a", "q", "b"], object)], cats_strings=["a", "b", "c"], **ML)
    yield seed("floats", "Imputer", [np.array([[1, np.nan, 3], [np.nan, 5, 6]], np.float32)], imputed_value_floats=[1.5,
            2.5, 3.5],
               replaced_value_float=float("nan"), **ML)
    yield seed("one", "Imputer", [np.array([[1, 7, 3], [7, 5, 6]], np.float32)], imputed_value_floats=[9.0],
            replaced_value_float=7.0, **ML)
    yield seed("ints", "Imputer", [np.array([[1, 7, 3], [7, 5, 6]], np.int64)], imputed_value_int64s=[10, 20, 30],
            replaced_value_int64=7, **ML)
    yield seed("two", "FeatureVectorizer", [f(3, 2), f(3, 4)], inputdimensions=[2, 4], **ML)
    yield seed("above", "Binarizer", [f(3, 4)], threshold=0.25, **ML)
    yield seed("to_ints", "CategoryMapper", [np.array([["x", "y"], ["z", "x"]], object)], cats_int64s=[4, 5],
            cats_strings=["x", "y"],
               default_int64=-3, **ML)
    yield seed("to_strings", "CategoryMapper", [np.array([4, 9, 5], np.int64)], cats_int64s=[4, 5], cats_strings=["x", "y"],
               default_string="none", **ML)
    yield seed("ints", "ZipMap", [f(3, 2)], classlabels_int64s=[4, 9], **ML)
    yield seed("strings", "ZipMap", [f(3, 2)], classlabels_strings=["a", "b"], **ML)
    for key in ("int64", "string"):
        keys = np.array([3, 1, 8], np.int64) if key == "int64" else np.array(["a", "c", "zz"], object)
        words = {"int64_vocabulary": [1, 2, 3]} if key == "int64" else {"string_vocabulary": ["c", "b", "a"]}
        for value in ("float", "double", "int64", "string"):
            if value != key:
                values = convert_value(np.array([1.5, 2.0, -3.0]), value)
                yield seed(f"{key}_{value}", "DictVectorizer", [dict(zip(keys.tolist(), list(values)))],
                        types=[f"map({key}, {value})"],
                           **words, **ML)
    for value in ("float", "string"):
        for to in ("TO_FLOAT", "TO_INT64", "TO_STRING"):
            for form in ("DENSE", "SPARSE"):
                keys, values = [0, 2, 3], convert_value(np.array([1.0, 2.0, -3.0]), value)
                yield seed(f"{value}_{to}_{form}", "CastMap", [dict(zip(keys, list(values)))],
                        types=[f"map(int64, {value})"], cast_to=to,
                           map_form=form, max_map=6 if form == "SPARSE" else 1, **ML)
    named = {"int64": "int64s", "float": "floats", "string": "strings"}
    for k in ("int16", "int32", "int64", "float", "double", "string"):
        for v in ("int16", "int32", "int64", "float", "double", "string"):
            keys, values = convert_value(np.array([1.0, 2.0, 3.0, 4.0]), k), convert_value(np.array([40.0, 30.0, 20.0,
                    10.0]), v)
            x = keys[[3, 0, 1, 1]].copy()
            x[0] = convert_value(np.array([9.0]), k)[0]
            attrs = {"keys_tensor": nh.from_array(keys), "values_tensor": nh.from_array(values),
                     "default_tensor": nh.from_array(convert_value(np.array([7.0]), v))}
            yield seed(f"tensors_{k}_{v}", "LabelEncoder", [x.reshape(2, 2)], **attrs, **ML)
            if k in named and v in named:
                lists_of = {f"keys_{named[k]}": keys.tolist(), f"values_{named[v]}": values.tolist()}
                default = {"int64": ("default_int64", 77), "float": ("default_float", 7.5), "string": ("default_string",
                        "seven")}[v]
                yield seed(f"lists_{k}_{v}", "LabelEncoder", [x.reshape(2, 2)], **lists_of, **dict([default]), **ML)


def recurrent():
    x, lens = f(4, 3, 2), np.array([4, 2, 3], np.int32)
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        h0 = [f(2, 3, 5)] * (2 if op == "LSTM" else 1)
        weights = [f(2, gates * 5, 2) * 0.4, f(2, gates * 5, 5) * 0.4, f(2, (2 if op != "LSTM" else 2) * gates * 5) * 0.2]
        yield seed("lengths", op, [x] + weights + [lens] + h0, num_out=3 if op == "LSTM" else 2, hidden_size=5,
                direction="bidirectional",
                   clip=0.7)
        first = [w[:1] for w in weights]
        yield seed("reverse", op, [x] + first + [lens], num_out=2, hidden_size=5, direction="reverse",
                   activations=["Tanh"] if op == "RNN" else ["Sigmoid", "Tanh"] if op == "GRU" else ["Sigmoid", "Tanh", "Relu"])
    yield seed("forget", "LSTM", [x] + [w[:1] for w in weights[:2]], num_out=3, hidden_size=5, input_forget=1)
    for act, extra in (("LeakyRelu", {"activation_alpha": [0.2]}), ("ThresholdedRelu", {"activation_alpha": [0.3]}),
                       ("ScaledTanh", {"activation_alpha": [0.7], "activation_beta": [0.8]}), ("HardSigmoid",
                               {"activation_alpha": [0.3],
                       "activation_beta": [0.4]}), ("Elu", {"activation_alpha": [0.6]}), ("Softsign", {}), ("Softplus", {}),
                       ("Affine", {"activation_alpha": [0.5], "activation_beta": [0.1]})):
        yield seed(act, "RNN", [x, f(1, 5, 2) * 0.4, f(1, 5, 5) * 0.4], num_out=2, hidden_size=5, activations=[act], **extra)


def others():
    yield seed("length", "DFT", [f(2, 7, 1), np.int64(6), np.int64(1)])
    yield seed("inverse", "DFT", [f(2, 6, 2), np.int64(6), np.int64(1)], inverse=1)
    yield seed("roi", "Resize", [f(1, 1, 4, 4), np.array([0, 0, 0.1, 0.2, 1, 1, 0.7, 0.9], np.float32), None, i64(1, 1, 3,
            3)], mode="linear",
               coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=2.5)
    u8 = rng.integers(0, 256, (1, 2, 5, 5)).astype(np.uint8)
    yield seed("bias", "QLinearConv", [u8, np.float32(0.02), np.uint8(120), rng.integers(0, 256, (3, 2, 3, 3)).astype(np.uint8),
                                       np.array([0.01, 0.02, 0.03], np.float32), np.array([120, 128, 130], np.uint8),
                                               np.float32(0.1),
                                       np.uint8(100), np.array([100, -200, 300], np.int32)], pads=[1, 0, 1, 0], strides=[2, 1])
    yield seed("plain", "MeanVarianceNormalization", [f(2, 3, 4, 4)], axes=[0, 2, 3])
    yield seed("each", "MeanVarianceNormalization", [f(2, 3, 4, 4)], axes=[1, 3])
    for name in ("float", "double", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
            "uint64", "bool",
                 "string", "complex64", "complex128", "int4", "uint4", "int2", "uint2", "float4e2m1", "float8e4m3fn",
                         "float8e4m3fnuz",
                 "float8e5m2", "float8e5m2fnuz", "float8e8m0"):
        yield seed(name, "Constant", [], value=nh.from_array(convert_value(f(2, 3), name)))


def body(nodes, inputs, outputs, name="body"):
    return h.make_graph(nodes, name, inputs, outputs)


def controlled(types_of):
    """If, Loop, Scan and SequenceMap carrying a value of every type that the schema allows."""
    def info(name, text, shape=(2, 3)):
        return h.make_value_info(name, type_proto(text, list(shape)))

    def value(text):
        if parse(text)[1] is None:
            return None
        one = convert_value(f(2, 3), parse(text)[1])
        return [one, convert_value(f(2, 3), parse(text)[1])] if "seq(" in text else one

    for text in types_of[("", "If")]["V"]:
        if parse(text)[1] is None:
            continue
        narrow = text.startswith("optional") and text not in types_of[("", "Identity")]["V"]  # of a value that Optional wraps
        branch = [body([h.make_node("Optional" if narrow else "Identity", [f"x{i}"], [f"b{i}"])], [], [info(f"b{i}",
                text)], f"b{i}")
                  for i in (1, 2)]
        for cond in (True, False):
            s = seed(f"if_{cond}", "If", [np.array(cond)], then_branch=branch[0], else_branch=branch[1])
            s.inputs.update({"x1": value(text), "x2": value(text)})
            held = text[len("optional("):-1] if narrow else text
            s.types.update({"x1": held, "x2": held})
            yield s
    for text in types_of[("", "Loop")]["V"]:
        if parse(text)[1] is None:
            continue
        tensor = text.startswith("tensor")
        nodes = [h.make_node("Identity", ["c"], ["d"])] + ([h.make_node("Identity", ["v"], ["s"])] if tensor else [])
        outs = [info("d", "tensor(bool)", ()), info("v", text)] + ([info("s", text)] if tensor else [])
        b = body(nodes, [info("i", "tensor(int64)", ()), info("c", "tensor(bool)", ()), info("v", text)], outs)
        yield seed("carried", "Loop", [np.array(3, np.int64), np.array(True), value(text)], num_out=1 + tensor,
                   types=["tensor(int64)", "tensor(bool)", text], body=b)
    for text in types_of[("", "Scan")]["V"]:
        nodes = [h.make_node("Identity", ["e"], ["w"]), h.make_node("Identity", ["v"], ["s"])]
        b = body(nodes, [info("v", text, (3,)), info("e", text, (3,))], [info("w", text, (3,)), info("s", text, (3,))])
        yield seed("scanned", "Scan", [value(text)[0], value(text)], num_out=2, types=[text, text], body=b, num_scan_inputs=1)
    for text in types_of[("", "SequenceMap")]["S"]:
        t = text[4:-1]
        for extra in (text, t):
            b = body([h.make_node("Identity", ["e"], ["w"])], [info("e", t), info("a", t)], [info("w", t)])
            yield seed("mapped", "SequenceMap", [value(text), value(extra)], types=[text, extra], body=b)


def own(types_of):
    found = {}
    for source in (lists(), numbers(), recurrent(), others(), linear_models(), features(), controlled(types_of)):
        for s in source:
            found.setdefault((s.node.domain, s.node.op_type), []).append(s)
    return found
