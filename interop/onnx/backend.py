"""onnx's backend interface, so that its conformance suite and other tools can run duograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from ...core import dispatch
from ...core.value import Tensor
from .load import OnnxModule, load


class DuogradRep(BackendRep):  # type: ignore[misc]
    """A prepared model."""

    def __init__(self, module: OnnxModule):
        self.module = module

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run on arrays (in the order of the model's inputs); returns arrays."""
        row = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        row = [np.asarray(x) if isinstance(x, np.generic) else x for x in row]
        with dispatch.set_grad(False):
            result = self.module.run(row)
        return namedtupledict("Outputs", self.module.output_names)(*[_plain(y) for y in result])  # type: ignore[no-any-return]


def _plain(y: Any) -> Any:
    if isinstance(y, Tensor):
        return np.asarray(dispatch.state.executor.read(y))
    return [_plain(v) for v in y] if isinstance(y, list) else y


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
