"""Python constructs that break graph compilers: every row of one table gives the same in both modes."""


import duograd as dg
import numpy as np
import pytest
from duograd.bench.constructs import Duograd, plain
from duograd.tests.construct_rows import ROWS


@pytest.mark.parametrize("name", ROWS)
def test_graph_equals_eager(name):
    eager = plain(ROWS[name](Duograd(lambda f: f)))
    graph = plain(ROWS[name](Duograd(dg.function)))
    assert _text(graph) == _text(eager)


def _text(x):
    if isinstance(x, np.ndarray):
        return x.dtype.name, x.shape, x.tobytes()
    if isinstance(x, (list, tuple)):
        return [_text(v) for v in x]
    return repr(x)
