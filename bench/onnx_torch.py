"""Models that torch.onnx exports, by both exporters at several opsets: imported, compared with PyTorch, gradients too.

`python -m duograd.bench.onnx_torch [--only a,b] [--exporters script,dynamo] [--opsets 13,17,20,23]` prints what
differs.
The `dynamo` exporter needs the package onnxscript.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import time
import warnings
from typing import Any

import duograd as dg
import numpy as np
import torch

from .onnx_round_trip import Mismatch, _flat, require
from .onnx_torch_models import MODELS

EXPORTERS = ("script", "dynamo")
#: opsets of each exporter; the older one writes up to 20
OPSETS = {"script": (13, 14, 17, 20), "dynamo": (18, 20, 23)}


def has_dynamo() -> bool:
    """Whether the newer exporter can run here."""
    return importlib.util.find_spec("onnxscript") is not None


def exported(model: Any, inputs: tuple[Any, ...], exporter: str, opset: int) -> bytes:
    """A torch module as the bytes of a model."""
    quiet = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            program = torch.onnx.export(
                model, inputs, dynamo=True, opset_version=opset, optimize=False, verbose=False
            )
            return bytes(program.model_proto.SerializeToString())
        file = io.BytesIO()
        torch.onnx.export(
            model, inputs, file, dynamo=False, opset_version=opset, do_constant_folding=False, verbose=False
        )
        return file.getvalue()


def _outputs(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [y for x in result for y in _outputs(x)]
    return [result]


def compare(name: str, exporter: str, opset: int) -> int:
    """Import a model and compare it with PyTorch; returns how many gradients agreed. Raises Mismatch, OnnxError."""
    torch.manual_seed(0)
    case = MODELS[name]
    model, inputs = case.make().eval(), case.inputs()
    with torch.no_grad():
        # The exporter makes equal tensors one, and their gradients one sum: no two may be equal.
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for b in model.buffers():
            if b.dtype.is_floating_point:
                b.add_(0.1 * torch.rand_like(b))
    loaded = dg.onnx.load(exported(model, inputs, exporter, opset))
    floats = [x for x in inputs if x.dtype.is_floating_point]
    for x in floats:
        x.requires_grad_(True)
    wants = _outputs(model(*inputs))
    ours = [dg.tensor(x.detach().numpy()) for x in inputs]
    for x in ours:
        if x.dtype.is_float:
            x.requires_grad_(True)
    gots = _outputs(loaded(*ours))
    require("outputs", _flat(gots), [y.detach().numpy() for y in wants])
    weights = [np.cos(np.arange(y.numel(), dtype=np.float32)).reshape(y.shape) for y in wants]
    torch.stack([(y * torch.tensor(w)).sum() for y, w in zip(wants, weights)]).sum().backward()
    total: Any = 0.0
    for y, w in zip(gots, weights):
        total = total + (y * dg.tensor(w)).sum()
    total.backward()
    pairs: list[Any] = [
        (f"input {k}", a.grad, b.grad) for k, (a, b) in enumerate(zip(ours, inputs)) if b in floats_of(inputs)
    ]
    theirs = dict(model.named_parameters())
    pairs += [(n, p.grad, theirs[n].grad) for n, p in loaded.named_parameters() if n in theirs]
    for label, got, want in pairs:
        if want is None:
            continue
        require(f"gradient of {label}", [got.numpy()], [want.numpy()], 5.0)
    return len(pairs)


def floats_of(inputs: tuple[Any, ...]) -> set[Any]:
    """The inputs that have gradients."""
    return {x for x in inputs if x.dtype.is_floating_point}


def main() -> None:
    """Run the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--exporters", default=",".join(EXPORTERS))
    parser.add_argument("--opsets", default="")
    options = parser.parse_args()
    wanted = [w for w in options.only.split(",") if w]
    chosen = [n for n in MODELS if not wanted or n in wanted]
    began = time.time()
    for exporter in options.exporters.split(","):
        if exporter == "dynamo" and not has_dynamo():
            print("dynamo: not run, the package onnxscript is not installed")
            continue
        for opset in [int(v) for v in options.opsets.split(",") if v] or OPSETS[exporter]:
            good = gradients = refused = 0
            for name in chosen:
                try:
                    gradients += compare(name, exporter, opset)
                    good += 1
                except (Mismatch, dg.errors.DuogradError) as e:
                    print(
                        f"{name} by {exporter} at {opset}: {' | '.join(str(e).splitlines()[:3])[:400]}",
                        flush=True,
                    )
                except Exception as e:
                    refused += 1
                    print(
                        f"{name} by {exporter} at {opset}: torch: {type(e).__name__}: {str(e)[:200]}",
                        flush=True,
                    )
            found = f"{good} of {len(chosen)} agree, {gradients} gradients, {refused} not exported"
            print(f"{exporter}, opset {opset}: {found}", flush=True)
    print(f"{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
