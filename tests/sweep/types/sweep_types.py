"""Every operator of the schemas with every type that they allow, against other implementations.

usage: sweep_types.py FUZZ_GRAPHS NODE-TESTS OUT [--versions] [--only OP,...] [--seeds N] [--small] [--make-only] [--ways BITS]

Each seed (seeds.py, own_seeds.py) is retyped: one type constraint at a time to each type that the schema allows, all that
share an element type together, and the whole product where it is small. A case is OUT/OP/NAME with model.onnx, its inputs,
and what onnx.reference (ref) and ONNX Runtime (ort) say, where they say anything. `fuzz_graphs --cases` computes it by
our evaluator, interp, cpu and c, and adds what the evaluator says: `zenithc check OUT/OP` reads it too.
OUT/results.tsv has a line for each case, OUT/table.txt operator x type. What is disputed or
refused with a reason stands in verdicts.txt; anything else of the kind is a failure.
"""
import argparse
import collections
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnx.helper as h
from onnx.reference import ReferenceEvaluator

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "conformance"))
import attr_seeds
import own_seeds
import seeds
from protos import to_proto
from retype import INTS, NAMES, TYPE_ATTRS, convert_value, numbers, parse, retype_attrs, type_proto

PRODUCT = 700  # combinations of types tried in full
BODIES = {"If", "Loop", "Scan", "SequenceMap"}  # values of different types share one type constraint
RANDOM = {"RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Multinomial", "Bernoulli"}
ORT_TYPES = set("float double float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool string".split())


def constraints(schema):
    return {c.type_param_str: sorted(c.allowed_type_strs) for c in schema.type_constraints}


def formals(schema, node):
    """(name, type constraint or type) of each input and output of the node."""
    def match(names, params):
        out = []
        for i, n in enumerate(names):
            if n and params:
                p = params[min(i, len(params) - 1)]
                mixed = node.op_type in BODIES and not p.is_homogeneous
                out.append((n, p.type_str, mixed))
        return out
    return match(node.input, schema.inputs), match(node.output, schema.outputs)


def current(schema, seed):
    """Type constraint -> type, as the seed has it; None when the schema cannot say it."""
    known = constraints(schema)
    assign = {}
    ins, outs = formals(schema, seed.node)
    for name, t, mixed in ins:
        if t in known and name in seed.types and not mixed:
            assign.setdefault(t, seed.types[name])
    for k, (name, t, mixed) in enumerate(outs):
        if t in known and t not in assign and not mixed:
            attr = next((a for a in seed.node.attribute if a.name == TYPE_ATTRS.get((seed.node.op_type, t))), None)
            if attr is not None and attr.i in NAMES:
                tensor = f"tensor({NAMES[attr.i]})"
                assign[t] = tensor if tensor in known[t] else f"seq({tensor})"
            elif k < len(seed.outputs) and isinstance(seed.outputs[k], np.ndarray):
                code = h.np_dtype_to_tensor_dtype(seed.outputs[k].dtype)
                assign[t] = f"tensor({NAMES[code]})"
    return assign


def assignments(schema, base, thorough):
    """Dictionaries constraint -> type: base first, then one changed, all of one element type changed, all products."""
    allowed = {c: [t for t in ts if parse(t)[1]] for c, ts in constraints(schema).items() if c in base}
    seen = {}

    def add(a):
        seen.setdefault(tuple(sorted(a.items())), a)
    add(base)
    for c, ts in allowed.items():
        for t in ts:
            if parse(t)[0] == parse(base[c])[0]:
                add({**base, c: t})
            new = {}
            for d, b in base.items():
                form, elem = parse(b)
                to = form.format(parse(t)[1])
                new[d] = to if elem == parse(base[c])[1] and d in allowed and to in allowed[d] else b
            add(new)
    forms = {c: [t for t in ts if parse(t)[0] == parse(base[c])[0]] for c, ts in allowed.items()}
    count = int(np.prod([len(t) for t in forms.values()], dtype=np.int64)) if forms else 0
    if thorough and count <= PRODUCT:
        for combo in itertools.product(*forms.values()):
            add({**base, **dict(zip(forms, combo))})
    return list(seen.values())


def tame(op, position, value, elem):
    """Keeps operands of integer arithmetic where it is defined."""
    if op in ("Cast", "CastLike") and elem == "string":
        return np.array([s.lstrip("-") for s in value.ravel()], object).reshape(value.shape)
    if elem in INTS and isinstance(value, np.ndarray):
        if op in ("Div", "Mod") and position == 1:
            return np.where(value == 0, np.ones_like(value), value)
        if op == "Pow":
            return np.clip(np.abs(value), 0, 3).astype(value.dtype)
    return value


def retyped(schema, seed, assign, opset=None):
    """(model, inputs), or None when the combination means nothing."""
    node = onnx.NodeProto()
    node.CopyFrom(seed.node)
    base = current(schema, seed)
    for c, t in assign.items():
        if t != base.get(c) and retype_attrs(node, c, parse(t)[1]) is False:
            return None
    ins, _ = formals(schema, node)
    kinds = {n: assign[t] for n, t, mixed in ins if t in assign and not mixed}
    values, infos = {}, []
    for position, (name, value) in enumerate(seed.inputs.items()):
        text = kinds.get(name, seed.types[name])
        elem = parse(text)[1]
        if elem and text != seed.types[name]:
            value = tame(node.op_type, position, convert_value(value, elem), elem)
        values[name] = value
        item = value[0] if isinstance(value, list) and value else value
        shape = list(item.shape) if isinstance(item, (np.ndarray, np.generic)) else None
        infos.append(h.make_value_info(name, type_proto(text, shape)))
    outs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
    graph = h.make_graph([node], "g", infos, outs)
    version = opset or schema.since_version
    imports = [h.make_opsetid(node.domain, version)] + ([h.make_opsetid("", 26)] if node.domain else [])
    model = h.make_model(graph, opset_imports=imports, ir_version=10 if version < 24 and not node.domain else 13)
    try:
        if node.op_type not in BODIES:  # bodies read values of the graph around them
            onnx.checker.check_node(node, context(imports))
    except onnx.checker.ValidationError:
        return None
    try:
        full = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception:  # pylint: disable=broad-except
        if not schema.has_function or not all(t in assign for _, t, _ in formals(schema, node)[1]):
            return None
        full = model  # the bodies of some functions hold constants of one type only
    if not fits(schema, seed, node, full, assign):
        return None
    return full, values


def context(imports):
    c = onnx.checker.C.CheckerContext()
    c.ir_version = 13
    c.opset_imports = {i.domain: i.version for i in imports}
    return c


def fits(schema, seed, node, model, assign):
    """Do the inferred results have the types that the assignment says? Gives results the shapes of the node test."""
    inferred = {o.name: o for o in model.graph.output}
    known = constraints(schema)
    for k, (name, t, mixed) in enumerate(formals(schema, node)[1]):
        o = inferred.get(name)
        if o is None or not o.type.WhichOneof("value"):
            if t in assign and not mixed:
                o.type.CopyFrom(type_proto(assign[t], None))
            elif t not in known:
                o.type.CopyFrom(type_proto(t, None))
            else:
                return False
        text = seeds.spell(o.type)
        if t in assign and not mixed and text != assign[t]:
            return False
        stored = seed.outputs[k] if k < len(seed.outputs) else None
        if isinstance(stored, np.ndarray) and o.type.HasField("tensor_type"):
            o.type.CopyFrom(type_proto(text, list(stored.shape)))
    return True


def reference(model, values):
    return ReferenceEvaluator(model).run(None, dict(values))


def runtime(model, values):
    import onnxruntime as ort
    for i in list(model.graph.input) + list(model.graph.output):
        elem = parse(seeds.spell(i.type))[1]
        if elem and elem not in ORT_TYPES:
            raise TypeError(elem)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, dict(values))


def save(protos, folder, what):
    os.makedirs(folder, exist_ok=True)
    for k, p in enumerate(protos):
        with open(f"{folder}/{what}_{k}.pb", "wb") as f:
            f.write(p.SerializeToString())


def write_case(folder, model, values):
    os.makedirs(folder)
    onnx.save(model, folder + "/model.onnx")
    save([to_proto(values[i.name], i.type, i.name) for i in model.graph.input], folder + "/test_data_set_0", "input")
    if model.graph.node[0].op_type in RANDOM:
        return
    for name, call in (("ref", reference), ("ort", runtime)):
        try:
            got = call(model, values)
            save([to_proto(v, o.type, o.name) for v, o in zip(got, model.graph.output)], f"{folder}/{name}", "output")
        except Exception:  # pylint: disable=broad-except  (no opinion)
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)


def signature(seed):
    texts = tuple(sorted((a.name,
            a.s if a.type == onnx.AttributeProto.STRING and a.name != "equation" else b"") for a in seed.node.attribute))
    forms = tuple(parse(t)[0] for t in seed.types.values())
    return texts, tuple(bool(n) for n in seed.node.input), tuple(bool(n) for n in seed.node.output), forms


def chosen(found, limit):
    """One seed of each form, small ones first."""
    groups = {}
    for s in sorted(found, key=seeds.size):
        groups.setdefault(signature(s), s)
    return list(groups.values())[:limit]


def short(text):
    return text.replace("tensor(", "").replace("optional(", "o-").replace("seq(", "s-").replace(")", "").replace("map(",
            "m-").replace(", ", "-")


def make_versions(key, every, mine, found, out, args):
    """Each older version of the operator that no other test has, from seeds that are valid there too."""
    for schema in every[key][:-1]:
        v = schema.since_version
        folder = os.path.join(out, f"{folder_of(key)}-{v}")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        every_seed = mine.get(key, []) + found.get(key, [])
        first = chosen(every_seed, len(every_seed))
        count = 0
        for s in first + [s for s in every_seed if s not in first]:
            path = os.path.join(folder, s.name[:200])
            made = retyped(schema, s, current(schema, s), opset=v)
            if made is None or os.path.exists(path):
                continue
            write_case(path, *made)
            count += 1
            if count == args.seeds:
                break


def said(schema, model):
    """(type constraint, type) of every value of the model."""
    ins, outs = formals(schema, model.graph.node[0])
    text = {v.name: seeds.spell(v.type) for v in list(model.graph.input) + list(model.graph.output)}
    return {(t, text[n]) for n, t, _ in ins + outs if n in text}


def folder_of(key):
    return f"{key[0].replace('.', '_') + '-' if key[0] else ''}{key[1]}"


def make_op(key, schema, mine, found, out, args):
    folder = os.path.join(out, folder_of(key))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    mixed = key[1] in BODIES
    tests = found.get(key, [])
    covered = set()
    for number, s in enumerate(mine.get(key, []) + (tests if mixed or key[0] else chosen(tests, args.seeds))):
        base = current(schema, s)
        for assign in [base] if mixed else assignments(schema, base, number == 0):
            made = retyped(schema, s, assign)
            label = ",".join(f"{c}={short(t)}" for c, t in sorted(assign.items())) or "-"
            if mixed:
                label = ",".join(short(t) for t in s.types.values())
            if made is None:
                continue
            name = f"{s.name}__{label}"[:200]
            path = os.path.join(folder, name)
            if os.path.exists(path):
                continue
            try:
                write_case(path, *made)
            except Exception as e:  # pylint: disable=broad-except
                shutil.rmtree(path, ignore_errors=True)
                print("cannot write", key[1], name, repr(e)[:200], flush=True)
                continue
            covered.update(said(schema, made[0]))
            if args.small:
                return
    with open(folder + "/uncovered.txt", "w", encoding="utf-8") as f:
        for c, ts in constraints(schema).items():
            left = [t for t in ts if (c, t) not in covered]
            if left:
                f.write(f"{c}\t{' '.join(left)}\n")


def parallel(jobs, todo, call):
    """call(item) in children, `jobs` at a time."""
    running = {}
    todo = list(todo)
    while todo or running:
        while todo and len(running) < jobs:
            item = todo.pop(0)
            pid = os.fork()
            if pid == 0:
                signal.alarm(900)
                try:
                    call(item)
                finally:
                    sys.stdout.flush()
                    os._exit(0)
            running[pid] = item
        pid, status = os.wait()
        if status:
            print("made only a part of", running[pid], "signal or exit", status, flush=True)
        del running[pid]


def check_all(program, out, folders, jobs, ways):
    """A line of results.tsv for each case."""
    pieces = []
    for f in folders:
        cases = sorted(os.path.join(f, n) for n in os.listdir(f) if os.path.isdir(os.path.join(f, n)))
        pieces += [(f, k, cases[k:k + 60]) for k in range(0, len(cases), 60)]

    def run(piece):
        f, k, cases = piece
        with open(f"{f}/result-{k}.tsv", "w", encoding="utf-8") as result:
            scratch = f"{out}/scratch/{os.getpid()}"
            os.makedirs(scratch, exist_ok=True)
            subprocess.run([program, "-o", scratch, "--ways", ways, "--cases"] + cases, stdout=result, check=False)
    shutil.rmtree(out + "/scratch", ignore_errors=True)
    parallel(jobs, pieces, run)
    shutil.rmtree(out + "/scratch", ignore_errors=True)


def read_verdicts(run):
    """Rows of verdicts.txt for this run: [outcome, who, operator, case, number of cases that it explained]."""
    rows = []
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "verdicts.txt"), encoding="utf-8") as f:
        for line in f:
            if line.startswith("#"):
                continue
            where, outcome, who, op, case, _ = (x.strip().replace("\\|", "|") for x in re.split(r" (?<!\\)\| ", line))
            if where == run:
                rows.append([outcome, who, re.compile(op), re.compile(case), 0])
    return rows


def verdict(fields, rows, op, case):
    """ok, refused, differs, disputed (an opinion differs and none agrees), alone (nobody else has an opinion); explained:
    disputed or refused, and verdicts.txt says why."""
    outcome, said = fields[0], [o for o in fields[4:6] if o]
    if outcome not in ("same", "refused", "undefined"):
        return "differs"
    result = "refused" if outcome != "same" else "alone" if not said else "ok" if "agrees" in said else "disputed"
    wrong = "both" if all(fields[4:6]) else "ref" if fields[4] else "ort"
    for row in rows if result in ("refused", "disputed") else []:
        whose = row[1] in (wrong, "both", "-")
        if row[0] == result and whose and row[2].fullmatch(op) and row[3].fullmatch(case):
            row[4] += 1
            return "explained"
    return result


def collect(out, folders, verdicts, whole):
    rows = []
    for f in folders:
        lines = []
        for n in sorted(os.listdir(f)):
            if n.startswith("result-"):
                lines += open(f"{f}/{n}", encoding="utf-8", errors="replace").read().splitlines()
        for line in lines:
            fields = (line.split("\t") + [""] * 6)[:6]
            op, case = os.path.basename(f), os.path.basename(fields[1].rstrip("/"))
            rows.append([verdict(fields, verdicts, op, case), op, case] + fields[2:])
        there = {r[2] for r in rows if r[1] == os.path.basename(f)}
        for case in sorted(n for n in os.listdir(f) if os.path.isdir(os.path.join(f, n)) and n not in there):
            rows.append(["differs", os.path.basename(f), case, "", "no result: its process ended early", "", ""])
    with open(out + "/results.tsv", "w", encoding="utf-8") as f:
        f.writelines("\t".join(r) + "\n" for r in rows)
    counts = collections.Counter(r[0] for r in rows)
    table = collections.defaultdict(collections.Counter)
    for r in rows:
        table[r[1]][r[0]] += 1
    order = ("ok", "alone", "explained", "disputed", "refused", "differs")
    with open(out + "/table.txt", "w", encoding="utf-8") as f:
        f.write(f"{'operator':40}" + "".join(f"{n:>10}" for n in order) + "\n")
        for op, c in sorted(table.items()):
            f.write(f"{op:40}" + "".join(f"{c[n] or '':>10}" for n in order) + "\n")
        f.write(f"{'all':40}" + "".join(f"{counts[n]:>10}" for n in order) + "\n")
    print(f"{len(rows)} cases of {len(table)} operators: " + ", ".join(f"{counts[n]} {n}" for n in order))
    for r in rows:
        if r[0] in ("disputed", "refused", "differs"):
            print(*r[:3], *(x for x in r[3:] if x))
    idle = [r for r in verdicts if whole and not r[4]]
    for r in idle:
        print("verdicts.txt: no case needs", r[0], r[2].pattern, r[3].pattern)
    return counts["disputed"] + counts["refused"] + counts["differs"] + len(idle)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("program")
    p.add_argument("data")
    p.add_argument("out")
    p.add_argument("--only", default="")
    p.add_argument("--seeds", type=int, default=16)
    p.add_argument("--versions", action="store_true")
    p.add_argument("--small", action="store_true")
    p.add_argument("--make-only", action="store_true")
    p.add_argument("--check-only", action="store_true")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--ways", default="0x29")
    args = p.parse_args()
    newest, every = seeds.schemas()
    only = set(filter(None, args.only.split(",")))
    keys = [k for k in sorted(newest) if not only or k[1] in only]
    os.makedirs(args.out, exist_ok=True)
    if not args.check_only:
        found = seeds.node_tests(args.data)
        mine = own_seeds.own({k: constraints(s) for k, s in newest.items()})
        for s in attr_seeds.seeds_of(found):
            mine.setdefault((s.node.domain, s.node.op_type), []).append(s)
        start = time.time()
        for k in keys:
            if not mine.get(k) and not found.get(k):
                print("no seed for", k)
        parallel(args.jobs, keys if args.versions else [], lambda k: make_versions(k, every, mine, found, args.out, args))
        parallel(args.jobs, [] if args.versions else keys, lambda k: make_op(k, newest[k], mine, found, args.out, args))
        print(f"made in {time.time() - start:.0f} s")
    names = {folder_of(k) for k in keys}
    folders = sorted(os.path.join(args.out, d) for d in os.listdir(args.out) if re.sub(r"-\d+$", "", d) in names)
    if args.make_only:
        return
    check_all(args.program, args.out, folders, args.jobs, args.ways)
    whole = not only and not args.small
    sys.exit(collect(args.out, folders, read_verdicts("versions" if args.versions else "types"), whole) > 0)


if __name__ == "__main__":
    main()
