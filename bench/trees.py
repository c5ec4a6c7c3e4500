"""Benchmark models of one random tree ensemble each: 500 trees of up to 8 levels over 50 features, for a number of rows.

Usage: trees.py OUT NAME   writes OUT/NAME.onnx; NAMES lists the models. Splits and inputs are normal, so that every branch is
taken; a quarter of the branches ends early, as in boosted trees that grow by leaves.
"""
import sys

import numpy as np
import onnx
from onnx import helper as h

TREES, DEPTH, FEATURES = 500, 8, 50
NAMES = {f"trees_500x8_b{rows}": rows for rows in (1, 64, 1024)}


def attributes():
    rng = np.random.default_rng(2)
    nodes = {k: [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")}
    leaves = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}

    def grow(tree, count, left):
        me, at = count[0], len(nodes["modes"])
        count[0] += 1
        leaf = left == 0 or (left < DEPTH - 2 and rng.random() < 0.25)
        split = 0.0 if leaf else float(np.float32(rng.standard_normal()))
        row = (tree, me, 0 if leaf else int(rng.integers(FEATURES)), split, "LEAF" if leaf else "BRANCH_LEQ", 0, 0)
        for k, v in zip(nodes, row):
            nodes[k].append(v)
        if leaf:
            for k, v in zip(leaves, (tree, me, 0, float(np.float32(rng.standard_normal() / 10)))):
                leaves[k].append(v)
        else:
            nodes["truenodeids"][at] = grow(tree, count, left - 1)
            nodes["falsenodeids"][at] = grow(tree, count, left - 1)
        return me

    for tree in range(TREES):
        grow(tree, [0], DEPTH)
    return {**{f"nodes_{k}": v for k, v in nodes.items()}, **{f"target_{k}": v for k, v in leaves.items()}}


def make(path, name):
    node = h.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **attributes())
    x = h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [NAMES[name], FEATURES])
    y = h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [NAMES[name], 1])
    opsets = [h.make_opsetid("", 18), h.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(h.make_model(h.make_graph([node], name, [x], [y]), opset_imports=opsets, ir_version=8), path)


if __name__ == "__main__":
    make(f"{sys.argv[1]}/{sys.argv[2]}.onnx", sys.argv[2])
