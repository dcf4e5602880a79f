"""Tensors of what kernels do not compute in: codes, and the book that says what each code means.

Narrow numbers (float8, float6, float4, int4, int2 and their unsigned forms) are codes of one byte each; texts are
places in a sorted row of different texts. What only moves elements (Reshape, Gather, Where, ...) runs on the codes
as it is, in both modes; reading and writing a narrow number is a look-up in a table.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ...core import dispatch
from ...core import types as T
from ...core.errors import OnnxError
from ...core.op import REGISTRY as ops
from ...core.types import DType
from ...core.value import Tensor


class Coded(NamedTuple):
    """A tensor whose elements are written as codes. codes: an integer tensor; book: a `Narrow` or a `Texts`."""

    codes: Tensor
    book: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def ndim(self) -> int:
        return self.codes.ndim

    @property
    def size(self) -> int:
        return self.codes.size

    @property
    def dtype(self) -> Any:
        """The book: what stands in for a dtype."""
        return self.book

    def numpy(self) -> np.ndarray:
        """The elements as an array: of the ml_dtypes dtype, or of str objects. Reads the codes."""
        array: np.ndarray = self.book.read(np.asarray(dispatch.state.executor.read(self.codes)))
        return array

    def __repr__(self) -> str:
        return f"Coded({self.book}[{', '.join(map(str, self.shape))}])"


def _constant(array: np.ndarray) -> Tensor:
    made: Tensor = dispatch._State.executor.constant(array, "cpu")
    return made


class Narrow:
    """An element type of at most eight bits. There is one object for each, in `NARROW`.

    name: ml_dtypes' name; np: its NumPy dtype; kind: "int", "uint" or "float"; code_dtype: of the codes.
    """

    code_dtype = T.uint8

    def __init__(self, name: str):
        self.name, self.np = name, np.dtype(getattr(ml_dtypes, name))
        self.kind = name.rstrip("0123456789") if name[0] in "iu" else "float"
        self.bits = int("".join(c for c in name.partition("_")[0] if c.isdigit()))
        self._values = np.arange(256, dtype=np.uint8).view(self.np).astype(np.float32)

    def __repr__(self) -> str:
        return self.name

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest finite number."""
        finite = self._values[np.isfinite(self._values)]
        return float(finite.min()), float(finite.max())

    def codes_of(self, array: np.ndarray) -> np.ndarray:
        """An array of the dtype as its codes."""
        return np.ascontiguousarray(array).view(np.uint8) & np.uint8((1 << self.bits) - 1)

    def read(self, codes: np.ndarray) -> np.ndarray:
        """Codes as an array of the dtype."""
        return np.ascontiguousarray(codes, np.uint8).view(self.np)

    @functools.lru_cache(maxsize=64)  # noqa: B019  (Narrows live as long as the process)
    def _table(self, dtype: DType) -> Tensor:
        return _constant(self._values.astype(dtype.np))

    def decode(self, codes: Tensor, dtype: DType) -> Tensor:
        """The numbers that codes stand for, in a dtype of duograd."""
        if self.kind == "float" and not dtype.is_float:
            return ops["take"](self._table(T.float32), codes, axis=0).to(dtype)  # type: ignore[no-any-return]
        return ops["take"](self._table(dtype), codes, axis=0)  # type: ignore[no-any-return]

    def encode(self, x: Tensor, saturate: bool = True, round_mode: str = "nearest") -> Coded:
        """Numbers as codes. Floats: rounded to the nearest, ties to even (e8m0: as round_mode says); what is too
        large becomes the largest when saturate, else infinity or NaN. Integers: cut to 0, then the low bits.
        """
        if self.kind != "float":
            whole = x.to(T.int32) if x.dtype is not T.int32 else x
            return Coded(ops["bitwise_and"](whole, (1 << self.bits) - 1).to(T.uint8), self)
        if x.dtype is not T.float64:
            x = x.to(T.float32)
        borders, codes = self._rounding(x.dtype, saturate, round_mode if self._unsigned else "nearest")
        n = (codes.size - 1) // 2  # places without a sign
        place = ops["searchsorted"](borders, ops["abs"](x))
        signed = ops["where"](ops["signbit"](x), place + n, place)
        if self._unsigned and not saturate:
            signed = ops["where"](ops["less"](x, float(self._values[0])), 2 * n, signed)
        signed = ops["where"](ops["isnan"](x), 2 * n, signed)
        return Coded(ops["take"](codes, signed, axis=0), self)

    @property
    def _unsigned(self) -> bool:
        """Powers of two alone: no sign, no zero."""
        return self.name == "float8_e8m0fnu"

    @functools.lru_cache(maxsize=16)  # noqa: B019  (Narrows live as long as the process)
    def _rounding(self, dtype: DType, saturate: bool, round_mode: str) -> tuple[Tensor, Tensor]:
        """Borders: place k lies above border k - 1. Codes by place: without sign, with sign, of NaN."""
        half = 1 << (self.bits if self._unsigned else self.bits - 1)
        ladder = self._values[:half].astype(np.float64)
        ladder = ladder[: int(np.isfinite(ladder).sum())]  # finite numbers come first, in order
        beyond = np.append(ladder, 2 * ladder[-1] - ladder[-2] if not self._unsigned else 2 * ladder[-1])
        low, high = beyond[:-1].astype(dtype.np), beyond[1:]
        if round_mode == "up":
            borders = low
        elif round_mode == "down":
            borders = np.nextafter(high.astype(dtype.np), dtype.np.type(0))
        else:
            middle = ((beyond[:-1] + high) / 2).astype(dtype.np)
            odd = np.arange(len(ladder)) % 2 == 1  # from an odd code a tie goes up, to the even one
            borders = np.where(odd, np.nextafter(middle, dtype.np.type(0)), middle).astype(dtype.np)
        with np.errstate(all="ignore"):
            odd_ones = np.array([np.inf, -np.inf, np.nan], np.float32).astype(self.np).view(np.uint8)
        plus = np.arange(len(ladder), dtype=np.uint8)
        minus = plus if self._unsigned else plus | np.uint8(half)
        if np.isnan(self._values[minus[0]]):  # no negative zero
            minus = minus.copy()
            minus[0] = 0
        over = (plus[-1], minus[-1]) if saturate else odd_ones[:2]
        codes = np.concatenate([plus, [over[0]], minus, [over[1]], odd_ones[2:]]).astype(np.uint8)
        return _constant(borders), _constant(codes)


#: by ml_dtypes' names
NARROW: dict[str, Narrow] = {
    name: Narrow(name)
    for name in (
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn",
        "float6_e2m3fn", "float6_e3m2fn", "int4", "uint4", "int2", "uint2",
    )
}  # fmt: skip


class Texts:
    """A book of texts: different ones, sorted, so that codes compare as the texts do."""

    code_dtype = T.int64
    name = "string"

    def __init__(self, words: Sequence[str]):
        self.words = np.array(list(words), object)

    def __repr__(self) -> str:
        return "string"

    def read(self, codes: np.ndarray) -> np.ndarray:
        """Codes as an array of str objects."""
        out = np.empty(codes.shape, object)
        out[...] = self.words[codes] if self.words.size else ""
        return out

    def map(self, codes: Tensor, fn: Any) -> Any:
        """`fn` (of an array of texts) at every element: numbers as a tensor, texts as Coded. Nothing is read."""
        made = np.asarray(fn(self.words))
        if made.dtype.kind in "OUS":
            book, places = _book(made)
            return Coded(ops["take"](_constant(places), codes, axis=0), book)
        return ops["take"](_constant(made), codes, axis=0)


def _book(array: np.ndarray) -> tuple[Texts, np.ndarray]:
    """A book for an array of texts, and the array's codes."""
    words = sorted(set(array.ravel().tolist()))
    places = {w: k for k, w in enumerate(words)}
    codes = np.array([places[w] for w in array.ravel().tolist()], np.int64).reshape(array.shape)
    return Texts(words), codes


def is_texts(x: Any) -> bool:
    """Whether x is a tensor of texts: an array of them, or Coded."""
    return (isinstance(x, np.ndarray) and x.dtype.kind in "OUS") or (
        isinstance(x, Coded) and isinstance(x.book, Texts)
    )


def is_coded(x: Any) -> bool:
    """Whether x is Coded, or an array that has to be: of texts or of narrow numbers."""
    return isinstance(x, Coded) or (
        isinstance(x, np.ndarray) and (x.dtype.name in NARROW or x.dtype.kind in "OUS")
    )


def texts(array: np.ndarray) -> np.ndarray:
    """An array of texts with str objects as elements, whatever NumPy calls its dtype. Raises OnnxError."""
    row = [w.decode("utf-8", "replace") if isinstance(w, bytes) else w for w in array.ravel().tolist()]
    for w in row:
        if not isinstance(w, str):
            raise OnnxError("onnx", f"a text is a {type(w).__name__}: {w!r}", "pass an array of str")
    out = np.empty(array.shape, object)
    out.reshape(-1)[:] = row
    return out


def coded(x: Any) -> Coded:
    """An array of texts or of narrow numbers as codes; Coded as it is."""
    if isinstance(x, Coded):
        return x
    narrow = NARROW.get(x.dtype.name)
    if narrow is not None:
        return Coded(dispatch.state.executor.constant(narrow.codes_of(x), "cpu"), narrow)
    book, codes = _book(texts(x))
    return Coded(dispatch.state.executor.constant(codes, "cpu"), book)


def one_book(op: str, values: Sequence[Any]) -> list[Coded]:
    """Coded values in terms of one book. Raises OnnxError when they are of different types."""
    row = [coded(v) for v in values]
    books = list({id(v.book): v.book for v in row}.values())
    if len(books) < 2:
        return row
    if not all(isinstance(b, Texts) for b in books):
        raise OnnxError("onnx", f"{op} of {' and '.join(map(str, books))}", "convert them to one type")
    common = Texts(sorted({w for b in books for w in b.words.tolist()}))
    places = {w: k for k, w in enumerate(common.words.tolist())}
    tables = {
        id(b): _constant(np.array([places[w] for w in b.words.tolist()] or [0], np.int64)) for b in books
    }
    return [Coded(ops["take"](tables[id(v.book)], v.codes, axis=0), common) for v in row]


def moved(op: str, run: Any, values: list[Any], outputs: Any) -> Any:
    """`run(values)` of an op that moves elements, on codes; its outputs at the places `outputs` (None: all) are coded.

    Coded values may stand in lists. Outputs of another dtype than the codes' (positions, truths) stay as they are.
    """
    flat = [v for x in values for v in (x if isinstance(x, list) else [x]) if is_coded(v)]
    same = iter(one_book(op, flat))
    book: Any = None

    def bare(x: Any) -> Any:
        nonlocal book
        if isinstance(x, list):
            return [bare(v) for v in x]
        if not is_coded(x):
            return x
        found = next(same)
        book = found.book
        return found.codes

    result = run([bare(v) for v in values])

    def wrapped(y: Any) -> Any:
        if isinstance(y, list):
            return [wrapped(v) for v in y]
        return Coded(y, book) if isinstance(y, Tensor) and y.dtype is book.code_dtype else y

    if isinstance(result, tuple):
        return tuple(wrapped(y) if outputs is None or k in outputs else y for k, y in enumerate(result))
    return wrapped(result)
