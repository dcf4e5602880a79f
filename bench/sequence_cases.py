"""Cases of models over sequences: an encoder layer, a two-layer LSTM, a small GPT.

`models` writes each model once for duograd and PyTorch, whose names are the same; `sequence_jax.py` has them for
JAX. Parameters carry PyTorch's names, in the order of the modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Arrays, Case, generator, uniform

#: width, heads, feed-forward width of the encoder; width of the LSTM
ENCODER, LSTM = (256, 4, 1024), 256
#: width, heads, layers, words, length of the GPT
GPT = (128, 4, 4, 256, 128)
_BATCH, _LENGTH = 8, 128
_ROWS, _STEPS = 32, 64


def _encoder(nn: Any, F: Any) -> Any:
    width, heads, wide = ENCODER
    return nn.TransformerEncoderLayer(width, heads, wide, dropout=0.0, batch_first=True)


def _lstm(nn: Any, F: Any) -> Any:
    class Outputs(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(LSTM, LSTM, num_layers=2, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    return Outputs()


def _lstm_cells(nn: Any, F: Any, stack: Any) -> Any:
    class Outputs(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.ModuleList([nn.LSTMCell(LSTM, LSTM) for _ in range(2)])

        def forward(self, x: Any) -> Any:
            rows = [x[:, t] for t in range(_STEPS)]
            for cell in self.cells:
                state = None
                for t, row in enumerate(rows):
                    state = cell(row, state)
                    rows[t] = state[0]
            return stack(rows)

    return Outputs()


def _gpt(nn: Any, F: Any) -> Any:
    width, heads, layers, words, length = GPT

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
            self.out, self.norm2 = nn.Linear(width, width), nn.LayerNorm(width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            n, t, _ = x.shape
            qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, heads, width // heads)
            q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(seen.swapaxes(1, 2).reshape(n, t, width))
            return x + self.down(F.gelu(self.up(self.norm2(x))))

    class Gpt(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.blocks(self.words(x) + self.places.weight)
            return self.head(self.norm(x)).reshape(-1, words)

    return Gpt()


def models(nn: Any, F: Any, stack: Any) -> dict[str, Callable[[], Any]]:
    """Makers of the models by case, from a library's layers and functions; stack: rows along axis 1."""
    makers = {"encoder": _encoder, "lstm": _lstm, "gpt_small": _gpt}
    found = {name: lambda make=make: make(nn, F) for name, make in makers.items()}  # type: ignore[misc]
    return {**found, "lstm_cells": lambda: _lstm_cells(nn, F, stack)}


def _draw(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    rng, out = generator(), {}
    for name, shape in shapes.items():
        if "norm" in name:
            out[name] = np.full(shape, "weight" in name, np.float32)
        else:
            out[name] = uniform(rng, shape, shape[-1])
    return out


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _encoder_weights() -> Arrays:
    width, _, wide = ENCODER
    return _draw({
        "in_proj_weight": (3 * width, width), "in_proj_bias": (3 * width,), **_linear("out_proj", width, width),
        **_linear("linear1", wide, width), **_linear("linear2", width, wide), **_norm("norm1", width),
        **_norm("norm2", width),
    })  # fmt: skip


def _lstm_weights() -> Arrays:
    shapes: dict[str, tuple[int, ...]] = {}
    for k in range(2):
        shapes |= {f"weight_ih_l{k}": (4 * LSTM, LSTM), f"weight_hh_l{k}": (4 * LSTM, LSTM)}
        shapes |= {f"bias_ih_l{k}": (4 * LSTM,), f"bias_hh_l{k}": (4 * LSTM,)}
    return _draw(shapes)


def _gpt_weights() -> Arrays:
    width, _, layers, words, length = GPT
    shapes: dict[str, tuple[int, ...]] = {"words.weight": (words, width), "places.weight": (length, width)}
    for k in range(layers):
        shapes |= _norm(f"blocks.{k}.norm1", width)
        shapes |= _linear(f"blocks.{k}.qkv", 3 * width, width) | _linear(f"blocks.{k}.out", width, width)
        shapes |= _norm(f"blocks.{k}.norm2", width)
        shapes |= _linear(f"blocks.{k}.up", 4 * width, width) | _linear(f"blocks.{k}.down", width, 4 * width)
    return _draw(shapes | _norm("norm", width) | {"head.weight": (words, width)})


def _pair(*shape: int) -> Callable[[], Arrays]:
    def make() -> Arrays:
        rng = generator()
        return {k: rng.normal(size=shape).astype(np.float32) for k in ("x", "y")}

    return make


def _text() -> Arrays:
    rng, words = generator(), GPT[3]
    line = rng.integers(0, words, (_BATCH, _LENGTH + 1)).astype(np.int64)
    return {"x": np.ascontiguousarray(line[:, :-1]), "y": line[:, 1:].reshape(-1)}


def _work(products: float, attention: float, first: float) -> dict[str, float]:
    """Arithmetic by phase. first: of the first layer, whose input has no gradient; attention: without weights."""
    return {"train": 3 * products + 3.5 * attention - first, "infer": products + attention}


_TOKENS = _BATCH * _LENGTH
_E, _WIDE = ENCODER[0], ENCODER[2]
_G = GPT[0]

CASES = (
    Case(
        "encoder", ("train", "infer"), _pair(_BATCH, _LENGTH, _E), _encoder_weights, "adam",
        _work(
            2.0 * _TOKENS * (4 * _E * _E + 2 * _E * _WIDE), 4.0 * _TOKENS * _LENGTH * _E, 2.0 * _TOKENS * 3 * _E * _E
        ),
        {}, "encoder layer d 256, 4 heads, ff 1024, 8x128 tokens, Adam",
    ),
    Case(
        "lstm", ("train", "infer"), _pair(_ROWS, _STEPS, LSTM), _lstm_weights, "adam",
        _work(2.0 * _ROWS * _STEPS * 16 * LSTM * LSTM, 0.0, 2.0 * _ROWS * _STEPS * 4 * LSTM * LSTM),
        {}, "two-layer LSTM 256, batch 32, 64 steps, Adam",
    ),
    Case(
        "gpt_small", ("train", "infer"), _text, _gpt_weights, "adam",
        _work(
            2.0 * _TOKENS * (GPT[2] * 12 * _G * _G + _G * GPT[3]), 2.0 * GPT[2] * _TOKENS * _LENGTH * _G, 0.0
        ),
        {}, "GPT, 4 layers, d 128, 4 heads, 256 words, 8x128 tokens, Adam",
    ),
)  # fmt: skip

#: cases of one table's runner alone (`startup.py`): the same LSTM, written by users as cells in a loop over the steps
APART = (
    CASES[1]._replace(
        name="lstm_cells", phases=("train",), text="the two-layer LSTM as cells in a Python loop"
    ),
)
