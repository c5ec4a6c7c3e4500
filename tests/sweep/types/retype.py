"""Values and types: the numbers of one element type rounded to fit another, and the attributes that name a type."""
import re

import numpy as np
import onnx
import onnx.helper as h
from onnx import TensorProto, numpy_helper as nh

# schema spelling -> TensorProto code
CODES = {"float": TensorProto.FLOAT, "double": TensorProto.DOUBLE}
CODES.update({n.lower(): c for n, c in TensorProto.DataType.items() if n not in ("UNDEFINED", "FLOAT", "DOUBLE")})
NAMES = {c: n for n, c in CODES.items()}
INTS = {n for n in CODES if re.match(r"u?int\d+$", n)}
COMPLEX = {"complex64", "complex128"}
# largest values worth drawing: overflow says nothing about an operator
LIMIT = {"float4e2m1": 6, "float6e2m3": 7.5, "float6e3m2": 28, "float8e4m3fn": 200, "float8e4m3fnuz": 100}

# (operator, type constraint) -> attribute that says the type; the value is a code, a tensor of one element, or a number
TYPE_ATTRS = {
    ("Cast", "T2"): "to", ("BitCast", "T2"): "to", ("EyeLike", "T2"): "dtype", ("RandomNormalLike", "T2"): "dtype",
    ("RandomUniformLike", "T2"): "dtype", ("RandomNormal", "T"): "dtype", ("RandomUniform", "T"): "dtype",
    ("Multinomial", "T2"): "dtype", ("Bernoulli", "T2"): "dtype", ("HannWindow", "T2"): "output_datatype",
    ("HammingWindow", "T2"): "output_datatype", ("BlackmanWindow", "T2"): "output_datatype",
    ("MelWeightMatrix", "T3"): "output_datatype", ("DequantizeLinear", "T3"): "output_dtype",
    ("QuantizeLinear", "T3"): "output_dtype", ("LayerNormalization", "U"): "stash_type",
    ("SequenceEmpty", "S"): "dtype"}
VALUE_ATTRS = {("ConstantOfShape", "T2"): "value", ("Constant", "T"): "value"}


def parse(text):
    """"seq(tensor(float))" -> ("seq(tensor({}))", "float"); maps have no element to replace."""
    m = re.fullmatch(r"((?:optional\(|seq\()*tensor\()(\w+)(\)+)", text)
    return (m[1] + "{}" + m[3], m[2]) if m else (text, None)


def type_proto(text, shape):
    """shape of the innermost tensor: a list, or None."""
    for kind, make in (("optional", h.make_optional_type_proto), ("seq", h.make_sequence_type_proto)):
        if text.startswith(kind + "("):
            return make(type_proto(text[len(kind) + 1:-1], shape))
    m = re.fullmatch(r"map\((\w+), (\w+)\)", text) or re.fullmatch(r"map\((\w+), tensor\((\w+)\)\)", text)
    if m:
        return h.make_map_type_proto(CODES[m[1]], h.make_tensor_type_proto(CODES[m[2]], []))
    m = re.fullmatch(r"sparse_tensor\((\w+)\)", text)
    return h.make_tensor_type_proto(CODES[parse(text)[1]], shape)


def numbers(x):
    """Any array as float64, or complex."""
    x = np.asarray(x)
    if x.dtype.kind in "OUS":
        def value(s):
            try:
                return float(s)
            except ValueError:
                return float(len(s) % 5)
        return np.array([value(s) for s in x.ravel()], np.float64).reshape(x.shape)
    if x.dtype.kind == "c":
        return x
    return x.astype(np.float64)


def to_ints(x, name):
    bits = int(re.search(r"\d+", name)[0])
    x = np.nan_to_num(np.real(x), nan=0, posinf=100, neginf=-100)
    if x.size and np.any(x != np.rint(x)) and np.max(np.abs(x)) < 4:
        x = x * 5
    x = np.rint(x)
    if name[0] == "u":
        return np.clip(np.abs(x), 0, 2.0**min(bits, 53) - 1)
    return np.clip(x, -2.0**min(bits - 1, 53), 2.0**min(bits - 1, 53) - 1)


def convert(x, name):
    """Array x in the element type `name`."""
    v = numbers(x)
    if name == "string":
        return np.array([f"{np.real(e):.3g}" for e in v.ravel()], object).reshape(v.shape)
    dtype = h.tensor_dtype_to_np_dtype(CODES[name])
    if name == "bool":
        return np.asarray(np.real(v) > 0)
    if name in COMPLEX:
        turned = v.ravel()[::-1].reshape(v.shape)
        return np.asarray(v if v.dtype.kind == "c" else v + 0.5j * turned).astype(dtype)
    if name in INTS:
        return to_ints(v, name).astype(np.int64).astype(dtype)
    v = np.real(v)
    if name == "float8e8m0":
        return (2.0 ** np.clip(np.rint(np.log2(np.maximum(np.abs(v), 0.25))), -3, 3)).astype(dtype)
    if name in LIMIT:
        v = np.clip(v, -LIMIT[name], LIMIT[name])
    return v.astype(dtype)


def convert_value(value, name):
    """Arrays, lists of them and None."""
    if isinstance(value, (list, tuple)):
        return [convert_value(v, name) for v in value]
    return None if value is None else convert(value, name)


def set_attr(node, name, value):
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept + ([] if value is None else [h.make_attribute(name, value)]))


def retype_attrs(node, constraint, name):
    """The attributes of node after its type constraint became `name`. None when they cannot say it."""
    key = (node.op_type, constraint)
    if key in TYPE_ATTRS:
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2]:
            set_attr(node, "output_dtype", None)
        else:
            set_attr(node, TYPE_ATTRS[key], CODES[name])
    if key in VALUE_ATTRS:
        old = next((a for a in node.attribute if a.name == VALUE_ATTRS[key]), None)
        if old is None and node.op_type == "Constant":
            return False
        array = nh.to_array(old.t) if old is not None else np.array([1])
        set_attr(node, VALUE_ATTRS[key], nh.from_array(convert(array, name)))
    if node.op_type == "TreeEnsemble":
        for a in list(node.attribute):
            if a.type == onnx.AttributeProto.TENSOR and a.name != "nodes_modes":
                set_attr(node, a.name, nh.from_array(convert(nh.to_array(a.t), name)))
    return True
