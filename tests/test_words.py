"""Calls by a wrong word: every public function says which word was wrong, and which is right."""

import inspect
import pickle
import types

import duograd as dg
import pytest
from duograd.core.op import Op
from duograd.core.spoken import spelled, translated

F = dg.nn.functional
X = dg.ones((2, 3))


def _functions():
    """(name, callable) of every public function and method."""
    places = {"dg": (dg, dg.__dir__()), "F": (F, F.__all__), "dg.linalg": (dg.linalg, dg.linalg.__all__)}
    places |= {"dg.fft": (dg.fft, dg.fft.__all__), "x": (dg.Tensor, vars(dg.Tensor))}
    for place, (owner, names) in places.items():
        for name in sorted(names):
            fn = None if name.startswith("_") else getattr(owner, name, None)
            if isinstance(fn, (Op, types.FunctionType)):
                yield f"{place}.{name}", fn


#: these hand keywords on to a function of the user, or print them
ANY = ("dg.bench", "dg.checkpoint", "dg.compare", "dg.print")
FUNCTIONS = {k: f for k, f in _functions() if k not in ANY}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_unknown_word_is_named_by_every_public_function(name):
    fn = FUNCTIONS[name]
    given = (X,) if name.startswith("x.") else ()
    with pytest.raises(dg.errors.ArgumentTypeError, match="zzz= but takes no such argument") as e:
        fn(*given, zzz=1)
    assert isinstance(e.value, TypeError)
    assert "test_words.py" in e.value.line
    assert "it takes " in e.value.fix


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: dg.cat([X], dim=0), r"\[concat\] got dim=(.|\n)*write axis= for dim="),
        (lambda: dg.chunk(X, 2, dim=0), r"\[chunk\] (.|\n)*write axis= for dim="),
        (lambda: dg.topk(X, 2, dim=0), "write axis= for dim="),
        (lambda: X.topk(2, dim=0), r"write axis= for dim=; it takes topk\(x, k, axis="),
        (lambda: dg.sort(X, dim=0), "write axis= for dim="),
        (lambda: dg.gather(X, dim=0, index=X), r"write axis= for dim=; it takes gather\(x, axis, index\)"),
        (lambda: dg.randn(size=(2,)), "give shape by position"),
        (lambda: dg.zeros(size=(2,)), "write shape= for size="),
        (lambda: dg.exp(input=X), "write x= for input="),
        (lambda: dg.add(X, other=X), "write y= for other="),
        (lambda: dg.ones_like(input=X), "write x= for input="),
        (lambda: dg.stack(tensors=[X]), "give xs by position"),
        (lambda: dg.tensor([1], dtpe="int8"), "write dtype= for dtpe="),
        (lambda: dg.sum(X, axsi=1), "write axis= for axsi="),
        (lambda: dg.grad(lambda x: x, argnum=0), "write argnums= for argnum="),
        (lambda: F.softmax(X, axis=1), "write dim= for axis="),
        (lambda: F.dropout(X, prob=0.5), "write p= for prob="),
        (lambda: X.reshape(size=(6,)), r"write shape= for size=; it takes x.reshape\("),
        (lambda: X.permute(dims=(1, 0)), "give axes by position"),
        (lambda: X.backward(retain=True), "write retain_graph= for retain="),
        (lambda: dg.fft.fft(X, dim=1), "write axis= for dim="),
        (lambda: dg.linalg.diagonal(x=X), "x= which is given by position"),
        (
            lambda: dg.optim.SGD([X], lr=0.1, fused=True),
            "leave fused= out: a step is one kernel for all parameters",
        ),
        (lambda: dg.optim.Adam([X], foreach=False), "leave foreach= out: a step is one kernel"),
        (
            lambda: X.to("cpu", non_blocking=True),
            "leave non_blocking= out: copies are in the order of the calls",
        ),
        (lambda: X.contiguous(memory_format=None), "leave memory_format= out: kernels choose layouts"),
        (lambda: dg.cat(), r"\[concat\] misses xs"),
        (lambda: dg.gather(X, 0), r"\[gather\] misses index"),
        (lambda: dg.Tensor([1.0]), r"\[Tensor\] is a class that is not called(.|\n)*write dg.tensor\(data\)"),
    ],
)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_right_word_is_said(call, match, mode):
    with pytest.raises(TypeError, match=match):
        dg.function(call, mode=mode)()


def test_a_function_that_is_told_so_has_its_own_signature_and_pickles():
    assert str(inspect.signature(dg.chunk)) == str(inspect.signature(dg.chunk.__wrapped__))
    for fn in (dg.topk, dg.grad, F.softmax, F.selu, dg.tensor, dg.fft.fft, dg.linalg.diagonal, dg.exp):
        assert pickle.loads(pickle.dumps(fn)) is fn


def test_every_kind_of_parameter_is_handed_on():
    def plain(a, /, b, c=3, *rest, d, e=5):
        return a, b, c, rest, d, e

    fn = spelled(plain)
    assert fn(1, 2, d=4) == (1, 2, 3, (), 4, 5)
    assert fn(1, 2, 0, 7, 8, d=4, e=6) == (1, 2, 0, (7, 8), 4, 6)
    assert fn(1, b=2, d=None) == (1, 2, 3, (), None, 5)
    with pytest.raises(TypeError, match="misses b, d"):
        fn(1)
    with pytest.raises(TypeError, match="a= which is given by position"):
        fn(a=1, b=2, d=4)
    with pytest.raises(TypeError, match=r"it takes plain\(a, b, c=, \*rest, d=, e=\)"):
        fn(1, 2, d=4, f=5)
    with pytest.raises(TypeError, match=r"got b= twice"):
        fn(1, 2, d=4, b=5)
    assert spelled(fn) is fn

    def wrong_inside(a, *rest, d):
        return a(*rest, e=d)

    with pytest.raises(TypeError, match="unexpected keyword argument 'e'"):
        spelled(wrong_inside)(lambda: 1, d=4)

    def open_to_all(a, **more):
        return a, more

    assert spelled(open_to_all) is open_to_all


def test_words_are_translated_both_ways():
    assert translated("dim", ("x", "axes")) == "write axes= for dim=; "
    assert translated("axis", ("input", "dim")) == "write dim= for axis=; "
    assert translated("nothing", ("x", "axis")) == ""
