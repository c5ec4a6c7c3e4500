"""Versions of operators that neither the node tests nor the sweep over types can have: deprecated ones, and tree ensembles before
version 5; an attribute of Gradient that no node test sets."""
import numpy as np
import onnx.helper as h
from onnx import numpy_helper as nh

from cases import case, f, f32, made, models

NODES = {  # two trees of three and five nodes; leaves have ids 1, 2 and 3, 4, 5 of their tree
    "nodes_treeids": [0, 0, 0, 1, 1, 1, 1, 1], "nodes_nodeids": [0, 1, 2, 0, 1, 2, 3, 4],
    "nodes_featureids": [0, 0, 0, 1, 2, 0, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LT", "BRANCH_GT", "LEAF", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0, 1, 2, 0, 0, 0], "nodes_falsenodeids": [2, 0, 0, 4, 3, 0, 0, 0],
    "nodes_missing_value_tracks_true": [1, 0, 0, 0, 1, 0, 0, 0]}
VALUES = [0.1, 0, 0, 0.5, -0.2, 0, 0, 0]
# of each leaf one target; of each leaf all three
ONE = {"treeids": [0, 0, 1, 1, 1], "nodeids": [1, 2, 2, 3, 4], "ids": [0, 1, 1, 0, 2]}
ALL = {n: [v for v in ONE[n] for _ in range(3)] for n in ("treeids", "nodeids")} | {"ids": [0, 1, 2] * 5}


def leaves(kind, of):
    return {f"{kind}_{n}": v for n, v in of.items()}


def old(version):
    return {"domain": "ai.onnx.ml", "opsets": [("", 18), ("ai.onnx.ml", version)]}


def trees():
    x = f(7, 3)
    x[2, 0] = np.nan
    forms = ((1, x, "", list), (3, x.astype(np.float64), "_as_tensor", lambda v: nh.from_array(np.array(v))))
    for version, x, ending, held in forms:
        for name, of, base in (("one", ONE, []), ("all", ALL, [0.5, -0.5, 0.25])):
            weights = f(len(of["ids"])).astype(float).tolist()
            same = {**NODES, f"nodes_values{ending}": held(VALUES)} | ({f"base_values{ending}": held(base)} if base else {})
            for how in ("SUM", "AVERAGE", "MIN", "MAX"):
                case(f"regressor_{version}_{name}_{how}", "TreeEnsembleRegressor", {"x": x}, **same, **leaves("target", of),
                     n_targets=3, aggregate_function=how, **{f"target_weights{ending}": held(weights)}, **old(version))
            for post in ("NONE", "SOFTMAX", "LOGISTIC") if base else ():
                case(f"classifier_{version}_{post}", "TreeEnsembleClassifier", {"x": x}, **same, **leaves("class", of),
                     classlabels_int64s=[4, 9, 2], post_transform=post, **{f"class_weights{ending}": held(weights)},
                     outputs=("l", "y"), **old(version))


    for c in [c for c in made if "_3_" in c[0]]:
        made.append((c[0].replace("_3_", "_5_"), *c[1:5], [("", 18), ("ai.onnx.ml", 5)], c[6]))  # deprecated there, and the same


def deprecated():
    """In the version that deprecates them, operators mean what they meant before."""
    x = f(2, 4, 3)
    scale, bias = f(2), f(2)
    y = x.reshape(2, 2, 6)
    y = (y - y.mean(2, keepdims=True)) / np.sqrt(y.var(2, keepdims=True) + 1e-5)
    y = (y * scale[:, None] + bias[:, None]).reshape(x.shape)
    case("groups", "GroupNormalization", {"x": x, "s": scale, "b": bias}, domain="ai.onnx", opsets=[("", 18)], num_groups=2,
         expected=[y.astype(np.float32)])
    at, new = np.array([[0, 2, 1]]), f(1, 3)
    y = f(4, 3)
    z = y.copy()
    np.put_along_axis(z, at, new, 0)
    case("scatter", "Scatter", {"x": y, "i": at, "u": new}, domain="ai.onnx", opsets=[("", 11)], expected=[z])
    image = f(1, 2, 2, 3)
    case("upsample", "Upsample", {"x": image}, consts={"s": f32([1, 1, 2, 3])}, domain="ai.onnx", opsets=[("", 10)],
         expected=[image.repeat(2, 2).repeat(3, 3)])


def single():
    """Versions that models of the collection have, and nothing else."""
    x = f(1, 1, 3, 4)
    case("same", "Identity", {"x": x}, domain="ai.onnx", opsets=[("", 14)], expected=[x])
    case("resize", "Resize", {"x": x}, consts={"roi": f32([]), "scales": f32([1, 1, 2, 1.5])}, domain="ai.onnx",
         opsets=[("", 11)], mode="linear", coordinate_transformation_mode="asymmetric")
    case("labels", "LabelEncoder", {"x": np.array([1, 0, 5])}, classes_strings=["a", "b"], default_string="none",
         expected=[np.array(["b", "a", "none"], object)], **old(1))


def optionals():
    """Version 18 takes tensors as well."""
    x = f(2, 3)
    case("element", "OptionalGetElement", {"x": x}, domain="ai.onnx", opsets=[("", 18)], expected=[x])
    case("has", "OptionalHasElement", {"x": x}, domain="ai.onnx", opsets=[("", 18)], expected=[np.array(True)])


def declared_rank():
    """Branches of two ranks, as exporters write Squeeze of an axis of unknown size; the model says which one its output has."""
    x, axis = f(3, 1), nh.from_array(np.array([1]), "axis")
    info = h.make_tensor_value_info
    squeezed = h.make_graph([h.make_node("Squeeze", ["x", "axis"], ["a"])], "t", [], [info("a", 1, None)], [axis])
    same = h.make_graph([h.make_node("Identity", ["x"], ["b"])], "e", [], [info("b", 1, None)])
    nodes = [h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "one"], ["d"]),
             h.make_node("Equal", ["d", "one"], ["c"]), h.make_node("If", ["c"], ["y"], then_branch=squeezed, else_branch=same)]
    for name, value, shape in (("vector", x, ["n"]), ("matrix", f(3, 2), ["n", "m"])):
        one = nh.from_array(np.array(1), "one")
        graph = h.make_graph(nodes, "g", [info("x", 1, ["n", "m"])], [info("y", 1, shape)], [one])
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
        models.append(("rank-" + name, model, [value], [value.reshape(3, -1) if name == "matrix" else value[:, 0]]))


def gradient():
    """With an input that is no variable (zs)."""
    x, w, z = f(2, 3), f(2, 3), f(3)
    training = {"domain": "ai.onnx.preview.training"}
    nodes = [h.make_node("Mul", ["x", "w"], ["m"]), h.make_node("Mul", ["m", "z"], ["n"]),
             h.make_node("Add", ["n", "x"], ["y"]),
             h.make_node("Gradient", ["x", "w", "z"], ["dx", "dw"], xs=["x", "w"], zs=["z"], y="y", **training)]
    ins = [h.make_tensor_value_info(n, 1, v.shape) for n, v in (("x", x), ("w", w), ("z", z))]
    outs = [h.make_tensor_value_info(n, 1, [2, 3]) for n in ("y", "dx", "dw")]
    opsets = [h.make_opsetid("", 17), h.make_opsetid(training["domain"], 1)]
    model = h.make_model(h.make_graph(nodes, "g", ins, outs), opset_imports=opsets, ir_version=8)
    models.append(("gradient-zs", model, [x, w, z], [x * w * z + x, w * z + 1, x * z]))


def slopes(function, inputs):
    """Derivatives of a sum by differences, in double."""
    inputs = [v.astype(np.float64) for v in inputs]
    found = [np.zeros_like(v) for v in inputs]
    for v, d in zip(inputs, found):
        for i in np.ndindex(v.shape):
            old = v[i]
            v[i] = old + 1e-5
            up = function(*inputs).sum()
            v[i] = old - 1e-5
            d[i] = (up - function(*inputs).sum()) / 2e-5
            v[i] = old
    return [d.astype(np.float32) for d in found]


def gradient_of_loops():
    """Through a Scan, a Loop and an If, the last two inside of each other."""
    info, training = h.make_tensor_value_info, {"domain": "ai.onnx.preview.training"}
    step = h.make_graph([h.make_node("Mul", ["s", "e"], ["m"]), h.make_node("Add", ["m", "b"], ["n"]),
                         h.make_node("Tanh", ["n"], ["t"]), h.make_node("Mul", ["t", "e"], ["o"])], "step",
                        [info(n, 1, [3]) for n in "se"], [info(n, 1, [3]) for n in "to"])
    branches = [h.make_graph([h.make_node(op, ["z"], ["r"])], op, [], [info("r", 1, [3])]) for op in ("Sin", "Cos")]
    turn = h.make_graph([h.make_node("Identity", ["c"], ["d"]), h.make_node("Mul", ["l", "b"], ["z"]),
                         h.make_node("Greater", ["i", "one"], ["late"]),
                         h.make_node("If", ["late"], ["k"], then_branch=branches[0], else_branch=branches[1])], "turn",
                        [info("i", 7, []), info("c", 9, []), info("l", 1, [3])], [info("d", 9, []), info("k", 1, [3])])
    nodes = [h.make_node("Scan", ["w", "x"], ["f", "p"], body=step, num_scan_inputs=1, scan_input_axes=[1],
                         scan_input_directions=[1], scan_output_axes=[1]),
             h.make_node("Loop", ["three", "", "f"], ["q"], body=turn), h.make_node("Unsqueeze", ["q", "axes"], ["u"]),
             h.make_node("Mul", ["u", "p"], ["y"]),
             h.make_node("Gradient", ["w", "x", "b"], ["dw", "dx", "db"], xs=["w", "x", "b"], y="y", **training)]

    def forward(w, x, b):
        s, rows = w, []
        for t in range(3, -1, -1):
            s = np.tanh(s * x[:, t] + b)
            rows.append(s * x[:, t])
        for i in range(3):
            s = np.sin(s * b) if i > 1 else np.cos(s * b)
        return s[:, None] * np.stack(rows, 1)

    w, x, b = f(3), f(3, 4), f(3)
    ins = [info("w", 1, [3]), info("x", 1, [3, "n"]), info("b", 1, [3])]
    held = [nh.from_array(np.array(1), "one"), nh.from_array(np.array(3), "three"), nh.from_array(np.array([1]), "axes")]
    graph = h.make_graph(nodes, "g", ins, [info(n, 1, None) for n in ("y", "dw", "dx", "db")], held)
    opsets = [h.make_opsetid("", 17), h.make_opsetid(training["domain"], 1)]
    model = h.make_model(graph, opset_imports=opsets, ir_version=8)
    results = [forward(w, x, b).astype(np.float32)] + slopes(forward, [w, x, b])
    models.append(("gradient-loops", model, [w, x, b], results))


def make():
    gradient()
    gradient_of_loops()
    declared_rank()
    trees()
    deprecated()
    single()
    optionals()
