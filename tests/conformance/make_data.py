"""Writes the ONNX backend tests (model.onnx + test_data_set_*) of the installed onnx package: node, simple,
pytorch-converted, pytorch-operator and light (real networks whose weights are constants of one value).

Usage: make_data.py OUTDIR. Each case becomes OUTDIR/<name>/; the layout is that of the ONNX backend test data.
Cases whose model or data the package cannot build in this environment are listed and skipped.
"""
import glob
import os
import shutil
import sys

import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.runner import Runner

from protos import to_proto


def write(proto, path):
    with open(path, "wb") as f:
        f.write(proto.SerializeToString())


def write_node(case, path):
    model = case.model
    write(model, os.path.join(path, "model.onnx"))
    for k, (ins, outs) in enumerate(case.data_sets):
        data = os.path.join(path, f"test_data_set_{k}")
        os.makedirs(data, exist_ok=True)
        for kind, values, infos in (("input", ins, model.graph.input), ("output", outs, model.graph.output)):
            if isinstance(values, dict):
                values = [values[i.name] for i in infos]
            for i, v in enumerate(values):
                write(to_proto(v, infos[i].type, infos[i].name), os.path.join(data, f"{kind}_{i}.pb"))


def write_light(model_path, path):
    """As the package's own runner does: counting inputs, stored outputs."""
    model = onnx.load(model_path)
    shutil.copy(model_path, os.path.join(path, "model.onnx"))
    data = os.path.join(path, "test_data_set_0")
    os.makedirs(data, exist_ok=True)
    weights = {i.name for i in model.graph.initializer}
    inputs = [x for x in model.graph.input if x.name not in weights]
    for i, x in enumerate(inputs):
        write(numpy_helper.from_array(Runner.generate_dummy_data(x), x.name), os.path.join(data, f"input_{i}.pb"))
    for i in range(len(model.graph.output)):
        shutil.copy(f"{model_path[:-5]}_output_{i}.pb", os.path.join(data, f"output_{i}.pb"))


def cases():
    """(name, function that writes the case into a folder)"""
    for case in collect_testcases(None):
        yield case.name, lambda path, case=case: write_node(case, path)
    stored = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for folder in sorted(glob.glob(os.path.join(stored, kind, "test_*"))):
            yield os.path.basename(folder), lambda path, src=folder: shutil.copytree(src, path, dirs_exist_ok=True)
    for model in sorted(glob.glob(os.path.join(stored, "light", "*.onnx"))):
        name = "test_" + os.path.basename(model)[:-5]
        yield name, lambda path, src=model: write_light(src, path)


def main(out_dir):
    done = skipped = 0
    for name, write_case in cases():
        path = os.path.join(out_dir, name)
        try:
            os.makedirs(path, exist_ok=True)
            write_case(path)
            done += 1
        except Exception as e:  # noqa: BLE001: one bad case must not hide the others
            skipped += 1
            print(f"skipped {name}: {type(e).__name__}: {e}", file=sys.stderr)
    print(f"{done} cases written to {out_dir}, {skipped} skipped")


if __name__ == "__main__":
    main(sys.argv[1])
