"""Runs models compiled for other processors under emulation and compares.

Usage: foreign.py ZENITHC WORKDIR MACHINE[,c] CASE...
A CASE is a folder of the ONNX test convention, or a model file: then the inputs are drawn, and the outputs of the same
build for this machine are expected. MACHINE: a row of MACHINES; `,c` compiles the generated C by that machine's compiler.
All cases of a call are linked into one program (cases_main.c). Prints lines `ok NAME`, `skip NAME: why`, `FAIL NAME: why`.
FOREIGN_ARCHS=A,B: builds for several instruction sets, of which MACHINE must choose the one of its name, and where there is none
refuse to run.
FOREIGN_COUNT=FILE: the plugin of bench/insns.c; prints instructions per run instead of comparing."""
import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
from onnx import numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ARCHS = os.environ.get("FOREIGN_ARCHS")
ZN_RUN_CPU = 7
BARE = ("arm-none-eabi-gcc -mthumb -mfloat-abi=hard --specs=rdimon.specs "
        "-Wl,--section-start=.vectors=%s,-Ttext=%s,-Tdata=%s ")
BOARD = "qemu-system-arm -M %s -display none -monitor none -serial none"
MPS2 = BARE % ("0", "0x20000", "0x20000000")
HELIUM = BARE % ("0x10000000", "0x11000000", "0x60000000")
A64, RV64 = "aarch64-linux-gnu-gcc -static", "riscv64-linux-gnu-gcc -static"
# compiler, its flags for the generated C, --arch of target c, emulator, is a board
MACHINES = {
    "aarch64": (A64, "", "aarch64", "qemu-aarch64 -cpu cortex-a53", False),
    "armv8.2-a+dotprod": (A64, "-march=armv8.2-a+dotprod", "armv8.2-a+dotprod", "qemu-aarch64 -cpu neoverse-n1", False),
    "armv8.6-a": (A64, "-march=armv8.6-a", "armv8.6-a", "qemu-aarch64 -cpu max", False),
    "riscv64": (RV64, "", "generic", "qemu-riscv64 -cpu rv64", False),
    "rv64gcv": (RV64, "", "generic", "qemu-riscv64 -cpu rv64,v=true,vlen=128", False),
    "cortex-m4": (MPS2 + "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16", "", "cortex-m4", BOARD % "mps2-an386", True),
    "cortex-m7": (MPS2 + "-mcpu=cortex-m7 -mfpu=fpv5-d16", "", "cortex-m7", BOARD % "mps2-an500", True),
    "cortex-m55": (HELIUM + "-mcpu=cortex-m55", "", "cortex-m55", BOARD % "mps3-an547", True),
}
NUMPY = {1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
         10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64}


class Skip(Exception):
    pass


def tensor_of(path):
    t = onnx.TensorProto()
    with open(path, "rb") as f:
        t.ParseFromString(f.read())
    return numpy_helper.to_array(t)


def drawn(model, seed=7):
    """Inputs of a model of static sizes (unknown ones: 1)."""
    rng = np.random.default_rng(seed)
    weights = {w.name for w in model.graph.initializer}
    for i in model.graph.input:
        if i.name in weights:
            continue
        t = i.type.tensor_type
        shape = [d.dim_value or 1 for d in t.shape.dim]
        kind = np.dtype(NUMPY[t.elem_type])
        if kind.kind == "f":
            yield rng.uniform(-1, 1, shape).astype(kind)
        else:
            info = np.iinfo(kind)
            yield rng.integers(info.min, info.max + 1, shape).astype(kind)


def pack(arrays):
    out = struct.pack("<I", len(arrays))
    for a in arrays:
        code = [k for k, v in NUMPY.items() if np.dtype(v) == a.dtype][0]
        data = np.ascontiguousarray(a).tobytes()
        out += struct.pack("<II%dqQ" % a.ndim, code, a.ndim, *a.shape, len(data)) + data
    return out


def unpack(data):
    """Per model: result code and list of arrays."""
    at = 0
    while at < len(data):
        rc, n = struct.unpack_from("<iI", data, at)
        at += 8
        arrays = []
        for _ in range(n):
            code, rank = struct.unpack_from("<II", data, at)
            shape = struct.unpack_from("<%dq" % rank, data, at + 8)
            at += 8 + 8 * rank
            (size,) = struct.unpack_from("<Q", data, at)
            at += 8
            count = int(np.prod(shape, dtype=np.int64))
            arrays.append(np.frombuffer(data, NUMPY[code], count, at).reshape(shape))
            at += size
        yield rc, arrays


def differs(got, want, exact):
    """None, or what is wrong: the measure of the ONNX backend tests, or equal integers and eta of 1e-6."""
    for i, (g, w) in enumerate(zip(got, want)):
        if g.shape != w.shape or g.dtype != w.dtype:
            return "output %d: %s %s, expected %s %s" % (i, g.dtype, g.shape, w.dtype, w.shape)
        if w.dtype.kind != "f":
            if not np.array_equal(g, w):
                return "output %d: %d integers differ" % (i, np.count_nonzero(g != w))
        elif exact:
            x, y = g.astype(np.float64), w.astype(np.float64)
            eta = np.max(np.abs(x - y) / (np.abs(y) + np.sqrt(np.mean(y * y)) + 1e-300), initial=0)
            if not eta <= 2e-6:
                return "output %d: eta %.2g" % (i, eta)
        elif not np.allclose(g, w, rtol=1e-2 if w.dtype == np.float16 else 1e-3, atol=1e-5, equal_nan=True):
            return "output %d: off by %.2g" % (i, np.nanmax(np.abs(g - w)))
    return None if len(got) == len(want) else "%d outputs, expected %d" % (len(got), len(want))


def call(command, **how):
    p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
    if p.returncode:
        said = [line for line in p.stdout.splitlines() if line.strip()]
        raise RuntimeError(" ".join(said[-3:])[:300] or "exit code %d" % p.returncode)
    return p.stdout


class Case:
    def __init__(self, path):
        self.folder = os.path.isdir(path)
        self.model = os.path.join(path, "model.onnx") if self.folder else path
        stem = os.path.basename(path if self.folder or path.count("model.onnx") == 0 else os.path.dirname(path))
        self.name = stem[:-5] if stem.endswith(".onnx") else stem
        self.symbol = "m_" + re.sub(r"\W", "_", self.name).lower()
        self.want = None

    def read(self):
        if not self.folder:
            self.inputs = list(drawn(onnx.load(self.model)))
            return
        graph = onnx.load(self.model).graph
        for v in list(graph.input) + list(graph.output):
            if v.type.WhichOneof("value") != "tensor_type" or v.type.tensor_type.elem_type not in NUMPY:
                raise Skip("not a tensor of numbers")
        sets = os.path.join(os.path.dirname(self.model), "test_data_set_0")
        count = lambda kind: len([f for f in os.listdir(sets) if f.startswith(kind)])
        self.inputs = [tensor_of("%s/input_%d.pb" % (sets, i)) for i in range(count("input_"))]
        self.want = [tensor_of("%s/output_%d.pb" % (sets, i)) for i in range(count("output_"))]

    def build(self, zenithc, machine, c, work):
        out = os.path.join(work, self.symbol + (".c" if c else ".o"))
        arch = MACHINES[machine][2] if c else ARCHS or machine
        call([zenithc, self.model, "--target=c" if c else "--target=cpu", "--arch=" + arch, "--name", self.symbol,
              "--verify=off", "--quiet", "-o", out])
        if c:
            cc, flags = MACHINES[machine][:2]
            call(cc.split() + flags.split() + ["-O2", "-w", "-Wa,-I" + work, "-c", out, "-o", out[:-2] + ".o"])


def program(cases, cc, work):
    with open(os.path.join(work, "table.inc"), "w") as f:
        f.writelines("MODEL(%s)\n" % k.symbol for k in cases)
    exe = os.path.join(work, "cases")
    call(cc.split() + ["-std=gnu11", "-O1", "-I" + work, "-I" + os.path.join(ROOT, "runtime"), HERE + "/cases_main.c"] +
         [os.path.join(work, k.symbol + ".o") for k in cases] + ["-o", exe])
    with open(os.path.join(work, "in"), "wb") as f:
        for k in cases:
            f.write(pack(k.inputs))
    return exe


def execute(exe, emulator, board, work, runs=1, plugin=None):
    args = [os.path.join(work, "in"), os.path.join(work, "out"), str(runs)] + (["names"] if ARCHS and emulator else [])
    command = emulator.split() + (["-plugin", plugin] if plugin else [])
    if board:
        config = "enable=on,target=native," + ",".join("arg=" + a for a in ["cases"] + args)
        command += ["-semihosting-config", config, "-kernel", exe]
    else:
        command += [exe] + args
    said = call(command, timeout=600)
    with open(args[1], "rb") as f:
        return list(unpack(f.read())), said


def instructions(said):
    return int(re.search(r"instructions (\d+)", said).group(1))


def main():
    zenithc, work, machine = sys.argv[1:4]
    machine, c = machine.removesuffix(",c"), machine.endswith(",c")
    cc, _, _, emulator, board = MACHINES[machine]
    os.makedirs(work, exist_ok=True)
    cases = []

    def prepare(path):
        k = Case(path)
        try:
            k.read()
            k.build(zenithc, machine, c, work)
            if k.want is None and not os.environ.get("FOREIGN_COUNT"):
                host = os.path.join(work, "host_" + k.symbol)
                os.makedirs(host, exist_ok=True)
                call([zenithc, k.model, "--name", k.symbol, "--verify=off", "--quiet", "-o", host + "/" + k.symbol + ".o"])
                (rc, k.want), = execute(program([k], "gcc", host), "", False, host)[0]
            return k
        except Skip as why:
            print("skip %s %s: %s" % (sys.argv[3], k.name, why))
        except RuntimeError as why:
            print("FAIL %s %s: %s" % (sys.argv[3], k.name, why))
        return None

    with ThreadPoolExecutor(int(os.environ.get("JOBS", "2"))) as pool:
        cases = [k for k in pool.map(prepare, sys.argv[4:]) if k]
    if not cases:
        return
    exe = program(cases, cc, work)
    plugin = os.environ.get("FOREIGN_COUNT")
    if plugin:
        counts = [instructions(execute(exe, emulator, board, work, runs, plugin)[1]) for runs in (1, 2)]
        print("%s %s: %d instructions" % (sys.argv[3], " ".join(k.name for k in cases), counts[1] - counts[0]))
        return
    got, said = execute(exe, emulator, board, work)
    for k, (rc, outputs) in zip(cases, got):
        why = "run returned %d" % rc if rc else differs(outputs, k.want, not k.folder)
        if ARCHS and machine not in ARCHS.split(","):
            why = None if rc == ZN_RUN_CPU else "not refused: %d" % rc
        elif ARCHS and not why and "[%s]" % machine not in said:
            why = "other kernels than those of %s: %s" % (machine, said[-200:])
        print("FAIL %s %s: %s" % (sys.argv[3], k.name, why) if why else "ok %s %s" % (sys.argv[3], k.name))
    for k in cases[len(got):]:
        print("FAIL %s %s: the program ended: %s" % (sys.argv[3], k.name, said[-200:]))


main()
