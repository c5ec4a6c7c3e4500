"""Times compiled models beside ONNX Runtime, in interleaved rounds, and prints a table of ratios.

Usage: compare_ort.py ZENITHC OUTDIR [--threads N] [--rounds N] [--seconds S] [--arch NAME] MODEL.onnx...

Each round runs us, then ONNX Runtime (all optimisations on), each for about S seconds; a side's figure is the median of
its rounds' medians, so that a machine that drifts drifts under both. Ratio above 1: we are faster.
"""
import argparse
import json
import os
import statistics
import subprocess
import time

import numpy as np
import onnxruntime as ort

TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
         "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(bool)": np.bool_}


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def random_inputs(s):
    rng = np.random.default_rng(0)
    feed = {}
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in i.shape]
        t = TYPES[i.type]
        feed[i.name] = (rng.standard_normal(shape) if np.issubdtype(t, np.floating) else rng.integers(0, 2, shape)).astype(t)
    return feed


def median_ms(run, seconds):
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        t0 = time.perf_counter()
        run()
        times.append(time.perf_counter() - t0)
    return statistics.median(times) * 1e3


def bench_one(path, args):
    base = os.path.basename(path)
    name = os.path.basename(os.path.dirname(os.path.abspath(path))) if base == "model.onnx" else base[:-5]
    so = os.path.join(args.outdir, name + ".so")
    dims = []
    s = session(path, args.threads)
    for i in s.get_inputs():
        dims += [f"--dim={d}=1" for d in i.shape if isinstance(d, str) and d.isidentifier() and f"--dim={d}=1" not in dims]
    t0 = time.perf_counter()
    made = subprocess.run([args.zenithc, path, f"--arch={args.arch}", *dims, "--verify=off", "-o", so],
                          capture_output=True, text=True)
    built = time.perf_counter() - t0
    if made.returncode:
        return f"{name:24} {made.stderr.strip().splitlines()[0][:90] if made.stderr else 'failed'}"
    feed = random_inputs(s)
    ours, theirs = [], []
    once = lambda: s.run(None, feed)
    ms = median_ms(once, 0.2)
    runs = max(5, int(args.seconds * 1e3 / ms))
    for _ in range(args.rounds):
        said = subprocess.run([args.zenithc, "bench", so, "--json", f"--threads={args.threads}", f"--runs={runs}"],
                              capture_output=True, text=True)
        if said.returncode:
            return f"{name:24} {said.stderr.strip().splitlines()[0][:90]}"
        ours.append(json.loads(said.stdout)["median_ms"])
        theirs.append(median_ms(once, args.seconds))
    a, b = statistics.median(ours), statistics.median(theirs)
    return f"{name:24} {a:10.3f} {b:10.3f} {b / a:8.2f} {os.path.getsize(so) / 1e6:9.2f} {built:8.1f}"


def main():
    p = argparse.ArgumentParser()
    p.add_argument("zenithc")
    p.add_argument("outdir")
    p.add_argument("models", nargs="+")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.0)
    p.add_argument("--arch", default="native")
    args = p.parse_args()
    os.makedirs(args.outdir, exist_ok=True)
    print(f"{args.threads} thread(s), ONNX Runtime {ort.__version__}, {args.rounds} interleaved rounds")
    print(f"{'model':24} {'zenithc ms':>10} {'ORT ms':>10} {'ratio':>8} {'MB':>9} {'build s':>8}", flush=True)
    for m in args.models:
        print(bench_one(m, args), flush=True)


if __name__ == "__main__":
    main()
