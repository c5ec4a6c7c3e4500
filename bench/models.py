"""The models of the benchmark: where they are, and what they are fed.

A name is a model of shared/bench/make_models.py or of trees.py (made on demand), a folder of shared/models, or an .onnx
file.
Inputs are the stored ones of test_data_set_0, or drawn from the range that NAME.json gives, and are written to one .npz
that every contestant reads.
"""
import glob
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import trees
from onnx import numpy_helper

# Real models whose time means something; the others of shared/models are tests of meaning.
REAL = ["mnist-8", "cifar-cnn", "mlperf-tiny-vww-fp32", "squeezenet-fp16", "super-resolution-10", "ultraface-rfb-320",
        "yolox-nano", "deeplab-v3-257", "crepe-tiny", "tinybert", "magika-v3", "ppocr-cls", "ppocr-rec-en", "xfeat-256",
        "candy-style", "sci-lowlight", "basic-pitch", "openseeface-landmarks", "tf-bert-qa", "mlperf-tiny-ic-int8",
        "mlperf-tiny-kws-int8", "mlperf-tiny-vww-int8", "mlperf-tiny-ad-int8"]

# Models of make_models.py that are one operator.
SINGLE = {"identity", "gemm_384x768x3072", "gemm_128x768x768", "gemm_1x4096x4096", "gemm_1024x1024x1024",
          "matmul2_12x128x64x128", "conv3x3_64_56", "conv1x1_256_64_56", "conv3x3_512_7", "dwconv3x3_144_56",
          "gelu_128x3072", "softmax_1536x128", "layernorm_128x768"}


class Model:
    def __init__(self, name, path, inputs, flops=0, contrib=False):
        self.name, self.path, self.inputs, self.flops = name, path, inputs, flops
        self.contrib = contrib  # in ONNX Runtime's own operators: a rival's case only
        self.file_mb = os.path.getsize(path) / 1e6

    def shape_options(self):
        """--shape for the inputs whose shape the model leaves open."""
        given = []
        with np.load(self.inputs) as z:
            for i in onnx.load(self.path, load_external_data=False).graph.input:
                dims = i.type.tensor_type.shape.dim
                if i.name in z.files and any(d.dim_value <= 0 for d in dims) and z[i.name].ndim:
                    given.append(f"--shape={i.name}=" + "x".join(str(s) for s in z[i.name].shape))
        return given

    def input_options(self, folder):
        """--input for every input, as .npy files of their own."""
        options = []
        with np.load(self.inputs) as z:
            for k, name in enumerate(z.files):
                path = os.path.join(folder, f"{self.name}-in{k}.npy")
                np.save(path, z[name])
                options.append(f"--input={name}={path}")
        return options


def is_fp32(path):
    """No quantised, half or 8-bit arithmetic: the rows that the fp32 geometric means count."""
    small = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16}
    graph = onnx.load(path, load_external_data=False).graph
    quantised = any("Quantize" in n.op_type or n.op_type.endswith("Integer") or n.op_type.startswith("QLinear")
                    for n in graph.node)
    return not quantised and not any(t.data_type in small for t in graph.initializer)


def drawn_inputs(specs, path):
    rng, feed = np.random.default_rng(1), {}
    for s in specs:
        if s["dtype"] == "float32":
            feed[s["name"]] = rng.uniform(s["low"], s["high"], s["shape"]).astype(np.float32)
        else:
            feed[s["name"]] = rng.integers(s["low"], s["high"], s["shape"]).astype(s["dtype"])
    np.savez(path, **feed)


def stored_inputs(model, folder, path):
    graph = onnx.load(model, load_external_data=False).graph
    names = [i.name for i in graph.input if i.name not in {t.name for t in graph.initializer}]
    feed = {}
    for k, name in enumerate(names):
        tensor = onnx.TensorProto()
        with open(os.path.join(folder, f"input_{k}.pb"), "rb") as f:
            tensor.ParseFromString(f.read())
        feed[name] = numpy_helper.to_array(tensor)
    np.savez(path, **feed)


def plain_inputs(model, path):
    """For an .onnx file with nothing beside it: every open dimension is 1."""
    rng, feed = np.random.default_rng(1), {}
    graph = onnx.load(model, load_external_data=False).graph
    for i in graph.input:
        if i.name in {t.name for t in graph.initializer}:
            continue
        t = i.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(t.elem_type)
        shape = [d.dim_value if d.dim_value > 0 else 1 for d in t.shape.dim]
        floating = np.issubdtype(dtype, np.floating)
        feed[i.name] = (rng.standard_normal(shape) if floating else rng.integers(0, 2, shape)).astype(dtype)
    np.savez(path, **feed)


def names_of(make_models):
    said = subprocess.run([sys.executable, make_models, "--list"], capture_output=True, text=True, check=True)
    return said.stdout.split()


def find(name, out, make_models, real):
    """The Model called name; raises LookupError."""
    folder = os.path.join(real, name)
    base = os.path.join(out, os.path.splitext(os.path.basename(name))[0])
    if os.path.isfile(name):
        plain_inputs(name, base + ".npz")
        return Model(os.path.basename(base), name, base + ".npz")
    if os.path.isfile(os.path.join(folder, "model.onnx")):
        sets = sorted(glob.glob(os.path.join(folder, "test_data_set_*")))
        stored_inputs(os.path.join(folder, "model.onnx"), sets[0], base + ".npz")
        return Model(name, os.path.join(folder, "model.onnx"), base + ".npz")
    if name in trees.NAMES:
        trees.make(base + ".onnx", name)
        plain_inputs(base + ".onnx", base + ".npz")
        return Model(name, base + ".onnx", base + ".npz")
    if not os.path.isfile(make_models) or name not in names_of(make_models):
        raise LookupError(f"no such model: {name}")
    if not os.path.isfile(base + ".json"):
        subprocess.run([sys.executable, make_models, out, name], stdout=subprocess.DEVNULL, check=True)
    with open(base + ".json", encoding="utf-8") as f:
        info = json.load(f)
    drawn_inputs(info["inputs"], base + ".npz")
    return Model(name, base + ".onnx", base + ".npz", info["flops"], contrib="contrib" in name)
