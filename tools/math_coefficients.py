#!/usr/bin/env python3
"""Derives the polynomials of codegen/kir/math_tables.c: weighted minimax fits by the Remez exchange in 60 digits
(needs mpmath). Prints the C tables; `--check` also prints the errors of the fits. Coefficients are rounded to the
target format one by one, lowest degree first, and the rest refitted, so that rounding costs almost nothing."""
import struct
import sys
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


def fit(f, w, lo, hi, deg, fmt):
    """Rounded coefficients, degree 0 first."""
    fixed, g = [], f
    powers = list(range(deg + 1))
    while powers:
        c, err = remez(g, w, lo, hi, powers, rounds=5 if fixed else 10, grid=300 if fixed else 1000)
        r = round_to(c[0], fmt)
        fixed.append(r)
        p = powers.pop(0)
        prev = g
        g = (lambda prev, r, p: lambda x: prev(x) - r * x ** p)(prev, r, p)
    xs = [mpf(lo) + (mpf(hi) - mpf(lo)) * i / 997 for i in range(998)]
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
    ("log", f_log, lambda f: at(abs(f)) ** 1, mpf(-1) / 3 - mpf("1e-6"), mpf(1) / 3 + mpf("1e-6"), 9, None),
    ("logs", zroot(f_logs), lambda z: z, 0, mpf("0.0401"), None, 7),
    ("sin", zroot(lambda r: (sin(r) - r) / r ** 3), lambda z: z, 0, Q, 2, 5),
    ("cos", zroot(lambda r: (cos(r) - 1 + r * r / 2) / r ** 4), lambda z: z ** 2, 0, Q, 2, 5),
    ("atan", zroot(lambda t: (atan(t) - t) / t ** 3), lambda z: z, 0, T ** 2, 4, 11),
    ("asin", zroot(lambda t: (asin(t) - t) / t ** 3), lambda z: z, 0, mpf("0.2501"), 4, 12),
    ("erf", zroot(lambda t: erf(t) / t), lambda z: mpf(1), 0, mpf("1.0001"), 6, 14),
    ("erfc", lambda t: small(tail_x(t)), lambda t: exp(-tail_x(t) ** 2), mpf(-1) / 3,
     mpf(4) / 8 + mpf("0.001"), 7, 23),
]


def emit(only=None):
    for name, f, w, lo, hi, d32, d64 in TABLES:
        if only and name not in only:
            continue
        for fmt, deg in (("f32", d32), ("f64", d64)):
            if deg is None:
                continue
            c, err = fit(f, w, lo, hi, deg, fmt)
            print("/* error %s of the result */" % mp.nstr(err, 3))
            print("static const double %s_%s[] = {" % (name, fmt))
            print(",\n".join("  %s" % repr(float(v)) for v in c))
            print("};")
            sys.stdout.flush()


if __name__ == "__main__":
    emit(sys.argv[1:])
