"""Inference cases in onnxruntime: the models that duograd exports, and those of the onnx wheel."""

from __future__ import annotations

from typing import Any

import duograd as dg
import numpy as np
import onnxruntime as ort

from . import onnx_zoo
from .case import Case
from .run_duograd import MODELS

_threads = [2]


def _exported(case: Case, x: np.ndarray) -> Any:
    model = MODELS[case.name]()
    with dg.no_grad():
        for p, w in zip(model.parameters(), case.weights().values(), strict=True):
            p.copy_(dg.tensor(w))
    model.eval()
    return dg.onnx.export(model, (dg.tensor(x),), verify=False)


def build(case: Case, phase: str, mode: str) -> Any:
    """See run_duograd.build; only phase "infer"."""
    x = case.data()["x"]
    proto = onnx_zoo.model(case.name) if case.name in onnx_zoo.FILES else _exported(case, x)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = _threads[0], 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feed)[0], lambda out: float(np.abs(out).mean())


def set_threads(n: int) -> None:
    """Use n threads."""
    _threads[0] = n
