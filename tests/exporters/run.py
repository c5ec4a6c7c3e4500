"""run.py ZENITHC FOLDER PAGE: exports models with the usual exporters, compiles and runs them, compares with the frameworks and
writes the table to PAGE. Exit code 1 when a model differs or is refused."""

import importlib.metadata
import os
import sys

import harness


def page(rows, path):
    versions = {}
    for name in (
        "torch",
        "onnxscript",
        "transformers",
        "scikit-learn",
        "skl2onnx",
        "onnxmltools",
        "lightgbm",
        "xgboost",
        "jax",
        "jax2onnx",
        "tensorflow-cpu",
        "tf2onnx",
    ):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    with open(path, "w", encoding="utf-8") as f:
        f.write(
            "# Exporters\n\nThis page is written by `make test-exporters`. Every model has random weights and the structure of\n"
            "the real one; it is exported, compiled for cpu at -O2, run, and compared with the framework's own results.\n"
            "eta as in [NUMERICS](NUMERICS.md); top-1: share of rows whose largest entry agrees. Models with dynamic shapes\n"
            "ran at two sizes (the worse is shown).\n\n"
        )
        f.write(", ".join(f"{k} {v}" for k, v in versions.items()) + ".\n\n")
        f.write("| model | exporter | max eta | top-1 | sizes | result |\n|---|---|---|---|---|---|\n")
        for r in rows:
            e = "-" if r["eta"] is None else f"{r['eta']:.1e}"
            t = "-" if r["top1"] is None else f"{100 * r['top1']:.0f} %"
            f.write(
                f"| {r['model']} | {r['exporter']} | {e} | {t} | {r.get('sizes', 1)} | {r['result'].replace('|', '/')} |\n"
            )


def main():
    zenithc, folder, path = (os.path.abspath(a) for a in sys.argv[1:4])
    os.makedirs(folder, exist_ok=True)
    runner = harness.Runner(zenithc, folder)
    only = sys.argv[4:]

    def group(name, module, function):
        if only and name not in only:
            return
        try:
            getattr(__import__(module), function)(runner)
        except ImportError as e:
            runner.skip(name, name, f"not installed: {e.name}")

    group("sklearn", "other_models", "sklearn_models")
    group("boosted", "other_models", "boosted")
    group("torch", "torch_models", "cnns")
    group("transformers", "torch_models", "transformers_models")
    group("jax", "other_models", "jax_models")
    group("tensorflow", "other_models", "tensorflow_models")
    page(runner.rows, path)
    bad = [r for r in runner.rows if r["result"] != "ok" and not r["result"].startswith("not run")]
    skipped = sum(r["result"].startswith("not run") for r in runner.rows)
    print(f"{len(runner.rows) - len(bad) - skipped} passed, {len(bad)} failed, {skipped} skipped")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
