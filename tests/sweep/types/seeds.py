"""Where cases start: every ONNX node test of one node, and own ones for operators without (own_seeds.py).

A seed is a node with its inputs as arrays, lists of arrays (sequences) or None, and the types of its inputs.
"""
import glob
import os
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import defs, numpy_helper as nh


@dataclass
class Seed:
    name: str
    node: onnx.NodeProto
    inputs: dict  # name -> value, in the order of the graph's inputs
    types: dict  # name of an input -> schema spelling of its type
    opset: int
    outputs: list = field(default_factory=list)  # stored results, of node tests
    inits: list = field(default_factory=list)


def schemas():
    """Newest schema of each operator that is not deprecated, and all versions: (domain, name) -> [schema]."""
    every = {}
    for s in defs.get_all_schemas_with_history():
        if not s.domain.startswith("com.") and s.domain != "ai.onnx.preview.training.x":
            every.setdefault((s.domain, s.name), []).append(s)
    for v in every.values():
        v.sort(key=lambda s: s.since_version)
    return {k: v[-1] for k, v in every.items() if not v[-1].deprecated}, every


def spell(tp):
    """TypeProto -> schema spelling."""
    kind = tp.WhichOneof("value")
    if kind == "tensor_type":
        from retype import NAMES
        return f"tensor({NAMES[tp.tensor_type.elem_type]})"
    if kind == "sequence_type":
        return f"seq({spell(tp.sequence_type.elem_type)})"
    if kind == "optional_type":
        return f"optional({spell(tp.optional_type.elem_type)})"
    if kind == "map_type":
        from retype import NAMES
        return f"map({NAMES[tp.map_type.key_type]}, {spell(tp.map_type.value_type)[7:-1]})"
    raise ValueError(kind)


def load(path, tp):
    kind = tp.WhichOneof("value")
    with open(path, "rb") as f:
        data = f.read()
    if kind == "tensor_type":
        t = onnx.TensorProto()
        t.ParseFromString(data)
        return nh.to_array(t)
    if kind == "sequence_type":
        t = onnx.SequenceProto()
        t.ParseFromString(data)
        return nh.to_list(t)
    t = onnx.OptionalProto()
    t.ParseFromString(data)
    return nh.to_optional(t)


def node_test(folder):
    m = onnx.load(folder + "/model.onnx", load_external_data=False)
    if len(m.graph.node) != 1 or "_expanded" in folder or m.functions:
        return None
    node = m.graph.node[0]
    if any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
        return None  # bodies have types of their own: own_seeds.py
    inits = {t.name for t in m.graph.initializer}
    real = [i for i in m.graph.input if i.name not in inits]
    where = folder + "/test_data_set_0"
    inputs = {i.name: load(f"{where}/input_{k}.pb", i.type) for k, i in enumerate(real)}
    inputs.update({t.name: nh.to_array(t) for t in m.graph.initializer})
    types = {i.name: spell(i.type) for i in real}
    from retype import NAMES
    types.update({t.name: f"tensor({NAMES[t.data_type]})" for t in m.graph.initializer})
    outputs = []
    for k, o in enumerate(m.graph.output):
        outputs.append(load(f"{where}/output_{k}.pb", o.type))
    opset = next((o.version for o in m.opset_import if o.domain == node.domain), 1)
    return Seed(os.path.basename(folder)[5:], node, inputs, types, opset, outputs, sorted(inits))


def size(seed):
    return sum(np.asarray(v).size for v in seed.inputs.values() if isinstance(v, np.ndarray))


def node_tests(data):
    found = {}
    for folder in sorted(glob.glob(data + "/test_*")):
        try:
            s = node_test(folder)
        except Exception:  # pylint: disable=broad-except  (what cannot be read is no seed)
            continue
        if s:
            found.setdefault((s.node.domain, s.node.op_type), []).append(s)
    return found
