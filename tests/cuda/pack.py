"""Packs test data of the ONNX convention for run_packs, which needs neither zenithc nor a protobuf reader.

Usage: pack.py OUT ARTIFACTS DIR...   DIR/model.onnx with DIR/test_data_set_0; ARTIFACTS/NAME.so must exist for NAME = DIR's name.
"""
import glob
import os
import struct
import sys

import numpy as np
import onnx
from onnx import numpy_helper


def tensor(path, name):
    t = onnx.TensorProto()
    with open(path, "rb") as f:
        t.ParseFromString(f.read())
    a = np.array(numpy_helper.to_array(t), order="C")
    if t.data_type in (21, 22, 25, 26):  # 4- and 2-bit integers: a byte each, as at the artifact's interface
        a = a.astype(np.int8 if t.data_type in (22, 26) else np.uint8)
    if a.dtype == object or t.data_type == 8:
        raise ValueError("strings")
    data = a.tobytes()
    head = struct.pack("<64sIIQ8q", name.encode()[:63], t.data_type, a.ndim, len(data), *(list(a.shape) + [0] * 8)[:8])
    return head + data + b"\0" * (-len(data) % 8)


def pack(folder):
    model = onnx.load(os.path.join(folder, "model.onnx"), load_external_data=False)
    init = {i.name for i in model.graph.initializer}
    names = [i.name for i in model.graph.input]
    if len(glob.glob(os.path.join(folder, "test_data_set_0", "input_*.pb"))) < len(names):
        names = [n for n in names if n not in init]
    one = os.path.join(folder, "test_data_set_0")
    ins = [tensor(os.path.join(one, f"input_{i}.pb"), n) for i, n in enumerate(names)
           if os.path.exists(os.path.join(one, f"input_{i}.pb")) and os.path.getsize(os.path.join(one, f"input_{i}.pb"))]
    outs = [tensor(os.path.join(one, f"output_{i}.pb"), o.name) for i, o in enumerate(model.graph.output)]
    return ins, outs


def main():
    out, art = sys.argv[1:3]
    n = skipped = 0
    with open(out, "wb") as f:
        for d in sorted(sys.argv[3:]):
            name = os.path.basename(d.rstrip("/"))
            if not os.path.exists(os.path.join(art, name + ".so")):
                continue
            try:
                ins, outs = pack(d)
            except Exception:
                skipped += 1
                continue
            f.write(struct.pack("<128sII", name.encode()[:127], len(ins), len(outs)))
            for t in ins + outs:
                f.write(t)
            n += 1
    print(f"{n} packed, {skipped} skipped")


main()
