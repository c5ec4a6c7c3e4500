"""What no test touches: attributes that never have another value than their default, and versions of operators.

usage: coverage.py FOLDER... (every model.onnx below them is read)
"""
import os
import sys

import onnx
from onnx import defs, helper as h

import own_seeds
import seeds


def plain(value):
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def nodes(graph):
    for n in graph.node:
        yield n
        for a in n.attribute:
            for g in [a.g] * (a.type == onnx.AttributeProto.GRAPH) + list(a.graphs):
                yield from nodes(g)


def note(node, version, attrs, versions):
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = defs.get_schema(node.op_type, version, domain)
    except defs.SchemaError:
        return
    versions.add((domain, node.op_type, schema.since_version))
    for a in node.attribute:
        known = schema.attributes.get(a.name)
        if known is None:
            continue
        value = plain(h.get_attribute_value(a)) if a.type not in (onnx.AttributeProto.GRAPH,
                onnx.AttributeProto.TENSOR) else None
        default = plain(h.get_attribute_value(known.default_value)) if known.default_value.name else "none"
        if value != default:
            attrs.add((domain, node.op_type, a.name))


def main():
    attrs, versions = set(), set()
    newest, every = seeds.schemas()
    for root in sys.argv[1:]:
        for folder, _, files in os.walk(root, followlinks=True):
            for name in files:
                if name.endswith(".onnx"):
                    m = onnx.load(os.path.join(folder, name), load_external_data=False)
                    opset = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in m.opset_import}
                    for n in nodes(m.graph):
                        note(n, opset.get("" if n.domain == "ai.onnx" else n.domain, 1), attrs, versions)
                    for fn in m.functions:
                        inner = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in fn.opset_import}
                        for n in fn.node:
                            note(n, inner.get(n.domain, 1), attrs, versions)
    from sweep_types import constraints
    for key, found in own_seeds.own({k: constraints(s) for k, s in newest.items()}).items():
        for s in found:
            note(s.node, newest[key].since_version, attrs, versions)
    total = left = 0
    for (domain, op), s in sorted(newest.items()):
        for a in sorted(s.attributes):
            total += 1
            if (domain, op, a) not in attrs:
                left += 1
                print("attribute", domain or "ai.onnx", op, a)
    print(f"{total - left} of {total} attributes have a value other than their default somewhere")
    pairs = {(d, o, s.since_version) for (d, o), all_of in every.items() for s in all_of}
    for d, o, v in sorted(pairs - versions):
        print("version", d or "ai.onnx", o, v)
    print(f"{len(pairs & versions)} of {len(pairs)} versions of operators")
    sys.exit(left > 0 or not pairs <= versions)


if __name__ == "__main__":
    main()
