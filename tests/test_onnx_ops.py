"""Every op that has an ONNX form goes out, agrees with onnx.reference (and onnxruntime), and comes back."""

import math
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

import duograd as dg  # noqa: E402
from duograd.core.op import REGISTRY, Ints  # noqa: E402
from duograd.core.reference import make_arguments, samples  # noqa: E402
from duograd.core.types import DTYPES  # noqa: E402
from duograd.interop.onnx.pairs import packed  # noqa: E402
from duograd.interop.onnx.recorder import DRAWS  # noqa: E402
from duograd.interop.onnx.verify import DROPOUTS  # noqa: E402

NEWEST = onnx.defs.onnx_opset_version()
#: whose results come in no order: `eig_ex` and `eigvals_ex`, which are made of them, set one
UNORDERED = ("eig_unordered", "eigvals_unordered")
#: what the exporter must refuse: parts of eager mode
REFUSED = {name for name, op in REGISTRY.items() if op.no_onnx}
CASES = [c for c in samples() if c[0].name not in (*REFUSED, *UNORDERED, "to_device")]
#: ops that need the bits of a float
SINCE = {"nextafter": 26, "bitcast": 26}


def identify(case):
    return f"{case[0].name}-{case[1]}"


def as_function(op, sample, dtype=DTYPES["float32"]):
    """The op over the tensors of its sample, and those tensors."""
    row = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in make_arguments(sample, dtype=dtype)]

    def function(*tensors):
        rest = iter(tensors)
        return op(*[next(rest) if isinstance(a, dg.Tensor) else a for a in row], **sample.attrs)

    return function, tuple(a for a in row if isinstance(a, dg.Tensor))


def outputs(result):
    return result if isinstance(result, tuple) else (result,)


def as_pairs(tensors):
    """What a model takes in their place."""
    return [dg.tensor(packed(t.numpy())) if t.dtype.is_complex else t for t in tensors]


def is_random(op, sample):
    drawn = (*DRAWS, "log_gamma_draw", "poisson_draw")
    return op.name in drawn or (op.name in DROPOUTS and sample.attrs.get("training", True))


def node_types(graph):
    """Those of a graph and of its subgraphs."""
    found = {n.op_type for n in graph.node}
    return found.union(*(node_types(a.g) for n in graph.node for a in n.attribute if a.HasField("g")))


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_op_goes_out_and_comes_back(case, close):
    op, _, sample = case
    function, tensors = as_function(op, sample)
    if is_random(op, sample):
        with pytest.warns(UserWarning, match="random numbers"):
            model = dg.onnx.export(function, tensors)
        drawn = node_types(model.graph) & {"Dropout", "RandomUniform", "RandomNormal"}
        assert drawn or not outputs(function(*tensors))[0].size
        for got, want in zip(
            outputs(dg.onnx.load(model)(*tensors)), outputs(function(*tensors)), strict=True
        ):
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
        return
    model = dg.onnx.export(function, tensors)
    loaded = dg.onnx.load(model)
    for got, want in zip(outputs(loaded(*as_pairs(tensors))), outputs(function(*tensors)), strict=True):
        close(got.detach().numpy(), packed(want.detach().numpy()), scale=5)


@pytest.mark.parametrize("opset", [13, 17, NEWEST])
@pytest.mark.parametrize("case", [c for c in CASES if c[1] == 0], ids=identify)
def test_op_goes_out_in_every_opset(case, opset):
    op, _, sample = case
    if opset < SINCE.get(op.name, 0):
        function, tensors = as_function(op, sample)
        with pytest.raises(dg.errors.OnnxError, match="lowest opset"):
            dg.onnx.export(function, tensors, opset=opset)
        return
    function, tensors = as_function(op, sample)
    with warnings.catch_warnings():
        # The newest opset may be beyond the installed onnxruntime; training dropout is random.
        warnings.simplefilter("ignore", UserWarning)
        model = dg.onnx.export(function, tensors, opset=opset)
    assert model.opset_import[0].version == opset


@pytest.mark.parametrize(
    "name", ["add", "tanh", "softmax", "mean", "matmul", "layer_norm", "var", "arange_from"]
)
def test_op_keeps_float64(name, close):
    op = REGISTRY[name]
    function, tensors = as_function(op, op.samples[0], DTYPES["float64"])
    loaded = dg.onnx.load(dg.onnx.export(function, tensors))
    close(loaded(*tensors).numpy(), function(*tensors).numpy())


@pytest.mark.parametrize(
    ("name", "op_type"),
    [("softmax", "Softmax"), ("log_softmax", "LogSoftmax"), ("layer_norm", "LayerNormalization"), ("linear", "Gemm"),
     ("mean", "ReduceMean"), ("logsumexp", "ReduceLogSumExp"), ("gelu", "Gelu"), ("relu", "Relu")],
)  # fmt: skip
def test_composite_becomes_one_node(name, op_type):
    op = REGISTRY[name]
    function, tensors = as_function(op, op.samples[0])
    assert [n.op_type for n in dg.onnx.export(function, tensors).graph.node if n.op_type != "Constant"] == [
        op_type
    ]


@pytest.mark.parametrize("name", ["layer_norm", "gelu"])
def test_opset_without_the_op_gets_its_parts(name):
    op = REGISTRY[name]
    function, tensors = as_function(op, op.samples[0])
    kinds = {n.op_type for n in dg.onnx.export(function, tensors, opset=13).graph.node}
    assert not kinds & {"LayerNormalization", "Gelu"}


@pytest.mark.parametrize("name", sorted(REFUSED & {op.name for op, _, _ in samples()}))
def test_refused_op_says_why(name):
    op = REGISTRY[name]
    function, tensors = as_function(op, op.samples[0])
    with pytest.raises(dg.errors.OnnxError, match=name) as caught:
        dg.onnx.export(function, tensors)
    assert op.no_onnx in str(caught.value)


def test_every_op_that_users_call_goes_out():
    assert not [name for name in sorted(REFUSED) if not REGISTRY[name].internal]


def mixed(dtype, other):
    x = dg.tensor(np.array([1, 2, 3], dtype))
    y = dg.tensor(np.array([3, 1, 2], other))
    return x, y


@pytest.mark.parametrize(
    "pair",
    [
        ("int8", "int32"),
        ("int64", "float32"),
        ("bool", "float32"),
        ("uint8", "int32"),
        ("float32", "float64"),
    ],
)
@pytest.mark.parametrize("name", ["add", "maximum", "divide", "equal", "power", "where"])
def test_mixed_dtypes_are_promoted(name, pair, close):
    x, y = mixed(*pair)
    op = REGISTRY[name]
    args = (x > 1, x, y) if name == "where" else (x, y)
    model = dg.onnx.export(op, args)
    close(dg.onnx.load(model)(*args).numpy(), op(*args).numpy())


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "uint8", "int32"])
@pytest.mark.parametrize("name", ["sum", "max", "argmax", "relu", "sign", "abs"])
def test_small_integers_are_widened_where_onnx_has_none(name, dtype, close):
    op = REGISTRY[name]
    x = dg.tensor(np.array([[0, 1, 1], [1, 0, 1]], dtype))
    try:
        want = op(x)
    except dg.errors.DuogradError:
        pytest.skip(f"{name} does not take {dtype}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # onnxruntime lacks kernels for some integers
        model = dg.onnx.export(op, x)
    close(dg.onnx.load(model)(x).numpy(), want.numpy())


@pytest.mark.parametrize(
    ("fn", "shape"),
    [
        (lambda x: dg.concat([x[:1], x]), (4,)),
        (lambda x: x.to(dg.float32), (4,)),
        (lambda x: x[:0], (4,)),
        (lambda x: x.mT, (2, 2)),
        (lambda x: dg.cosh(x), ()),
    ],
)
def test_models_whose_inputs_or_outputs_are_bfloat16_are_proved_in_onnxruntime(fn, shape):
    """It takes and gives no arrays of bfloat16: the export failed where it ran the model at all."""
    x = dg.arange(math.prod(shape)).reshape(shape).to(dg.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = dg.onnx.load(dg.onnx.export(fn, x))
    assert loaded(x).tolist() == fn(x).tolist()


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_padded_pooling_windows_that_move_by_one_are_proved(n, ceil):
    """onnx.reference reads past the end of a padded axis."""
    layer = getattr(dg.nn, f"MaxPool{n}d")(2, stride=1, padding=1, return_indices=True, ceil_mode=ceil)
    x = dg.arange(3 * 5**n).to(dg.float32).sin().reshape(1, 3, *[5] * n)
    dg.onnx.export(layer.eval(), x)


@pytest.mark.parametrize("which", [1, 2, 3])
def test_norms_of_several_float_dtypes_are_exported(which):
    """ONNX promotes nothing: what shares a type becomes one."""
    row = [dg.linspace(1, 2, 12).reshape(4, 3), dg.ones(3), dg.ones(3), dg.zeros(3), dg.zeros(3)]
    row[which] = row[which].to(dg.float64)
    fn = lambda x, mean, var, w, b: (
        dg.batch_norm(x, mean, var, w, b) + dg.nn.functional.layer_norm(x, (3,), w, b)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxruntime has not all of these forms
        loaded = dg.onnx.load(dg.onnx.export(fn, tuple(row)))
    np.testing.assert_allclose(loaded(*row).numpy(), fn(*row).numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["float32", "float16", "uint8", "int8", "int64", "bool"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin", "logsumexp"])
def test_softmax_of_a_wide_range_and_of_integers_is_proved(name, kind):
    """Integers were subtracted as integers; onnx.reference's logarithm of what is 0 was not ours."""
    x = dg.tensor([[120, 1, 0, 3], [1, 1, 0, 100]]).to(kind)
    op = getattr(dg, name)
    wide = op(x.to(dg.float64), axis=-1).numpy()
    np.testing.assert_allclose(op(x, axis=-1).to(dg.float64).numpy(), wide, rtol=3e-3, atol=1e-7)
    dg.onnx.export(lambda x: op(x, axis=-1), x)


@pytest.mark.parametrize("name", ["cumprod", "cummax", "cummin"])
def test_running_products_along_a_dynamic_axis_are_refused(name):
    """They were written for the size of the trace."""
    with pytest.raises(dg.errors.OnnxError, match="dynamic axis"):
        dg.onnx.export(lambda x: getattr(dg, name)(x, axis=0), dg.ones(4), dynamic={"x": {0: "n"}})


def test_the_error_function_of_float64_is_proved_in_float64():
    """onnx.reference rounds it to float32."""
    x = dg.linspace(-2, 2, 12, dtype=dg.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxruntime has it for float32 alone
        dg.onnx.export(lambda x: dg.erfc(x) * dg.erf(x) + dg.gelu(x), x)
        dg.onnx.export(lambda x: dg.nn.functional.gelu(x, approximate="tanh"), x)


def test_what_rounding_of_bfloat16_changes_is_told_from_a_fault():
    """Inputs of bfloat16 were not rounded otherwise, so sums of what ONNX rounds on the way counted as faults."""
    x, y = dg.tensor([[-2.0, 0.0, 1.3]]).to(dg.bfloat16), dg.linspace(1, -1, 3).reshape(1, 3)
    w = dg.tensor([0.5, 2.0, 1.0]).to(dg.bfloat16)
    loss = lambda x, y: dg.nn.functional.cross_entropy(x, y.softmax(-1), weight=w, label_smoothing=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dg.onnx.export(loss, (x, y))


@pytest.mark.parametrize("name", ["any", "all"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_any_and_all_of_nothing_are_exported(name, axis):
    for shape in (0, 3), (2, 0), (2, 3):
        dg.onnx.export(
            lambda x: getattr(dg, name)(x > 0.5, axis=axis),
            dg.linspace(0, 1, 6)[: shape[0] * shape[1]].reshape(shape),
        )


@pytest.mark.parametrize(
    "shapes", [((4,), (3, 4)), ((3, 1), (4,)), ((), (2,)), ((2, 3), (3,)), ((0, 1), (2, 0, 4))]
)
def test_prelu_broadcasts_both_ways(shapes, close):
    """ONNX broadcasts the slope to x alone: the checker refused models of others."""
    x, slope = (dg.arange(1.0, 1 + math.prod(s)).reshape(s) * (1 - 2 * k) for k, s in enumerate(shapes))
    for f in (lambda x, w: dg.prelu(x - 2, w), lambda x, w: dg.prelu(-2.0, w) * x):
        model = dg.onnx.export(f, (x, slope), dynamic={"x": {0: "n"}} if shapes[0][:1] == (3,) else None)
        close(dg.onnx.load(model)(x, slope).numpy(), f(x, slope).numpy())


@pytest.mark.parametrize("opset", [18, 24])
@pytest.mark.parametrize(
    "f",
    [
        lambda x: dg.softshrink(x, lambd=0.4) + dg.hardshrink(x, lambd=0.4),
        lambda x: dg.leaky_relu(x, negative_slope=0.3) + dg.elu(x, alpha=0.3) + dg.celu(x, alpha=0.3),
        lambda x: dg.selu(x) + dg.hardsigmoid(x) * dg.hardswish(x),
        lambda x: dg.nn.functional.group_norm(x.reshape(2, 2, 6), 2, eps=1e-3),
        lambda x: (
            dg.nn.functional.layer_norm(x * 1e-3, (6,)) + dg.nn.functional.rms_norm(x * 1e-3, (6,), eps=1e-6)
        ),
        lambda x: dg.nn.functional.instance_norm(x.reshape(2, 2, 6) * 1e-3),
        lambda x: dg.nn.functional.batch_norm(
            x, dg.zeros(6, dtype="float64"), dg.ones(6, dtype="float64") * 1e-6
        ),
        lambda x: dg.nn.functional.interpolate(x.reshape(1, 1, 4, 6), scale_factor=1.3, mode="bicubic"),
        lambda x: dg.nn.functional.scaled_dot_product_attention(x, x * 2, x, scale=0.3),
    ],
)
def test_numbers_that_onnx_keeps_as_float32_do_not_make_float64_less_exact(f, opset):
    x = dg.linspace(-3, 3.1, 24, dtype=dg.float64).reshape(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxruntime has some for float32 alone
        dg.onnx.export(f, (x,), opset=opset)


@pytest.mark.parametrize("f", [dg.softmax, dg.log_softmax])
def test_softmax_of_nothing_goes_out(f):
    for shape in ((0, 3), (3, 0), (0, 0, 0)):
        model = dg.onnx.load(dg.onnx.export(lambda x: f(x, axis=-1), (dg.zeros(shape),)))
        assert model(dg.zeros(shape)).shape == shape


@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_places_of_a_grid_are_as_precise_as_the_grid(padding_mode):
    x, grid = dg.rand((1, 2, 4, 4), dtype=dg.float64), dg.rand((1, 2, 3, 2), dtype=dg.float64) * 2.8 - 1.4
    dg.onnx.export(lambda x, g: dg.grid_sample(x, g, padding_mode=padding_mode), (x, grid))


@pytest.mark.parametrize("dtype", [dg.float16, dg.float32, dg.float64])
@pytest.mark.parametrize("keepdims", [False, True])
def test_the_logarithm_of_a_sum_over_a_scalar_and_over_nothing_is_proved(dtype, keepdims):
    """onnx's evaluator fails on a scalar."""
    for x in (
        dg.tensor(0.5, dtype),
        dg.zeros((2, 0), dtype=dtype),
        dg.tensor([[1.0, 2.0], [3.0, -40.0]], dtype),
    ):
        fn = lambda x: dg.logsumexp(x, axis=None, keepdims=keepdims)
        loaded = dg.onnx.load(dg.onnx.export(fn, x))
        np.testing.assert_allclose(loaded(x).numpy(), fn(x).numpy(), rtol=2e-3)


@pytest.mark.parametrize("name", ["hardshrink", "softshrink"])
def test_what_shrinks_keeps_nan(name):
    """ONNX's Shrink says 0."""
    x = dg.tensor([np.nan, -2.0, 0.1, 0.4, 3.0, np.inf])
    fn = lambda x: getattr(dg.nn.functional, name)(x, lambd=0.4)
    np.testing.assert_array_equal(dg.onnx.load(dg.onnx.export(fn, x))(x).numpy(), fn(x).numpy())


def without(a, size):
    """The argument of a sample with no elements along the axes of that size."""
    if isinstance(a, Ints):
        return a._replace(shape=without(a.shape, size))
    return tuple(0 if n == size else n for n in a) if isinstance(a, tuple) else a


#: the business of kernels: their callers have refused what is empty, or passed what fits
INSIDE = {op.name for op in REGISTRY.values() if op.internal}
FIRST = [c[0] for c in CASES if c[1] == 0 and c[0].name not in INSIDE and not is_random(c[0], c[2])]


@pytest.mark.parametrize("op", FIRST, ids=lambda op: op.name)
def test_op_goes_out_without_elements(op, close):
    """onnxruntime refused poolings, norms and attention of nothing, crashed over an Einsum, had 0 for a mean."""
    sample = op.samples[0]
    shapes = [a.shape if isinstance(a, Ints) else a for a in sample.args if isinstance(a, tuple)]
    for size in sorted({n for shape in shapes for n in shape}):
        function, tensors = as_function(
            op, sample._replace(args=tuple(without(a, size) for a in sample.args))
        )
        try:
            wanted = outputs(function(*tensors))
        except dg.errors.DuogradError:
            continue
        if not wanted:
            continue
        loaded = dg.onnx.load(dg.onnx.export(function, tensors))
        for got, want in zip(outputs(loaded(*as_pairs(tensors))), wanted, strict=True):
            close(got.detach().numpy(), packed(want.detach().numpy()), scale=5)


EDGES = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 0.1, -0.1, 3, -3, 7.5, 1e4, -1e4, 1e-3, 10])


@pytest.mark.filterwarnings("ignore:onnxruntime .* does not run this model")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rests_and_quotients_of_floats_are_exact(dtype, close):
    """They were those of a rounded quotient: 1 // 0.1 was 10, and bfloat16 was rounded three times."""
    rng = np.random.default_rng(0)
    a, b = (np.append(m, rng.uniform(-9, 9, 500)) for m in np.meshgrid(EDGES, EDGES))
    x, y = (dg.tensor(m).to(dtype) for m in (a, b))
    for f in (lambda x, y: x % y, lambda x, y: x // y, lambda x, y: 1 / (x % y), lambda x, y: x % 3):
        dg.onnx.export(f, (x, y))


@pytest.mark.parametrize("opset", [13, 17, NEWEST])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
def test_powers_of_integers_wrap_around_as_they_do_here(dtype, opset, close):
    """ONNX's Pow is worked out in float64: `x ** 100` of integers was refused as different."""
    limits = np.iinfo(dtype)
    bases = np.array([0, 1, 2, 3, 7, limits.max, limits.min, limits.max // 3], dtype)
    exponents = np.array([0, 1, 2, 3, 31, 63, 64, 100, limits.max, limits.max - 1], dtype)
    x, y = dg.tensor(bases), dg.tensor(exponents)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for f, row in (
            (lambda x, y: dg.expand_dims(x, 1) ** y, (x, y)),
            (lambda x, y: x ** dg.sum(y[:4]), (x, y)),
            (lambda x: x**100, (x,)),
            (lambda x: x**0, (x,)),
            (lambda x: (x**37, 3**x, x**1), (x,)),
        ):
            model = dg.onnx.export(f, row, opset=opset)
            for a, b in zip(outputs(dg.onnx.load(model)(*row)), outputs(f(*row)), strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
    if dtype.startswith("int"):
        minus = dg.tensor(np.array([-1, -2, -7, limits.min, 0], dtype))
        dg.onnx.export(lambda x, y: dg.expand_dims(x, 1) ** y, (x, minus), opset=opset)
        dg.onnx.export(lambda x: (x**-1, x**-2), (x,), opset=opset)


def test_powers_of_no_integers_and_of_a_dynamic_number_are_exported():
    x, y = dg.arange(4), dg.arange(4)
    dg.onnx.export(lambda x, y: x**y, (x, y), dynamic={"x": {0: "n"}, "y": {0: "n"}})
    dg.onnx.export(lambda x, y: (x**y).sum(), (x[:0], y[:0]))
    assert "Pow" in node_types(dg.onnx.export(lambda x: x**2.5, (x.float(),)).graph)
