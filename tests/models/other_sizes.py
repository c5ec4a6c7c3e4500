"""Real models at sizes other than those of their stored data: writes cases whose outputs ONNX Runtime computed.

Usage: other_sizes.py MODELS OUTDIR [NAME...]. Every model with symbolic dimensions becomes OUTDIR/NAME/ with one data set
for each of three sizes. Inputs are the stored ones, repeated or cut along the symbolic dimensions, so that they mean
something. Sizes that ONNX Runtime itself refuses are left out.
"""
import glob
import os
import shutil
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "conformance"))
from make_data import write  # noqa: E402
from protos import to_proto  # noqa: E402


def other(base, k):
    """Three sizes beside base; multiples of 16 stay multiples and grow (images, strides), others shrink too."""
    if base and base % 16 == 0:
        return base + 16 * (1, 2, 5)[k]
    return (base + 1, 2 * base, base // 2 or base + 3)[k]


def symbols(model):
    """(input, axis) -> name of the symbol; sizes without a name: the first axis is the batch of all, others stand alone."""
    weights = {i.name for i in model.graph.initializer}
    found = {}
    for n, i in enumerate(x for x in model.graph.input if x.name not in weights):
        for axis, d in enumerate(i.type.tensor_type.shape.dim):
            if not d.HasField("dim_value"):
                found[n, axis] = d.dim_param or ("batch of all" if axis == 0 else f"{i.name}[{axis}]")
    return found


def sizes(names, base, k):
    """A total length is what it was made of: past and present."""
    new = {s: other(b, k) for s, b in base.items()}
    for s in base:
        if s.startswith("total_"):
            new[s] = sum(new[t] for t in base if t != s and "seq" in t)
    return new


def resized(value, axes):
    if value.size == 0:
        value = np.zeros([max(d, 1) for d in value.shape], value.dtype)
    for axis, size in axes:
        value = np.take(value, np.arange(size), axis=axis, mode="wrap")
    return value


def fullest(folder):
    """The inputs of the data set that has most numbers (caches may be empty in the first)."""
    def read(data):
        files = sorted(glob.glob(os.path.join(data, "input_*.pb")), key=lambda f: int(f[:-3].split("_")[-1]))
        return [numpy_helper.to_array(onnx.load_tensor(f)) for f in files]
    sets = [read(d) for d in sorted(glob.glob(os.path.join(folder, "test_data_set_*")))]
    return max(sets, key=lambda values: sum(x.size for x in values))


def write_case(folder, out):
    model = onnx.load(os.path.join(folder, "model.onnx"))
    found = symbols(model)
    if not found:
        return
    stored = fullest(folder)
    base = {name: stored[n].shape[axis] for (n, axis), name in found.items()}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])
    os.makedirs(out, exist_ok=True)
    shutil.copy(os.path.join(folder, "model.onnx"), out)
    done = 0
    candidates = [sizes(found, base, k) for k in range(3)]
    candidates += [{**base, t: other(base[t], k)} for t in base for k in range(3)]  # one at a time, where all together do not fit
    for new in candidates:
        if done == 3:
            break
        values = [resized(v, [(axis, new[s]) for (m, axis), s in found.items() if m == n]) for n, v in enumerate(stored)]
        feeds = {i.name: v for i, v in zip(session.get_inputs(), values)}
        try:
            results = session.run(None, feeds)
        except Exception:  # noqa: BLE001: what ONNX Runtime raises has no common class
            continue
        data = os.path.join(out, f"test_data_set_{done}")
        os.makedirs(data, exist_ok=True)
        for n, v in enumerate(values):
            write(to_proto(v, session_type(model, n), session.get_inputs()[n].name), os.path.join(data, f"input_{n}.pb"))
        for n, (v, o) in enumerate(zip(results, model.graph.output)):
            write(to_proto(v, o.type, o.name), os.path.join(data, f"output_{n}.pb"))
        done += 1
    if done < 3:
        print(f"note {os.path.basename(folder)}: ONNX Runtime runs {done} other sizes")


def session_type(model, n):
    weights = {i.name for i in model.graph.initializer}
    return [x for x in model.graph.input if x.name not in weights][n].type


def main():
    models, out, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    for folder in sorted(glob.glob(os.path.join(models, "*"))):
        name = os.path.basename(folder)
        if os.path.exists(os.path.join(folder, "model.onnx")) and (not names or name in names):
            write_case(folder, os.path.join(out, name))


if __name__ == "__main__":
    main()
