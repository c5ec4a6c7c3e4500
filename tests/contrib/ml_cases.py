"""Models of ai.onnx.ml."""
import numpy as np

from cases import case, f, f32, rng

KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]


def trees(count, depth, features, modes=("BRANCH_LEQ",), missing=False):
    """Attributes of random trees, some of them only a leaf, the others with branches of different depth."""
    a = {f"nodes_{k}": [] for k in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")}
    a["nodes_missing_value_tracks_true"], leaves = [], []

    def grow(tree, node, left):
        me, at = node[0], len(a["nodes_modes"])
        node[0] += 1
        leaf = left == 0 or (left < depth and rng.random() < 0.3)
        row = (tree, me, int(rng.integers(features)), float(f()), "LEAF" if leaf else modes[rng.integers(len(modes))], 0, 0,
               int(missing and rng.random() < 0.5))
        for k, v in zip(a, row):
            a[k].append(v)
        if leaf:
            leaves.append((tree, me))
        else:
            a["nodes_truenodeids"][at] = grow(tree, node, left - 1)
            a["nodes_falsenodeids"][at] = grow(tree, node, left - 1)
        return me

    for tree in range(count):
        grow(tree, [0], 0 if tree == count - 1 else depth)
    return a, leaves


def ensembles(ml):
    compare = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
    for rows in (1, 7, 8, 41, 75):
        a, leaves = trees(19, 5, 6)
        to = {"target_treeids": [t for t, _ in leaves], "target_nodeids": [n for _, n in leaves],
              "target_ids": [i % 3 for i in range(len(leaves))], "target_weights": f(len(leaves)).tolist(), "n_targets": 3}
        case(f"trees_{rows}", "TreeEnsembleRegressor", {"x": f(rows, 6)}, **a, **to, **ml)
        case(f"trees_late_{rows}", "TreeEnsembleRegressor", {"x": f(rows, 6)}, dims={"x": ["N", 6]}, **a, **to, **ml)
    for how in ("SUM", "AVERAGE", "MIN", "MAX"):
        a, leaves = trees(9, 4, 5, compare[:4], missing=True)
        x = f(21, 5)
        x[rng.random(x.shape) < 0.2] = np.nan
        to = {"target_treeids": [t for t, _ in leaves], "target_nodeids": [n for _, n in leaves],
              "target_ids": [0] * len(leaves), "target_weights": f(len(leaves)).tolist(), "n_targets": 1}
        case(f"trees_{how}", "TreeEnsembleRegressor", {"x": x}, aggregate_function=how, base_values=[0.5], **a, **to, **ml)
    a, leaves = trees(10, 4, 5, compare)
    to = {"class_treeids": [t for t, _ in leaves], "class_nodeids": [n for _, n in leaves],
          "class_ids": [i % 3 for i in range(len(leaves))], "class_weights": f(len(leaves)).tolist()}
    case("trees_classifier", "TreeEnsembleClassifier", {"x": np.round(2 * f(23, 5)) / 2}, classlabels_int64s=[4, 1, 9],
         post_transform="SOFTMAX", outputs=("l", "y"), **a, **to, **ml)


def make():
    ml = {"domain": "ai.onnx.ml"}
    for norm in ("MAX", "L1", "L2"):
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
                 intercepts=f(n).tolist(), classlabels_ints=labels, post_transform=post, outputs=("l", "y"), **ml)
    ensembles(ml)
    for kernel in KERNELS:
        case(f"svm_regressor_{kernel}", "SVMRegressor", {"x": f(4, 5)}, coefficients=f(6).tolist(),
             support_vectors=f(30).tolist(), kernel_params=[0.3, 0.5, 3.0], kernel_type=kernel, n_supports=6, rho=[0.7], **ml)
    case("svm_regressor_linear_form", "SVMRegressor", {"x": f(4, 5)}, coefficients=f(5).tolist(),
         kernel_params=[0.3, 0.5, 3.0], kernel_type="LINEAR", rho=[0.7], **ml)
