"""From another framework to yours: an ONNX model is loaded, gets a new head, is trained, and goes out as ONNX again.

PyTorch makes the file if it is installed (`pip install duograd[peers]`), else duograd does: the rest is the same.
"""

import argparse
from pathlib import Path

import duograd as dg
import numpy as np
from duograd import nn
from duograd.nn import functional as F


def features(path):
    """An ONNX file of a small convolutional network on images float32[N, 1, 8, 8]."""
    try:
        import torch
    except ImportError:
        dg.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 32)
        )
        dg.onnx.export(net.eval(), (dg.zeros(2, 1, 8, 8),), path, dynamic={"x": {0: "batch"}})
        return
    torch.manual_seed(0)
    tn = torch.nn
    net = tn.Sequential(
        tn.Conv2d(1, 16, 3, padding=1), tn.ReLU(), tn.MaxPool2d(2), tn.Flatten(), tn.Linear(256, 32)
    ).eval()
    torch.onnx.export(
        net,
        (torch.zeros(2, 1, 8, 8),),
        path,
        input_names=["x"],
        dynamic_axes={"x": {0: "batch"}},
        dynamo=False,
    )


class Classifier(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body, self.head = body, nn.Linear(32, 2)

    def forward(self, x):
        return self.head(F.relu(self.body(x)))


def images(count, rng):
    """Bars that lie (0) or stand (1), in noise."""
    kinds = rng.integers(0, 2, count)
    x = rng.normal(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    for k, (kind, place) in enumerate(zip(kinds, rng.integers(0, 8, count))):
        x[(k, 0, place) if kind == 0 else (k, 0, slice(None), place)] += 1
    return dg.tensor(x), dg.tensor(kinds)


def main(folder=".", steps=150):
    """Train; returns the accuracy before and after, and the largest difference of the model that came back."""
    path, again = Path(folder) / "features.onnx", Path(folder) / "classifier.onnx"
    features(path)
    body = dg.onnx.load(path)
    print(f"loaded: {', '.join(name for name, _ in body.named_parameters())}")
    model = Classifier(body)
    optimizer = dg.optim.AdamW(
        [{"params": body.parameters(), "lr": 3e-4}, {"params": model.head.parameters(), "lr": 3e-3}]
    )

    @dg.function
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    rng = np.random.default_rng(0)
    x, y = images(500, rng)
    accuracy = lambda: (model(x).argmax(axis=1) == y).mean(dtype=dg.float32).item()
    before = accuracy()
    for _ in range(steps):
        step(*images(32, rng))
    after = accuracy()
    model.eval()
    dg.onnx.export(model, (x[:2],), again, dynamic={"x": {0: "batch"}})
    difference = abs(dg.onnx.load(again)(x) - model(x)).max().item()
    print(
        f"accuracy {before:.1%} before, {after:.1%} after {steps} steps; as ONNX and back: {difference:.1e} apart"
    )
    return before, after, difference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=".")
    main(parser.parse_args().folder)
