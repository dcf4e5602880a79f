"""CUDA kernels of whole ops: compiled by NVRTC, run in the emulation (and on a GPU when there is one).

An emulated kernel's logic is checked, not the kernel: only `test_op_on_a_gpu` proves anything about CUDA.
"""

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cuda import emulate, kernel_text, nvrtc
from duograd.backends.cuda.device import CudaBackend
from duograd.core import types as T
from duograd.core.backend import Program, scalar_bits
from duograd.core.errors import DuogradError, KernelError
from duograd.core.lower import lower_reduce
from duograd.core.op_lower import lower_op
from duograd.core.reference import make_arguments, reference, samples, type_of
from duograd.core.scalar import Expr, s
from duograd.core.types import DTYPES, TensorType
from duograd.tests.device_programs import Place, execute, gpu, operand

needs_emulation = pytest.mark.skipif(not emulate.is_available(), reason="no g++: kernels are not emulated")
DTYPE_NAMES = ("float32", "float64", "int32", "bool")

#: units in the last place between the C library and NumPy; ops that are not here are exact: chains of correctly
#: rounded steps, never contracted. CUDA documents up to 5 for its own functions, so a GPU may have twice as many.
_INEXACT = """exp expm1 log log1p sin cos tanh sigmoid erf power elu softplus silu random_normal adam_scale
exp2 log2 log10
tan sinh cosh asin acos atan asinh acosh atanh atan2 cbrt erfc erfinv lgamma digamma polygamma
celu selu mish logsigmoid tanhshrink cross_entropy_of_shares nadam_scale adamax_scale radam_scale"""
ULPS = dict.fromkeys(_INEXACT.split(), 4)
#: sums of terms that may cancel: the same number of units of the largest value
CANCELLING = {
    "celu": 4,
    "selu": 4,
    "mish": 8,
    "logsigmoid": 4,
    "tanhshrink": 8,
    "cross_entropy_of_shares": 8,
    "radam_scale": 8,
    "gelu": 4,
    "gelu_input_grad": 8,
    "gelu_x_grad": 8,
    "logaddexp": 4,
    "logaddexp2": 4,
    "logit": 8,
    "sinc": 4,
    "erfinv": 8,
    "xlogy": 4,
    "hypot": 2,
    "matmul": 16,
    "conv": 16,
    "conv_x_grad": 16,
    "conv_w_grad": 32,
    "avg_pool": 8,
    "logcumsumexp": 8,
    "cumsum": 128,  # of 70,000 numbers, which the reference adds up one after the other
    "linear_scan": 8,
    "random_normal": 4,
}
#: sums and products of samples, in another order than NumPy's: at most 70 elements, half a unit each
REORDERED = {"sum": 16, "prod": 40, "cumsum": 4, "cumprod": 8, "linear_scan": 8}


class Case:
    """A program, its inputs and the results it should give."""

    def __init__(self, name, backend, arguments, expected, build, ulps=0, cancelling=0):
        # Results are contiguous; the reference's need not be.
        expected = [np.array(w, order="C") for w in expected]
        self.name, self.arguments, self.expected = name, arguments, expected
        self.ulps, self.cancelling = ulps, cancelling
        self.program = program = Program(backend)
        inputs = [operand(program, a) for a in arguments]
        outputs = [operand(program, w) for w in expected]
        build(program, inputs, outputs)

    @property
    def sources(self):
        return [launch.source for launch in self.program.launches]

    def run(self, backend):
        """The results, from memory that nothing has written before."""
        places = [Place(backend, a) for a in self.arguments if isinstance(a, np.ndarray)]
        results = [Place(backend, w, filled=False) for w in self.expected]
        waiting, values = iter(places), []
        for a in self.arguments:
            if isinstance(a, np.ndarray):
                values.append(next(waiting).address)
            elif a is not None:
                values.append(scalar_bits(*a))
        values += [place.address for place in results]
        if self.program.launches:
            execute(backend, self.program, values)
        return [place.fetch() for place in results]

    def check(self, results, slack=1):
        for got, want in zip(results, self.expected, strict=True):
            if want.dtype.kind != "f":
                np.testing.assert_array_equal(got, want, self.name)
                continue
            same = (got == want) | (np.isnan(got) & np.isnan(want))
            finite = np.abs(want[np.isfinite(want)])
            allowed = slack * self.ulps * np.spacing(np.abs(want))
            if finite.size:
                allowed = allowed + slack * self.cancelling * np.spacing(finite.max())
            with np.errstate(invalid="ignore"):
                same |= np.abs(got - want) <= allowed
            assert same.all(), f"{self.name}: {got[~same][:5]} instead of {want[~same][:5]}"


def _backend(order="ascending", max_blocks=64, **options):
    return CudaBackend(emulate.EmulatedDriver(order, max_blocks, **options), "emulated")


def _arguments(sample, dtype):
    made = make_arguments(sample, dtype=dtype if dtype is not T.bool_ else T.float32)
    arrays = [np.asarray(a) if isinstance(a, np.generic) else a for a in made]
    if dtype is T.bool_:
        floats = [isinstance(a, np.ndarray) and a.dtype == np.float32 for a in arrays]
        arrays = [np.asarray(a > 0) if is_float else a for a, is_float in zip(arrays, floats)]
    return arrays


def _op_case(op, number, sample, dtype, backend):
    """None when the op does not take the dtype, a text when it has no CUDA kernel yet."""
    arguments = _arguments(sample, dtype)
    try:
        tensors = [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
        _, attrs = op.bind(tuple(tensors), dict(sample.attrs))
        expected = reference(op, arguments, attrs)
    except (DuogradError, TypeError, np.linalg.LinAlgError):
        return None
    if dtype is T.bool_ and op.name in ("floor_divide", "remainder", "power"):
        return None  # NumPy answers with int8; no backend has these on bool
    if op.kind == "pointwise":
        kinds = [t.dtype if isinstance(t, TensorType) else type(t) for t in map(type_of, arguments)]
        dtypes = op.form(kinds, attrs).arg_dtypes
    else:
        dtypes = [DTYPES[expected[0].dtype.name]] * len(arguments)
    given = [a if a is None or isinstance(a, np.ndarray) else (a, d) for a, d in zip(arguments, dtypes)]
    ulps = ULPS.get(op.name, REORDERED.get(op.name, 0))
    try:
        return Case(
            f"{op.name}-{number}-{dtype}", backend, given, expected,
            lambda program, inputs, outputs: lower_op(program, op, inputs, outputs, attrs), ulps,
            CANCELLING.get(op.name, 0),
        )  # fmt: skip
    except KernelError as error:
        if "has no kernel" not in str(error):
            raise
        return f"{op.name} has no CUDA kernel yet"


# ---------------------------------------------------------------- reductions beyond the samples

#: reductions that bools have
TRUTHS = ("max", "min", "any", "all")
REDUCTIONS = ("sum", "prod", "max", "min", "any", "all", "argmax", "argmin")
#: shape, axes: one warp and several along a row, columns, several axes each way, both forms cut into blocks
REDUCED = {
    "row": ((5, 40), (1,)),
    "row_of_several_warps": ((3, 2500), (1,)),
    "row_of_two_axes": ((9, 3, 2, 70), (1, 3)),
    "row_of_one": ((6, 1), (1,)),
    "everything": ((2, 3, 5), (0, 1, 2)),
    "col": ((70, 5), (0,)),
    "col_between": ((3, 33, 300), (1,)),
    "col_of_two_axes": ((3, 4, 2, 20), (0, 2)),
    "empty": ((4, 0), (1,)),
    "row_split": ((70000,), (0,)),
    "row_split_kept": ((3, 2, 40, 300), (0, 2, 3)),
    "col_split": ((9000, 9), (0,)),
}


def _reduced(kind, x, axes):
    keep = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    if kind in ("argmax", "argmin"):
        rest = [a for a in range(x.ndim) if a not in axes]
        flat = x.transpose(*rest, *axes).reshape(*[x.shape[a] for a in rest], -1)
        return getattr(np, kind)(flat, axis=-1).reshape(keep)
    wide = x.astype(np.float64) if x.dtype.kind == "f" else x
    out = getattr(np, kind)(wide, axis=axes, keepdims=True)
    return np.asarray(out, np.bool_ if kind in ("any", "all") else x.dtype)


def _reduction_cases(backend):
    rng = np.random.default_rng(0)
    for where, (shape, axes) in REDUCED.items():
        for dtype in (T.float32, T.int64, T.bool_, T.int8):
            for kind in REDUCTIONS:
                ordered = kind in ("max", "min", "argmax", "argmin")
                if (ordered and 0 in shape) or (dtype is T.bool_ and kind not in TRUTHS):
                    continue
                x = rng.normal(size=shape) * 3
                x = (x if dtype.is_float else x.round()).astype(dtype.np)
                if dtype.is_float and kind == "prod":
                    # Powers of two, as many up as down: no product is rounded, whatever the order.
                    size = np.array([2, 1, 1, 0.5, 1, 1, 1])[np.arange(x.size) % 7].reshape(shape)
                    x = np.copysign(size, x).astype("f4")
                if dtype.is_float and kind in ("max", "argmin") and x.size > 8 and len(axes) == 1:
                    x.reshape(-1)[3::17] = np.nan
                want = _reduced(kind, x, axes)
                out = DTYPES[want.dtype.name]

                def build(program, inputs, outputs, kind=kind, axes=axes, out=out, dtype=dtype, shape=shape):
                    root = Expr("reduce", out, (Expr("arg", dtype, (), 0),), kind)
                    lower_reduce(program, shape, axes, inputs, [root], outputs)

                # A sum of n numbers around 0 is about sqrt(n), and so is its error in units of the numbers.
                level = 16 if kind == "sum" else 0
                yield Case(f"{kind}-{where}-{dtype}", backend, [x], [want], build, level, level)


def _stage_case(backend, name, shape, axes, dtype):
    """Softmax, layer norm and a sum with an epilogue: several passes, outputs of both levels."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape).astype(dtype.np)
    w = rng.normal(size=shape[-1]).astype(dtype.np)
    count = int(np.prod([shape[a] for a in axes]))
    arg, weight, eps = (Expr("arg", dtype, (), k) for k in range(3))

    def reduce(kind, e):
        return Expr("reduce", dtype, (e,), kind)

    wide = x.astype(np.float64)
    if name == "softmax":
        e = s.exp(arg - reduce("max", arg))
        total = reduce("sum", e)
        roots = [e / total, total]
        numpy_e = np.exp(wide - wide.max(axes, keepdims=True))
        expected = [numpy_e / numpy_e.sum(axes, keepdims=True), numpy_e.sum(axes, keepdims=True)]
    elif name == "layer_norm":
        centred = arg - reduce("sum", arg) * (1 / count)
        scale = 1 / s.sqrt(reduce("sum", centred * centred) * (1 / count) + eps)
        roots = [centred * scale * weight + eps, scale]
        c = wide - wide.mean(axes, keepdims=True)
        numpy_scale = 1 / np.sqrt((c * c).mean(axes, keepdims=True) + 0.25)
        expected = [c * numpy_scale * w + 0.25, numpy_scale]
    else:
        mean = reduce("sum", arg * weight) * (1 / count)
        roots = [s.where(s.gt(mean, 0), mean, mean * eps), reduce("max", arg)]
        m = (wide * w).sum(axes, keepdims=True) / count
        expected = [np.where(m > 0, m, m * 0.25), wide.max(axes, keepdims=True)]
    expected = [np.asarray(v, dtype.np) for v in expected]
    return Case(
        f"{name}-{shape}-{axes}-{dtype}", backend, [x, w, (0.25, dtype)], expected,
        lambda program, inputs, outputs: lower_reduce(program, shape, axes, inputs, roots, outputs), 32, 32,
    )  # fmt: skip


STAGED = {"one_warp": ((5, 40), (1,)), "warps": ((3, 2500), (1,)), "columns": ((2, 30, 7), (1,)),
          "one": ((3, 1), (1,)), "two_axes": ((4, 6, 50), (1, 2)), "everything": ((3, 90), (0, 1)),
          "split": ((700, 100), (0, 1))}  # fmt: skip


# ---------------------------------------------------------------- one compilation for all


class Suite:
    """All cases by op or group; kernels compiled together."""

    def __init__(self):
        backend = _backend()
        self.cases, self.absent = {}, {}
        for op, number, sample in samples():
            if op.kind == "composite":
                continue
            for name in DTYPE_NAMES:
                case = _op_case(op, number, sample, DTYPES[name], backend)
                if isinstance(case, str):
                    self.absent[op.name] = case
                elif case is not None:
                    self.cases.setdefault(op.name, []).append(case)
        for case in _reduction_cases(backend):
            self.cases.setdefault("reduction " + case.name.split("-")[1], []).append(case)
        for where, (shape, axes) in STAGED.items():
            for name in ("softmax", "layer_norm", "epilogue"):
                for dtype in (T.float32, T.float64):
                    case = _stage_case(backend, name, shape, axes, dtype)
                    self.cases.setdefault("stages " + where, []).append(case)

    def sources(self, wanted=lambda case: True):
        """The kernels of the cases that are wanted, each once."""
        chosen = [case for cases in self.cases.values() for case in cases if wanted(case)]
        return list({kernel_text.function_name(t): t for case in chosen for t in case.sources}.values())

    def backends(self):
        """Two machines over one set of compiled kernels: orders, numbers of blocks and times of launches differ."""
        up, other = _backend(), _backend(20261, max_blocks=3, waits=True)
        up.driver.functions(self.sources())
        other.driver.share(up.driver)
        return up, other


@pytest.fixture(scope="module")
def suite():
    return Suite()


@pytest.fixture(scope="module")
def machines(suite):
    return suite.backends()


OPS = sorted({op.name for op, _, _ in samples() if op.kind != "composite"})
GROUPS = [*OPS, *(f"reduction {name}" for name in REDUCED), *(f"stages {name}" for name in STAGED)]


@needs_emulation
@pytest.mark.parametrize("group", GROUPS)
def test_kernel_equals_body_in_the_emulation(group, suite, machines):
    """In both orders of threads and for two sizes of grid, with equal bits."""
    if group not in suite.cases:
        pytest.skip(suite.absent.get(group, f"{group} takes none of {', '.join(DTYPE_NAMES)}"))
    up, other = machines
    for case in suite.cases[group]:
        first, second = case.run(up), case.run(other)
        case.check(first)
        for a, b in zip(first, second, strict=True):
            assert a.tobytes() == b.tobytes(), f"{case.name}: the orders of threads differ"


@pytest.mark.parametrize("group", GROUPS)
def test_op_on_a_gpu(group, suite):
    backend = gpu()
    if group not in suite.cases:
        pytest.skip(suite.absent.get(group, f"{group} takes none of {', '.join(DTYPE_NAMES)}"))
    for case in suite.cases[group]:
        case.check(case.run(backend), slack=2)


def test_kernels_of_every_op_compile_with_nvrtc(suite, tmp_path, monkeypatch):
    try:
        nvrtc.library()
    except DuogradError as error:
        pytest.skip(f"kernels are not compiled: {error.message}")
    monkeypatch.setenv("DUOGRAD_CACHE_DIR", str(tmp_path))
    first = {id(cases[0]) for cases in suite.cases.values()}
    full = suite.sources(lambda case: id(case) in first)
    assert len(full) > 200
    _compile(full)
    # Every op in every dtype, every sample in float32. NVRTC has understood a kernel before it optimises it, which
    # takes four times as long: the first of each op and group got all of that.
    more = suite.sources(lambda case: case.name.endswith("float32") or "-0-" in case.name)
    monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--Ofast-compile=max"))
    _compile([source for source in more if source not in full])


def _compile(sources):
    for source, cubin in zip(sources, nvrtc.compile_kernels(sources), strict=True):
        assert cubin.code.startswith(b"\x7fELF")
        assert cubin.function.encode() in cubin.code
        assert cubin.function == kernel_text.function_name(source)
