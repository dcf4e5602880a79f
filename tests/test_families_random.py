"""Ops that are not pointwise, on random shapes, layouts, dtypes and corner values, in both modes, against NumPy, SciPy
or PyTorch; gradients against directional differences in float64, to order two.

A row (tests/rows) is an op, its peer and the strategy for its arguments. Pointwise ops are in tests/test_ops_random.py.
"""

import warnings

import duograd as dg
import numpy as np
import pytest
import rows_linear
import rows_nn
import rows_reduce
import rows_shape
from drawing import Draw
from duograd.core.naming import ALIASES
from duograd.core.op import PUBLIC, REGISTRY, Op
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ROWS = [*rows_linear.ROWS, *rows_nn.ROWS, *rows_reduce.ROWS, *rows_shape.ROWS]


def examples(n):
    return settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


def outputs(result):
    return list(result) if isinstance(result, (tuple, list)) else [result]


@pytest.mark.parametrize("row", ROWS, ids=[r.name for r in ROWS])
def test_op_equals_its_peer(row, close):
    compared = set()

    @examples(6)
    @given(st.data())
    def check(data):
        dtype = data.draw(st.sampled_from(row.dtypes))
        d = Draw(data, dtype, row.corners)
        arrays, attrs = row.draw(d)
        made = [d.layout(a, row.repeated) for a in arrays]
        tensors, arrays = [t for t, _ in made], [a for _, a in made]
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                want = outputs(row.peer(*arrays, **attrs))
            except ValueError as error:
                if "All-NaN" in str(error):
                    return
                raise
        got = outputs(row.op(*tensors, **attrs))
        assert len(got) == len(want)
        for a, b in zip(got, want):
            b = np.asarray(b)
            assert (b.dtype.kind in "fc") == (a.dtype.is_float or a.dtype.is_complex), (
                f"{a.dtype}, not {b.dtype}"
            )
            with np.errstate(all="ignore"):
                close(a.numpy(), b.astype(a.dtype.np), row.scale)
        again = outputs(dg.function(lambda *ts: row.op(*ts, **attrs))(*tensors))
        for a, b in zip(got, again, strict=True):
            assert a.dtype is b.dtype
            np.testing.assert_array_equal(a.numpy(), b.numpy())
        compared.add(dtype)

    check()
    assert compared


SLOPES = [r for r in ROWS if r.slope]


@pytest.mark.parametrize("row", SLOPES, ids=[r.name for r in SLOPES])
def test_gradient_equals_difference_to_order_two(row):
    @examples(3)
    @given(st.data())
    def check(data):
        d = Draw(data, "float64", corners=False)
        arrays, attrs = row.draw(d)
        which = [k for k, a in enumerate(arrays) if a.dtype.kind == "f"]
        made = [d.layout(a, row.repeated) for a in arrays]
        arrays = [a for _, a in made]
        along = [d.rng.uniform(-1, 1, arrays[k].shape) for k in which]
        weights = []

        def value(leaves):
            full = list(arrays)
            for k, x in zip(which, leaves):
                full[k] = x
            full = [x if isinstance(x, dg.Tensor) else dg.tensor(x) for x in full]
            total = None
            for k, y in enumerate(y for y in outputs(row.op(*full, **attrs)) if y.dtype.has_gradient):
                y = dg.view_as_real(y) if y.dtype.is_complex else y
                if len(weights) <= k:
                    weights.append(dg.tensor(d.rng.uniform(-1, 1, y.shape)))
                part = (y * weights[k]).sum()
                total = part if total is None else total + part
            return total

        def slope(leaves):
            """The derivative along `along` at leaves that ask for a gradient, itself differentiable."""
            out = value(leaves)
            if not out.requires_grad:
                return None
            out.backward(create_graph=True)
            parts = [(x.grad * dg.tensor(a)).sum() for x, a in zip(leaves, along) if x.grad is not None]
            return sum(parts[1:], parts[0])

        def moved(h, grad):
            return [dg.tensor(arrays[k] + h * a, requires_grad=grad) for k, a in zip(which, along)]

        leaves = [made[k][0].detach().requires_grad_() for k in which]
        first = slope(leaves)
        assert first is not None, "no gradient is recorded"
        h = 1e-6
        up, here, down = (value(moved(x, False)).item() for x in (h, 0.0, -h))
        size = 1 + sum(w.size for w in weights)
        if abs(up - 2 * here + down) > 1e-9 * size * (1 + abs(here)):
            return  # a kink lies between
        assert first.item() == pytest.approx((up - down) / (2 * h), rel=5e-6, abs=2e-7 * size)
        if row.order == 1:
            with pytest.raises(dg.errors.AutogradError):
                first.backward()
            return
        h = 1e-5
        more, less = (slope(moved(x, True)).item() for x in (h, -h))
        want = (more - less) / (2 * h)
        if not first.requires_grad:
            assert want == pytest.approx(0.0, abs=1e-5)
            return
        for x in leaves:
            x.grad = None
        first.backward()
        second = sum(float((x.grad.numpy() * a).sum()) for x, a in zip(leaves, along) if x.grad is not None)
        assert second == pytest.approx(want, rel=2e-4, abs=2e-5 * size)

    check()


# ---------------------------------------------------------------- completeness

#: public names without a row here: the reason, and the names
ELSEWHERE = {
    "creation: no tensor goes in": """
        full zeros ones empty zeros_like ones_like empty_like full_like arange linspace logspace geomspace eye
        tril_indices triu_indices""",
    "random numbers have distributions, not peers: tests/test_random.py": """
        rand randn randint rand_like randn_like randint_like randperm permutation shuffle uniform normal log_normal
        bernoulli exponential gumbel laplace cauchy geometric truncated_normal categorical multinomial gumbel_softmax
        dropout dropout_channels alpha_dropout""",
    "and these: tests/test_sampling.py": "gamma beta dirichlet poisson",
    "no order and no phase to compare by: tests/test_linalg_peers.py": "eig eig_ex eigvals eigvals_ex",
    "against torch's layer: tests/test_sequences.py": "lstm_projected_layer",
    "against the image's own formula, and onnx.reference: tests/test_regions.py": "roi_align",
    "no tensor comes out": "broadcast_shapes is_complex",
    "two results, against PyTorch's: tests/test_lazy.py": "std_mean var_mean",
    "signals, against PyTorch's: tests/test_signal.py": """
        hann_window hamming_window blackman_window bartlett_window kaiser_window stft istft""",
    "complex numbers: tests/test_complex.py": "view_as_real view_as_complex polar",
    "comparisons of whole arrays: tests/test_elementwise_peers.py": "allclose array_equal",
    "pointwise ops under other arguments: tests/test_elementwise_peers.py": "float_power div clip clamp",
    "the rows conv, avg_pool and max_pool run them": """
        conv1d conv2d conv3d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d""",
    "what the rows cholesky, inv, solve, lu, eigh and svd are made of": """
        cholesky_ex inv_ex solve_ex lu_factor lu_factor_ex lu_solve eigh_ex eigvalsh_ex svd_ex svdvals_ex""",
    "ONNX's arithmetic, judged by onnx.reference: tests/test_quantize.py": """
        quantize_linear dequantize_linear dynamic_quantize_linear fake_quantize""",
    "judged by onnx.reference and onnxruntime: tests/test_onnx_ops.py, tests/test_onnx_suite.py": "nms",
    "over a grid of settings: tests/test_spatial_peers.py": "adaptive_max_pool_index",
    "over a grid of settings: tests/test_shape_peers.py": "embedding_bag",
    "made of ops, against NumPy and PyTorch: tests/test_made_functions_peers.py": """
        slice_scatter select_scatter unravel_index ldexp frexp gradient""",
    "PyTorch's names, against PyTorch: tests/test_naming.py": """
        clone detach dist dsplit hsplit is_floating_point numel t vdot vsplit""",
}


def _ops_and_functions():
    """Names of what users call; other names of the same thing are not counted again."""
    ops = {n for n, op in REGISTRY.items() if not op.internal and not op.creates and op.kind != "pointwise"}
    return ops | {n for n, fn in PUBLIC.items() if not isinstance(fn, Op)} - ALIASES.keys()


def test_every_public_op_has_a_row_or_a_reason():
    named = {r.name for r in ROWS}
    excused = {name for names in ELSEWHERE.values() for name in names.split()}
    assert sorted(_ops_and_functions() - named - excused) == []
    assert sorted(excused & named) == []
    assert sorted(excused - _ops_and_functions()) == []
