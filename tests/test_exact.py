"""Calls that Python calls equal are not taken for each other: 1, 1.0 and True, 0.0 and -0.0."""

import itertools

import duograd as dg
import numpy as np
import pytest
from duograd.core.exact import exact, typed
from duograd.core.op import REGISTRY

F = dg.nn.functional


def _x():
    return dg.tensor([[-0.0, 0.0, 1.5], [-2.0, 3.0, 0.5]])


def _n():
    return dg.tensor([[1, 2, 3], [4, 5, 6]])


ALIKE = {
    "zeros": [lambda: dg.zeros((3, 2)), lambda: dg.zeros((3.0, 2)), lambda: dg.zeros((np.int64(3), 2))],
    "ones": [lambda: dg.ones(3), lambda: dg.ones(3.0)],
    "sum": [lambda: _x().sum(axis=1), lambda: _x().sum(axis=1.0), lambda: _x().sum(axis=True)],
    "sum by position": [lambda: dg.sum(_x(), 1), lambda: dg.sum(_x(), 1.0)],
    "sum of axes": [lambda: _x().sum(axis=(0, 1)), lambda: _x().sum(axis=(False, True))],
    "reshape": [lambda: _x().reshape((3, 2)), lambda: _x().reshape((3.0, 2)), lambda: _x().reshape(3.0, 2)],
    "permute": [lambda: dg.permute_dims(_x(), (1, 0)), lambda: dg.permute_dims(_x(), (True, False))],
    "expand_dims": [lambda: dg.expand_dims(_x(), axis=1), lambda: dg.expand_dims(_x(), axis=1.0)],
    "concat": [lambda: dg.concat([_x(), _x()], axis=1), lambda: dg.concat([_x(), _x()], axis=1.0)],
    "clip": [lambda: dg.clip(_n(), 1, 2), lambda: dg.clip(_n(), 1.0, 2.0), lambda: dg.clip(_n(), min=1, max=2.0)],
    "clip at zero": [lambda: dg.clip(_x(), 0.0, 2.0), lambda: dg.clip(_x(), -0.0, 2.0)],
    "leaky_relu": [lambda: F.leaky_relu(_x(), 0.0), lambda: F.leaky_relu(_x(), -0.0), lambda: F.leaky_relu(_x(), 0)],
    "pad": [lambda: dg.pad(_x(), ((1, 1), (0, 0))), lambda: dg.pad(_x(), ((1.0, 1), (0, 0)))],
    "pad with zero": [
        lambda: dg.pad(_x(), ((1, 1), (0, 0)), value=0.0), lambda: dg.pad(_x(), ((1, 1), (0, 0)), value=-0.0),
        lambda: dg.pad(_x(), ((1, 1), (0, 0)), value=0),
    ],
    "roll": [lambda: dg.roll(_x(), 1, axis=1), lambda: dg.roll(_x(), 1.0, axis=1)],
    "hardtanh": [lambda: F.hardtanh(_x(), -1.0, 0.0), lambda: F.hardtanh(_x(), -1.0, -0.0)],
    "threshold": [lambda: F.threshold(_x(), 1.0, 0.0), lambda: F.threshold(_x(), 1.0, -0.0)],
    "vector_norm": [lambda: dg.linalg.vector_norm(_x(), ord=1), lambda: dg.linalg.vector_norm(_x(), ord=True)],
}  # fmt: skip


def _outcome(call):
    try:
        y = call()
    except dg.errors.DuogradError as e:
        return type(e), e.message
    return str(y.dtype), y.shape, y.numpy().tobytes()


def _forget():
    for op in REGISTRY.values():
        for table in (op.recipes, op.shortcuts, op.in_place_recipes, op._forms):
            table.clear()


@pytest.mark.parametrize("name", ALIKE)
def test_equal_arguments_are_not_the_same(name):
    calls, alone = ALIKE[name], []
    for call in calls:
        _forget()
        alone.append(_outcome(call))
    for first, second in itertools.permutations(range(len(calls)), 2):
        _forget()
        _outcome(calls[first])
        _outcome(calls[first])
        assert _outcome(calls[second]) == alone[second]


@pytest.mark.parametrize(
    "name", ["clip", "clip at zero", "leaky_relu", "hardtanh", "threshold", "pad with zero"]
)
def test_equal_arguments_in_one_graph(name):
    calls = ALIKE[name]
    want = [_outcome(call) for call in calls]
    got = dg.function(lambda: [call() for call in calls])()
    assert [_outcome(lambda y=y: y) for y in got] == want


def test_a_key_is_found_by_the_same_alone():
    row = [
        1,
        1.0,
        True,
        0,
        0.0,
        -0.0,
        False,
        0.5,
        1 + 0j,
        (1, 0),
        (1.0, 0),
        (True, False),
        (1, (0.0,)),
        (1, (-0.0,)),
    ]
    row += ["a", None, (), ("axis", 1), ("axis", 1.0)]
    table = {exact(x): k for k, x in enumerate(row)}
    assert len(table) == len(row) == len({typed(x) for x in row})
    assert [table[x] for x in row] == [*range(len(row))]
    assert [table[exact(x)] for x in row] == [*range(len(row))]
    assert 2.0 not in {exact(2): 0}
    assert (2, 3.0) not in {exact((2, 3)): 0}
