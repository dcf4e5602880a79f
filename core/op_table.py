"""The table of all ops: kind, dtypes, gradient, kernels, ONNX; `duograd ops` writes it to `docs/ops.md`."""

from __future__ import annotations

from collections.abc import Iterator

from .explain import kernels
from .op import PUBLIC, REGISTRY, Op
from .types import DType

#: dtypes by letter; 16-bit floats are told apart from the others
LETTERS = {"b": "bool", "i": "int8-64", "u": "uint8-64", "h": "float16, bfloat16", "f": "float32, float64",
           "c": "complex64, complex128"}  # fmt: skip
COLUMNS = ("op", "kind", "dtypes", "gradient", "CPU", "CUDA", "ONNX")


def letter(dtype: DType) -> str:
    """The letter of a dtype's family in the table."""
    return "h" if dtype.kind == "float" and dtype.itemsize == 2 else dtype.kind[0]


def dtypes(op: Op) -> str:
    """The families of dtypes that an op takes, as letters."""
    return " ".join(dict.fromkeys(map(letter, op.supported_dtypes())))


def _gradient(op: Op) -> str:
    if op.joint is not None or op.grads:
        return "rule"
    if op.kind == "composite" and not op.no_gradient:
        return "by its ops"
    return f"none: {op.no_gradient}"


def _kernel(text: str) -> str:
    words = {
        "generated": "generated",
        "the kernels": "by its ops",
        "hand-written": "hand-written",
        "none needed": "view",
    }
    return next((short for start, short in words.items() if text.startswith(start)), "missing")


def _onnx(op: Op) -> str:
    if op.no_onnx:
        return f"none: {op.no_onnx}"
    if isinstance(op.onnx, str):
        return op.onnx
    if op.parts and not op.onnx:
        return "loops of other ops"
    return "rule" if op.onnx else "from its body" if op.kind == "pointwise" else "by its ops"


def rows() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(family, row) for every op that users call, family by family."""
    for name, op in sorted(REGISTRY.items(), key=lambda item: (item[1].module, item[0])):
        if not op.internal:
            cpu, cuda = (_kernel(kernels(op).get(kind, "")) for kind in ("cpu", "cuda"))
            family = op.module.rpartition(".")[2]
            yield family, (name, op.kind, dtypes(op), _gradient(op), cpu, cuda, _onnx(op))


def functions() -> dict[str, list[str]]:
    """By family, the functions made of ops that are names of `dg` too; "" has the other names of ops."""
    found: dict[str, list[str]] = {}
    for name, fn in sorted(PUBLIC.items()):
        if isinstance(fn, Op):
            found.setdefault("", []).append(f"`{name}` ({fn.name})")
        elif name not in REGISTRY or REGISTRY[name].internal:
            found.setdefault(fn.__module__.rpartition(".")[2], []).append(f"`{name}`")
    return found


def markdown() -> str:
    """The table as a page."""
    families: dict[str, list[tuple[str, ...]]] = {}
    for family, row in rows():
        families.setdefault(family, []).append(row)
    count = sum(map(len, families.values()))
    inner = sum(op.internal for op in REGISTRY.values())
    lines = [
        "# Ops", "",
        f"{count} ops that users call, {inner} that these are made of, and functions made of ops. Written by",
        "`duograd ops --markdown docs/ops.md`; a test compares. `dg.explain(name)` tells one op's whole story.",
        "",
        "dtypes: " + ", ".join(f"{k} {v}" for k, v in LETTERS.items()) + ".",
    ]  # fmt: skip
    beside = functions()
    other_names = beside.pop("", [])
    for family in sorted({*families, *beside}):
        lines += ["", f"## {family}"]
        if family in families:
            lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
            lines += ["| " + " | ".join(row) + " |" for row in families[family]]
        if family in beside:
            lines += ["", "Functions made of ops: " + ", ".join(beside[family]) + "."]
    public = [name for name, op in sorted(REGISTRY.items()) if op.no_onnx and not op.internal]
    kind = f"Inner ops, but for {', '.join(public)}." if public else "All are inner ops."
    lines += ["", "## Without an ONNX form", "", kind]
    lines += ["", "| why | ops |", "|---|---|"]
    for reason in sorted({op.no_onnx for op in REGISTRY.values() if op.no_onnx}):
        names = [name for name, op in sorted(REGISTRY.items()) if op.no_onnx == reason]
        lines.append(f"| {reason} | {', '.join(names)} |")
    lines += ["", "## Other names", "", ", ".join(other_names) + "."]
    return "\n".join(lines) + "\n"
