"""Every op with every sample: kernels against the op's own body, gradients, types, errors."""

import duograd as dg
import numpy as np
import pytest
from duograd.core.op import REGISTRY, TensorType
from duograd.core.reference import has_floats, has_halves, make_arguments, reference, samples, type_of
from duograd.core.types import DTYPES


def _identify(case):
    return f"{case[0].name}-{case[1]}" if isinstance(case, tuple) else str(case)


ALL = list(samples())
BODIES = [c for c in ALL if c[0].kind != "composite" and c[0].name != "to_device"]
DIFFERENTIABLE = [
    (op, k, sample)
    for op, k, sample in ALL
    if sample.grad and has_floats(sample) and (op.differentiable or op.kind == "composite")
]


def _tensors(arguments):
    return [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]


def _outputs(result):
    return result if isinstance(result, tuple) else (result,)


#: dtypes beyond float32 and float64 that every op's first sample runs in, where the op has them
FURTHER = [(c, d) for c in BODIES if c[1] == 0 and has_halves(c[0]) for d in ("float16", "bfloat16")]


@pytest.mark.parametrize(
    ("case", "dtype"), [(c, d) for c in BODIES for d in ("float32", "float64")] + FURTHER, ids=_identify
)
def test_kernel_equals_body(case, dtype, close):
    op, _, sample = case
    arguments = make_arguments(sample, dtype=DTYPES[dtype])
    _, attrs = op.bind(tuple(_tensors(arguments)), dict(sample.attrs))
    expected = reference(op, arguments, attrs)
    for got, want in zip(_outputs(op(*_tensors(arguments), **sample.attrs)), expected, strict=True):
        close(got.detach().numpy(), want)


@pytest.mark.parametrize("case", BODIES, ids=_identify)
def test_strided_inputs_give_the_same(case, close):
    op, _, sample = case
    arguments = make_arguments(sample)
    dense = _tensors(arguments)
    strided = []
    for a in arguments:
        if isinstance(a, np.ndarray) and a.ndim:
            wide = dg.tensor(np.repeat(a, 2, axis=-1))
            a = wide[..., ::2]
        strided.append(dg.tensor(a) if isinstance(a, np.ndarray) else a)
    for x, y in zip(
        _outputs(op(*dense, **sample.attrs)), _outputs(op(*strided, **sample.attrs)), strict=True
    ):
        if op.name == "matmul":  # a vector's product runs along whichever axis of the matrix is contiguous
            close(x.numpy(), y.numpy())
        else:
            np.testing.assert_array_equal(x.numpy(), y.numpy())


@pytest.mark.parametrize("case", BODIES, ids=_identify)
def test_type_rule_predicts(case):
    op, _, sample = case
    arguments = make_arguments(sample)
    inputs, attrs = op.bind(tuple(_tensors(arguments)), dict(sample.attrs))
    predicted = op.infer([x.type if isinstance(x, dg.Tensor) else x for x in inputs], attrs)
    actual = _outputs(op(*_tensors(arguments), **sample.attrs))
    assert tuple(predicted) == tuple(y.type for y in actual)


def _scalar_function(op, sample, arguments, which, weights):
    """The op as a function of its float inputs, weighted to one number."""

    def run(*floats):
        row = list(arguments)
        for k, x in zip(which, floats):
            row[k] = x
        # The same random numbers at every call, for dropout.
        dg.manual_seed(5)
        outs = [y for y in _outputs(op(*row, **sample.attrs)) if y.dtype.has_gradient]
        outs = [dg.view_as_real(y) if y.dtype.is_complex else y for y in outs]
        total = None
        for k, y in enumerate(outs):
            while len(weights) <= k:
                weights.append(dg.tensor(np.random.default_rng(len(weights)).uniform(-1, 1, y.shape)))
            part = (y * weights[k]).sum()
            total = part if total is None else total + part
        return total

    return run


def _directional(f, xs, directions, h):
    up = f(*[dg.tensor(x + h * d) for x, d in zip(xs, directions)]).item()
    down = f(*[dg.tensor(x - h * d) for x, d in zip(xs, directions)]).item()
    return (up - down) / (2 * h)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=_identify)
def test_gradient_equals_difference_to_order_two(case):
    """Order one against a central difference of values, order two against one of gradients, in float64."""
    op, _, sample = case
    arguments = _tensors(make_arguments(sample, dtype=dg.float64))
    which = [k for k, a in enumerate(arguments) if isinstance(a, dg.Tensor) and a.dtype.is_float]
    f = _scalar_function(op, sample, arguments, which, [])
    xs = [arguments[k].numpy().copy() for k in which]
    rng = np.random.default_rng(1)
    directions = [rng.uniform(-1, 1, x.shape) for x in xs]

    leaves = [dg.tensor(x, requires_grad=True) for x in xs]
    out = f(*leaves)
    if not out.requires_grad:
        pytest.fail(f"{op.name} does not record a gradient")
    out.backward(create_graph=True)
    slope = sum(
        float((x.grad.detach().numpy() * d).sum()) for x, d in zip(leaves, directions) if x.grad is not None
    )
    assert slope == pytest.approx(_directional(f, xs, directions, 1e-6), rel=1e-5, abs=1e-7)

    def gradient_along(*points):
        """The first directional derivative, as a function of the point."""
        ps = [dg.tensor(p.numpy(), requires_grad=True) for p in points]
        f(*ps).backward(create_graph=True)
        parts = [(p.grad * dg.tensor(d)).sum() for p, d in zip(ps, directions) if p.grad is not None]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return ps, total

    points, first = gradient_along(*[dg.tensor(x) for x in xs])
    want = _directional(lambda *p: gradient_along(*p)[1], xs, directions, 1e-5)
    if not first.requires_grad:
        assert want == pytest.approx(0.0, abs=1e-6)
        return
    for p in points:
        p.grad = None
    first.backward()
    second = sum(float((p.grad.numpy() * d).sum()) for p, d in zip(points, directions) if p.grad is not None)
    assert second == pytest.approx(want, rel=1e-4, abs=1e-5)


ERRORS = [(op, k, s, match) for op in REGISTRY.values() for k, (s, match) in enumerate(op.error_samples)]


@pytest.mark.parametrize("case", ERRORS, ids=lambda c: f"{c[0].name}-{c[1]}")
def test_error_samples_are_refused(case):
    op, _, sample, match = case
    arguments = _tensors(make_arguments(sample))
    with pytest.raises(dg.errors.DuogradError) as caught:
        op(*arguments, **sample.attrs)
    text = str(caught.value)
    assert match in text
    assert text.startswith(f"[{op.name}]")
    assert "test_ops.py:" in text
    assert "fix:" in text


def test_types_of_arguments_are_tensor_types():
    assert type_of(np.zeros((2, 3), np.float32)) == TensorType(DTYPES["float32"], (2, 3))
