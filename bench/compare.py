"""Times compiled models beside their rivals, in alternating rounds of one process tree, and keeps the figures as JSON.

Usage: compare.py ZENITHC OUTDIR [options] [NAME...]     (`make bench`, `make bench BENCH="resnet50 kws_dscnn"`)

Contestants, each a child process: `ours` (the LLVM object), `c` (the generated C through gcc -O3 -march=native, for
small models), `best` (ONNX Runtime with malloc told to keep its memory), `shipped` (ONNX Runtime as it comes),
`openvino`. A round runs each for SECONDS; a ratio is the median over rounds of rival / ours, so that a machine whose clock
drifts drifts under both. Above 1: we are faster. Rivals are driven from Python: what an identity model costs them is
taken off their times. Rounds during which other programs used much of the machine are measured again.
"""
import argparse
import fcntl
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import models
import tables

KEEP = {"MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28), "MALLOC_MMAP_THRESHOLD_": str(1 << 40)}
RIVALS = {"best": ("ort", KEEP), "shipped": ("ort", {}), "openvino": ("openvino", {})}
C_LIMIT_MB = 20  # larger models are not measured as C
C_ARCH = {"x86_64": ["--arch=x86-64-v3"], "aarch64": ["--arch=aarch64"]}
BUSY_LIMIT, EXTRA_ROUNDS = 0.10, 4


def urgent():
    """Measured children go first where the system lets them; silently as they are where not."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except OSError:
        pass


class Rival:
    def __init__(self, engine, env, model, threads):
        here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rival.py")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        self.p = subprocess.Popen([sys.executable, here, engine, str(threads), model.path, model.inputs],
                                  env={**clean, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, preexec_fn=urgent)
        first = self.p.stdout.readline()
        if not first:
            said = self.p.stderr.read().strip().splitlines()
            self.p.wait()
            raise RuntimeError(said[-1][:120] if said else "ended without a word")
        self.info = json.loads(first)

    def measure(self, seconds):
        self.p.stdin.write(f"{seconds}\n")
        self.p.stdin.flush()
        return json.loads(self.p.stdout.readline())

    def cpu_seconds(self):
        with open(f"/proc/{self.p.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.p.stdin.close()
        self.p.wait()
        self.p.stdout.close()
        self.p.stderr.close()


class Ours:
    """A compiled artifact, through `zenithc bench`, which times the run entry alone."""

    def __init__(self, zenithc, so, threads, inputs):
        self.command = [zenithc, "bench", so, "--json", f"--threads={threads}", *inputs]
        self.info, self.cpu = {}, 0.0
        first = self.bench(["--runs=3"])
        self.info = {"load_ms": first["load_ms"], "workspace_bytes": first["workspace_bytes"],
                     "weights_bytes": first["weights_bytes"]}
        self.ms = first["median_ms"]

    def bench(self, more):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(self.command + more, capture_output=True, text=True, preexec_fn=urgent)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if said.returncode:
            raise RuntimeError((said.stderr.strip().splitlines() or ["failed"])[0][:120])
        return json.loads(said.stdout)

    def measure(self, seconds):
        r = self.bench([f"--runs={max(3, min(100000, int(seconds * 1e3 / self.ms)))}"])
        self.ms = r["median_ms"]
        return {k: r[k] for k in ("median_ms", "p10_ms", "min_ms", "runs")}

    def cpu_seconds(self):
        return self.cpu

    def close(self):
        pass


def busy_seconds():
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _idle, _wait, irq, soft = (int(x) for x in f.readline().split()[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def one_round(sides, args):
    """{side: figures}, and the share of the machine that others used meanwhile."""
    t0, busy0 = time.perf_counter(), busy_seconds()
    own0 = sum(s.cpu_seconds() for s in sides.values())
    figures = {}
    for name, side in sides.items():
        figures[name] = side.measure(args.seconds)
        time.sleep(0.02)  # threads that spin for work of their own go to sleep
    wall = (time.perf_counter() - t0) * os.cpu_count()
    own = sum(s.cpu_seconds() for s in sides.values()) - own0
    return figures, max(0.0, (busy_seconds() - busy0 - own) / wall)


def rounds_of(sides, args):
    kept, noisy = [], []
    lock = open(args.lock, "w", encoding="ascii") if args.lock else None
    for _ in range(args.rounds + EXTRA_ROUNDS):
        if lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
        figures, others = one_round(sides, args)
        if lock:
            fcntl.flock(lock, fcntl.LOCK_UN)
        (kept if others < BUSY_LIMIT else noisy).append((others, figures))
        if len(kept) == args.rounds:
            break
    chosen = kept + sorted(noisy, key=lambda x: x[0])[:args.rounds - len(kept)]
    return [f for _, f in chosen], max(o for o, _ in chosen)


def build(args, model, target, suffix, row):
    """Compiles; returns the shared object to time, and notes seconds and megabytes in row."""
    out = os.path.join(args.outdir, model.name + suffix)
    command = [args.zenithc, model.path, f"--target={target}", "--verify=off", "-o", out, *model.shape_options()]
    command += [f"--arch={args.arch}"] if target == "cpu" else C_ARCH.get(os.uname().machine, [])
    command += [f"--math={args.math}"]
    t0 = time.perf_counter()
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError((made.stderr.strip().splitlines() or ["failed"])[0][:120])
    if target == "cpu":
        row["compile_s"], row["artifact_bytes"] = time.perf_counter() - t0, os.path.getsize(out)
        return out
    so, include = out[:-2] + "-c.so", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "runtime")
    made = subprocess.run(["gcc", "-O3", "-march=native", "-w", "-shared", "-fPIC", "-DZN_MODEL_MAIN", f"-I{include}",
                           os.path.abspath(out), "-o", os.path.abspath(so)], cwd=args.outdir, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError((made.stderr.strip().splitlines() or ["gcc failed"])[0][:120])
    row["c_compile_s"] = time.perf_counter() - t0
    return so


def contestants(args, model, threads, row):
    sides = {}
    inputs = model.input_options(args.outdir)

    def enter(name, make):
        if args.only and name not in args.only:
            return
        try:
            sides[name] = make()
            row["info"][name] = sides[name].info
        except (RuntimeError, subprocess.SubprocessError) as e:
            row["failed"][name] = str(e)

    if not model.contrib:
        enter("ours", lambda: Ours(args.zenithc, build(args, model, "cpu", ".so", row), threads, inputs))
    if not model.contrib and threads == 1 and model.file_mb < C_LIMIT_MB:
        enter("c", lambda: Ours(args.zenithc, build(args, model, "c", ".c", row), threads, inputs))
    for name, (engine, env) in RIVALS.items():
        if engine == "openvino" and model.contrib:
            continue
        enter(name, lambda e=engine, v=env: Rival(e, v, model, threads))
    return sides


def summary(row, rounds, base):
    """Medians and ratios of a row, from its rounds; base: what an identity model costs each rival."""
    for side in rounds[0]:
        off = base.get(side, 0.0)
        row["ms"][side] = max(0.0, statistics.median(r[side]["median_ms"] for r in rounds) - off)
        row["p10_ms"][side] = max(0.0, min(r[side]["p10_ms"] for r in rounds) - off)
        if side != "ours" and "ours" in rounds[0]:
            each = [max(1e-6, r[side]["median_ms"] - off) / max(1e-6, r["ours"]["median_ms"]) for r in rounds]
            row["ratio"][side] = statistics.median(each)


def bench_one(args, model, threads, base):
    row = {"model": model.name, "threads": threads, "flops": model.flops, "fp32": models.is_fp32(model.path),
           "single": model.name in models.SINGLE, "math": args.math, "arch": args.arch, "date": time.strftime("%Y-%m-%d"),
           "ms": {}, "p10_ms": {}, "ratio": {}, "info": {}, "failed": {}}
    sides = contestants(args, model, threads, row)
    try:
        if sides:
            rounds, row["others_busy"] = rounds_of(sides, args)
            row["rounds"] = len(rounds)
            summary(row, rounds, base)
    finally:
        for s in sides.values():
            s.close()
    return row


def identity_cost(args, threads):
    """What each rival takes for a model that does nothing."""
    try:
        model = models.find("identity", args.outdir, args.make_models, args.models)
    except LookupError:
        return {}
    quick = argparse.Namespace(**{**vars(args), "seconds": 0.2, "rounds": 3})
    row = bench_one(quick, model, threads, {})
    return {side: ms for side, ms in row["ms"].items() if side in RIVALS}


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("zenithc")
    p.add_argument("outdir")
    p.add_argument("names", nargs="*")
    p.add_argument("--threads", default="1,2", help="comma-separated (default 1,2)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=0.5, help="of each contestant in a round")
    p.add_argument("--arch", default="native")
    p.add_argument("--math", default="strict")
    p.add_argument("--only", default="", help="contestants, comma-separated: ours,c,best,shipped,openvino")
    p.add_argument("--make-models", default="")
    p.add_argument("--models", default="")
    p.add_argument("--json", default="", help="default: OUTDIR/results.json; rows are merged into it")
    p.add_argument("--lock", default="", help="a file to lock during each round, where several benchmarks take turns")
    args = p.parse_intermixed_args()
    args.only = set(filter(None, args.only.split(",")))
    args.json = args.json or os.path.join(args.outdir, "results.json")
    return args


def main():
    args = arguments()
    os.makedirs(args.outdir, exist_ok=True)
    names = args.names
    if not names:
        names = models.names_of(args.make_models) if os.path.isfile(args.make_models) else []
        names += models.REAL if os.path.isdir(args.models) else []
        names += models.trees.NAMES
    rows, status = tables.load(args.json), 0
    for threads in (int(t) for t in args.threads.split(",")):
        base = identity_cost(args, threads)
        print(tables.header(threads, base), flush=True)
        for name in names:
            try:
                model = models.find(name, args.outdir, args.make_models, args.models)
            except LookupError as e:
                print(e, file=sys.stderr)
                status = 2
                continue
            row = bench_one(args, model, threads, {} if name == "identity" else base)
            tables.merge(rows, row)
            tables.save(args.json, rows)
            print(tables.line(row), flush=True)
        print(tables.means([r for r in rows if r["threads"] == threads]), flush=True)
    tables.chart(rows, os.path.join(args.outdir, "ratios.svg"))
    print(f"figures: {args.json}  chart: {os.path.join(args.outdir, 'ratios.svg')}")
    return status


if __name__ == "__main__":
    sys.exit(main())
