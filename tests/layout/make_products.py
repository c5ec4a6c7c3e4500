"""Writes random networks of bf16 and byte products as .zg text: for processors that multiply those, and those that do not.

Usage: make_products.py OUTDIR COUNT [SEED]

Rows below, at and above register tiles and symbolic, depths that are no whole pairs or groups, batches, Gemm with both orders of
its weights, and operators between products that round. Those called out* have weights that are too small or too large for
instructions that take subnormal numbers for zeros; those called byte* are one product of bytes each.
"""
import os
import random
import sys


def net(seed, outside):
    r = random.Random(seed)
    consts, lines, dims = [], [], []

    def const(shape, scale):
        consts.append(f"const $w{len(consts)} bf16[{','.join(map(str, shape))}] = rand({len(consts) + 1}, {-scale}, {scale})")
        return f"$w{len(consts) - 1}"

    rows = r.choice([1, 2, 3, 5, 8, 16, 17, 31, 32, 40, 64, 70])
    sym = ""
    if r.random() < 0.25:
        sym, rows = f"sym S {rows}..{rows + 50}\n", "S"
    gemm_only = r.random() < 0.5
    if not gemm_only and r.random() < 0.5:
        dims = [r.randint(1, 3)]
    width = r.choice([16, 17, 32, 48, 63, 64, 96, 130, 256, 300])
    shape = f"{','.join(map(str, dims + [rows, width]))}"
    head = f"graph @net(%x: bf16[{shape}]) -> (%y) {{"
    last = "%x"
    for i in range(1 if outside else r.randint(1, 3)):
        n = r.choice([8, 16, 17, 24, 32, 33, 48, 64, 100, 144])
        scale = (r.choice([1e-37, 1e15]) if outside else 1) / width ** 0.5
        if gemm_only:
            t = r.random() < 0.5
            w, b = const([n, width] if t else [width, n], scale), const([n], 1)
            text = f"Gemm({last}, {w}, {b}) {{alpha={r.choice([1.0, 0.5])}, beta={r.choice([1.0, 2.0])}, transB={int(t)}}}"
        else:
            text = f"MatMul({last}, {const([width, n], scale)})"
        lines.append(f"  %p{i}: bf16[*] = {text}")
        last, width = f"%p{i}", n
        after = r.choice(["", "Relu"] if outside else ["", "Relu", "Add", "Tanh", "LayerNormalization"])
        if after in ("Add", "LayerNormalization"):
            after_text = f"{after}({last}, {const([width], 1)})" + (" {axis=-1}" if after != "Add" else "")
        else:
            after_text = f"{after}({last})"
        if after:
            lines.append(f"  %a{i}: bf16[*] = {after_text}")
            last = f"%a{i}"
    lines.append(f"  %y: bf16[*] = Identity({last})")
    return "zg 1\n" + sym + "\n".join(consts + [head] + lines + ["}"]) + "\n"


def byte_net(seed):
    r = random.Random(seed)
    a, rows, k, n = r.choice("ui") + "8", r.choice([1, 2, 4, 7, 16, 31, 32, 33, 64, 70]), r.randint(4, 200), r.randint(1, 100)
    low, high = (0, 255) if a == "u8" else (-128, 127)
    sym, zero = "", ""
    if r.random() < 0.7:
        sym, rows = f"sym S {rows}..{rows + r.choice([1, 50, 1000])}\n", "S"
    batch = r.choice(["", "", "2,", "3,"])
    consts = [f"const $w i8[{k},{n}] = rand(1, -128, 127)"]
    if r.random() < 0.5:
        consts.append(f"const $z {a}[] = [{r.randint(low, high)}]")
        zero = ", $z"
    lines = [f"graph @net(%x: {a}[{batch}{rows},{k}]) -> (%y) {{", f"  %y: i32[*] = MatMulInteger(%x, $w{zero})", "}"]
    return "zg 1\n" + sym + "\n".join(consts + lines) + "\n"


def main():
    out, count = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    os.makedirs(out, exist_ok=True)
    for i in range(count):
        outside = i % 10 == 9
        with open(os.path.join(out, f"{'out' if outside else 'bf'}{i:03}.zg"), "w") as f:
            f.write(net(seed * 1000 + i, outside))
        with open(os.path.join(out, f"byte{i:03}.zg"), "w") as f:
            f.write(byte_net(seed * 1000 + i))


main()
