"""Element types of ONNX and of duograd, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ...core.errors import OnnxError
from ...core.types import DTYPES, DType
from .coded import NARROW, Narrow

_CODES: dict[str, int] = {
    "bool": onnx.TensorProto.BOOL, "int8": onnx.TensorProto.INT8, "int16": onnx.TensorProto.INT16,
    "int32": onnx.TensorProto.INT32, "int64": onnx.TensorProto.INT64, "uint8": onnx.TensorProto.UINT8,
    "uint16": onnx.TensorProto.UINT16, "uint32": onnx.TensorProto.UINT32, "uint64": onnx.TensorProto.UINT64,
    "float16": onnx.TensorProto.FLOAT16, "float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE,
    "bfloat16": onnx.TensorProto.BFLOAT16, "complex64": onnx.TensorProto.COMPLEX64,
    "complex128": onnx.TensorProto.COMPLEX128,
}  # fmt: skip
#: narrow element types by code; ONNX and ml_dtypes spell them alike but for case and ends
_NARROW = {
    code: NARROW[name]
    for spelt, name in (
        ("FLOAT8E4M3FN", "float8_e4m3fn"), ("FLOAT8E4M3FNUZ", "float8_e4m3fnuz"), ("FLOAT8E5M2", "float8_e5m2"),
        ("FLOAT8E5M2FNUZ", "float8_e5m2fnuz"), ("FLOAT8E8M0", "float8_e8m0fnu"), ("FLOAT4E2M1", "float4_e2m1fn"),
        ("FLOAT6E2M3", "float6_e2m3fn"), ("FLOAT6E3M2", "float6_e3m2fn"), ("INT4", "int4"), ("UINT4", "uint4"),
        ("INT2", "int2"), ("UINT2", "uint2"),
    )
    if (code := getattr(onnx.TensorProto, spelt, None)) is not None  # younger than some versions of onnx
}  # fmt: skip
_NAMES = {code: name for name, code in _CODES.items()}
#: as schemas spell them
_STRINGS = {"float32": "tensor(float)", "float64": "tensor(double)"}


def to_code(dtype: DType) -> int:
    """The TensorProto code of a dtype."""
    return _CODES[dtype.name]


def to_schema(dtype: DType) -> str:
    """The dtype as type constraints of schemas spell it: `tensor(float)`."""
    return _STRINGS.get(dtype.name, f"tensor({dtype.name})")


def from_schema(text: str) -> DType | None:
    """The dtype that a schema spells `tensor(float)`, or None when duograd has none."""
    inner = text[len("tensor(") : -1]
    return DTYPES.get({"float": "float32", "double": "float64"}.get(inner, inner))


def code_name(code: int) -> str:
    """The name of a TensorProto code: FLOAT, INT64, ..."""
    try:
        return str(onnx.TensorProto.DataType.Name(code))
    except ValueError:
        return f"type code {code}"


def from_code(code: int, where: str = "") -> DType:
    """The dtype of a TensorProto code. Raises OnnxError for one that duograd has not."""
    found = DTYPES.get(_NAMES.get(code, ""))
    if found is None:
        raise OnnxError(
            "onnx.load", f"{where or 'the model'} uses the element type {code_name(code)}, which duograd has not",
            f"convert the model to one of {', '.join(DTYPES)}",
        )  # fmt: skip
    return found


def to_book(code: int) -> Narrow | None:
    """The narrow element type of a TensorProto code, or None when it has none."""
    return _NARROW.get(code)


def book_code(book: Any) -> int:
    """The TensorProto code of what is Coded in a book."""
    return next((code for code, b in _NARROW.items() if b is book), onnx.TensorProto.STRING)


def of_array(array: np.ndarray) -> DType | None:
    """The dtype of an array, or None when duograd has none."""
    return DTYPES.get(array.dtype.name)
