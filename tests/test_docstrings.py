"""The examples in docstrings say the truth: every "Example: `a` is `b`" is run."""

import re
from pathlib import Path

import duograd as dg
import numpy as np
import pytest

ROOT = Path(dg.__file__).parent
FOLDERS = ("core", "eager", "graph", "nn", "interop")


def _examples():
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = re.sub(r"\s+", " ", path.read_text())
            for left, right in re.findall(r"Example: `([^`]+)` is `([^`]+)`", text):
                yield pytest.param(left, right, id=f"{path.stem}: {left[:60]}")


EXAMPLES = list(_examples())


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize(("left", "right"), EXAMPLES)
def test_example_is_true(left, right):
    got, want = (eval(text, {"dg": dg, "np": np}) for text in (left, right))
    if isinstance(got, dg.Tensor):
        np.testing.assert_allclose(np.asarray(got.detach()), want)
    else:
        assert got == want


@pytest.mark.parametrize("name", ["softmax", "conv", "dropout", "sum", "adam_update"])
def test_explain_runs_the_samples(name):
    assert f"example: {name}(" in dg.explain(name)
