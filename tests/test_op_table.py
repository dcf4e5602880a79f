"""The table of ops in the documentation is the one of this code, and it has no gaps."""

import functools
from pathlib import Path

import duograd as dg
import numpy as np
import pytest
from duograd.core import op_table
from duograd.core.abstract import types_of
from duograd.core.errors import TraceError
from duograd.core.op import PUBLIC, REGISTRY
from duograd.core.reference import make_arguments

PAGE = Path(dg.__file__).parent / "docs" / "ops.md"


@functools.cache
def rows():
    """Made once, and not when tests are collected: every op is asked for every dtype."""
    return [row for _, row in op_table.rows()]


@functools.cache
def markdown():
    return op_table.markdown()


def test_page_is_the_table():
    assert PAGE.read_text() == markdown(), "run `duograd ops --markdown docs/ops.md`"


@pytest.mark.parametrize("column", ["dtypes", "gradient", "CPU", "ONNX"])
def test_no_row_has_a_gap(column):
    k = op_table.COLUMNS.index(column)
    assert [row[0] for row in rows() if row[k] in ("", "missing", "none: ")] == []


def test_rows_of_known_ops():
    known = {row[0]: dict(zip(op_table.COLUMNS, row)) for row in rows()}
    assert known["add"]["dtypes"] == "b i u h f c"
    assert known["conv"]["dtypes"] == "h f"
    assert known["layer_norm"]["dtypes"] == "h f"
    assert known["exp"]["CPU"] == known["exp"]["CUDA"] == "generated"
    assert known["reshape"]["CPU"] == "view"


def test_every_public_name_is_on_the_page():
    page = markdown()
    names = {*PUBLIC, *(n for n, op in REGISTRY.items() if not op.internal)}
    assert [n for n in sorted(names) if f"| {n} |" not in page and f"`{n}`" not in page] == []


@pytest.mark.parametrize("name", sorted(n for n, op in REGISTRY.items() if op.kind == "composite"))
def test_types_of_a_composite_are_those_of_its_results(name):
    op = REGISTRY[name]
    sample = op.samples[0]
    arrays = make_arguments(sample)
    made = op(*[dg.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays], **sample.attrs)
    try:
        found = types_of(op, arrays, sample.attrs)
    except TraceError:  # its shape depends on values
        return
    assert found == tuple(y.type for y in (made if isinstance(made, tuple) else (made,)))
