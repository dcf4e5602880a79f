"""onnx's backend interface, so that its conformance suite and other tools can run duograd."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from ...core import dispatch
from ...graph import function
from .coded import NARROW, coded
from .load import OnnxModule, load
from .program import as_array
from .tensors import frozen


class DuogradRep(BackendRep):  # type: ignore[misc]
    """A prepared model. In eager mode, or in graph mode where DUOGRAD_MODE=graph asks for it."""

    def __init__(self, module: OnnxModule):
        self.module = module
        graph = os.environ.get("DUOGRAD_MODE") == "graph"
        self._run = function(module.run) if graph else module.run

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run on arrays (in the order of the model's inputs); returns arrays."""
        row = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        row = [_ready(x) for x in row]
        with dispatch.set_grad(False):
            result = self._run(row)
        return namedtupledict("Outputs", self.module.output_names)(*[_plain(y) for y in result])  # type: ignore[no-any-return]


def _ready(x: Any) -> Any:
    if isinstance(x, onnx.TensorProto):
        x = frozen(x)
    x = np.asarray(x) if isinstance(x, np.generic) else x
    return coded(x) if isinstance(x, np.ndarray) and x.dtype.name in NARROW else x


def _plain(y: Any) -> Any:
    if isinstance(y, list):
        return [_plain(v) for v in y]
    return as_array(y)


class DuogradBackend(Backend):  # type: ignore[misc]
    """duograd behind onnx's backend interface, in eager mode on the CPU."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> DuogradRep:
        super().prepare(model, device, **kwargs)
        return DuogradRep(load(model))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None, **kwargs: Any,
    ) -> tuple[Any, ...]:  # fmt: skip
        arrays = [np.asarray(x) for x in inputs]
        given = [
            onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in zip(node.input, arrays)
        ]
        made = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
        model = onnx.helper.make_model(onnx.helper.make_graph([node], "node", given, made))
        return DuogradRep(load(model)).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device.partition(":")[0] == "CPU"


prepare = DuogradBackend.prepare
run_model = DuogradBackend.run_model
run_node = DuogradBackend.run_node
supports_device = DuogradBackend.supports_device
