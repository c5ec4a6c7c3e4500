"""Compiles and runs exported models, and compares with the framework that they came from."""

import math
import os
import subprocess
import time
import warnings

import numpy as np
import onnx

warnings.filterwarnings("ignore")


def eta(ref, got):
    """max |got - ref| / (|ref| + RMS(ref)) as in docs/NUMERICS.md; integers and strings: 0 or inf."""
    ref, got = np.asarray(ref), np.asarray(got)
    if ref.shape != got.shape:
        raise ValueError(f"shape {list(got.shape)} instead of {list(ref.shape)}")
    if ref.dtype.kind not in "fc":
        return 0.0 if np.array_equal(ref, got.astype(ref.dtype)) else math.inf
    if ref.size == 0:
        return 0.0
    ref, got = ref.astype(np.float64), got.astype(np.float64)
    scale = np.abs(ref) + math.sqrt(float(np.mean(ref * ref)))
    diff = np.abs(got - ref)
    return float(np.max(np.where(diff == 0, 0, diff / np.maximum(scale, 1e-300))))


def top1(ref, got):
    """Share of rows whose largest entry agrees; None when there are no rows."""
    ref, got = np.asarray(ref), np.asarray(got)
    if ref.ndim < 2 or ref.shape[-1] < 2 or ref.dtype.kind != "f" or ref.size == 0:
        return None
    return float(np.mean(np.argmax(ref, -1) == np.argmax(got, -1)))


class Runner:
    def __init__(self, zenithc, folder):
        self.zenithc, self.folder = zenithc, folder
        self.rows = []

    def compiled(self, name, feeds):
        """Outputs of NAME.onnx, compiled for cpu, on these inputs."""
        path = os.path.join(self.folder, name + ".onnx")
        out = os.path.join(self.folder, name + ".out")
        so = os.path.join(self.folder, name + ".so")
        model = onnx.load(path, load_external_data=False)
        wanted = [o.name for o in model.graph.output]
        subprocess.run(
            [self.zenithc, path, "--verify=off", "--quiet", "-o", so],
            check=True,
            capture_output=True,
            timeout=400,
            text=True,
        )
        command = [self.zenithc, "run", so, "--output-dir", out]
        initializers = {i.name for i in model.graph.initializer}
        for value in model.graph.input:
            if value.name in initializers:
                continue
            file = os.path.join(self.folder, f"{name}.{len(command)}.npy")
            np.save(file, feeds[value.name])
            command += ["--input", f"{value.name}={file}"]
        subprocess.run(command, check=True, capture_output=True, timeout=200, text=True)
        files = {os.path.splitext(f)[0]: os.path.join(out, f) for f in os.listdir(out)}
        return [np.load(files.get(w) or files[w.replace("/", "_").replace(":", "_")]) for w in wanted]

    def check(self, name, exporter, feeds, wanted, tolerance=2e-5):
        """One row of the table. wanted: the framework's outputs, in order (None: not compared)."""
        row = {"model": name, "exporter": exporter, "eta": None, "top1": None, "result": ""}
        start = time.time()
        try:
            got = self.compiled(name, feeds)
            pairs = [(np.asarray(w), g) for w, g in zip(wanted, got) if w is not None]
            row["eta"] = max(eta(w, g) for w, g in pairs)
            tops = [t for t in (top1(w, g) for w, g in pairs) if t is not None]
            row["top1"] = min(tops) if tops else None
            row["result"] = "ok" if row["eta"] <= tolerance else "differs"
        except subprocess.CalledProcessError as e:
            lines = [l for l in (e.stderr or "").splitlines() if l.strip()]
            row["result"] = "refused: " + (lines[0][-200:] if lines else str(e.returncode))
        except Exception as e:  # pylint: disable=broad-except
            row["result"] = f"failed: {type(e).__name__} {str(e)[:160]}"
        self.rows.append(row)
        print(f"{name:28} {exporter:22} {row['eta']} {row['result']} ({time.time() - start:.1f} s)", flush=True)

    def skip(self, name, exporter, why):
        self.rows.append({"model": name, "exporter": exporter, "eta": None, "top1": None, "result": f"not run: {why}"})
        print(f"{name:28} {exporter:22} not run: {why}", flush=True)
