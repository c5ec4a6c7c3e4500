"""The figures of compare.py as text tables, as an SVG chart and as the tables of docs/PERFORMANCE.md.

Usage: tables.py RESULTS.json [DOC.md CHART.svg]    prints, or rewrites what stands between the marks of DOC.md
"""
import json
import math
import os
import sys

SIDES = ("best", "shipped", "openvino", "c")
TITLES = {"best": "ORT best", "shipped": "ORT shipped", "openvino": "OpenVINO", "c": "our C"}


def load(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return json.load(f)["rows"]


def save(path, rows):
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump({"rows": rows}, f, indent=1)
        f.write("\n")
    os.replace(path + ".new", path)


def merge(rows, row):
    """A newer row takes the place of the one of the same model and threads."""
    for i, r in enumerate(rows):
        if (r["model"], r["threads"]) == (row["model"], row["threads"]):
            rows[i] = row
            return
    rows.append(row)


def geomean(values):
    values = [v for v in values if v > 0]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 0.0


def header(threads, base):
    cost = ", ".join(f"{TITLES[s]} {ms * 1e3:.1f} us" for s, ms in base.items())
    columns = " ".join(f"{TITLES[s] + ' ms':>15} {'ratio':>6}" for s in SIDES)
    return (f"\n{threads} thread(s); ratio = rival / ours, above 1 we are faster; taken off rivals: {cost or 'nothing'}\n"
            f"{'model':24} {'ours ms':>9} {'p10':>9} {columns}")


def line(row):
    ours = row["ms"].get("ours")
    text = f"{row['model']:24} " + (f"{ours:9.4f} {row['p10_ms']['ours']:9.4f}" if ours is not None else f"{'-':>9} {'-':>9}")
    for side in SIDES:
        ms, ratio = row["ms"].get(side), row["ratio"].get(side)
        text += f" {ms:15.4f}" if ms is not None else f" {'-':>15}"
        text += f" {ratio:6.2f}" if ratio is not None else f" {'-':>6}"
    for side, why in row["failed"].items():
        text += f"\n{'':24} {side}: {why}"
    if row.get("others_busy", 0) > 0.1:
        text += f"   (others used {100 * row['others_busy']:.0f} % of the machine)"
    return text


def groups(rows):
    """(name, rows) whose geometric means are worth reading; identity is no work and no row of any."""
    rows = [r for r in rows if r["model"] != "identity" and r["ratio"]]
    trees = [r for r in rows if r["model"].startswith("trees_")]
    rows = [r for r in rows if r not in trees]
    yield "fp32, all", [r for r in rows if r["fp32"]]
    yield "fp32, whole models", [r for r in rows if r["fp32"] and not r["single"]]
    yield "fp32, single operators", [r for r in rows if r["fp32"] and r["single"]]
    yield "int8 and fp16", [r for r in rows if not r["fp32"]]
    yield "tree ensembles", trees


def means(rows):
    text = []
    for name, some in groups(rows):
        cells = [f"{TITLES[s]} {geomean([r['ratio'][s] for r in some if s in r['ratio']]):.2f}" for s in SIDES
                 if any(s in r["ratio"] for r in some)]
        if cells:
            text.append(f"geomean, {name} ({len(some)} rows): " + ", ".join(cells))
    return "\n".join(text)


# ---- docs/PERFORMANCE.md -------------------------------------------------------------------------------------------
def number(x, form):
    return form.format(x) if x is not None else "-"


def ratio_table(rows, threads):
    out = ["| model | ours ms (p10) | ORT best | ORT shipped | OpenVINO | our C |", "|---|---|---|---|---|---|"]
    for r in rows:
        if r["threads"] != threads or r["model"] == "identity" or "ours" not in r["ms"]:
            continue
        cells = [f"{r['ms']['ours']:.4g} ({r['p10_ms']['ours']:.4g})"]
        cells += [number(r["ratio"].get(s), "{:.2f}") for s in SIDES]
        out.append(f"| {r['model']} | " + " | ".join(cells) + " |")
    for name, some in groups([r for r in rows if r["threads"] == threads]):
        if some:
            cells = [number(geomean([r["ratio"][s] for r in some if s in r["ratio"]]) or None, "**{:.2f}**") for s in SIDES]
            out.append(f"| **geomean, {name}** | | " + " | ".join(cells) + " |")
    return out


def load_cell(info):
    """Milliseconds from a file to a model that can run, ours and ONNX Runtime's, and their ratio."""
    ours, rival = info["ours"]["load_ms"], info.get("best", {}).get("load_ms")
    return f"{ours:.2f}, {number(rival, '{:.0f}')}" + (f" ({rival / ours:.0f}x)" if rival and ours else "")


def size_table(rows):
    out = ["| model | load ms: ours, ORT (ratio) | workspace MB | artifact MB | compile s |", "|---|---|---|---|---|"]
    for r in rows:
        if r["threads"] != 1 or "ours" not in r["info"]:
            continue
        i = r["info"]
        out.append(f"| {r['model']} | {load_cell(i)} | "
                   f"{i['ours']['workspace_bytes'] / 1e6:.3f} | {r['artifact_bytes'] / 1e6:.2f} | {r['compile_s']:.1f} |")
    return out


def rewrite(doc, rows):
    """Replaces what stands between `<!-- bench: NAME -->` and `<!-- end -->`."""
    parts = {f"{t} thread{'s' if t > 1 else ''}": ratio_table(rows, t) for t in sorted({r["threads"] for r in rows})}
    parts["sizes"] = size_table(rows)
    with open(doc, encoding="utf-8") as f:
        lines, out, inside = f.read().splitlines(), [], False
    for text in lines:
        if text == "<!-- end -->":
            inside = False
        if not inside:
            out.append(text)
        if text.startswith("<!-- bench: "):
            name = text[len("<!-- bench: "):-len(" -->")]
            out += parts.get(name, ["(not measured yet)"])
            inside = True
    with open(doc, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


# ---- the chart -----------------------------------------------------------------------------------------------------
COLOURS = {"best": "#1b6ca8", "shipped": "#7fb2d9", "openvino": "#d98032"}


def chart(rows, path):
    """Bars of rival / ours on a logarithmic axis, one group a model, one thread."""
    rows = [r for r in rows if r["threads"] == 1 and r["ratio"] and r["model"] != "identity"]
    left, width, bar, gap = 170, 900, 7, 6
    group = bar * len(COLOURS) + gap
    height = 60 + group * len(rows)

    def x(ratio):
        return left + (width - left - 40) * (math.log2(min(8, max(0.25, ratio))) + 2) / 5

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           'font-family="sans-serif" font-size="11">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>']
    for tick in (0.25, 0.5, 1, 2, 4, 8):
        svg.append(f'<line x1="{x(tick):.1f}" y1="34" x2="{x(tick):.1f}" y2="{height - 10}" '
                   f'stroke="{"#333333" if tick == 1 else "#dddddd"}"/>')
        svg.append(f'<text x="{x(tick):.1f}" y="30" text-anchor="middle">{tick:g}</text>')
    for k, side in enumerate(COLOURS):
        svg.append(f'<rect x="{left + 190 * k}" y="6" width="10" height="10" fill="{COLOURS[side]}"/>')
        svg.append(f'<text x="{left + 190 * k + 14}" y="15">{TITLES[side]} / ours, 1 thread</text>')
    for i, r in enumerate(rows):
        top = 40 + group * i
        svg.append(f'<text x="{left - 6}" y="{top + 15}" text-anchor="end">{r["model"]}</text>')
        for k, side in enumerate(COLOURS):
            if side in r["ratio"]:
                a, b = sorted((x(1), x(r["ratio"][side])))
                svg.append(f'<rect x="{a:.1f}" y="{top + bar * k}" width="{b - a:.1f}" height="{bar - 1}" '
                           f'fill="{COLOURS[side]}"/>')
                if r["ratio"][side] > 8:  # off the axis
                    svg.append(f'<text x="{b + 3:.1f}" y="{top + bar * (k + 1)}">{r["ratio"][side]:.0f}</text>')
    svg.append("</svg>")
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(svg) + "\n")


def main():
    rows = load(sys.argv[1])
    if len(sys.argv) > 3:
        rewrite(sys.argv[2], rows)
        chart(rows, sys.argv[3])
        return
    for threads in sorted({r["threads"] for r in rows}):
        print(header(threads, {}))
        some = [r for r in rows if r["threads"] == threads]
        print("\n".join(map(line, some)))
        print(means(some))


if __name__ == "__main__":
    main()
