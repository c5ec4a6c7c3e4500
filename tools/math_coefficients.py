#!/usr/bin/env python3
"""Derives the polynomials of codegen/kir/math_tables.c: weighted minimax fits by the Remez exchange in 60 digits
(needs mpmath). Prints the C tables; `--check` also prints the errors of the fits. Coefficients are rounded to the
target format one by one, lowest degree first, and the rest refitted, so that rounding costs almost nothing."""
import struct
from mpmath import mp, mpf, matrix, lu_solve, cos, pi, exp, expm1, log, sin, atan, asin, erf, erfc, sqrt

mp.dps = 60


def round_to(c, fmt):
    if fmt == "f32":
        return mpf(struct.unpack("f", struct.pack("f", float(c)))[0])
    return mpf(float(c))


def solve(f, w, nodes, powers):
    n = len(powers)
    a, b = matrix(n + 1, n + 1), matrix(n + 1, 1)
    for i, x in enumerate(nodes):
        for j, p in enumerate(powers):
            a[i, j] = w(x) * x ** p
        a[i, n] = (-1) ** i
        b[i] = w(x) * f(x)
    s = lu_solve(a, b)
    return [s[j] for j in range(n)]


def remez(f, w, lo, hi, powers, rounds=8, grid=1200):
    """Coefficients of x^p, p in powers, minimising max |w (f - P)| on [lo, hi]."""
    n = len(powers) + 1
    lo, hi = mpf(lo), mpf(hi)
    nodes = [(lo + hi) / 2 - (hi - lo) / 2 * cos(pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    xs = [(lo + hi) / 2 - (hi - lo) / 2 * cos(pi * i / grid) for i in range(grid + 1)]
    fs, ws = [f(x) for x in xs], [w(x) for x in xs]
    best, best_err = None, None
    for _ in range(rounds):
        c = solve(f, w, nodes, powers)
        e = [wx * (fx - sum(ci * x ** p for ci, p in zip(c, powers))) for x, fx, wx in zip(xs, fs, ws)]
        err = max(abs(v) for v in e)
        if best is None or err < best_err:
            best, best_err = c, err
        ext, cur = [], 0
        for i in range(1, len(e)):
            if (e[i] > 0) != (e[cur] > 0):
                ext.append(cur)
                cur = i
            elif abs(e[i]) > abs(e[cur]):
                cur = i
        ext.append(cur)
        while len(ext) > n:
            ext.pop(0 if abs(e[ext[0]]) < abs(e[ext[-1]]) else -1)
        if len(ext) < n:
            break
        new = [xs[i] for i in ext]
        if max(abs(a - b) for a, b in zip(new, nodes)) == 0:
            break
        nodes = new
    return best, best_err


def least_squares(f, w, lo, hi, powers):
    """Weighted least squares on Chebyshev nodes: as good as minimax for refits after rounding."""
    n = 4 * len(powers) + 20
    xs = [(lo + hi) / 2 - (hi - lo) / 2 * cos(pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    a, b = matrix(n, len(powers)), matrix(n, 1)
    for i, x in enumerate(xs):
        for j, p in enumerate(powers):
            a[i, j] = w(x) * x ** p
        b[i] = w(x) * f(x)
    s = lu_solve(a, b)
    return [s[j] for j in range(len(powers))]


def fit(f, w, lo, hi, deg, fmt):
    """Rounded coefficients, degree 0 first."""
    lo, hi, fixed, g = mpf(lo), mpf(hi), [], f
    powers = list(range(deg + 1))
    first, _ = remez(f, w, lo, hi, powers)
    while powers:
        c = first if not fixed else least_squares(g, w, lo, hi, powers)
        if fmt == "f64":
            fixed = [round_to(v, fmt) for v in first]
            break
        r = round_to(c[0], fmt)
        fixed.append(r)
        p = powers.pop(0)
        g = (lambda prev, k, q: lambda x: prev(x) - k * x ** q)(g, r, p)
    xs = [lo + (hi - lo) * i / 997 for i in range(998)]
    err = max(abs(w(x) * (f(x) - sum(c * x ** i for i, c in enumerate(fixed)))) for x in xs)
    return fixed, err


def at(x):
    return x if abs(x) > mpf(10) ** -25 else mpf(10) ** -25


def zroot(g):
    """g(t) given, as a function of z = t^2."""
    return lambda z: g(sqrt(at(abs(z))))


LN2 = log(mpf(2))
H = LN2 / 2 * mpf("1.0005")
Q = (pi / 4 * mpf("1.0005")) ** 2
T = (sqrt(mpf(2)) - 1) * mpf("1.001")


def f_exp(r):
    r = at(r)
    return (expm1(r) - r) / r ** 2


def f_log(f):
    f = at(f)
    return (mp.log1p(f) - f) / f ** 2


def f_logs(s):
    return (2 * mp.atanh(s) - 2 * s) / s ** 3


def small(x):  # erfcx-like tail in t = (x - 2) / (x + 2)
    return erfc(x) * exp(x * x)


def tail_x(t):
    return 2 * (1 + t) / (1 - t)


TABLES = [
    # name, f, weight (1 / size of the final result), lo, hi, degree f32, degree f64
    ("exp", f_exp, lambda r: r ** 2, -H, H, 4, 10),
    ("log", f_log, lambda f: at(abs(f)) ** 1, mpf("-0.33335"), mpf("0.3339"), 9, None),
    ("logs", zroot(f_logs), lambda z: z, 0, mpf("0.0401"), None, 7),
    # the same without 2/3, for pow's double-word logarithm
    ("logw", zroot(lambda t: (f_logs(t) - mpf(2) / 3) / t ** 2), lambda z: z ** 2, 0, mpf("0.0401"), None, 7),
    ("sin", zroot(lambda r: (sin(r) - r) / r ** 3), lambda z: z, 0, Q, 2, 5),
    ("cos", zroot(lambda r: (cos(r) - 1 + r * r / 2) / r ** 4), lambda z: z ** 2, 0, Q, 2, 5),
    ("atan", zroot(lambda t: (atan(t) - t) / t ** 3), lambda z: z, 0, T ** 2, 4, 11),
    ("asin", zroot(lambda t: (asin(t) - t) / t ** 3), lambda z: z, 0, mpf("0.2501"), 4, 12),
    ("erf", zroot(lambda t: erf(t) / t - 1), lambda z: mpf(1), 0, mpf("1.0001"), 6, 14),
    # log(erfc(2 + u)): f32's tail is 1 - exp of it
    ("erfl", lambda u: log(erfc(2 + u)), lambda u: erfc(2 + u), mpf(-1), mpf(2), 6, None),
    ("erfc", lambda t: small(tail_x(t)), lambda t: exp(-tail_x(t) ** 2), mpf(-1) / 3,
     mpf(4) / 8 + mpf("0.001"), None, 23),
]


HEAD = """/* Generated by tools/math_coefficients.py: minimax polynomials (degree 0 first) and constants of the formats. */
#include "codegen/kir/math.h"
"""


def split_bits(x, bits, parts):
    """x as a sum of `parts` doubles; all but the last have `bits` significant bits at most."""
    out = []
    for i in range(parts):
        if i == parts - 1:
            out.append(float(x))
            break
        m, e = mp.frexp(x)
        v = mp.ldexp(mp.floor(mp.ldexp(m, bits)), int(e) - bits)
        out.append(float(v))
        x = x - v
    return out


def two_over_pi_words(n):
    """64 zero bits, then the binary digits of 2 / pi, as n 64-bit words."""
    mp.prec = 64 * n + 64
    v = 2 / pi
    words = [0]
    for _ in range(n - 1):
        v = v * mpf(2) ** 64
        w = int(mp.floor(v))
        words.append(w)
        v -= w
    mp.dps = 60
    return words


def parts_f32(x):
    a = round_to(x, "f32")
    return [float(a), float(round_to(x - a, "f32"))]


def scalar_fields(fmt):
    f32 = fmt == "f32"
    ln2 = [float(mpf(355) / 512), float(LN2 - mpf(355) / 512)] if f32 else split_bits(LN2, 32, 2)
    pio2 = split_bits(pi / 2, 11, 4) if f32 else split_bits(pi / 2, 33, 3)
    two = parts_f32 if f32 else (lambda x: split_bits(x, 53, 2))
    rows = [("log2e", float(1 / LN2)), ("ln2_hi", ln2[0]), ("ln2_lo", ln2[1]), ("two_over_pi", float(2 / pi))]
    rows += [("pio2_part[%d]" % i, v) for i, v in enumerate(pio2)]
    rows += [("pio2_hi", two(pi / 2)[0]), ("pio2_lo", two(pi / 2)[1])]
    return rows


def emit():
    print(HEAD)
    have = {"f32": [], "f64": []}
    for name, f, w, lo, hi, d32, d64 in TABLES:
        for fmt, deg in (("f32", d32), ("f64", d64)):
            if deg is None:
                continue
            c, err = fit(f, w, lo, hi, deg, fmt)
            have[fmt].append((name, deg + 1))
            print("/* error of the fit: %s of the result */" % mp.nstr(err, 3))
            print("static const double %s_%s[] = {" % (name, fmt))
            print(",\n".join("    %s" % repr(float(v)) for v in c))
            print("};\n")
    words = two_over_pi_words(22)
    print("const uint64_t zn_math_two_over_pi[%d] = {" % len(words))
    for i in range(0, len(words), 3):
        print("    " + " ".join("0x%016xu," % w for w in words[i:i + 3]))
    print("};\n")
    consts = {
        "f32": [".t = ZN_F32", ".it = ZN_I32", ".mant = 23", ".bias = 127", ".magic = 12582912.0",
                ".magic_bits = 0x4b400000", ".two_thirds = 0x3f2aaaab", ".min_normal = 0x1p-126",
                ".up = 0x1p23", ".exp_min = -104.0", ".exp_max = 89.0", ".trig_max = 8192.0"],
        "f64": [".t = ZN_F64", ".it = ZN_I64", ".mant = 52", ".bias = 1023", ".magic = 6755399441055744.0",
                ".magic_bits = 0x4338000000000000", ".two_thirds = 0x3fe5555555555555",
                ".min_normal = 0x1p-1022", ".up = 0x1p52", ".exp_min = -746.0", ".exp_max = 710.0",
                ".trig_max = 0x1p20"],
    }
    for fmt in ("f32", "f64"):
        rows = consts[fmt] + [".%s = %r" % r for r in scalar_fields(fmt)]
        rows += [".%s = {%s_%s, %d}" % (n, n, fmt, k) for n, k in have[fmt]]
        print("const zn_math_format zn_math_%s = {" % fmt)
        print(",\n".join("    " + r for r in rows))
        print("};\n" if fmt == "f32" else "};")


if __name__ == "__main__":
    emit()
