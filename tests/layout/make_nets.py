"""Writes random convolution networks as .zg text: what the layout pass and the schedules for blocked images must survive.

Usage: make_nets.py OUTDIR COUNT [SEED]          net000.zg ...; and for every sixth of them a wide000.zg ...: full blocks of
channels and mostly 3x3 convolutions, for the schedules of --math=fast.

Channel counts that do and do not fill blocks, asymmetric padding, strides, dilations, groups, depthwise, one and two spatial
axes, symbolic batch, residual connections, concatenations, pools, resizes, activations, results inside the network, integer
convolutions of the quantized input.
"""
import os
import random
import sys


class Net:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.rank = self.r.choice([1, 2, 2, 2])
        self.batch = self.r.choice(["1", "2", "N"])
        self.consts, self.lines, self.count = [], [], 0
        c = self.r.choice([1, 3, 12, 16, 32])
        size = [self.r.randint(11, 30) for _ in range(self.rank)]
        self.begin(c, size)

    def begin(self, c, size):
        self.input = (c, size)
        self.values = [("%x", c, size)]

    def const(self, dims, scale):
        name = f"$k{len(self.consts)}"
        self.consts.append(f"const {name} f32[{','.join(map(str, dims))}] = rand({len(self.consts) + 1}, {-scale}, {scale})")
        return name

    def ints(self, values):
        name = f"$k{len(self.consts)}"
        self.consts.append(f"const {name} i64[{len(values)}] = [{', '.join(map(str, values))}]")
        return name

    def floats(self, values):
        name = f"$k{len(self.consts)}"
        self.consts.append(f"const {name} f32[{len(values)}] = [{', '.join(map(str, values))}]")
        return name

    def value(self, text, c, size):
        self.count += 1
        name = f"%v{self.count}"
        self.lines.append(f"  {name}: f32[*] = {text}")
        self.values.append((name, c, size))
        return self.values[-1]

    def conv(self, x):
        name, c, size = x
        r = self.r
        k = [r.choice([1, 1, 2, 3, 3, 5]) for _ in size]
        s = [r.choice([1, 1, 1, 2]) for _ in size]
        d = [r.choice([1, 1, 1, 2]) for _ in size]
        lo = [r.randint(0, (kk - 1) * dd) for kk, dd in zip(k, d)]
        hi = [r.randint(0, (kk - 1) * dd) for kk, dd in zip(k, d)]
        out = [(n + a + b - (kk - 1) * dd - 1) // ss + 1 for n, a, b, kk, dd, ss in zip(size, lo, hi, k, d, s)]
        if min(out) < 1:
            return x
        group = r.choice([1, 1, 1, 1, c, 2 if c % 2 == 0 else 1])
        oc = c if group == c and c > 1 else group * r.choice([8, 16, 24, 136, 32, 40, 9])
        w = self.const([oc, c // group] + k, round((3.0 / (c // group * max(1, k[0] * k[-1]))) ** 0.5, 4))
        b = ", " + self.const([oc], 0.5) if r.random() < 0.7 else ""
        attrs = f"kernel_shape={k}, strides={s}, dilations={d}, pads={lo + hi}, group={group}"
        return self.value(f"Conv({name}, {w}{b}) {{{attrs}}}", oc, out)

    def pool(self, x):
        name, c, size = x
        k = [self.r.choice([2, 3]) for _ in size]
        s = [self.r.choice([1, 2]) for _ in size]
        p = [self.r.randint(0, kk - 1) for kk in k] + [self.r.randint(0, kk - 1) for kk in k]
        out = [(n + a + b - kk) // ss + 1 for n, a, b, kk, ss in zip(size, p, p[len(size):], k, s)]
        if min(out) < 1:
            return x
        op = self.r.choice(["MaxPool", "AveragePool"])
        more = ", count_include_pad=1" if op == "AveragePool" and self.r.random() < 0.5 else ""
        return self.value(f"{op}({name}) {{kernel_shape={k}, strides={s}, pads={p}{more}}}", c, out)

    def activation(self, x):
        name, c, size = x
        kind = self.r.choice(["Relu", "silu", "HardSwish", "scale", "Sigmoid"])
        if kind == "silu":
            g = self.value(f"Sigmoid({name})", c, size)
            return self.value(f"Mul({name}, {g[0]})", c, size)
        if kind == "scale":
            return self.value(f"Mul({name}, {self.const([c] + [1] * self.rank, 2.0)})", c, size)
        return self.value(f"{kind}({name})", c, size)

    def join(self, x):
        same = [v for v in self.values if v[1:] == x[1:] and v[0] != x[0]]
        if same and self.r.random() < 0.6:
            return self.value(f"Add({x[0]}, {self.r.choice(same)[0]})", x[1], x[2])
        near = [v for v in self.values if v[2] == x[2]]
        other = self.r.choice(near)
        return self.value(f"Concat({x[0]}, {other[0]}) {{axis=1}}", x[1] + other[1], x[2])

    def resize(self, x):
        name, c, size = x
        if max(size) > 40:
            return x
        scales = self.floats([1, 1] + [2] * self.rank)
        mode = self.r.choice(["nearest", "linear"])
        return self.value(f'Resize({name}, _, {scales}) {{mode="{mode}", nearest_mode="floor"}}', c, [2 * n for n in size])

    def bytes(self):
        """An integer convolution of the input, as sums or requantized; its value."""
        r, (c, size) = self.r, self.input
        t, wt = r.choice(["u8", "i8"]), r.choice(["u8", "i8"])
        k = [r.choice([1, 2, 3, 3, 4, 5]) for _ in size]
        s = [r.choice([1, 1, 2, 3]) for _ in size]
        d = [r.choice([1, 1, 2]) for _ in size]
        lo = [r.randint(0, (kk - 1) * dd) for kk, dd in zip(k, d)]
        hi = [r.randint(0, (kk - 1) * dd) for kk, dd in zip(k, d)]
        if min((n + a + b - (kk - 1) * dd - 1) // ss + 1 for n, a, b, kk, dd, ss in zip(size, lo, hi, k, d, s)) < 1:
            return None
        group = r.choice([1, c, c])
        oc = group * r.choice([1, 1, 2] if group > 1 else [5, 8, 20])
        shape = ",".join(map(str, [oc, c // group] + k))
        ends = {"u8": (0, 256), "i8": (-128, 128)}

        def const(name, dims, text):
            self.consts.append(f"const {name} {dims} = {text}")
            return name

        zx = const("$zx", f"{t}[]", f"[{r.choice([0, 3, 100])}]")
        zw = const("$zw", f"{wt}[{oc}]", "rand(5, 1, 9)") if r.random() < 0.3 else const("$zw", f"{wt}[]", "[0]")
        w = const("$wq", f"{wt}[{shape}]", "rand(7, %d, %d)" % ends[wt])
        sx = const("$sx", "f32[]", "[0.0078125]")
        attrs = f"kernel_shape={k}, strides={s}, dilations={d}, pads={lo + hi}, group={group}"
        self.lines.append(f"  %q: {t}[*] = QuantizeLinear(%x, {sx}, {zx})")
        if r.random() < 0.6:
            self.lines.append(f"  %sums: i32[*] = ConvInteger(%q, {w}, {zx}, {zw}) {{{attrs}}}")
            return "%sums"
        sw, sy = const("$sw", f"f32[{oc}]", "rand(9, 0.01, 0.02)"), const("$sy", "f32[]", "[0.0625]")
        b = const("$b", f"i32[{oc}]", "rand(11, -5000, 5000)")
        self.lines.append(f"  %codes: {t}[*] = QLinearConv(%q, {sx}, {zx}, {w}, {sw}, {zw}, {sy}, {zx}, {b}) {{{attrs}}}")
        return "%codes"

    def text(self):
        x = self.values[0]
        for _ in range(self.r.randint(6, 14)):
            x = self.r.choice([self.conv, self.conv, self.conv, self.pool, self.activation, self.activation, self.join,
                               self.resize])(x)
        outputs = {x[0]} if x[0] != "%x" else set()
        outputs |= {v[0] for v in self.values[1:] if self.r.random() < 0.1}
        if self.r.random() < 0.5 and len(self.values) > 1:
            axes = self.ints(list(range(2, 2 + self.rank)))
            outputs.add(self.value(f"ReduceMean({x[0]}, {axes})", x[1], [1] * self.rank)[0])
        outputs |= {self.bytes()} - {None}
        c, size = self.input
        sym = "sym N 1..8\n" if self.batch == "N" else ""
        dims = ",".join([self.batch, str(c)] + [str(n) for n in size])
        head = f"graph @main(%x: f32[{dims}]) -> ({', '.join(sorted(outputs))}) {{"
        if not outputs:
            return None
        return "zg 1\n" + sym + "\n".join(self.consts + [head] + self.lines) + "\n}\n"


class Wide(Net):
    def __init__(self, seed):
        super().__init__(seed)
        self.rank = 2
        self.big = seed % 3 == 2  # images beyond the caches
        small = [self.r.choice([16, 32, 64, 96]), [self.r.randint(6, 23), self.r.randint(6, 23)]]
        self.begin(*[32, [self.r.randint(50, 60), self.r.randint(50, 60)]] if self.big else small)

    def conv(self, x):
        name, c, size = x
        r = self.r
        if r.random() < 0.2:
            return super().conv(x)
        pads = [r.randint(0, 1) for _ in range(4)]
        out = [n + a + b - 2 for n, a, b in zip(size, pads, pads[2:])]
        if min(out) < 2:
            return x
        oc = 32 if self.big else r.choice([c, c, 32, 48, 64, 80])
        w = self.const([oc, c, 3, 3], round((1.0 / (c * 3)) ** 0.5, 4))
        b = ", " + self.const([oc], 0.5) if r.random() < 0.7 else ""
        return self.value(f"Conv({name}, {w}{b}) {{kernel_shape=[3, 3], pads={pads}}}", oc, out)

    def text(self):
        x, first = self.conv(self.values[0]), None
        for step in [self.activation, self.conv, self.join, self.activation, self.conv, self.join]:
            x = step(x)
            first = first or x
        outputs = sorted({x[0], first[0]})
        c, size = self.input
        sym = "sym N 1..8\n" if self.batch == "N" else ""
        head = f"graph @main(%x: f32[{self.batch},{c},{size[0]},{size[1]}]) -> ({', '.join(outputs)}) {{"
        return "zg 1\n" + sym + "\n".join(self.consts + [head] + self.lines) + "\n}\n"


def main():
    out, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    os.makedirs(out, exist_ok=True)
    made = 0
    while made < count:
        text = Net(seed).text()
        seed += 1
        if text is None:
            continue
        with open(os.path.join(out, f"net{made:03}.zg"), "w") as f:
            f.write(text)
        made += 1
    for i in range((count + 5) // 6):
        with open(os.path.join(out, f"wide{i:03}.zg"), "w") as f:
            f.write(Wide(i).text())


main()
