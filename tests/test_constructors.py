"""Constructors: a wrong keyword, number or kind of arguments says the class, what was given, the line and the fix."""

import abc
import inspect

import duograd as dg
import pytest
from duograd.core import kinds
from duograd.core.parameters import parameters

HOMES = (
    dg.nn, dg.optim, dg.optim.lr_scheduler, dg.optim.swa_utils, dg.data, dg.distributions, dg.amp, dg.nn.utils.rnn,
)  # fmt: skip
NAMED = {n: getattr(home, n) for home in HOMES for n in home.__all__}
NAMED |= {"Trainer": dg.nn.Trainer, "TensorSpec": dg.TensorSpec, "mode": dg.mode, "Generator": dg.Generator}
CLASSES = {n: c for n, c in NAMED.items() if isinstance(c, type) and hasattr(c.__init__, "spelled")}
OPTIMIZER = dg.optim.SGD([dg.nn.Parameter(dg.ones(2))], lr=0.1)
#: a value of each kind that is asked for
GOOD = (
    2,
    1.0,
    True,
    "zeros",
    [],
    dg.ones(2),
    dg.nn.ReLU(),
    OPTIMIZER,
    dg.distributions.Normal(0, 1),
    dg.distributions.Categorical(probs=dg.ones(2)),
    len,
    {},
)


def refused(call, name):
    """The error of a call, in the project's form."""
    with pytest.raises(dg.errors.DuogradError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(f"[{name}]"), text
    assert "test_constructors.py:" in text
    assert "fix: " in text
    assert len(text.splitlines()) <= 10
    return text


def needed(fn):
    """Arguments that are needed, each of its kind."""
    p = parameters(fn)
    found = {n: kinds.of(fn, n) for n in (*p.positional[1:], *p.keyword) if n not in p.defaults}
    return {n: next(x for x in GOOD if k.fits(x)) if k else object() for n, k in found.items()}


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"Distribution"}))
def test_arguments_that_do_not_fit_are_named(name):
    cls = CLASSES[name]
    fn = inspect.unwrap(cls.__init__)
    p = parameters(fn)
    for call in (lambda: cls(**needed(fn), colour=3), lambda: cls(colour=3)):
        assert "got colour= but takes no such argument" in refused(call, name)
    required = [n for n in p.positional[1:] if n not in p.defaults]
    if required:
        assert f"misses {', '.join(required)}" in refused(lambda: cls(), name)
    if not p.rest:
        assert "by position, got 30" in refused(lambda: cls(*[3] * 30), name)


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - {"Parameter"}))
def test_arguments_of_another_kind_are_named(name):
    cls = CLASSES[name]
    fn = inspect.unwrap(cls.__init__)
    p = parameters(fn)
    for argument in (*p.positional[1:], *p.keyword):
        kind = kinds.of(fn, argument)
        if kind is not None:
            text = refused(lambda a=argument: cls(**{**needed(fn), a: object()}), name)
            assert f"{argument}=<object object at" in text
            assert f"give {argument} as {kind.words}" in text


def test_every_class_with_arguments_is_among_them():
    others = {n for n, c in NAMED.items() if isinstance(c, type) and c.__init__ is not object.__init__}
    lazy = {n for n in others if issubclass(NAMED[n], dg.nn.lazy.Lazy)}  # they take what their layer takes
    assert others - CLASSES.keys() - lazy == {"Identity", "ParamGroup"}


def test_the_nearest_keyword_is_suggested():
    assert (
        "write out_features= for out_featurs=; it takes Linear(in_features, out_features, bias="
        in refused(lambda: dg.nn.Linear(3, out_featurs=4), "Linear")
    )
    assert "write lr= for learning_rate=" in refused(
        lambda: dg.optim.Adam([dg.nn.Parameter(dg.ones(2))], learning_rate=0.1), "Adam"
    )


def test_a_subclass_is_named_as_the_user_named_it():
    class Mine(dg.nn.Linear):
        pass

    class Other(dg.nn.Linear, abc.ABC):
        def __init__(self, inner, **rest):
            self.inner = inner
            super().__init__(inner, **rest)

    refused(lambda: Mine(3, 4, color=1), "Mine")
    refused(lambda: Other(3, color=1), "Linear")
    assert Other(3, out_features=2).weight.shape == (2, 3)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'inner'"):
        Other()  # the user's own


def test_an_error_of_a_function_of_the_user_is_left_alone():
    def lr(epoch):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        dg.optim.lr_scheduler.LambdaLR(OPTIMIZER, lr)


def test_a_module_without_a_constructor_takes_no_arguments():
    refused(lambda: dg.nn.Sigmoid(3), "Sigmoid")
    assert dg.nn.Identity(3, anything=4)(1) == 1


def test_signatures_are_the_declared_ones():
    assert list(inspect.signature(dg.nn.Linear).parameters) == [
        "in_features",
        "out_features",
        "bias",
        "device",
        "dtype",
    ]


def test_kinds_of_annotations():
    def fits(annotation, value):
        return kinds.asked(annotation, {"Tensor": dg.Tensor}).fits(value)

    assert fits("int", dg.tensor(3))
    assert not any(
        fits("int", x) for x in (True, 1.0, "1", None, dg.tensor(1.0), dg.ones((2,), dtype="int64"))
    )
    assert all(fits("float", x) for x in (1, 1.5, True, dg.tensor(1.5)))
    assert not any(fits("float", x) for x in ("1", None, 1j, dg.ones(2)))
    assert all(fits("bool", x) for x in (0, True, None, dg.tensor(True)))
    assert not any(fits("bool", x) for x in ("a", 1.5, [], object()))
    assert fits("float | Sequence[float]", [1.0, 2])
    assert not fits("float | Sequence[float]", [1.0, "a"])
    assert fits("Callable[[int], float] | Sequence[Callable[[int], float]]", [len])
    assert kinds.asked("Any", {}) is None
