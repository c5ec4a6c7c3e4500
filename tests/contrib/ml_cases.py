"""Models of ai.onnx.ml."""
import numpy as np

from cases import case, f, f32

KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]


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
    for kernel in KERNELS:
        case(f"svm_regressor_{kernel}", "SVMRegressor", {"x": f(4, 5)}, coefficients=f(6).tolist(),
             support_vectors=f(30).tolist(), kernel_params=[0.3, 0.5, 3.0], kernel_type=kernel, n_supports=6, rho=[0.7], **ml)
    case("svm_regressor_linear_form", "SVMRegressor", {"x": f(4, 5)}, coefficients=f(5).tolist(),
         kernel_params=[0.3, 0.5, 3.0], kernel_type="LINEAR", rho=[0.7], **ml)
