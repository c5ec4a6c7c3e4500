"""Writes the ONNX backend node tests (model.onnx + test_data_set_*) of the installed onnx package.

Usage: make_data.py OUTDIR. Each case becomes OUTDIR/<name>/; the layout is that of the ONNX backend test data.
Cases whose model or data the package cannot build in this environment are listed and skipped.
"""
import os
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def to_proto(value, type_proto, name):
    if type_proto.HasField("sequence_type"):
        if not value:
            seq = onnx.SequenceProto()
            seq.name = name
            seq.elem_type = onnx.SequenceProto.TENSOR
            return seq
        return numpy_helper.from_list(value, name)
    if type_proto.HasField("optional_type"):
        if value is None:
            opt = onnx.OptionalProto()
            opt.name = name
            opt.elem_type = 0
            return opt
        elem = type_proto.optional_type.elem_type
        opt = onnx.OptionalProto()
        opt.name = name
        if elem.HasField("sequence_type"):
            opt.elem_type = onnx.OptionalProto.SEQUENCE
            opt.sequence_value.CopyFrom(to_proto(value, elem, name))
        else:
            opt.elem_type = onnx.OptionalProto.TENSOR
            opt.tensor_value.CopyFrom(to_proto(value, elem, name))
        return opt
    if type_proto.HasField("map_type"):
        return numpy_helper.from_dict(value, name)
    if isinstance(value, onnx.TensorProto):
        out = onnx.TensorProto()
        out.CopyFrom(value)
        out.name = name
        return out
    return numpy_helper.from_array(np.asarray(value), name)


def main(out_dir):
    done = skipped = 0
    for case in collect_testcases(None):
        path = os.path.join(out_dir, case.name)
        try:
            os.makedirs(path, exist_ok=True)
            model = case.model
            with open(os.path.join(path, "model.onnx"), "wb") as f:
                f.write(model.SerializeToString())
            for k, (ins, outs) in enumerate(case.data_sets):
                data = os.path.join(path, f"test_data_set_{k}")
                os.makedirs(data, exist_ok=True)
                for kind, values, infos in (
                    ("input", ins, model.graph.input),
                    ("output", outs, model.graph.output),
                ):
                    if isinstance(values, dict):
                        values = [values[i.name] for i in infos]
                    for i, v in enumerate(values):
                        proto = to_proto(v, infos[i].type, infos[i].name)
                        with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                            f.write(proto.SerializeToString())
            done += 1
        except Exception as e:  # noqa: BLE001: one bad case must not hide the others
            skipped += 1
            print(f"skipped {case.name}: {type(e).__name__}: {e}", file=sys.stderr)
    print(f"{done} cases written to {out_dir}, {skipped} skipped")


if __name__ == "__main__":
    main(sys.argv[1])
