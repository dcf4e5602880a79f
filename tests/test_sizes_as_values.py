"""Where a size is a variant each after all, `explain` says which line it is, and what to write instead."""

from __future__ import annotations

import duograd as dg
import pytest


def _range(x):
    return sum(x[k] for k in range(x.shape[0]))


def _text(x):
    return x * float(f"{len(x)}")


def _history(x):
    return (x * x).sum(0)


def _read(x):
    return x if x.sum().item() > 0 else -x


def _asked(x):
    return x * 2 if type(x.shape[0]) is int else x


@pytest.mark.parametrize(
    ("body", "grad", "words"),
    [
        (_range, False, "size 0 of tensor 0 is taken as a value at"),
        (_text, False, "size 0 of tensor 0 is taken as a value at"),
        (_history, True, "has a history: take its gradient inside, or return y.detach()"),
        (_read, False, "is read at"),
        (_asked, False, "gives it to code that takes a value"),
    ],
    ids=["range", "text", "history", "read", "asked"],
)
def test_what_makes_a_size_a_value_is_told_with_its_line(body, grad, words):
    g = dg.function(body)
    for n in range(2, 9):
        x = dg.arange(n * 3, dtype="float32").reshape(n, 3).requires_grad_(grad)
        assert g(x).detach().numpy().tobytes() == body(x).detach().numpy().tobytes()
    assert len(g.variants) == 7
    told = [line for line in g.explain().split("\n") if "sizes have a variant each" in line]
    assert len(told) == 1, g.explain()
    assert words in told[0]
    assert f"{__file__}:{body.__code__.co_firstlineno + 1}" in told[0]


def test_nothing_is_told_where_sizes_are_any():
    g = dg.function(lambda x: x.reshape(len(x), -1) * len(x))
    for n in range(2, 9):
        g(dg.ones(n, 3))
    assert "sizes have a variant each" not in g.explain()


class _Row(dg.nn.Parameter):
    def __len__(self):
        return 1


def test_a_length_of_its_own_is_asked_for():
    row = _Row(dg.ones(4))
    g = dg.function(lambda x: x * len(row) + len([1, 2]))
    for n in range(2, 9):
        assert g(dg.ones(n)).sum().item() == 3 * n
