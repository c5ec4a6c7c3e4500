"""Writes zenithc/ops/op_tests.def: what proves each operator. Reads the ONNX node tests (build/onnx-data), the text tests of
this repository and, when it is there, the index of the real models. `make op-tests`."""

import collections
import glob
import json
import os
import re
import sys

import onnx


def operators(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from operators(attribute.g)


def main():
    data, models = sys.argv[1], sys.argv[2]
    nodes, texts, real = collections.Counter(), collections.defaultdict(list), collections.defaultdict(list)
    for path in sorted(glob.glob(os.path.join(data, "*", "model.onnx"))):
        model = onnx.load(path, load_external_data=False)
        nodes.update(set(operators(model.graph)) | {o for f in model.functions for o in operators(f)})
    for path in sorted(glob.glob("tests/golden/**/*.zg", recursive=True) + glob.glob("tests/fuzz/cases/*.zg")):
        with open(path, encoding="utf-8") as f:
            for op in sorted(set(re.findall(r"= ([A-Z]\w+)\(", f.read()))):
                texts[op].append(re.sub(r"^tests/|\.zg$", "", path))
    if os.path.exists(models):
        with open(models, encoding="utf-8") as f:
            for entry in json.load(f):
                for op in entry["ops"]:
                    real[op.split(":")[-1]].append(entry["name"])
    else:
        sys.exit(f"{models} is missing: the models' operators would be lost")
    with open("zenithc/ops/ops.def", encoding="utf-8") as f:
        ops = re.findall(r"^OP\((\w+),", f.read(), re.M)
    with open("zenithc/ops/op_tests.def", "w", encoding="utf-8") as f:
        f.write(
            "/* PROVED(operator, ONNX node tests that have it, text tests, real models): written by tools/op_tests.py. */\n"
        )
        for op in ops:
            if nodes[op] or texts[op] or real[op]:
                some = " ".join(real[op][:6]) + (f" +{len(real[op]) - 6}" if len(real[op]) > 6 else "")
                proof = " ".join(texts[op][:4]) + (f" +{len(texts[op]) - 4}" if len(texts[op]) > 4 else "")
                f.write(f'PROVED({op}, {nodes[op]},\n       "{proof}",\n       "{some}")\n')


if __name__ == "__main__":
    main()
