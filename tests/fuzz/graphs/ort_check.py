"""ort_check.py DIR: runs every DIR/*/model.onnx that fuzz_graphs --onnx wrote through ONNX Runtime and compares with the
reference's outputs under the metric of docs/NUMERICS.md. Models that ONNX Runtime refuses are counted by reason.
Each folder runs in a process of its own: some models crash the runtime."""

import collections
import glob
import math
import multiprocessing
import os
import re
import sys

import numpy as np
import onnx
from onnx import numpy_helper


def load(path):
    tensor = onnx.TensorProto()
    with open(path, "rb") as f:
        tensor.ParseFromString(f.read())
    return numpy_helper.to_array(tensor)


def eta(ref, got):
    """Largest |got - ref| / (|ref| + RMS(ref)); inf when only one side is finite."""
    ref, got = ref.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    if ref.size == 0:
        return 0.0
    finite = np.isfinite(ref)
    if not np.array_equal(finite, np.isfinite(got)) or not np.array_equal(ref[~finite], got[~finite], equal_nan=True):
        return math.inf
    ref, got = ref[finite], got[finite]
    if ref.size == 0:
        return 0.0
    scale = np.abs(ref) + math.sqrt(np.mean(ref * ref))
    diff = np.abs(got - ref)
    return float(np.max(np.where(diff == 0, 0, diff / np.maximum(scale, 1e-300))))


def compare(ref, got, floor):
    if ref.shape != got.shape or ref.dtype != got.dtype:
        return f"{got.dtype}{list(got.shape)} instead of {ref.dtype}{list(ref.shape)}"
    kind = ref.dtype.name
    if ref.dtype.kind in "biuSUO" or kind.startswith(("int", "uint")):
        bad = int(np.sum(ref != got))
        return f"{bad} of {ref.size} values differ" if bad else ""
    # one evaluation by another program: its own rounding, and f16 kernels that round at every step
    tolerance = {"float64": 1e-11, "float32": 2e-5, "float16": 8e-3, "bfloat16": 6e-2}.get(kind, 0.3)
    tolerance = max(tolerance, 16 * floor)
    e = eta(ref, got)
    return f"eta {e:.3g} above {tolerance:.3g}" if e > tolerance else ""


def run(folder, answer):
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(os.path.join(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # pylint: disable=broad-except
        answer.put(("refused", re.sub(r"[0-9]+|'[^']*'", "", str(e))[:150]))
        return
    data = os.path.join(folder, "test_data_set_0")
    feeds = {x.name: load(os.path.join(data, f"input_{i}.pb")) for i, x in enumerate(session.get_inputs())}
    floors = [float(x) for x in open(os.path.join(folder, "floor.txt"), encoding="ascii")]
    try:
        got = session.run(None, feeds)
    except Exception as e:  # pylint: disable=broad-except
        answer.put(("failed", re.sub(r"[0-9]+|'[^']*'", "", str(e))[:150]))
        return
    for i, value in enumerate(got):
        why = compare(load(os.path.join(data, f"output_{i}.pb")), np.asarray(value), floors[i])
        if why:
            answer.put(("different", f"output {i}: {why}"))
            return
    answer.put(("same", ""))


def main():
    counts, reasons = collections.Counter(), collections.Counter()
    for model in sorted(glob.glob(os.path.join(sys.argv[1], "*", "model.onnx"))):
        folder = os.path.dirname(model)
        answer = multiprocessing.Queue()
        child = multiprocessing.Process(target=run, args=(folder, answer))
        child.start()
        try:
            what, why = answer.get(timeout=30)
        except Exception:  # pylint: disable=broad-except
            what, why = "crashed", ""
        child.join(5)
        child.kill()
        counts[what] += 1
        if what in ("refused", "failed"):
            reasons[f"{what}: {why}"] += 1
        elif what != "same":
            print(f"{folder}: {what} {why}", flush=True)
    for reason, n in reasons.most_common(40):
        print(f"  {n} {reason}")
    print(", ".join(f"{n} {what}" for what, n in sorted(counts.items())))
    return counts["different"] > 0


if __name__ == "__main__":
    sys.exit(main())
