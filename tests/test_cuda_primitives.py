"""Hand-written CUDA kernels against the CPU's: odd shapes, empty and strided operands, all dtypes; compiled by NVRTC.

Where both add up in one order results are equal bit for bit, else within the table. Emulated kernels are checked for
their logic; nothing here is proven before it ran on a GPU.
"""

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from duograd.backends.cuda import emulate, kernel_text, nvrtc
from duograd.backends.cuda.device import CudaBackend
from duograd.core.backend import get_backend
from duograd.core.errors import MissingExtraError
from duograd.tests.device_programs import MACHINES, OpProgram, machines

FLOATS = ("float16", "bfloat16", "float32", "float64")
#: results are equal bit for bit
BITS = 0.0


class Made(NamedTuple):
    """An argument that an op makes on the CPU."""

    op: str
    arguments: tuple[Any, ...]
    attrs: dict[str, Any]


class Case(NamedTuple):
    """scale: of the table's bounds; BITS where there are none."""

    name: str
    op: str
    arguments: tuple[Any, ...]
    attrs: dict[str, Any]
    scale: float = BITS

    def on(self, backend):
        """The program on a backend of this kind."""
        made = [_on_cpu(a)[0] if isinstance(a, Made) else a for a in self.arguments]
        return OpProgram(backend, self.op, made, self.attrs)


def _on_cpu(made):
    cpu = get_backend("cpu")
    return OpProgram(cpu, *made).run(cpu)


def _dtype(name):
    return np.dtype(getattr(ml_dtypes, name) if name == "bfloat16" else name)


def _normal(shape, dtype="float32", seed=0):
    x = np.random.default_rng(seed).standard_normal(shape)
    if _dtype(dtype).kind == "c":
        x = x + 1j * np.random.default_rng(seed + 1).standard_normal(shape)
    return np.asarray(x * 3 if _dtype(dtype).kind in "iu" else x).astype(_dtype(dtype))


def _strided(shape, dtype="float32", seed=0):
    """A view with strides of its own along every axis, the last one backwards."""
    wide = _normal((*(2 * n for n in reversed(shape)),), dtype, seed)
    view = wide[tuple(slice(None, 2 * n, 2) for n in reversed(shape))].T
    return view[..., ::-1]


def _index(shape, low, high, dtype="int64", seed=2):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


# ---------------------------------------------------------------- convolution

#: x, w, settings: edges of tiles, windows past the image, groups, one and three axes, sums in pieces, few filters
CONVOLUTIONS = {
    "padded": ((3, 5, 9, 7), (7, 5, 3, 3), {"padding": 1}),
    "strided_windows": ((2, 3, 11, 8), (4, 3, 3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    "dilated": ((2, 2, 9, 9), (3, 2, 3, 3), {"dilation": 2, "padding": ((2, 1), (0, 3))}),
    "groups": ((2, 6, 5, 4), (4, 3, 2, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 5, 6, 5), (10, 1, 3, 3), {"groups": 5, "padding": 1, "stride": 2}),
    "points": ((2, 17, 9, 8), (70, 17, 1, 1), {}),
    "jumping_points": ((1, 2, 7, 6), (3, 2, 1, 1), {"stride": 3}),
    "line": ((2, 3, 20), (4, 3, 5), {"stride": 2, "padding": 2}),
    "volume": ((1, 2, 4, 5, 3), (3, 2, 2, 3, 2), {"padding": (1, 0, 1), "stride": (1, 2, 1)}),
    "pieces": ((2, 130, 3, 3), (3, 130, 3, 3), {"padding": 1}),
    "long_pieces_of_pixels": ((5, 2, 17, 17), (3, 2, 3, 3), {"padding": 1}),
    "no_images": ((0, 3, 5, 5), (2, 3, 3, 3), {}),
}  # fmt: skip


def _result_shape(x, w, stride=1, padding=0, dilation=1, groups=1):
    n = len(x) - 2
    row = lambda v: v if isinstance(v, tuple) else (v,) * n
    pads = [p if isinstance(p, tuple) else (p, p) for p in row(padding)]
    sizes = zip(x[2:], w[2:], row(stride), pads, row(dilation))
    return (x[0], w[0], *((m + sum(p) - d * (k - 1) - 1) // s + 1 for m, k, s, p, d in sizes))


def _convolutions():
    for name, (x, w, settings) in CONVOLUTIONS.items():
        g = _result_shape(x, w, **settings)
        for dtype in FLOATS if name in ("padded", "groups") else ("float32",):
            make = _strided if name in ("dilated", "line") else _normal
            a, b, dy = make(x, dtype), make(w, dtype, 1), make(g, dtype, 2)
            yield Case(f"conv-{name}-{dtype}", "conv", (a, b), settings, 16)
            yield Case(f"conv_x_grad-{name}-{dtype}", "conv_x_grad", (dy, b), {"size": x[2:], **settings}, 16)
            yield Case(
                f"conv_w_grad-{name}-{dtype}", "conv_w_grad", (dy, a), {"window": w[2:], **settings}, 64
            )


# ---------------------------------------------------------------- windows

POOLS = {
    "tiles": ((2, 3, 7, 8), {"window": 2}),
    "overlapping": ((2, 3, 7, 9), {"window": 3, "stride": 2, "padding": 1}),
    "dense": ((1, 2, 6, 5), {"window": 3, "stride": 1, "padding": 1}),
    "apart": ((1, 2, 9, 10), {"window": 2, "stride": 3}),
    "uneven": ((2, 2, 9, 11), {"window": (3, 5), "stride": (2, 1), "padding": (1, 2)}),
    "dilated": ((1, 2, 9, 8), {"window": (2, 3), "dilation": (3, 2), "stride": 1}),
    "ceiled": ((1, 2, 6, 7), {"window": 3, "stride": 2, "ceil_mode": True}),
    "line": ((2, 3, 11), {"window": 4, "stride": 3, "padding": 2}),
    "volume": ((1, 2, 4, 5, 6), {"window": (2, 3, 2), "stride": (1, 2, 2)}),
    "no_images": ((0, 2, 4, 4), {"window": 2}),
}  # fmt: skip


def _pooled_shape(x, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    n = len(x) - 2
    row = lambda v: v if isinstance(v, tuple) else (v,) * n
    sizes = []
    stride = window if stride is None else stride
    for m, k, s, p, d in zip(x[2:], row(window), row(stride), row(padding), row(dilation)):
        room = m + 2 * p - d * (k - 1) - 1
        count = -(-room // s) + 1 if ceil_mode else room // s + 1
        sizes.append(count - 1 if ceil_mode and (count - 1) * s >= m + p else count)
    return (*x[:2], *sizes)


def _pools():
    for name, (shape, settings) in POOLS.items():
        g_shape = _pooled_shape(shape, **settings)
        for dtype in FLOATS if name in ("tiles", "overlapping") else ("float32",):
            x, g = (_strided if name == "uneven" else _normal)(shape, dtype), _normal(g_shape, dtype, 1)
            x = np.array(x.round() + 0, x.dtype) if name == "dense" else x  # equal maxima
            if name == "overlapping":
                x.reshape(-1)[5::31] = np.nan
            yield Case(f"max_pool-{name}-{dtype}", "max_pool", (x,), settings)
            yield Case(f"max_pool_index-{name}-{dtype}", "max_pool_index", (x,), settings)
            yield Case(
                f"max_pool_x_grad-{name}-{dtype}",
                "max_pool_x_grad",
                (g, Made("max_pool", (x,), settings), x),
                settings,
            )
            y = _normal(shape, dtype)
            for include in (True, False):
                more = {**settings, "count_include_pad": include}
                which = f"{name}-{'all' if include else 'inside'}-{dtype}"
                # The CPU adds up neighbouring windows by columns.
                yield Case(f"avg_pool-{which}", "avg_pool", (y,), more, 4)
                yield Case(f"avg_pool_x_grad-{which}", "avg_pool_x_grad", (g,), {"size": shape[2:], **more})
    x = _normal((2, 3, 7, 8))
    yield Case("avg_pool-whole", "avg_pool", (x,), {"window": (7, 8)}, 4)
    yield Case("avg_pool-divisor", "avg_pool", (x,), {"window": 2, "divisor_override": 3}, 4)
    settings = {"window": (3, 2), "stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    for dtype in FLOATS:
        x = _normal((2, 3, 7, 8), dtype)
        yield Case(f"unfold-{dtype}", "unfold", (x,), settings)
        windows = _normal((2, 3 * 6, 4 * 6), dtype)
        yield Case(f"fold-{dtype}", "fold", (windows,), {"size": (7, 8), **settings})


# ---------------------------------------------------------------- indices

MOVED = ("bool", "int8", "int32", "uint64", *FLOATS, "complex64", "complex128")


def _picks():
    for dtype in MOVED:
        x = _normal((3, 6, 5), dtype)
        yield Case(f"take-{dtype}", "take", (x, _index((2, 4), -6, 6)), {"axis": 1})
        yield Case(f"take_elements-{dtype}", "take_elements", (x, _index((3, 2, 5), -6, 6)), {"axis": 1})
    x = _strided((4, 6, 5))
    yield Case("take-strided", "take", (x, _index((7,), -4, 4, "int8")), {"axis": 0})
    yield Case("take-outside", "take", (x, np.array([0, 9, -7, 2])), {"axis": 2})
    yield Case("take-none", "take", (x, np.zeros((0,), np.int64)), {"axis": 0})
    yield Case("take_placed", "take_placed", (x, _index((9,), 0, 24, "int32")), {"axis": 0, "depth": 2})
    yield Case("take_elements-last", "take_elements", (x, _strided((4, 6, 3), "int8") % 5), {"axis": 2})
    pixels = _index((2, 3, 2, 4), 0, 20)
    yield Case("pick_pixels", "pick_pixels", (_normal((2, 3, 4, 5)), pixels), {})
    yield Case("pick_pixels-shared", "pick_pixels", (_normal((2, 3, 4, 5)), pixels[:, :1]), {})


def _puts():
    """By lines, and by sorted positions where there are many values for few lines."""
    for dtype in ("bool", "int8", "int64", *FLOATS, "complex64"):
        for count in (7, 150):
            dy, index = _normal((count, 3), dtype), _index((count,), -5, 5)
            if dtype not in ("bool", "int8"):
                yield Case(f"take_x_grad-{count}-{dtype}", "take_x_grad", (dy, index), {"size": 5, "axis": 0})
            x = _normal((5, 3), dtype, 1)
            for add in (False, True):
                attrs = {"axis": 0, "depth": 1, "add": add}
                yield Case(f"put_slices-{count}-{add}-{dtype}", "put_slices", (x, index, dy), attrs)
    for how in ("multiply", "maximum", "minimum"):
        for dtype in ("bool", "int32", "float32", "bfloat16"):
            for count in (5, 90):
                x, v = _normal((4, 3), dtype), _normal((count, 3), dtype, 1)
                if dtype == "float32":
                    v[2, 1] = np.nan
                attrs = {"axis": 0, "depth": 1, "reduce": how}
                name = f"{how}-{count}-{dtype}"
                yield Case(f"combine_slices-{name}", "combine_slices", (x, _index((count,), 0, 4), v), attrs)
                attrs = {"axis": 0, "reduce": how}
                indices = _index((count, 3), 0, 4)
                yield Case(f"combine_elements-{name}", "combine_elements", (x, indices, v), attrs)
    for count in (6, 200):
        for shape, axis in (((3, count, 2), 1), ((3, count), 1), ((count,), 0)):
            index, dy = _index(shape, -9, 9), _normal(shape)
            name = f"{len(shape)}d-{count}"
            attrs = {"size": 9, "axis": axis}
            yield Case(f"take_elements_x_grad-{name}", "take_elements_x_grad", (dy, index), attrs)
            x = _normal((*shape[:axis], 9, *shape[axis + 1 :]), seed=3)
            for add in (False, True):
                yield Case(
                    f"put_elements-{name}-{add}", "put_elements", (x, index, dy), {"axis": axis, "add": add}
                )
        pixels, v = _index((2, 3, count), 0, 12), _normal((2, 3, count))
        for add in (False, True):
            attrs = {"size": (3, 4), "add": add}
            yield Case(f"put_pixels-{count}-{add}", "put_pixels", (v, pixels), attrs)
            yield Case(f"put_pixels-shared-{count}-{add}", "put_pixels", (v, pixels[:, :1]), attrs)
    x = _strided((4, 6, 5))
    attrs = {"axis": 1, "depth": 1, "add": True}
    yield Case("put_slices-strided", "put_slices", (x, _index((3,), 0, 6), _strided((4, 3, 5))), attrs)
    yield Case(
        "put_slices-row",
        "put_slices",
        (x, _index((3,), 0, 6), np.broadcast_to(_normal((5,)), (4, 3, 5))),
        attrs,
    )
    yield Case("put_slices-number", "put_slices", (x, _index((3,), 0, 6), 2.5), attrs)
    yield Case(
        "put_slices-none", "put_slices", (x, np.zeros((0,), np.int64), np.zeros((4, 0, 5), np.float32)), attrs
    )
    yield Case(
        "take_x_grad-columns",
        "take_x_grad",
        (_normal((2, 70, 3)), _index((70,), 0, 4)),
        {"size": 4, "axis": 1},
    )
    yield Case(
        "take_x_grad-none",
        "take_x_grad",
        (np.zeros((0, 3), np.float32), np.zeros((0,), np.int64)),
        {"size": 4},
    )


def _places():
    for dtype in ("bool", "int32", "float32"):
        for n, size in ((0, 2), (5, 5), (300, 200), (5000, 3000)):
            x = _index((n,), 0, 2, dtype) if n else np.zeros((0,), dtype)
            yield Case(f"flat_places-{n}-{dtype}", "flat_places", (x,), {"size": size})
    yield Case("flat_places-strided", "flat_places", (_strided((5, 6, 7)) > 0,), {"size": 120})
    yield Case("repeat_places", "repeat_places", (_index((300,), 0, 4),), {"total": 500})
    yield Case("repeat_places-less", "repeat_places", (np.array([2, 0, 1], np.int32),), {"total": 6})
    for dtype in ("bool", "int8", "float16", "float32"):
        x = np.sort(_normal((3, 20), dtype), axis=1)
        v = _normal((3, 7), dtype, 1)
        if dtype == "float32":
            x[1, -3:], v[1, 2] = np.nan, np.nan
        for right in (False, True):
            yield Case(f"searchsorted-{dtype}-{right}", "searchsorted", (x, v), {"right": right})
    yield Case(
        "searchsorted-one_row", "searchsorted", (np.arange(9.0), _normal((2, 3), "float64")), {"right": False}
    )


# ---------------------------------------------------------------- sorts and scans


def _sorts():
    for dtype in ("bool", "int8", "int64", "uint8", "uint64", *FLOATS):
        x = _normal((5, 70), dtype)
        if _dtype(dtype).kind not in "iub":
            x[1, 3::9], x[2, ::7], x[2, 1::7], x[3, 5] = np.nan, 0.0, -0.0, -np.inf
        for descending in (False, True):
            name, attrs = f"{dtype}-{descending}", {"axis": 1, "descending": descending}
            yield Case(f"sort-{name}", "sort", (x,), attrs)
            yield Case(f"argsort-{name}", "argsort", (x,), attrs)
            yield Case(f"topk-{name}", "topk", (x,), {"k": 9, "axis": 1, "largest": descending})
    for shape, axis in (
        ((2, 513), 1),
        ((2, 2500), 1),
        ((600, 3), 0),
        ((1, 1), 1),
        ((0, 4), 1),
        ((700, 1), 1),
    ):
        x = _normal(shape).round(1)
        yield Case(f"sort_both-{shape}", "sort_both", (x,), {"axis": axis, "descending": False})
        if x.size:
            k = min(shape[axis], 40)
            yield Case(f"topk-{shape}", "topk", (x,), {"k": k, "axis": axis, "largest": True})
    yield Case("sort-strided", "sort", (_strided((4, 30, 3)),), {"axis": 1})


def _scans():
    for name in ("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"):
        dtypes = FLOATS if name == "logcumsumexp" else ("bool", "int8", "uint64", *FLOATS)
        for dtype in dtypes:
            for where, shape, axis in (("row", (5, 70), 1), ("columns", (3, 37, 6), 1)):
                extreme = name in ("cummax", "cummin")
                for reverse in (False,) if extreme else (False, True):
                    x = _normal(shape, dtype)
                    if name == "cummax" and dtype == "float32":
                        x.reshape(-1)[50::90] = np.nan
                    attrs = {"axis": axis} if extreme else {"axis": axis, "reverse": reverse}
                    # exp and log are CUDA's.
                    scale = 4 if name == "logcumsumexp" else BITS
                    yield Case(f"{name}-{where}-{reverse}-{dtype}", name, (x,), attrs, scale)
    yield Case("cumsum-blocks", "cumsum", (_normal((1, 65_540)),), {"axis": 1})
    a, b = _normal((3, 50)), _normal((3, 50), seed=1)
    for reverse in (False, True):
        yield Case(f"linear_scan-{reverse}", "linear_scan", (a, b), {"axis": 1, "reverse": reverse})
        columns = {"axis": 0, "reverse": reverse}
        yield Case(f"linear_scan-columns-{reverse}", "linear_scan", (_strided((3, 50)), b), columns)
    yield Case("cumsum-whole", "cumsum", (_strided((3, 5, 7)),), {"axis": None})
    yield Case("cumsum-as_integers", "cumsum", (_normal((3, 20)) * 4,), {"axis": 1, "dtype": "int32"})
    yield Case("cumsum-nothing", "cumsum", (np.zeros((3, 0), np.float32),), {"axis": 1})


def _resamplings():
    for dtype in FLOATS:
        for axis in (1, 2):
            x, index = _normal((3, 7, 5), dtype), _index((6, 3), -1, 7 if axis == 1 else 5)
            weight = _normal((6, 3), dtype, 1)
            yield Case(f"resample-{axis}-{dtype}", "resample", (x, index, weight), {"axis": axis})
            shape = (3, 6, 5) if axis == 1 else (3, 7, 6)
            attrs = {"size": 7 if axis == 1 else 5, "axis": axis}
            yield Case(
                f"resample_x_grad-{axis}-{dtype}",
                "resample_x_grad",
                (_normal(shape, dtype), index, weight),
                attrs,
            )
    yield Case(
        "resample-nothing",
        "resample",
        (np.zeros((0, 4), np.float32), _index((3, 2), 0, 4), _normal((3, 2))),
        {"axis": 1},
    )


GROUPS = {
    "convolution": _convolutions, "windows": _pools, "picks": _picks, "puts": _puts, "places": _places, "sorts": _sorts,
    "scans": _scans, "resampling": _resamplings,
}  # fmt: skip
CASES = {case.name: (group, case) for group, make in GROUPS.items() for case in make()}


class _Group:
    """The programs of a group's cases, compiled together at first use, and the machines that run them."""

    def __init__(self, kind, group):
        self.backends = machines(kind)
        cases = [case for of, case in CASES.values() if of == group]
        self.programs = {c.name: c.on(self.backends[0]) for c in cases}
        self.backends[0].driver.functions([s for p in self.programs.values() for s in p.sources])


@pytest.fixture(scope="module", params=MACHINES)
def groups(request):
    made = {}

    def of(group):
        if group not in made:
            made[group] = _Group(request.param, group)
        return made[group]

    return of


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_cpus(name, groups, close):
    """On every machine of a kind, with equal bits whatever the order of threads and the size of the grid."""
    group, case = CASES[name]
    cpu = get_backend("cpu")
    want = case.on(cpu).run(cpu)
    made = groups(group)
    results = [made.programs[name].run(backend) for backend in made.backends]
    for got, *others, expected in zip(*results, want, strict=True):
        assert all(other.tobytes() == got.tobytes() for other in others)
        if case.scale != BITS:
            close(got, expected, case.scale)
            continue
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        wide = expected.astype(np.complex128)
        numbers = ~np.isnan(wide)
        np.testing.assert_array_equal(got[numbers], expected[numbers])
        assert got[numbers].tobytes() == expected[numbers].tobytes()
        assert np.isnan(got[~numbers].astype(np.complex128)).all()


def test_sources_compile_with_nvrtc(monkeypatch):
    """One kernel of each kind, in each dtype that it has; the first of each group as a GPU gets it.

    NVRTC has understood a kernel before it optimises it, which takes four times as long.
    """
    try:
        nvrtc.library()
    except MissingExtraError as error:
        pytest.skip(f"NVRTC is not installed: {error.message}")
    backend = CudaBackend(emulate.EmulatedDriver(), "emulated")
    kinds, first = {}, {}
    for group, case in CASES.values():
        for source in case.on(backend).sources:
            kinds.setdefault(kernel_text.function_name(source), source)
            first.setdefault(group, source)
    assert len(kinds) > 150
    full = list(first.values())
    assert all(cubin.code for cubin in nvrtc.compile_kernels(full))
    monkeypatch.setattr(nvrtc, "OPTIONS", (*nvrtc.OPTIONS, "--Ofast-compile=max"))
    assert all(cubin.code for cubin in nvrtc.compile_kernels([s for s in kinds.values() if s not in full]))
