"""Attributes of a kind that an op does not know: one form of error, in both modes, for every op."""

import warnings

import duograd as dg
import numpy as np
import pytest
from duograd.core.errors import DuogradError
from duograd.core.op import REGISTRY, Ints
from duograd.core.strangers import kind_of, known_kinds, stranger

WRONG = [
    1.5,
    "a",
    None,
    [[0]],
    2**70,
    -7,
    True,
    {},
    (1.0,),
    1j,
    float("nan"),
    ("a",),
    (2**70,),
    np.ones(2),
    len,
]
OPS = [op for op in REGISTRY.values() if not op.internal and op.samples and op.attr_names]


def _argument(x, sample):
    if isinstance(x, Ints):
        return dg.full(x.shape, x.low, dtype=x.dtype)
    if isinstance(x, tuple) and all(isinstance(n, int) for n in x):
        rows = np.random.default_rng(0).uniform(sample.low, sample.high, x)
        return dg.tensor(rows.astype("float32"))
    if isinstance(x, np.ndarray):
        return dg.tensor(x.astype("float32") if x.dtype.kind == "f" else x)
    return [_argument(v, sample) for v in x] if isinstance(x, list) else x


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_says_what_is_wrong(op, mode):
    sample = max(op.samples, key=lambda s: len(s.attrs))
    args = [_argument(x, sample) for x in sample.args]
    for name in op.attr_names:
        for value in WRONG:

            def call(name=name, value=value):
                return op(*args, **{**sample.attrs, name: value})

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's, of numbers that are no numbers
                try:
                    (dg.function(call) if mode == "graph" else call)()
                except DuogradError as e:
                    text = str(e)
                    assert "test_strangers.py" in text
                    assert "fix: " in text
                    assert len(text) < 1500


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_error_names_op_shapes_line_and_fix(mode):
    x = dg.ones((2, 3))
    f = (lambda: x.sum(axis=1.0)) if mode == "eager" else dg.function(lambda: x.sum(axis=1.0))
    with pytest.raises(dg.errors.ArgumentTypeError) as caught:
        f()
    text = str(caught.value)
    assert "[sum] axis=1.0 is a float; got x: float32[2, 3]" in text
    assert f"at {__file__}" in text
    assert "fix: give axis as a tuple of integers" in text


def test_what_a_graph_is_compiled_for_names_the_line():
    f = dg.function(lambda: dg.cholesky(dg.eye(2), upper="a"))
    with pytest.raises(dg.errors.ArgumentTypeError, match=r"\[cholesky\] upper='a' is a text") as caught:
        f()
    assert __file__ in str(caught.value)


def test_lists_within_lists_are_tuples():
    x = dg.ones((2, 3))
    assert dg.pad(x, [[1, 1], [0, 0]]).shape == (4, 3)


def test_kinds_of_values():
    assert kind_of((1, 2)) == kind_of([3]) == "a tuple of integers"
    assert kind_of(((1, 2), (3.5,))) == "a tuple of tuples of floats and tuples of integers"
    assert kind_of(2**70) == "an integer of more than 64 bits"
    assert known_kinds(REGISTRY["softmax"], "axis") == {"an integer"}
    assert stranger(REGISTRY["leaky_relu"], (), {"negative_slope": 1}) is None


def test_a_defect_of_an_op_keeps_its_own_words(monkeypatch):
    def broken(x, *, axis=None, keepdims=False):
        raise TypeError("broken")

    monkeypatch.setattr(REGISTRY["logsumexp"], "fn", broken)
    REGISTRY["logsumexp"].recipes.clear()
    REGISTRY["logsumexp"].shortcuts.clear()
    with pytest.raises(TypeError, match="broken"):
        dg.logsumexp(dg.ones((3, 5, 7)), axis=2)


CREATED = {
    "arange": lambda v: dg.arange(v, 5, 1), "stop": lambda v: dg.arange(0, v if v is not None else "a", 1),
    "step": lambda v: dg.arange(0, 5, v), "linspace": lambda v: dg.linspace(v, 1, 5),
    "logspace": lambda v: dg.logspace(0, v, 5), "geomspace": lambda v: dg.geomspace(1, v, 5),
    "randint": lambda v: dg.randint(v, 5, (2,)), "chunk": lambda v: dg.chunk(dg.ones(4), v),
    "manual_seed": dg.manual_seed, "gradient": lambda v: (dg.ones(1) * 1).requires_grad_().sum().backward(v or "a"),
}  # fmt: skip


@pytest.mark.parametrize("value", ["a", None, [1], (1.0,), {}, len], ids=repr)
@pytest.mark.parametrize("name", CREATED)
def test_what_is_no_number_is_named(name, value):
    with pytest.raises(dg.errors.ArgumentTypeError) as caught:
        CREATED[name](value)
    assert "test_strangers.py" in str(caught.value)
    assert "fix: give" in str(caught.value)


def test_a_range_without_a_number_of_steps():
    for ends in ((0.0, float("nan")), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(dg.errors.ArgumentError, match="no number of steps"):
            dg.arange(*ends)
