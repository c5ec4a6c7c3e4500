"""RNN, GRU and LSTM with batches that fill groups of items, leave some over, or are known to the run only."""
import numpy as np

from cases import case, f

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
# batch, hidden, directions, dynamic, lengths: hidden sizes fill panels of columns, or leave some over
FORMS = ((1, 20, 1, False, False), (3, 33, 1, False, False), (5, 24, 2, False, False), (8, 32, 1, False, False),
         (9, 40, 2, True, False), (2, 17, 1, True, False), (6, 24, 2, False, True), (13, 8, 1, True, True))


def make():
    rng = np.random.default_rng(3)
    for op, gates in GATES.items():
        for k, (batch, hidden, dirs, late, lengths) in enumerate(FORMS):
            size, steps = 7, 6
            fixed = {"w": f(dirs, gates * hidden, size) / 2, "r": f(dirs, gates * hidden, hidden) / 4,
                     "b": f(dirs, 2 * gates * hidden) / 2}
            count = rng.integers(1, steps + 1, batch).astype(np.int32) if lengths else None
            dims = {"x": [steps, "N", size], "h": [dirs, "N", hidden], "n": ["N"]} if late else None
            attrs = {"hidden_size": hidden, "direction": "bidirectional" if dirs == 2 else "reverse" if hidden % 2 else "forward"}
            if op == "GRU":
                attrs["linear_before_reset"] = k % 2
            case(f"{op.lower()}_{k}", op, {"x": f(steps, batch, size), **fixed, "n": count, "h": f(dirs, batch, hidden)},
                 domain="ai.onnx", fixed=fixed, outputs=("y", "last"), dims=dims, **attrs)
