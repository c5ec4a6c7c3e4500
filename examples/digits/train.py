"""Trains the classifier of this example and writes digits.onnx and digits.txt beside itself.

Not needed by the demo or the tests: both files are committed. To run it again:
    python3 -m venv build/venv-train
    build/venv-train/bin/pip install -r tools/requirements.txt -r tools/requirements-train.txt
    build/venv-train/bin/python examples/digits/train.py

The data are scikit-learn's 1797 handwritten digits of 8x8 pixels (values 0 to 16, shipped with the package): 1500 train the
network, 297 are held out and become digits.txt, one a line: the label, then 64 pixels as characters 0-9 and a-g.
"""
import os

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
TRAIN = 1500
EPOCHS = 40


def block(cin, cout):
    return [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU()]


def network():
    return nn.Sequential(
        *block(1, 16), *block(16, 32), nn.MaxPool2d(2), *block(32, 32), *block(32, 32), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 2 * 2, 10))


def shifted(x):
    """Each picture moved by up to one pixel, edges filled with background."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    out = torch.empty_like(x)
    for i, (dy, dx) in enumerate(torch.randint(0, 3, (len(x), 2)).tolist()):
        out[i] = padded[i, :, dy:dy + 8, dx:dx + 8]
    return out


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.target))
    x = torch.tensor(digits.images[order], dtype=torch.float32)[:, None] / 16
    y = torch.tensor(digits.target[order])
    net = network()
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, 6e-3, total_steps=EPOCHS * (TRAIN // 50))
    for epoch in range(EPOCHS):
        net.train()
        for batch in torch.randperm(TRAIN).split(50):
            loss = nn.functional.cross_entropy(net(shifted(x[batch])), y[batch])
            opt.zero_grad()
            loss.backward()
            opt.step()
            plan.step()
    net.eval()
    with torch.no_grad():
        right = (net(x[TRAIN:]).argmax(1) == y[TRAIN:]).sum().item()
    print(f"{sum(p.numel() for p in net.parameters())} parameters, {right} of {len(x) - TRAIN} held-out digits right")

    path = os.path.join(HERE, "digits.onnx")
    torch.onnx.export(net, (x[:1],), path, input_names=["image"], output_names=["logits"], external_data=False)
    model = onnx.load(path)
    for n in model.graph.node:  # the exporter's stack traces name the folder that it ran in
        del n.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    for v in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del v.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    print(f"{path}: {os.path.getsize(path)} bytes, {[n.op_type for n in model.graph.node]}")

    with open(os.path.join(HERE, "digits.txt"), "w") as f:
        for i in order[TRAIN:]:
            f.write(f"{digits.target[i]} " + "".join("0123456789abcdefg"[int(p)] for p in digits.data[i]) + "\n")


if __name__ == "__main__":
    main()
