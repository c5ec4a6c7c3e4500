"""Writes random attentions as .zg text, as exporters leave them and as the operator: what the fused kernels must survive.

Usage: make_attention.py OUTDIR COUNT [SEED]

Sizes below, at and above register tiles, panels and chunks, symbolic ones, heads of odd size, views of one product as
operands, shared key heads, scales, soft caps, masks that are added or select (constant ones with rows that see nothing,
too), caches, a residual behind the heads put together, and rows whose visible scores cannot be told from hidden ones.
"""
import os
import random
import sys

LOW = {"low": "-3.4028235e+38", "inf": "-inf", "small": "-10000"}


class Net:
    def __init__(self, seed):
        self.r = r = random.Random(seed)
        self.consts, self.lines, self.inputs, self.outputs, self.syms, self.count = [], [], [], [], [], 0
        self.d, self.dv = r.choice([8, 16, 64, 64, 20, 12]), r.choice([8, 16, 24, 64, 20])
        if r.random() < 0.5:
            self.dv = self.d
        self.heads = r.choice([1, 2, 3])
        self.rows, self.keys = self.size("S"), self.size("T")
        if r.random() < 0.4:
            self.keys = self.rows

    def size(self, name):
        r = self.r
        n = r.choice([2, 3, 7, 16, 33, 48, 64, 97, 128, r.randint(2, 60), r.randint(300, 420), 640])
        if r.random() < 0.3:
            self.syms.append(f"sym {name} {n}..{n + r.choice([0, 40, 2000])}")
            return name
        return n

    def const(self, dims, text, dtype="f32"):
        name = f"$k{len(self.consts)}"
        self.consts.append(f"const {name} {dtype}[{','.join(map(str, dims))}] = {text}")
        return name

    def rand(self, dims, scale):
        return self.const(dims, f"rand({len(self.consts) + 1}, {-scale}, {scale})")

    def number(self, x):
        return self.const([], f"[{x}]")

    def ints(self, *values):
        return self.const([len(values)], f"[{', '.join(map(str, values))}]", "i64")

    def input(self, dims):
        name = f"%x{len(self.inputs)}"
        self.inputs.append(f"{name}: f32[{','.join(map(str, dims))}]")
        return name

    def value(self, text, dtype="f32"):
        self.count += 1
        self.lines.append(f"  %v{self.count}: {dtype}[*] = {text}")
        return f"%v{self.count}"

    def static(self):
        return isinstance(self.rows, int) and isinstance(self.keys, int)

    def mask(self):
        """What may be seen, a constant: triangles, bands, noise; sometimes rows without any key."""
        r, s, t = self.r, self.rows, self.keys
        kind = r.choice(["triangle", "triangle", "noise", "rows"])
        if kind == "triangle":
            seen = [[int(j <= i + t - s) for j in range(t)] for i in range(s)]
        elif kind == "rows":
            seen = [[int(j < t // 2 or i % 3 == 0) for j in range(t)] for i in range(s)]
        else:
            seen = [[int(r.random() < 0.4) for j in range(t)] for i in range(s)]
        for row in seen:
            if kind != "triangle" and not any(row):
                row[r.randrange(t)] = 1
        if self.finite and r.random() < 0.3:
            seen[r.randrange(s)] = [0] * t
        flat = ", ".join(str(x) for row in seen for x in row)
        return self.const([1, 1, s, t], f"[{flat}]", "bool")

    def exported(self):
        """Q, K and V are views of products' results, or inputs; f is what exporters write."""
        r, h = self.r, self.heads

        def heads(rows, width, turned):
            if r.random() < 0.4:
                x = self.input([1, h, rows, width])
                return self.value(f"Transpose({x}) {{perm=[0, 1, 3, 2]}}") if turned else x
            x = self.value(f"MatMul({self.input([1, rows, 9])}, {self.rand([9, h * width], 0.7)})")
            x = self.value(f"Add({x}, {self.rand([h * width], 0.5)})")
            x = self.value(f"Reshape({x}, {self.ints(1, -1, h, width)})")
            return self.value(f"Transpose({x}) {{perm=[0, 2, {'3, 1' if turned else '1, 3'}]}}")

        q, kt, v = heads(self.rows, self.d, False), heads(self.keys, self.d, True), heads(self.keys, self.dv, False)
        low = r.choice(sorted(LOW))
        self.finite = low != "inf"
        s = self.value(f"Div({self.value(f'MatMul({q}, {kt})')}, {self.number(r.choice([1, 3, 8]))})")
        if r.random() < 0.2:
            s = self.value(f"Mul({self.value(f'Tanh({s})')}, {self.number(5)})")
        kind = r.choice(["none", "add", "add", "select", "select", "lost"])
        if kind == "add":
            s = self.value(f"Add({s}, {self.input(r.choice([[1, 1, 1, self.keys], [1, 1, self.rows, self.keys]]))})")
        elif kind != "none" and self.static():
            if kind == "lost":  # visible scores that cannot be told from hidden ones
                s = self.value(f"Add({s}, {self.number('-3.4028235e+38')})")
                low = "low"
            s = self.value(f"Where({self.mask()}, {s}, {self.number(LOW[low])})")
        p = self.value(f"Softmax({s}) {{axis=-1}}")
        y = self.value(f"MatMul({p}, {v})")
        if r.random() < 0.7:
            y = self.value(f"Reshape({self.value(f'Transpose({y}) {{perm=[0, 2, 1, 3]}}')}, {self.ints(1, -1, h * self.dv)})")
            if r.random() < 0.5:
                y = self.value(f"Add({y}, {self.input([1, self.rows, h * self.dv])})")
        return y

    def operator(self):
        r, h, b = self.r, self.heads, self.r.choice([1, 2])
        kv = 1 if r.random() < 0.5 else h
        q, k = self.input([b, h, self.rows, self.d]), self.input([b, kv, self.keys, self.d])
        v = self.input([b, kv, self.keys, self.dv])
        attrs, mask, total = [], "_", self.keys
        past = f"{self.input([b, kv, 5, self.d])}, {self.input([b, kv, 5, self.dv])}" if r.random() < 0.4 else ""
        if past:
            total = self.keys + 5 if isinstance(self.keys, int) else f"{self.keys} + 5"
        if r.random() < 0.5:
            mask = self.input(r.choice([[self.rows, total], [b, 1, self.rows, total]]))
        if r.random() < 0.5:
            attrs.append("is_causal=1")
        if r.random() < 0.3:
            attrs.append("softcap=4.0")
        if r.random() < 0.3:
            attrs.append("scale=0.4")
        more = f", {mask}" + (f", {past}" if past else "") if past or mask != "_" else ""
        self.count += 1
        y, outs = f"%v{self.count}", ""
        if past:
            outs = f", {y}k: f32[*], {y}v: f32[*]"
            self.outputs += [y + "k", y + "v"]
        self.lines.append(f"  {y}: f32[*]{outs} = Attention({q}, {k}, {v}{more}) {{{', '.join(attrs)}}}")
        return y

    def text(self):
        y = self.r.choice([self.exported, self.exported, self.operator])()
        head = f"graph @main({', '.join(self.inputs)}) -> ({', '.join([y] + self.outputs)}) {{"
        return "\n".join(["zg 1"] + sorted(set(self.syms)) + self.consts + [head] + self.lines) + "\n}\n"


def main():
    out, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    os.makedirs(out, exist_ok=True)
    for i in range(count):
        with open(os.path.join(out, f"attention{i:03}.zg"), "w") as f:
            f.write(Net(seed + i).text())


main()
