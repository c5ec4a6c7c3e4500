"""Rules of docs/STYLE.md that no compiler checks: include layers, sizes, line widths, basenames, forbidden calls.

Usage: lint_rules.py (in the repository's root). Prints one line per breach; exit code 1 when there is one.
"""
import re
import subprocess
import sys
from collections import defaultdict
from os.path import basename, dirname

MAX_LINES, MAX_WIDTH = 1000, 130
FIXED_ROLE = {"Makefile", "README.md", "run.sh", "build.sh", "main.c", "main.cpp", "lib.sh"}

# Who may include whom: the arrows of docs/ARCHITECTURE.md. Everybody may include himself and zenithc/base.
GRAPH, OPS, PASSES, EVAL = "zenithc/graph", "zenithc/ops", "zenithc/passes", "zenithc/eval"
LAYERS = {
    "zenithc/base": [],
    GRAPH: [OPS],
    OPS: [GRAPH],
    PASSES: [GRAPH, OPS, EVAL],
    EVAL: [GRAPH, OPS, "runtime"],
    "zenithc/tune": [GRAPH],
    "zenithc/driver": [GRAPH, OPS, PASSES, EVAL, "zenithc/tune", "frontends/onnx",
                       "codegen/kir", "codegen/lower", "targets", "runtime"],
    "frontends/onnx": [GRAPH, OPS],
    "codegen/kir": ["runtime"], # its interpreter stands in for compiled code
    "codegen/lower": [GRAPH, OPS, "codegen/kir", "runtime"],
    "codegen/llvm": ["codegen/kir", "runtime"],
    "codegen/cstyle": ["codegen/kir", "runtime"],
    "targets": ["codegen/kir", "runtime"],
    "targets/*": ["targets", "codegen/kir", "codegen/llvm", "codegen/cstyle", "runtime"],
    "runtime": [],
}
# Printers see kernel IR only, passes never a target, targets never the graph: all follow from the table above.

HEAP = r"zenithc/base/arena\.c|runtime/|zenithc/eval/"  # the evaluator frees values behind their last use
# name -> (where it is allowed, what to do instead)
FORBIDDEN = {
    "malloc": (HEAP, "take memory from an arena"),
    "calloc": (HEAP, "take memory from an arena"),
    "realloc": (HEAP, "take memory from an arena"),
    "exit": (r"zenithc/base/|zenithc/driver/", "return a zn_status"),
    "abort": (r"zenithc/base/|zenithc/eval/", "use ZN_BUG"),
    "strcpy": (None, "use zn_arena_strdup or memcpy"),
    "strcat": (None, "use zn_text"),
    "sprintf": (None, "use zn_text_printf or snprintf"),
    "vsprintf": (None, "use vsnprintf"),
    "gets": (None, "use fgets"),
    "strtok": (None, "use strcspn"),
    "atoi": (None, "use strtol, which reports errors"),
    "atof": (None, "use strtod, which reports errors"),
    "system": (None, "use posix_spawn with an argument list"),
    "rand": (None, "use a seeded generator"),
    "srand": (None, "use a seeded generator"),
}
# Calls that append to a graph, a kernel or the pool of expressions: two of them as arguments of one call are appended in the
# order that the compiler of the compiler likes (C leaves it open), and gcc and clang differ. Static ones are found by their type.
BUILDING = ("zenithc/ops/", "zenithc/passes/", "frontends/onnx/", "codegen/lower/", "codegen/kir/")
BUILDERS = (
    r"zn_rw(?:[123]|_(?:op|raw|infer|attr_int|reduce|transpose|cast|ints|num|reshape|reshape_to|squeeze|unsqueeze|slice|extent"
    r"|extent1|repeat_heads))|zn_grad_(?:sum_to|expand_to|shaped|zeros)|zn_graph_(?:node|const|const_i64s|const_scalar)"
    r"|zn_u_(?:op[123]?|nodes?|with_attrs|num|i64s?|scalar_like|cast|concat|unsqueeze|reshape|transpose|slice|gather|dim|range"
    r"|swapped|channels|scaled_product|activation|gelu|swish|reshape_as|unpacked)"
    r"|zn_ua_(?:attend|apart|together|penalty|rotate|positions)"
    r"|zn_(?:kb|s|r|i|sv|ls)_\w+|zn_lw_(?:load\w*|ix|as_expr|in_range|checked_index|convert|round_to|ptr|ptr_loc|loc|source"
    r"|keep|scratch|zero)"
)
ATOMS = r"zn_ex_(?:mul|divi?|modi?|ceildiv|min|max|bcast|named|var)|zn_type_count" # a sum is sorted by their age
COMPILER = ("zenithc/", "frontends/", "codegen/", "targets/", "runtime/")


def layer_of(path):
    d = dirname(path)
    if d in LAYERS:
        return d
    return "targets/*" if d.startswith("targets/") else None


def allowed(mine, theirs_path):
    theirs = dirname(theirs_path)
    if theirs in (mine, "zenithc/base", "") or (mine == "targets/*" and theirs.startswith("targets/")):
        return True
    return theirs in LAYERS[mine]


def without_comments(text):
    blank = lambda m: re.sub(r"[^\n]", " ", m.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(\\.|[^"\\\n])*"', blank, text, flags=re.S)


def arguments(code, at):
    """The arguments of a call whose parenthesis is open at `at`."""
    found, depth, start = [], 0, at
    while at < len(code):
        c = code[at]
        if c in ")]}" and depth == 0:
            return found + [code[start:at]]
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            found.append(code[start:at])
            start = at + 1
        at += 1
    return found


def check_order(path, code, say):
    own = re.findall(r"^static zn_(?:vid|nid|kref) (\w+)\(", code, flags=re.M)
    for name, body in re.findall(r"^static zn_expr (\w+)\((.*?)\n(?:}$|(?=\n))", code, flags=re.M | re.S):
        if re.search(r"\bzn_(?:kb_|lw_as_expr|lw_checked_index|lw_for)|\b(?:" + ATOMS + r")\(", body):
            own.append(name)
    builds = re.compile(r"\b(?:" + "|".join([BUILDERS, ATOMS] + own) + r")\(")
    for m in re.finditer(r"\b(?!(?:if|while|for|switch|return|sizeof|assert)\b)\w+\(", code):
        if sum(1 for a in arguments(code, m.end()) if builds.search(a)) > 1:
            say(path, code.count("\n", 0, m.start()) + 1, "two arguments append code: their order is open; name one first")


def check_source(path, text, say):
    mine = layer_of(path)
    if mine is None and path.startswith(COMPILER):
        say(path, 1, "folder without a row in tools/lint_rules.py LAYERS")
    for n, line in enumerate(text.split("\n"), 1):
        m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if m and mine and not allowed(mine, m.group(1)):
            say(path, n, f"{mine} may not include {m.group(1)}")
    if not path.startswith(COMPILER):
        return
    code = without_comments(text)
    if path.startswith(BUILDING) and path.endswith(".c"):
        check_order(path, code, say)
    for m in re.finditer(r"(?<![\w.>])(\w+)\s*\(", code):
        where, instead = FORBIDDEN.get(m.group(1), ("", ""))
        if instead and not (where and re.match(where, path)):
            say(path, code.count("\n", 0, m.start()) + 1, f"{m.group(1)} is not allowed here: {instead}")


def main():
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True)
    breaches, names = [], defaultdict(list)
    say = lambda path, line, what: breaches.append(f"{path}:{line}: {what}")
    for path in sorted(files.stdout.split()):
        if not re.search(r"\.(c|h|def|py|sh|mk|md|cpp)$|Makefile$", path):
            continue
        names[basename(path)].append(path)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        lines = text.split("\n")
        if len(lines) > MAX_LINES:
            say(path, MAX_LINES, f"{len(lines)} lines, at most {MAX_LINES}")
        for n, line in enumerate(lines, 1):
            if len(line) > MAX_WIDTH and not path.endswith((".md", ".def")):
                say(path, n, f"{len(line)} columns, at most {MAX_WIDTH}")
            if line != line.rstrip():
                say(path, n, "blank at the end of the line")
            if "\t" in line and not re.search(r"Makefile$|\.mk$", path):
                say(path, n, "tab")
        if path.endswith((".c", ".h")):
            check_source(path, text, say)
    for name, paths in names.items():
        if len(paths) > 1 and name not in FIXED_ROLE:
            say(paths[1], 1, f"the name is taken by {paths[0]}")
    print("\n".join(breaches))
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
