"""Recurrent layers and cells, by PyTorch's names, arguments and parameters."""

from __future__ import annotations

import math
from typing import Any

from ..core.errors import ArgumentError, ShapeError
from ..core.ops import linalg as _L
from ..core.ops import recurrent as _R
from ..core.ops.creation import empty, zeros
from ..core.ops.elementwise import sigmoid, tanh
from ..core.ops.shape import concat, permute, split, stack
from ..core.types import as_dtype, float32
from ..core.value import Tensor
from . import functional as F
from . import init
from .arguments import LAYERS, probability, size
from .module import Module, Parameter
from .utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


class _Recurrent(Module):
    """Layers of one kind of cell. gates: rows of the weights in units of the hidden size."""

    gates = 1
    #: size that the state handed on is projected to, 0 for none
    proj_size = 0

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        name = type(self).__name__
        self.input_size = size(name, "input_size", input_size)
        self.hidden_size = size(name, "hidden_size", hidden_size)
        self.num_layers = size(name, "num_layers", num_layers, high=LAYERS)
        self.bias, self.batch_first, self.bidirectional = bool(bias), bool(batch_first), bool(bidirectional)
        self.dropout = probability(name, dropout)
        kind = float32 if dtype is None else as_dtype(dtype, name)
        rows = self.gates * self.hidden_size
        for layer in range(self.num_layers):
            out = self.proj_size or self.hidden_size
            width = out * self.directions if layer else self.input_size
            for suffix in self._suffixes(layer):
                for part, shape in (("weight_ih", (rows, width)), ("weight_hh", (rows, out))):
                    setattr(self, part + suffix, Parameter(empty(shape, dtype=kind, device=device)))
                for part in ("bias_ih", "bias_hh") if self.bias else ():
                    setattr(self, part + suffix, Parameter(empty((rows,), dtype=kind, device=device)))
                if self.proj_size:
                    shape = out, self.hidden_size
                    setattr(self, f"weight_hr{suffix}", Parameter(empty(shape, dtype=kind, device=device)))
        self.reset_parameters()

    @property
    def directions(self) -> int:
        """2 when bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]

    def reset_parameters(self) -> None:
        """All weights and biases uniform within `1 / sqrt(hidden_size)`."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _layer(self, x: Any, weights: Any, state: Any, lengths: Any, reverse: bool) -> Any:
        raise NotImplementedError

    def _run(self, x: Any, states: list[Any], lengths: Any) -> tuple[Any, list[Any]]:
        """Outputs and last states [layers * directions, N, H] from states of that form (None: zeros)."""
        name = type(self).__name__
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x, self.batch_first)
            y, ends = self._run(padded, states, lengths)
            packed = pack_padded_sequence(y, lengths, self.batch_first, enforce_sorted=False)
            return x._replace(data=packed.data), ends
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(
                name, f"x: {x.type} does not end in input_size={self.input_size}", "x[T, N, C] or [T, C]"
            )
        single = x.ndim == 2
        if single:
            x, states = x[:, None], [s if s is None else s[:, None] for s in states]
        elif self.batch_first:
            x = permute(x, axes=(1, 0, 2))
        for k, s in enumerate(states):
            width = self.hidden_size if k else self.proj_size or self.hidden_size
            expected = (self.num_layers * self.directions, x.shape[1], width)
            if s is not None and s.shape != expected:
                raise ShapeError(
                    name, f"the first state {s.type} is not [layers * directions, N, H]", f"{expected}"
                )
        last: list[Any] = []
        for layer in range(self.num_layers):
            outputs = []
            for k, suffix in enumerate(self._suffixes(layer)):
                weights = [getattr(self, part + suffix) for part in ("weight_ih", "weight_hh")]
                weights += [
                    getattr(self, part + suffix) if self.bias else None for part in ("bias_ih", "bias_hh")
                ]
                if self.proj_size:
                    weights.append(getattr(self, f"weight_hr{suffix}"))
                number = layer * self.directions + k
                state = [s if s is None else s[number] for s in states]
                y, *ends = self._layer(x, weights, state, lengths, k == 1)
                outputs.append(y)
                last.append(ends)
            x = outputs[0] if len(outputs) == 1 else concat(outputs, axis=-1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        ends = [stack([e[k] for e in last], axis=0) for k in range(len(states))]
        if single:
            return x[:, 0], [e[:, 0] for e in ends]
        return permute(x, axes=(1, 0, 2)) if self.batch_first else x, ends

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0)):
            value = getattr(self, name)
            text += f", {name}={value}" if value != default else ""
        return text + (", bidirectional=True" if self.bidirectional else "")


_TEXT = """{formula}

    input_size, hidden_size: C and H; num_layers: layers, each on top of the outputs of the one before; {more}bias:
    whether there are biases; batch_first: x and outputs are [N, T, ...]; dropout: probability of dropping an output
    between layers while training; bidirectional: a second direction, from the last step to the first, with
    outputs beside the first one's. Parameters: weight_ih_l0: float[{gates}H, C], weight_hh_l0: float[{gates}H, H],
    bias_ih_l0, bias_hh_l0: float[{gates}H], and so on for layers and `_reverse`.
    Called with x: float[T, N, C] (or [T, C]), {state} of [layers * directions, N, H] (zeros when None), and lengths:
    int[N], each row's number of steps: later steps are not computed, their outputs are 0, and the state is that
    of the row's last step; or with a `dg.nn.utils.rnn.PackedSequence`, whose outputs are one, too.
    Returns: outputs [T, N, directions * H] and {state}. Raises: ShapeError for other shapes.
    """


class RNN(_Recurrent):
    __doc__ = _TEXT.format(
        formula="`h = tanh(W x + b + V h + c)` step by step.", gates="", state="h",
        more='nonlinearity: "tanh" or "relu"; ',
    )  # fmt: skip

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError("RNN", f"nonlinearity={nonlinearity!r} is not known", 'use "tanh" or "relu"')
        self.nonlinearity = nonlinearity
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        )

    def _layer(self, x: Any, weights: Any, state: Any, lengths: Any, reverse: bool) -> Any:
        return _R.rnn_layer(x, *weights, *state, lengths, nonlinearity=self.nonlinearity, reverse=reverse)

    def forward(self, x: Any, hx: Any = None, lengths: Tensor | None = None) -> Any:
        y, (h,) = self._run(x, [hx], lengths)
        return y, h


class LSTM(_Recurrent):
    __doc__ = _TEXT.format(
        formula="Long short-term memory: `c = f c + i g, h = o tanh(c)` step by step.", gates="4 * ",
        state="(h, c)",
        more="proj_size: P, size that `o tanh(c)` is brought to by weight_hr_l0: float[P, H] before it is h (0: not; "
        "then h and outputs have P in place of H); ",
    )  # fmt: skip
    gates = 4

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        self.proj_size = int(proj_size)
        if not 0 <= self.proj_size < hidden_size:
            raise ArgumentError(
                "LSTM", f"proj_size={proj_size} is not below hidden_size={hidden_size}", "use a smaller"
            )
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, device, dtype
        )

    def _layer(self, x: Any, weights: Any, state: Any, lengths: Any, reverse: bool) -> Any:
        if self.proj_size:
            return _R.lstm_projected_layer(x, *weights, *state, lengths, reverse=reverse)
        return _R.lstm_layer(x, *weights, *state, lengths, reverse=reverse)

    def forward(self, x: Any, hx: Any = None, lengths: Tensor | None = None) -> Any:
        y, (h, c) = self._run(x, [None, None] if hx is None else list(hx), lengths)
        return y, (h, c)


class GRU(_Recurrent):
    __doc__ = _TEXT.format(
        formula="Gated recurrent units: `h = (1 - z) n + z h` step by step.", gates="3 * ", state="h", more=""
    )
    gates = 3

    def _layer(self, x: Any, weights: Any, state: Any, lengths: Any, reverse: bool) -> Any:
        return _R.gru_layer(x, *weights, *state, lengths, reverse=reverse)

    def forward(self, x: Any, hx: Any = None, lengths: Tensor | None = None) -> Any:
        y, (h,) = self._run(x, [hx], lengths)
        return y, h


class _Cell(Module):
    gates = 1
    _absent = dict.fromkeys(("bias_ih", "bias_hh"), "parameter")

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ):
        name = type(self).__name__
        self.input_size = size(name, "input_size", input_size)
        self.hidden_size, self.bias = size(name, "hidden_size", hidden_size), bool(bias)
        kind, rows = float32 if dtype is None else as_dtype(dtype, name), self.gates * self.hidden_size
        self.weight_ih = Parameter(empty((rows, self.input_size), dtype=kind, device=device))
        self.weight_hh = Parameter(empty((rows, self.hidden_size), dtype=kind, device=device))
        self.bias_ih = Parameter(empty((rows,), dtype=kind, device=device)) if bias else None
        self.bias_hh = Parameter(empty((rows,), dtype=kind, device=device)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All weights and biases uniform within `1 / sqrt(hidden_size)`."""
        bound = 1 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _parts(self, x: Any, h: Any) -> tuple[Any, Any, Any]:
        """The state (zeros when None), and the products of x and of the state with their weights."""
        if h is None:
            h = zeros((*x.shape[:-1], self.hidden_size), dtype=x.dtype, device=x.device)
        return h, _L.linear(x, self.weight_ih, self.bias_ih), _L.linear(h, self.weight_hh, self.bias_hh)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """One step of RNN: float[N, C] and h: float[N, H] (zeros when None) to the new h."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(
                "RNNCell", f"nonlinearity={nonlinearity!r} is not known", 'use "tanh" or "relu"'
            )
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, device, dtype)

    def forward(self, x: Any, hx: Any = None) -> Any:
        _, from_x, from_h = self._parts(x, hx)
        return tanh(from_x + from_h) if self.nonlinearity == "tanh" else F.relu(from_x + from_h)


class LSTMCell(_Cell):
    """One step of LSTM: float[N, C] and (h, c) of float[N, H] (zeros when None) to the new (h, c)."""

    gates = 4

    def forward(self, x: Any, hx: Any = None) -> Any:
        h, c = (None, None) if hx is None else hx
        h, from_x, from_h = self._parts(x, h)
        c = h if c is None else c
        i, f, g, o = split(from_x + from_h, sizes=(self.hidden_size,) * 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c


class GRUCell(_Cell):
    """One step of GRU: float[N, C] and h: float[N, H] (zeros when None) to the new h."""

    gates = 3

    def forward(self, x: Any, hx: Any = None) -> Any:
        h, from_x, from_h = self._parts(x, hx)
        sizes = (self.hidden_size,) * 3
        (xr, xz, xn), (hr, hz, hn) = split(from_x, sizes=sizes, axis=-1), split(from_h, sizes=sizes, axis=-1)
        z = sigmoid(xz + hz)
        n = tanh(xn + sigmoid(xr + hr) * hn)
        return n + z * (h - n)
