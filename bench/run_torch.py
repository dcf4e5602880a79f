"""The cases in PyTorch: eager and compiled."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .cases import Case

MODELS = {
    "linreg": lambda: nn.Linear(10, 1),
    "mlp": lambda: nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    "cifar_cnn": lambda: nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4096, 64), nn.ReLU(), nn.Linear(64, 10),
    ),
}  # fmt: skip
EXPRESSIONS = {
    "pointwise": lambda x: F.gelu(x * 1.5 + 0.5) * torch.sigmoid(x),
    "softmax": lambda x: torch.softmax(x * 2 + 1, -1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "add": lambda x, z: x + z,
    "mul": lambda x, z: x * z,
    "exp": torch.exp,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "sum": torch.sum,
}


def build(case: Case, phase: str, mode: str) -> Any:
    """See run_duograd.build. mode: "eager" or "compile"."""
    wrap = torch.compile if mode == "compile" else (lambda f: f)
    data = {k: torch.from_numpy(v) for k, v in case.data().items()}
    if phase == "op":
        fn = wrap(EXPRESSIONS[case.name if case.name in EXPRESSIONS else case.name.rpartition("_")[0]])
        return lambda: fn(*data.values()), lambda out: out.abs().mean().item()
    model = MODELS[case.name]()
    with torch.no_grad():
        for p, w in zip(model.parameters(), case.weights().values(), strict=True):
            p.copy_(torch.from_numpy(w))
    x, y = data["x"], data["y"]
    compiled = wrap(model)
    if phase == "infer":
        model.eval()

        def predict() -> Any:
            with torch.inference_mode():
                return compiled(x)

        return predict, lambda out: out.abs().mean().item()
    loss_fn = F.mse_loss if case.name == "linreg" else F.cross_entropy
    make = torch.optim.SGD if case.optimizer == "sgd" else torch.optim.Adam
    optimizer = make(model.parameters(), lr=1e-3)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_fn(compiled(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, lambda out: out.item()


def set_threads(n: int) -> None:
    """Use n threads."""
    torch.set_num_threads(n)
