"""`dg.onnx.load`: an ONNX model as a trainable Module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from ...core import dispatch
from ...core.errors import OnnxError
from ...core.value import Tensor
from ...nn.module import Module, Parameter
from .coded import Coded, coded, is_texts, texts
from .dtypes import from_code, of_array, to_book
from .program import Call, Program, host_tensor
from .read import Given, Source, describe, read

#: inputs of a node that hold statistics, not weights
_STATISTICS = {"BatchNormalization": (3, 4)}


def load(source: Any) -> OnnxModule:
    """Read an ONNX model as a Module: callable in both modes, trainable, exportable again.

    source: a path, bytes or a ModelProto. Returns: a module in eval() mode; float initializers that nodes use as
    weights are its parameters, under their own names; other floats of rank 1 and above are buffers. Dropout
    nodes drop in train() mode.
    Raises: OnnxError for a file that cannot be read and for unsupported nodes, all of them in one message.
    Example: `m = dg.onnx.load("m.onnx"); y = m(x)`.
    """
    model = OnnxModule(read(source))
    model.eval()
    return model


class OnnxModule(Module):
    """A loaded model. Call it with tensors or arrays, by place or name.

    input_names, output_names: of the graph; inputs: what each takes.
    """

    def __init__(self, source: Source):
        problems = source.program.problems
        if problems:
            shown = "\n    ".join(f"node {p.node} ({p.op}): {p.reason}" for p in problems[:8])
            more = f"\n    and {len(problems) - 8} more" if len(problems) > 8 else ""
            raise OnnxError(
                "onnx.load", f"{source.where} holds {len(problems)} unsupported nodes:\n    {shown}{more}",
                "dg.onnx.check(model) lists them all; replace those ops, or run the model with onnxruntime",
            )  # fmt: skip
        self.where = source.where
        self.input_names = tuple(i.name for i in source.inputs if not i.has_default)
        self.output_names = tuple(source.outputs)
        self.inputs = {i.name: i for i in source.inputs}
        self._program = source.program
        self._names: tuple[tuple[str, str], ...] = ()  # initializer, attribute
        self._adopt(source)

    def _adopt(self, source: Source) -> None:
        """Turn initializers into parameters, buffers and constants."""
        trained = source.trained
        weights = _tensor_uses(source.program)
        statistics = _statistics(source.program)
        read_anywhere = {n for call in source.program.calls for n in call.reads()} | set(source.outputs)
        for name, array in source.initializers.items():
            if name not in read_anywhere:
                continue
            dtype = of_array(array)
            is_float = dtype is not None and dtype.is_float
            if trained is not None:
                as_parameter = is_float and name in trained
            else:
                as_parameter = (
                    is_float
                    and array.ndim > 0
                    and array.size > 1
                    and name in weights
                    and name not in statistics
                )
            taken = name in self.__dict__ or hasattr(type(self), name)
            attribute = f"{name}_" if taken else name
            if as_parameter:
                # Weights mapped from a file are used where they are.
                host: Any = dispatch._State.executor
                self.__dict__[attribute] = Parameter(host.share(array) if name in source.mapped else array)
            elif (
                dtype is not None
                and name in weights
                and (trained is not None or (is_float and array.ndim > 0))
            ):
                # As register_buffer does; a name may hold dots, being the path of an exported module.
                self._buffers = {**self._buffers, attribute: True}
                self.__dict__[attribute] = dispatch._State.executor.constant(array, "cpu")
            else:
                array.setflags(write=False)
                self._program.constants[name] = array
                continue
            self._names += ((name, attribute),)
        self._program.plan()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        results = [self._tensor(y) for y in self.run(args, kwargs)]
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> list[Any]:
        """The outputs as they come: tensors, and arrays where a value is known without computing."""
        env = self._bind(tuple(args), kwargs or {})
        for name, attribute in self._names:
            env[name] = self.__dict__[attribute]
        return self._program.run(env, self.training)

    def _tensor(self, y: Any) -> Any:
        return host_tensor(y) if isinstance(y, np.ndarray) and not is_texts(y) else y

    # -- arguments --------------------------------------------------------------------------------

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        env: dict[str, Any] = dict(zip(self.input_names, args))
        if len(args) > len(self.input_names):
            raise self._misfit(f"got {len(args)} arguments", "leave some out")
        for name, value in kwargs.items():
            if name not in self.inputs or name in env:
                why = "twice" if name in env else "but has no such input"
                raise self._misfit(f"got {name}= {why}", "use these names")
            env[name] = value
        missing = [n for n in self.input_names if n not in env]
        if missing:
            raise self._misfit(f"misses {', '.join(missing)}", "pass every input")
        symbols: dict[str, tuple[str, int]] = {}
        return {name: self._checked(self.inputs[name], value, symbols) for name, value in env.items()}

    def ready(self, name: str, value: Any) -> Any:
        """A value as the input `name` takes it: a tensor, Coded, or an array of texts. Raises: OnnxError."""
        return self._checked(self.inputs[name], value, {})

    def _misfit(self, what: str, fix: str) -> OnnxError:
        listed = ", ".join(f"{n}: {describe(self.inputs[n])}" for n in self.input_names)
        return OnnxError("onnx", f"{what}; the model takes {listed}", fix)

    def _checked(self, given: Given, value: Any, symbols: dict[str, tuple[str, int]]) -> Any:
        if given.code == 0 or isinstance(value, list) or value is None:
            return list(value) if type(value) is tuple else value
        if given.code == TensorProto.STRING:
            if isinstance(value, (str, np.ndarray, np.generic)):
                value = texts(np.asarray(value))
            right = is_texts(value)
        elif (book := to_book(given.code)) is not None:
            if isinstance(value, (np.ndarray, np.generic)) and value.dtype == book.np:
                value = coded(np.asarray(value))
            right = isinstance(value, Coded) and value.book is book
        else:
            if isinstance(value, (np.ndarray, np.generic, int, float, bool)):
                value = self._from_data(given, value)
            if not isinstance(value, (Tensor, Coded)):
                raise OnnxError(
                    "onnx",
                    f"the input {given.name} is a {type(value).__name__}",
                    "pass a tensor or a NumPy array",
                )
            right = value.dtype is from_code(given.code, f"the input {given.name}")
        if not hasattr(value, "shape"):
            raise OnnxError(
                "onnx", f"the input {given.name} is a {type(value).__name__}", f"pass {describe(given)}"
            )
        fits = right and (given.shape is None or len(given.shape) == value.ndim)
        if fits and given.shape is not None:
            for want, size in zip(given.shape, value.shape):
                if isinstance(want, str):
                    name, before = symbols.setdefault(want, (given.name, size))
                    if before != size:
                        raise OnnxError(
                            "onnx",
                            f"the size {want} is {before} in {name} and {size} in {given.name}",
                            "make them equal",
                        )
                elif want is not None and want != size:
                    fits = False
        if not fits:
            raise OnnxError(
                "onnx", f"the input {given.name} is {_kind(value)}, the model takes {describe(given)}",
                "convert it with .to(dtype), or reshape it",
            )  # fmt: skip
        return value

    def _from_data(self, given: Given, value: Any) -> Tensor:
        expected = from_code(given.code, f"the input {given.name}")
        array = (
            np.asarray(value)
            if isinstance(value, (np.ndarray, np.generic))
            else expected.array(np.asarray(value, expected.way))
        )
        if of_array(array) is None:
            raise OnnxError(
                "onnx",
                f"the input {given.name} is {array.dtype}{list(array.shape)}, the model takes {describe(given)}",
                "convert it",
            )  # fmt: skip
        made: Tensor = dispatch.state.executor.constant(array, "cpu")
        return made

    def extra_repr(self) -> str:
        inputs = ", ".join(f"{n}: {describe(self.inputs[n])}" for n in self.input_names)
        count = len(self._program.calls)
        return f"{inputs} -> {', '.join(self.output_names)}; {count} node{'s' * (count != 1)}"


def _kind(value: Any) -> str:
    return (
        str(value.type) if isinstance(value, Tensor) else f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    )


def _calls(program: Program) -> list[Call]:
    out = []
    for call in program.calls:
        out.append(call)
        for sub in call.subgraphs():
            out += _calls(sub)
    return out


def _tensor_uses(program: Program) -> set[str]:
    """Names that some node takes as a tensor (not as a shape, a bound or another setting)."""
    found = set(program.outputs)
    for call in _calls(program):
        for k, name in enumerate(call.inputs):
            if call.adapter is None or not call.adapter.is_host(k):
                found.add(name)
    return found


def _statistics(program: Program) -> set[str]:
    return {
        call.inputs[k]
        for call in _calls(program)
        for k in _STATISTICS.get(call.node.op_type, ())
        if k < len(call.inputs)
    }
