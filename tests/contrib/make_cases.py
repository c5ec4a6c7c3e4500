"""Cases of operators outside the ONNX node tests, with ONNX Runtime's results: com.microsoft and ai.onnx.ml.

usage: make_cases.py FOLDER [NAME...] (test folders are written into it, as `zenithc check` reads them: one for each family; with
names only those families, one folder for each case)
"""
import importlib
import sys

import cases

FAMILIES = ("attention", "anysize", "product", "fused", "tensor", "decoder", "recurrent", "qlinear", "legacy", "version", "ml")

folder, only = sys.argv[1], sys.argv[2:]
for family in only or FAMILIES:
    cases.seed(family)
    importlib.import_module(family + "_cases").make()
    cases.write(folder, family, merge=not only)
