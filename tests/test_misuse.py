"""Misuse of every op: an error that names the op and what is wrong, with the user's line and the fix, in both modes."""

import duograd as dg
import numpy as np
import pytest
from duograd.core.op import REGISTRY
from duograd.core.reference import make_arguments

PUBLIC = sorted(n for n, op in REGISTRY.items() if not op.internal)
ERRORS = [(op, k, s) for op in REGISTRY.values() for k, (s, _) in enumerate(op.error_samples)]


def _both_modes(call):
    """The error of a call in eager mode and inside a graph."""
    found = []
    for fn in (call, dg.function(call)):
        with pytest.raises(dg.errors.DuogradError) as caught:
            fn()
        found.append(caught.value)
    return found


def _says(error, name):
    text = str(error)
    assert text.startswith(f"[{name}]"), text
    assert "test_misuse.py:" in text
    assert "fix:" in text


@pytest.mark.parametrize("case", ERRORS, ids=lambda c: f"{c[0].name}-{c[1]}")
def test_a_wrong_call_says_the_same_in_both_modes(case):
    op, _, sample = case
    arguments = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in make_arguments(sample)]
    said = []
    for fn in (op, dg.function(op)):
        try:
            fn(*arguments, **sample.attrs)
        except dg.errors.DuogradError as e:
            said.append((e.op, e.message, e.fix))
    assert len(said) == 2
    assert said[0] == said[1]


@pytest.mark.parametrize("name", PUBLIC)
def test_an_unknown_argument_is_named(name):
    op = REGISTRY[name]
    arguments = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in make_arguments(op.samples[0])]
    for error in _both_modes(lambda: op(*arguments, **op.samples[0].attrs, colour=3)):
        _says(error, name)
        assert "colour" in str(error)


@pytest.mark.parametrize("name", [n for n in PUBLIC if REGISTRY[n].n_inputs and not REGISTRY[n].creates])
def test_a_missing_tensor_is_named(name):
    op = REGISTRY[name]
    needed = [n for n in op.input_names if n not in op.optional]
    if not needed:
        return
    for error in _both_modes(lambda: op()):
        _says(error, name)
        assert needed[0] in str(error)


@pytest.mark.parametrize("name", [n for n in PUBLIC if REGISTRY[n].input_names and not REGISTRY[n].creates])
def test_what_is_no_tensor_is_refused(name):
    op = REGISTRY[name]
    sample = next((s for s in op.samples if s.args), op.samples[0])
    arguments = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in make_arguments(sample)]
    for error in _both_modes(lambda: op({"not": "a tensor"}, *arguments[1:], **sample.attrs)):
        text = str(error)
        assert "dict" in text or "tensor" in text, text
        assert "test_misuse.py:" in text


@pytest.mark.parametrize("call", [lambda b: dg.lerp(b, b, 0.5), dg.frac], ids=["lerp", "frac"])
def test_booleans_where_numbers_are_subtracted(call):
    with pytest.raises(dg.errors.DtypeError, match="takes numbers, not booleans"):
        call(dg.tensor([True, False, True]))
