"""Wrong input of every kind: the op, what is wrong, the user's file and line, the fix, in ten lines."""

import collections
import re
import traceback

import duograd as dg
import pytest
from duograd.core.errors import last_user_line

CASES = {
    "mismatched shapes": (lambda: dg.ones((2, 3)) + dg.ones((4,)), ValueError, "[add]"),
    "mismatched matrices": (lambda: dg.ones((2, 3)) @ dg.ones((4, 5)), ValueError, "[matmul]"),
    "wrong dtype": (
        lambda: dg.conv2d(dg.ones((1, 1, 4, 4), dtype="int64"), dg.ones((1, 1, 3, 3))), TypeError, "[conv2d]",
    ),
    "booleans subtracted": (lambda: dg.ones((2,), dtype="bool") - dg.ones((2,), dtype="bool"), TypeError, "[subtract]"),
    "unknown dtype": (lambda: dg.ones((2,), dtype="float128x"), TypeError, "dtype"),
    "unknown device": (lambda: dg.ones((2,), device="tpu"), RuntimeError, "[device]"),
    "no such GPU": (lambda: dg.ones((2,), device="cuda:99"), (RuntimeError, ImportError), "cuda"),
    "axis outside": (
        lambda: dg.softmax(dg.ones((2, 5)), axis=3), ValueError, "[softmax] axis=3 is outside x: float32[2, 5]",
    ),
    "index of text": (lambda: dg.ones((2, 3))["a"], IndexError, "'a' is not an index"),
    "index of a float": (lambda: dg.ones((2, 3))[1.5], IndexError, "1.5 is not an index"),
    "None as a number": (lambda: dg.ones((2, 3)) + None, TypeError, "[add] y is None"),
    "a float as a shape": (lambda: dg.zeros(2.5), TypeError, "shape=2.5"),
    "function of a number": (lambda: dg.function(3), TypeError, "[function] fn=3 is an integer"),
    "index outside": (lambda: dg.ones((2, 3))[5], IndexError, "index 5"),
    "reshape": (lambda: dg.ones((2, 3)).reshape(4), ValueError, "[reshape]"),
    "backward on many": (
        lambda: (dg.tensor([1.0, 2.0], requires_grad=True) * 2).backward(), RuntimeError, "[backward]",
    ),
    "unknown argument": (lambda: dg.sum(dg.ones((2,)), axes=0), TypeError, "axes"),
    "missing argument": (lambda: dg.maximum(dg.ones((2,))), TypeError, "misses"),
    "not a tensor": (lambda: dg.exp("text"), TypeError, "[exp]"),
    "ragged list": (lambda: dg.tensor([[1.0], [1.0, 2.0]]), TypeError, "[tensor]"),
    "integer gradient": (lambda: dg.tensor([1], requires_grad=True), RuntimeError, "requires_grad"),
    "unknown mode": (lambda: dg.mode("fast"), ValueError, "[mode]"),
    "in place on a leaf": (lambda: dg.tensor([1.0], requires_grad=True).add_(1), RuntimeError, "in place"),
    "empty maximum": (lambda: dg.max(dg.ones((0, 3)), axis=0), ValueError, "[max]"),
    "window too large": (lambda: dg.max_pool2d(dg.ones((1, 1, 2, 2)), window=3), ValueError, "[max_pool2d]"),
    "no such address": (lambda: dg.zeros((2**40, 2**40)), ValueError, "more than can be addressed"),
    "no such view": (lambda: dg.broadcast_to(dg.ones((1,)), (2**40, 2**40)), ValueError, "more than can be addressed"),
    "no room": (lambda: dg.zeros((2**50,)), MemoryError, "cpu has no room for"),
    "unknown reduction": (lambda: dg.mse_loss(dg.ones((2,)), dg.ones((2,)), reduction="avg"), ValueError, "[mse_loss]"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_error_has_the_form(name):
    wrong, kind, text = CASES[name]
    with pytest.raises(dg.errors.DuogradError) as caught:
        wrong()
    message = str(caught.value)
    assert isinstance(caught.value, kind)
    assert text in message
    assert re.match(r"\[[\w-]+\] ", message)
    assert "test_errors.py:" in message
    assert len(message.splitlines()) <= 10


def test_the_line_is_the_users_in_graph_mode_too():
    @dg.function
    def f(x):
        y = x * 2
        return y.reshape(7)

    with pytest.raises(dg.errors.ShapeError) as caught:
        f(dg.ones((2, 3)))
    first = f._fn.__code__.co_firstlineno
    assert f"test_errors.py:{first + 3}" in str(caught.value)


def test_one_hot_labels_outside_give_nan_not_a_wrong_number():
    loss = dg.cross_entropy(dg.ones((2, 3)), dg.tensor([0, 7]))
    assert dg.isnan(loss).item()


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    ("number", "dtype", "call"),
    [
        (300, "int8", lambda x, n: x + n),
        (300, "int8", lambda x, n: dg.full((2,), n, dtype=x.dtype)),
        (300, "int8", lambda x, n: dg.full_like(x, n)),
        (-1, "uint8", lambda x, n: dg.full_like(x, n)),
        (300, "int8", lambda x, n: x.clone().copy_(n)),
        (300, "int8", lambda x, n: dg.pad(x, ((1, 1),), value=n)),
        (300, "int8", lambda x, n: dg.where(x > 0, x, n)),
        (2**70, "int64", lambda x, n: dg.full_like(x, n)),
        (10**400, "float32", lambda x, n: x + n),
        (10**400, "float32", lambda x, n: dg.full_like(x, n)),
    ],
)
def test_a_number_that_does_not_fit_is_refused(number, dtype, call, mode):
    x = dg.ones((2,), dtype=dtype)
    with pytest.raises(dg.errors.ArgumentTypeError, match="does not fit"):
        dg.function(lambda x: call(x, number), mode=mode)(x)


def test_an_error_inside_a_namedtuple_is_at_the_line_that_made_it():
    pair = collections.namedtuple("pair", "a b")
    with pytest.raises(TypeError) as e:
        pair.__new__(1, 2, 3)
    assert last_user_line(e.value).startswith(f"{__file__}:")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.nothing,
        lambda x: x(),
        lambda x: setattr(x, "nothing", 1),
        lambda x: ",".join([x]),
        lambda x: divmod(x, "a"),
        lambda x: next(x),
        lambda x: memoryview(x),
        lambda x: getattr(x, type(x).__name__),
    ],
)
def test_errors_of_python_itself_name_a_tensor_in_either_mode(wrong):
    said = []
    for mode in ("eager", "graph"):
        with pytest.raises((AttributeError, TypeError), match="Tensor") as e:
            dg.function(wrong, mode=mode)(dg.ones((2,)))
        said.append(str(e.value).splitlines()[0])
    assert said[0] == said[1]


def test_a_script_that_is_started_from_the_package_is_no_part_of_it():
    from duograd.core import errors

    assert errors.is_own_file(errors._PACKAGE_DIR + "core/op.py")
    assert not errors.is_own_file(errors._PACKAGE_DIR + "../train.py")
    assert errors.is_own_file(errors._PACKAGE_DIR + "tests/../core/op.py")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x @ x,
        lambda x: x + x[:, :2],
        lambda x: x.add_(x[:, :2]),
        lambda x: x.copy_(x[:, :2]),
        lambda x: x.reshape(7),
    ],
)
def test_an_error_has_nothing_of_ours_as_its_context(call):
    for fn in (call, dg.function(call)):
        for _ in range(3):
            with pytest.raises(dg.errors.ShapeError) as caught:
                fn(dg.ones((2, 3)))
            assert caught.value.__context__ is None or caught.value.__suppress_context__


def _frames(fn, *args):
    """Functions on the way to an error, the user's and others."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fn(*args)
    rows = traceback.extract_tb(caught.value.__traceback__)
    return [r.name for r in rows if r.filename == __file__], len(rows), str(caught.value)


def _inner(x):
    return dg.nn.functional.relu(x) + dg.ones(7)


def _outer(x, table):
    return _inner(x) if table else x * table["absent"]


@pytest.mark.parametrize("table", [{}, {"there": 1}], ids=["of the user's", "of ours"])
def test_the_traceback_in_graph_mode_is_that_of_eager_mode(table, monkeypatch):
    x, graph = dg.ones(3), dg.function(_outer)
    eager, short = _frames(graph.eager, x, table), _frames(graph, x, table)
    assert short[0] == eager[0] == ["_frames", "_outer", *(["_inner"] if table else [])]
    assert short[1] <= eager[1] + 6
    assert short[2] == eager[2]
    monkeypatch.setenv("DUOGRAD_DEBUG", "1")
    assert _frames(graph, x, table)[1] > short[1] + 5
