"""Values of Python as ONNX files hold them, by the type that the model declares."""
import numpy as np
import onnx
from onnx import helper, numpy_helper


def to_proto(value, tp, name=""):
    """TypeError when a tensor is of another element type than tp."""
    named = {"name": name} if name else {}
    kind = tp.WhichOneof("value")
    if kind == "optional_type":
        inner = tp.optional_type.elem_type
        if isinstance(value, list) and len(value) == 1 and (inner.HasField("tensor_type") or isinstance(value[0], list)):
            value = value[0]  # onnx.reference holds it in a list
        out = onnx.OptionalProto(elem_type=onnx.OptionalProto.UNDEFINED, **named)
        if value is not None and inner.HasField("sequence_type"):
            out.elem_type = onnx.OptionalProto.SEQUENCE
            out.sequence_value.CopyFrom(to_proto(value, inner, name))
        elif value is not None:
            out.elem_type = onnx.OptionalProto.TENSOR
            out.tensor_value.CopyFrom(to_proto(value, inner, name))
        return out
    if kind == "sequence_type":
        inner = tp.sequence_type.elem_type
        parts = [to_proto(v, inner) for v in value]
        if inner.HasField("map_type"):
            return onnx.SequenceProto(elem_type=onnx.SequenceProto.MAP, map_values=parts, **named)
        return onnx.SequenceProto(elem_type=onnx.SequenceProto.TENSOR, tensor_values=parts, **named)
    if kind == "map_type":
        m, elem = tp.map_type, tp.map_type.value_type.tensor_type.elem_type
        out = onnx.MapProto(key_type=m.key_type, **named)
        if m.key_type == onnx.TensorProto.STRING:
            out.string_keys.extend(str(k).encode() for k in value)
        else:
            out.keys.extend(int(k) for k in value)
        out.values.CopyFrom(onnx.SequenceProto(elem_type=onnx.SequenceProto.TENSOR, tensor_values=[
            helper.make_tensor("", elem, [], [v if not isinstance(v, str) else v.encode()]) for v in value.values()]))
        return out
    if isinstance(value, onnx.TensorProto):
        out = onnx.TensorProto()
        out.CopyFrom(value)
        out.name = name
    else:
        out = numpy_helper.from_array(np.asarray(value), name)
    if tp.tensor_type.elem_type and out.data_type != tp.tensor_type.elem_type:
        raise TypeError(f"{name}: element type {out.data_type}, declared {tp.tensor_type.elem_type}")
    return out
