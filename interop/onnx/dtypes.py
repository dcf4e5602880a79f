"""Element types of ONNX and of duograd, both ways."""

from __future__ import annotations

import numpy as np
import onnx

from ...core.errors import OnnxError
from ...core.types import DTYPES, DType

_CODES: dict[str, int] = {
    "bool": onnx.TensorProto.BOOL, "int8": onnx.TensorProto.INT8, "int16": onnx.TensorProto.INT16,
    "int32": onnx.TensorProto.INT32, "int64": onnx.TensorProto.INT64, "uint8": onnx.TensorProto.UINT8,
    "uint16": onnx.TensorProto.UINT16, "uint32": onnx.TensorProto.UINT32, "uint64": onnx.TensorProto.UINT64,
    "float16": onnx.TensorProto.FLOAT16, "float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE,
    "bfloat16": onnx.TensorProto.BFLOAT16, "complex64": onnx.TensorProto.COMPLEX64,
    "complex128": onnx.TensorProto.COMPLEX128,
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


def of_array(array: np.ndarray) -> DType | None:
    """The dtype of an array, or None when duograd has none."""
    return DTYPES.get(array.dtype.name)
