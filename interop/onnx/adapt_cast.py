"""Importers of conversions: Cast and CastLike between numbers, narrow numbers and texts; BitCast."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from ...core import types as T
from ...core.errors import OnnxError
from ...core.op import REGISTRY as ops
from .coded import Coded, Narrow, Texts, coded, is_coded, is_texts
from .dtypes import from_code, to_book, to_code
from .program import as_array
from .table import adapter


def _number(word: str, kind: str) -> Any:
    """A text as a number: "inf", "+INF" and "NaN" are floats; an integer may be written with a point."""
    try:
        return float(word) if kind == "float" else bool(float(word)) if kind == "bool" else int(word)
    except ValueError:
        return int(float(word))


def read_texts(x: Any, dtype: Any) -> Any:
    """Texts as numbers of a dtype."""
    numbers = lambda words: [_number(w, dtype.kind) for w in words.ravel().tolist()]
    read = lambda words: dtype.array(np.array(numbers(words), dtype.way))
    if isinstance(x, Coded):
        return x.book.map(x.codes, read)
    return read(x).reshape(x.shape)


def write_texts(x: Any) -> Any:
    """Numbers as texts, floats with the fewest digits that tell them apart. Reads the numbers."""
    array = as_array(x)
    out = np.empty(array.shape, object)
    out.reshape(-1)[:] = [str(v) for v in array.ravel()]
    return out


def convert(x: Any, code: int, saturate: int = 1, round_mode: str = "up") -> Any:
    """A tensor, Coded or array as the element type of a code."""
    book = to_book(code)
    if is_texts(x):
        if code == TensorProto.STRING:
            return x
        numbers = read_texts(x, from_code(code, "Cast") if book is None else T.float32)
        return numbers if book is None else book.encode(_tensor(numbers), bool(saturate), round_mode)
    if code == TensorProto.STRING:
        return write_texts(x)
    if is_coded(x):
        x = coded(x)
        if book is x.book:
            return x
        between = T.int32 if x.book.kind != "float" else T.float32
        if book is None:
            dtype = from_code(code, "Cast")
            return (
                x.book.decode(x.codes, T.float32).to(dtype)
                if dtype is T.bool_
                else x.book.decode(x.codes, dtype)
            )
        return book.encode(x.book.decode(x.codes, between), bool(saturate), round_mode)
    if book is not None:
        return book.encode(x, bool(saturate), round_mode)
    dtype = from_code(code, "Cast")
    return ops["assign"](x) if dtype is x.dtype else ops["cast"](x, dtype=dtype)


def _tensor(x: Any) -> Any:
    from .program import host_tensor

    return host_tensor(x) if isinstance(x, np.ndarray) else x


def element_code(x: Any) -> int:
    """The TensorProto code of a tensor's elements."""
    if is_coded(x):
        book = coded(x).book
        return next((c for c in TensorProto.DataType.values() if to_book(c) is book), TensorProto.STRING)
    return to_code(x.dtype)


@adapter("Cast", since=6, codes="own")
def cast(x, *, to, saturate=1, round_mode="up"):
    """x as another element type."""
    return convert(x, to, saturate, round_mode)


@adapter("Cast", since=1, codes="own")
def cast_1(x, *, to):
    """The type as a word."""
    return convert(x, TensorProto.DataType.Value(to))


@adapter("CastLike", codes="own")
def cast_like(x, y, *, saturate=1, round_mode="up"):
    """x as y's element type."""
    return convert(x, element_code(y), saturate, round_mode)


@adapter("BitCast", codes="own")
def bit_cast(x, *, to):
    """The bits of x read as another element type of the same width."""
    book = to_book(to)
    if is_coded(x):
        x = coded(x)
        if isinstance(x.book, Texts):
            raise OnnxError("onnx", "texts have no bits to read as another type", "leave BitCast out")
    if book is not None:
        codes = x.codes if isinstance(x, Coded) else ops["bitcast"](x, dtype=T.uint8)
        if (x.book.bits if isinstance(x, Coded) else 8) != book.bits:
            raise _widths(x, book)
        return Coded(codes, book)
    bits = x.codes if isinstance(x, Coded) else x
    if isinstance(x, Coded) and x.book.bits != 8:
        raise _widths(x, from_code(to))
    return ops["bitcast"](bits, dtype=from_code(to, "BitCast"))


def _widths(x: Any, target: Any) -> OnnxError:
    return OnnxError("onnx", f"BitCast of {x.dtype} to {target}: their widths differ", "use Cast")


__all__ = ["Narrow", "convert", "element_code"]
