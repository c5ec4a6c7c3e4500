"""Models of scikit-learn, LightGBM and XGBoost through skl2onnx and onnxmltools; jax through jax2onnx; TensorFlow through
tf2onnx where TensorFlow is installed."""

import functools
import os

import numpy as np


def save(model, path):
    with open(path, "wb") as f:
        f.write(model.SerializeToString())


def integers_for_flags():
    """skl2onnx writes flags of trees into lists of integers, which newer releases of protobuf refuse."""
    import onnx.helper

    plain = onnx.helper.make_attribute

    @functools.wraps(plain)  # tf2onnx looks at its signature
    def make(key, value, *args, **kwargs):
        if isinstance(value, (list, tuple)):
            value = [int(v) if isinstance(v, (bool, np.bool_)) else v for v in value]
        return plain(key, value, *args, **kwargs)

    onnx.helper.make_attribute = make


def sklearn_models(runner):
    from skl2onnx import to_onnx

    integers_for_flags()
    from sklearn import ensemble, linear_model, neighbors, pipeline, preprocessing, svm, tree
    from sklearn.datasets import make_classification

    x, y = make_classification(300, 8, n_informative=5, n_classes=3, random_state=1)
    x = x.astype(np.float32)
    target = (x[:, 0] * 2 - x[:, 3]).astype(np.float32)
    classifiers = {
        "random forest": ensemble.RandomForestClassifier(12, max_depth=5, random_state=0),
        "gradient boosting, histogram": ensemble.HistGradientBoostingClassifier(max_iter=10, random_state=0),
        "gradient boosting": ensemble.GradientBoostingClassifier(n_estimators=8, random_state=0),
        "decision tree": tree.DecisionTreeClassifier(max_depth=5, random_state=0),
        "SVM, RBF": svm.SVC(probability=True, random_state=0),
        "SVM, linear": svm.SVC(kernel="linear", random_state=0),
        "logistic regression": linear_model.LogisticRegression(max_iter=300),
        "scaler + logistic": pipeline.make_pipeline(
            preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=300)
        ),
        "min-max + normaliser + forest": pipeline.make_pipeline(
            preprocessing.MinMaxScaler(),
            preprocessing.Normalizer(),
            ensemble.ExtraTreesClassifier(8, max_depth=4, random_state=0),
        ),
    }
    for name, model in classifiers.items():
        model.fit(x, y)
        label = "sk-" + "".join(c if c.isalnum() else "-" for c in name)
        try:
            save(
                to_onnx(model, x[:1], options={"zipmap": False}, target_opset={"": 18, "ai.onnx.ml": 3}),
                os.path.join(runner.folder, label + ".onnx"),
            )
        except Exception as e:  # pylint: disable=broad-except
            runner.skip(name, "skl2onnx", f"the exporter fails: {type(e).__name__} {str(e)[:80]}")
            continue
        probability = model.predict_proba(x[:50]).astype(np.float32) if hasattr(model, "predict_proba") else None
        runner.check(label, "skl2onnx", {"X": x[:50]}, [model.predict(x[:50]), probability], 2e-5)
        runner.rows[-1]["model"] = name
    regressors = {
        "random forest, regression": ensemble.RandomForestRegressor(10, max_depth=6, random_state=0),
        "gradient boosting, regression": ensemble.HistGradientBoostingRegressor(max_iter=10, random_state=0),
        "SVR": svm.SVR(),
        "ridge": linear_model.Ridge(),
        "nearest neighbours": neighbors.KNeighborsRegressor(3),
    }
    for name, model in regressors.items():
        model.fit(x, target)
        label = "sk-" + "".join(c if c.isalnum() else "-" for c in name)
        try:
            save(
                to_onnx(model, x[:1], target_opset={"": 18, "ai.onnx.ml": 3}),
                os.path.join(runner.folder, label + ".onnx"),
            )
        except Exception as e:  # pylint: disable=broad-except
            runner.skip(name, "skl2onnx", f"the exporter fails: {type(e).__name__} {str(e)[:80]}")
            continue
        runner.check(label, "skl2onnx", {"X": x[:50]}, [model.predict(x[:50]).astype(np.float32).reshape(-1, 1)], 2e-5)
        runner.rows[-1]["model"] = name
    codes = np.array([[i % 3, i % 5] for i in range(60)], np.int64)
    encoder = preprocessing.OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(codes)
    save(
        to_onnx(encoder, codes[:1], target_opset={"": 18, "ai.onnx.ml": 3}),
        os.path.join(runner.folder, "sk-onehot.onnx"),
    )
    runner.check("sk-onehot", "skl2onnx", {"X": codes[:20]}, [encoder.transform(codes[:20]).astype(np.float32)])
    runner.rows[-1]["model"] = "one-hot encoder"


def boosted(runner):
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType
    from sklearn.datasets import make_classification

    x, y = make_classification(300, 8, n_informative=5, n_classes=3, random_state=1)
    x = x.astype(np.float32)
    kind = [("X", FloatTensorType([None, 8]))]
    for name, package, make, convert in (
        ("LightGBM", "lightgbm", lambda m: m.LGBMClassifier(n_estimators=8, verbose=-1), "convert_lightgbm"),
        ("XGBoost", "xgboost", lambda m: m.XGBClassifier(n_estimators=8, max_depth=4), "convert_xgboost"),
    ):
        try:
            model = make(__import__(package)).fit(x, y)
            options = {"zipmap": False} if package == "lightgbm" else {}
            save(
                getattr(onnxmltools, convert)(model, initial_types=kind, target_opset=15, **options),
                os.path.join(runner.folder, package + ".onnx"),
            )
        except Exception as e:  # pylint: disable=broad-except
            runner.skip(name, "onnxmltools", f"{type(e).__name__} {str(e)[:80]}")
            continue
        runner.check(
            package,
            "onnxmltools",
            {"X": x[:50]},
            [model.predict(x[:50]), model.predict_proba(x[:50]).astype(np.float32)],
            2e-5,
        )
        runner.rows[-1]["model"] = name


def jax_models(runner):
    import jax
    import jax.numpy as jnp
    from jax2onnx import to_onnx

    key = jax.random.PRNGKey(0)
    w = [
        jax.random.normal(jax.random.fold_in(key, i), s) * 0.3
        for i, s in enumerate([(12, 24), (24, 12), (12, 36), (12, 12), (3, 3, 3, 8), (8, 5)])
    ]

    def mlp(x):
        return jax.nn.gelu(x @ w[0]) @ w[1] + x

    def attention(x):
        q, k, v = jnp.split(x @ w[2], 3, -1)
        return jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / 3.4) @ v @ w[3]

    def cnn(x):
        y = jax.lax.conv_general_dilated(x, w[4], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.mean(jax.nn.relu(y), (1, 2)) @ w[5]

    def loop(x):
        return jax.lax.fori_loop(0, 4, lambda i, s: jnp.tanh(s @ w[3]) + s * 0.5, x)

    for name, f, shape in (
        ("MLP", mlp, (4, 12)),
        ("attention", attention, (2, 6, 12)),
        ("CNN", cnn, (2, 8, 8, 3)),
        ("fori_loop", loop, (3, 12)),
    ):
        x = np.asarray(jax.random.normal(key, shape), np.float32)
        label = "jax-" + name
        try:
            model = to_onnx(f, [shape])
            save(model, os.path.join(runner.folder, label + ".onnx"))
        except Exception as e:  # pylint: disable=broad-except
            runner.skip(name, "jax2onnx", f"the exporter fails: {type(e).__name__} {str(e)[:80]}")
            continue
        runner.check(label, "jax2onnx", {model.graph.input[0].name: x}, [np.asarray(f(x))], 5e-5)
        runner.rows[-1]["model"] = name


def tensorflow_models(runner):
    import tensorflow as tf
    import tf2onnx

    tf.keras.utils.set_random_seed(1)
    layers = tf.keras.layers

    def check(name, net, x, dtype=tf.float32):
        """Any batch; run at the size of x."""
        spec = [tf.TensorSpec([None, *x.shape[1:]], dtype, name="x")]
        f = tf.function(net, input_signature=spec)
        label = "tf-" + "".join(c if c.isalnum() else "-" for c in name)
        try:
            model, _ = tf2onnx.convert.from_function(f, input_signature=spec, opset=17)
            save(model, os.path.join(runner.folder, label + ".onnx"))
        except Exception as e:  # pylint: disable=broad-except
            runner.skip(name, "tf2onnx", f"the exporter fails: {type(e).__name__} {str(e)[:80]}")
            return
        wanted = f(tf.constant(x))
        wanted = [w.numpy() for w in (wanted if isinstance(wanted, (list, tuple)) else [wanted])]
        runner.check(label, "tf2onnx", {model.graph.input[0].name: x}, wanted, 5e-5)
        runner.rows[-1]["model"] = name

    image = np.random.rand(2, 16, 16, 3).astype(np.float32)
    check(
        "CNN",
        tf.keras.Sequential(
            [
                layers.Input((16, 16, 3)),
                layers.Conv2D(8, 3, padding="same", activation="relu"),
                layers.BatchNormalization(),
                layers.DepthwiseConv2D(3, strides=2),
                layers.GlobalAveragePooling2D(),
                layers.Dense(5, activation="softmax"),
            ]
        ),
        image,
    )
    a = layers.Input((16, 16, 3))
    b = layers.Conv2D(8, 3, strides=2, padding="same", activation="swish")(a)
    c = layers.Conv2DTranspose(8, 3, strides=2, padding="same")(layers.MaxPooling2D(1)(b))
    c = layers.Concatenate()([c, a, layers.UpSampling2D(interpolation="bilinear")(b)])
    check("U-Net", tf.keras.Model(a, layers.Conv2D(2, 1, activation="sigmoid")(c)), image)
    words = np.random.randint(0, 50, (3, 9)).astype(np.int32)
    for name, kind in (("LSTM tagger", layers.LSTM), ("GRU tagger", layers.GRU)):
        i = layers.Input((9,), dtype="int32")
        x = layers.Bidirectional(kind(10, return_sequences=True))(layers.Embedding(50, 12)(i))
        check(name, tf.keras.Model(i, layers.Dense(5)(x)), words, tf.int32)
    i = layers.Input((9,), dtype="int32")
    x = layers.Embedding(50, 16)(i)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(24, activation="swish")(x)))
    check("transformer encoder", tf.keras.Model(i, layers.Dense(5)(x)), words, tf.int32)

    def loop(x):
        """A loop whose number of turns the data decides."""
        return tf.while_loop(lambda n, s: tf.reduce_sum(s) < 50.0, lambda n, s: (n + 1, s * 1.5), (tf.constant(0), x))

    check("while_loop", loop, np.random.rand(2, 3).astype(np.float32) + 0.1)

    def detect(x):
        """The best boxes of one picture: [n, 5], a score and the corners of a box in each row."""
        box = tf.concat([x[:, 1:3], x[:, 1:3] + tf.abs(x[:, 3:5])], -1)
        keep = tf.image.non_max_suppression(box, x[:, 0], 6, 0.5, 0.2)
        return tf.gather(box, keep), tf.gather(x[:, 0], keep)

    check("NMS", detect, np.random.rand(30, 5).astype(np.float32))
