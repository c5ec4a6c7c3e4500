"""Test folders with one operator each, or a family of them in one model, and ONNX Runtime's results.

A case is a node with its inputs; those of a family are merged into one model whose values have the case's name in front, so
that a difference says which one it was and the compiler starts once for all of them.
"""
import os

import numpy as np
import onnx
import onnx.helper as h
import onnxruntime as ort
from onnx import numpy_helper as nh

rng = np.random.default_rng(1)


def seed(family):
    """The numbers of a family do not depend on the cases of others."""
    rng.bit_generator.state = np.random.default_rng(list(family.encode())).bit_generator.state


OPSETS = [("", 18), ("com.microsoft", 1), ("ai.onnx.ml", 3)]
made = []
models = []  # (name, model, inputs, outputs) of cases that are more than a node


def f(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def u8(*shape):
    return rng.integers(0, 256, shape).astype(np.uint8)


def i8(*shape):  # of 7 bits: products of pairs saturate in some of ONNX Runtime's kernels
    return rng.integers(-64, 64, shape).astype(np.int8)


def f32(value):
    return np.array(value, np.float32)


def i32(value):
    return np.array(value, np.int32)


def unpack(x, i):
    """Entry i of axis 3, heads joined again."""
    return np.ascontiguousarray(x[:, :, :, i]).reshape(*x.shape[:2], -1)


def model_of(nodes, inputs, outputs, consts, opsets=None, dims=None):
    dims = dims or {}
    values = [
        h.make_tensor_value_info(n, h.np_dtype_to_tensor_dtype(a.dtype), dims.get(n, a.shape)) for n, a in inputs.items()
    ]
    results = [h.make_tensor_value_info(o, t, None) if t else onnx.ValueInfoProto(name=o) for o, t in outputs]
    graph = h.make_graph(nodes, "g", values, results, [nh.from_array(a, n) for n, a in consts.items()])
    return h.make_model(graph, opset_imports=[h.make_opsetid(d, v) for d, v in opsets or OPSETS], ir_version=8)


def run(model, inputs):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, inputs)


def case(name, op, inputs, domain="com.microsoft", consts=None, outputs=("y",), oracle=None, expected=None, opsets=None,
         dims=None, fixed=(), **attrs):
    """inputs: name -> array, None for one that is absent. oracle: other inputs with the same result, where ONNX Runtime has no
    kernel for this form; expected: the results themselves. fixed: inputs that are constants. dims: name -> declared
    shape, with names for sizes to be dynamic."""
    consts = consts or {}
    domain = "" if domain == "ai.onnx" else domain

    def build(values):
        named = {f"{name}.{n}": a for n, a in values.items() if a is not None and n not in fixed}
        order = [f"{name}.{n}" if a is not None else "" for n, a in (values | consts).items()]
        names = [f"{name}.{o}" if o else "" for o in outputs]
        return h.make_node(op, order, names, domain=domain, name=name, **attrs), named, [n for n in names if n]

    held = {f"{name}.{n}": a for n, a in (inputs | consts).items() if a is not None and (n in consts or n in fixed)}
    node, named, names = build(inputs)
    if expected is None:
        other, fed, _ = build(oracle or inputs)
        expected = run(model_of([other], fed, [(n, None) for n in names], held, opsets), fed)
    symbols = {f"{name}.{n}": [d if isinstance(d, int) else f"{name}_{d}" for d in s] for n, s in (dims or {}).items()}
    made.append((name, node, named, held, list(zip(names, [np.asarray(e) for e in expected])), opsets, symbols))


def write(folder, family, merge=True):
    """Writes the cases made since the last call."""
    groups = {}
    for c in made:
        groups.setdefault((family if merge else c[0], str(c[5])), []).append(c)
    for (name, _), cases in groups.items():
        many = len([k for k in groups if k[0] == name]) > 1
        where = name + (f"-{cases[0][0]}" if many else "")
        inputs = {n: a for c in cases for n, a in c[2].items()}
        outputs = [o for c in cases for o in c[4]]
        types = [(n, h.np_dtype_to_tensor_dtype(a.dtype)) for n, a in outputs]
        consts = {n: a for c in cases for n, a in c[3].items()}
        dims = {n: d for c in cases for n, d in c[6].items()}
        models.append((where, model_of([c[1] for c in cases], inputs, types, consts, cases[0][5], dims), inputs.values(),
                       [a for _, a in outputs]))
    for where, model, inputs, outputs in models:
        where = os.path.join(folder, where)
        os.makedirs(where + "/test_data_set_0", exist_ok=True)
        onnx.save(model, where + "/model.onnx")
        for what, arrays in (("input", inputs), ("output", outputs)):
            for i, a in enumerate(arrays):
                with open(f"{where}/test_data_set_0/{what}_{i}.pb", "wb") as file:
                    file.write(nh.from_array(np.asarray(a)).SerializeToString())
    made.clear()
    models.clear()
