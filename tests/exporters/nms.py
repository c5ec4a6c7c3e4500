"""Non-maximum suppression as an operator of torch, with what both exporters need to write NonMaxSuppression for it
(torchvision's own needs a build for the same device as torch)."""

import onnxscript
import torch
from onnxscript import opset18 as op

IOU, SCORE, MOST = 0.4, 0.3, 20


@torch.library.custom_op("zenith::nms", mutates_args=())
def nms(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """boxes [n, 4] as y1 x1 y2 x2, scores [n] -> indices of at most MOST kept boxes, best first."""
    area = (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
    left = [i for i in scores.argsort(descending=True, stable=True).tolist() if scores[i] > SCORE]
    kept = []
    while left and len(kept) < MOST:
        best = left.pop(0)
        kept.append(best)
        low, high = torch.maximum(boxes[best, :2], boxes[left, :2]), torch.minimum(boxes[best, 2:], boxes[left, 2:])
        both = (high - low).clamp(min=0).prod(-1)
        left = [i for i, o in zip(left, (both / (area[best] + area[left] - both)).tolist()) if o <= IOU]
    return torch.tensor(kept, dtype=torch.int64)


@nms.register_fake
def _(boxes, scores):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def translate(boxes, scores):
    picked = op.NonMaxSuppression(
        op.Unsqueeze(boxes, op.Constant(value_ints=[0])),
        op.Unsqueeze(scores, op.Constant(value_ints=[0, 1])),
        op.Constant(value_ints=[MOST]),
        op.Constant(value_floats=[IOU]),
        op.Constant(value_floats=[SCORE]),
    )
    return op.Squeeze(op.Slice(picked, op.Constant(value_ints=[2]), op.Constant(value_ints=[3]), op.Constant(value_ints=[1])),
                      op.Constant(value_ints=[1]))


def symbolic(g, boxes, scores):
    def const(value):
        return g.op("Constant", value_t=value)

    picked = g.op(
        "NonMaxSuppression",
        g.op("Unsqueeze", boxes, const(torch.tensor([0]))),
        g.op("Unsqueeze", scores, const(torch.tensor([0, 1]))),
        const(torch.tensor([MOST])),
        const(torch.tensor([IOU])),
        const(torch.tensor([SCORE])),
    )
    last = g.op("Slice", picked, const(torch.tensor([2])), const(torch.tensor([3])), const(torch.tensor([1])))
    return g.op("Squeeze", last, const(torch.tensor([1])))


torch.onnx.register_custom_op_symbolic("zenith::nms", symbolic, 17)
TABLE = {torch.ops.zenith.nms.default: translate}
