"""Convolution, pooling, interpolation and sampling against PyTorch: values and all gradients over many settings."""

import functools
import itertools

import duograd as dg
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the peer torch is not installed")
F, TF = dg.nn.functional, torch.nn.functional

# PyTorch warns of even windows under "same" and of grids of one element.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EPS = {"float32": 2e-5, "float64": 1e-12}


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of two pools on few cores wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def agree(ours, theirs, what):
    ours, theirs = ours.detach().numpy(), theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    bound = EPS[theirs.dtype.name] * max(1.0, np.abs(theirs).max(initial=0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound, err_msg=what)


def compare(mine, peer, arrays, rng, second=False):
    """Values and gradients of one result; with `second`, the gradient of a weighted sum of the gradients too."""
    xs = [dg.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    y, t = mine(*xs), peer(*ts)
    agree(y, t, "value")
    g = rng.standard_normal(t.shape).astype(arrays[0].dtype)
    dxs = torch.autograd.grad(t, ts, torch.from_numpy(g), create_graph=second, materialize_grads=True)
    y.backward(dg.tensor(g), create_graph=second)
    for k, (x, d) in enumerate(zip(xs, dxs)):
        if x.grad is None:  # a step function of this input
            assert not d.any(), f"gradient {k}"
        else:
            agree(x.grad, d, f"gradient {k}")
    if not second:
        return
    weights = [rng.standard_normal(a.shape).astype(a.dtype) for a in arrays]
    grads = [x.grad for x in xs]
    for x in xs:
        x.grad = None
    functools.reduce(
        lambda a, b: a + b, [(d * dg.tensor(w)).sum() for d, w in zip(grads, weights)]
    ).backward()
    total = sum((d * torch.from_numpy(w)).sum() for d, w in zip(dxs, weights))
    for k, (x, d) in enumerate(zip(xs, torch.autograd.grad(total, ts, materialize_grads=True))):
        if x.grad is not None:
            agree(x.grad, d, f"gradient of the gradient {k}")
        else:
            assert not d.any()


def normal(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------- convolution


def conv_settings(count):
    """Random settings; each rank has as many."""
    rng = np.random.default_rng(1)
    for n, k in itertools.product((1, 2, 3), range(count)):
        kind = k % 4
        groups = (1, int(rng.integers(2, 4)), 1, int(rng.integers(2, 6)))[kind]
        c, f = (1, int(rng.integers(1, 3))) if kind == 3 else rng.integers(1, 5, 2).tolist()
        window = [int(rng.integers(1, 4)) for _ in range(n)]
        stride, dilation = rng.integers(1, 4, n).tolist(), rng.integers(1, 3, n).tolist()
        padding = [int(rng.integers(0, 3)) for _ in range(n)]
        if k % 5 == 4:
            stride, padding = [1] * n, "same"
        span = [d * (w - 1) + 1 for d, w in zip(dilation, window)]
        size = [s + int(rng.integers(0, (18, 9, 5)[n - 1])) for s in span]
        batch = int(rng.integers(1, 4)) if k % 9 else 0
        yield n, batch, groups, groups * c, groups * f, window, size, stride, padding, dilation


CONVS = list(conv_settings(36))


@pytest.mark.parametrize("k", range(len(CONVS)))
def test_conv_and_its_gradients(k):
    n, batch, groups, c, f, window, size, stride, padding, dilation = CONVS[k]
    rng, dtype = np.random.default_rng(k), "float64" if k % 6 == 5 else "float32"
    arrays = normal(rng, (batch, c, *size), dtype), normal(rng, (f, c // groups, *window), dtype)
    bias = [] if k % 3 else [normal(rng, (f,), dtype)]
    name = f"conv{n}d"

    def run(lib):
        return lambda x, w, b=None: getattr(lib, name)(x, w, b, stride, padding, dilation, groups)

    compare(run(F), run(TF), [*arrays, *bias], rng, second=k % 4 == 0)


def transpose_settings(count):
    rng = np.random.default_rng(2)
    for n, k in itertools.product((1, 2, 3), range(count)):
        groups = 1 if k % 3 else int(rng.integers(2, 5))
        c, f = rng.integers(1, 4, 2).tolist()
        window = [int(rng.integers(1, 4)) for _ in range(n)]
        stride, dilation = rng.integers(1, 4, n).tolist(), rng.integers(1, 3, n).tolist()
        extra = [int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation)]
        size = [int(rng.integers(2, (12, 7, 4)[n - 1])) for _ in range(n)]
        room = [(m - 1) * s + d * (w - 1) + e for m, s, d, w, e in zip(size, stride, dilation, window, extra)]
        padding = [min(int(rng.integers(0, 3)), r // 2) for r in room]
        yield n, groups, groups * c, groups * f, window, size, stride, padding, extra, dilation


TRANSPOSED = list(transpose_settings(20))


@pytest.mark.parametrize("k", range(len(TRANSPOSED)))
def test_conv_transpose_and_its_gradients(k):
    n, groups, c, f, window, size, stride, padding, extra, dilation = TRANSPOSED[k]
    rng, dtype = np.random.default_rng(k), "float64" if k % 6 == 5 else "float32"
    arrays = [normal(rng, (2, c, *size), dtype), normal(rng, (c, f // groups, *window), dtype)]
    arrays += [] if k % 3 else [normal(rng, (f,), dtype)]
    name = f"conv_transpose{n}d"

    def run(lib):
        return lambda x, w, b=None: getattr(lib, name)(x, w, b, stride, padding, extra, groups, dilation)

    compare(run(F), run(TF), arrays, rng, second=k % 4 == 0)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_conv_layers_pad_as_torch(n, mode):
    for padding in ((2,) + (1,) * (n - 1), "same"):
        mine = getattr(dg.nn, f"Conv{n}d")(2, 3, 3, padding=padding, padding_mode=mode)
        peer = getattr(torch.nn, f"Conv{n}d")(2, 3, 3, padding=padding, padding_mode=mode)
        mine.load_state_dict({k: dg.tensor(v.numpy().copy()) for k, v in peer.state_dict().items()})
        compare(
            mine,
            peer,
            [normal(np.random.default_rng(n), (2, 2, *(5,) * n), "float32")],
            np.random.default_rng(0),
        )


def test_inputs_without_a_batch():
    x, w = np.ones((2, 5, 5), "float32"), np.ones((3, 2, 3, 3), "float32")
    agree(F.conv2d(dg.tensor(x), dg.tensor(w)), TF.conv2d(torch.from_numpy(x), torch.from_numpy(w)), "conv2d")
    agree(F.max_pool2d(dg.tensor(x), 2), TF.max_pool2d(torch.from_numpy(x), 2), "max_pool2d")
    with pytest.raises(dg.errors.ShapeError, match=r"\[conv2d\] takes \[N, C, H, W\]"):
        F.conv2d(dg.tensor(x[0]), dg.tensor(w))


# ---------------------------------------------------------------- pooling


def pool_settings(count):
    rng = np.random.default_rng(3)
    for n, k in itertools.product((1, 2, 3), range(count)):
        window = [int(rng.integers(1, 4)) for _ in range(n)] if k % 3 else [2 + k % 2] * n
        stride = None if k % 4 == 0 else rng.integers(1, 4, n).tolist() if k % 3 else [1 + k % 2] * n
        padding = [int(rng.integers(0, w // 2 + 1)) for w in window]
        dilation = rng.integers(1, 3, n).tolist() if k % 5 == 2 else [1] * n
        span = [d * (w - 1) + 1 for d, w in zip(dilation, window)]
        size = [s + int(rng.integers(0, (20, 9, 5)[n - 1])) for s in span]
        yield n, size, window, stride, padding, dilation, bool(k % 2)


POOLS = list(pool_settings(18))


@pytest.mark.parametrize("k", range(len(POOLS)))
def test_max_pool_places_and_unpool(k):
    n, size, window, stride, padding, dilation, ceil = POOLS[k]
    rng, dtype = np.random.default_rng(k), "float64" if k % 6 == 5 else "float32"
    # Ties, so that the choice among them is seen.
    x = normal(rng, (2, 3, *size), dtype).round(0 if k % 2 else 4)
    args = window, stride, padding, dilation, ceil
    name = f"max_pool{n}d"
    compare(
        lambda x: getattr(F, name)(x, *args),
        lambda x: getattr(TF, name)(x, *args),
        [x],
        rng,
    )
    y, places = getattr(F, name)(dg.tensor(x), *args, return_indices=True)
    ty, tplaces = getattr(TF, name)(torch.from_numpy(x), *args, return_indices=True)
    agree(y, ty, "maxima")
    np.testing.assert_array_equal(places.numpy(), tplaces.numpy())
    if set(dilation) != {1} or ceil:
        return
    name = f"max_unpool{n}d"
    run = lambda lib, at: lambda v: getattr(lib, name)(v, at, window, stride, padding, tuple(size))
    with_size = [
        (m - 1) * s - 2 * p + w for m, s, p, w in zip(ty.shape[2:], stride or window, padding, window)
    ]
    if all(abs(a - b) < s for a, b, s in zip(size, with_size, stride or window)):
        compare(run(F, places), run(TF, tplaces), [y.numpy().copy()], rng)


@pytest.mark.parametrize("k", range(len(POOLS)))
def test_avg_pool_and_lp_pool(k):
    n, size, window, stride, padding, _, ceil = POOLS[k]
    rng, dtype = np.random.default_rng(k), "float64" if k % 6 == 5 else "float32"
    x = normal(rng, (2, 3, *size), dtype)
    more = {} if n == 1 or k % 3 else {"divisor_override": 3}
    name, args = f"avg_pool{n}d", (window, stride, padding, ceil, bool(k % 2))
    compare(
        lambda x: getattr(F, name)(x, *args, **more), lambda x: getattr(TF, name)(x, *args, **more), [x], rng,
    )  # fmt: skip
    if not ceil and all(m >= w for m, w in zip(size, window)):
        lp = f"lp_pool{n}d"
        positive = np.abs(x) + np.asarray(0.1, dtype)
        norm = 1.0 + k % 3
        run = lambda lib: lambda x: getattr(lib, lp)(x, norm, window if n > 1 else window[0])
        compare(run(F), run(TF), [positive], rng)


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize(
    ("size", "out"),
    [((7,), (3,)), ((6,), (3,)), ((3,), (5,)), ((5, 7), (2, 3)), ((8, 6), (4, 2)), ((4, 5), (1, 1)), ((6, 5), (7, 2)),
     ((4, 3, 5), (2, 2, 2)), ((4, 4, 6), (2, 2, 3)), ((3, 5, 4), (1, 2, 4))],
)  # fmt: skip
def test_adaptive_pools(kind, size, out):
    rng, n = np.random.default_rng(len(size)), len(size)
    name = f"adaptive_{kind}_pool{n}d"
    for dtype in ("float32", "float64"):
        x = normal(rng, (2, 3, *size), dtype).round(1)
        compare(lambda x: getattr(F, name)(x, out), lambda x: getattr(TF, name)(x, out), [x], rng)
    if kind == "max":
        places = getattr(F, name)(dg.tensor(x), out, return_indices=True)[1]
        expected = getattr(TF, name)(torch.from_numpy(x), out, return_indices=True)[1]
        np.testing.assert_array_equal(places.numpy(), expected.numpy())


# ---------------------------------------------------------------- interpolation

LINEAR = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}
SIZES = {1: [(7,), (9,), (16,)], 2: [(5, 6), (8, 3)], 3: [(3, 4, 5)]}
TARGETS = {1: [(3,), (7,), (20,), (1,)], 2: [(7, 9), (3, 2), (10, 12), (1, 6)], 3: [(5, 2, 7), (6, 8, 10)]}
RESIZES = [
    (n, size, {"size": out}, mode, corners)
    for n in (1, 2, 3)
    for size, out in itertools.product(SIZES[n], TARGETS[n])
    for mode, corners in [("nearest", None), ("nearest-exact", None), ("area", None)]
    + [(m, c) for m in LINEAR[n] for c in (False, True)]
]
RESIZES += [
    (n, size, {"scale_factor": f, "recompute_scale_factor": again}, mode, corners)
    for n in (1, 2, 3)
    for size, f in itertools.product(SIZES[n][:1], (2.0, 0.6, 1.7))
    for mode, corners, again in [
        ("nearest", None, None),
        (LINEAR[n][-1], False, None),
        (LINEAR[n][0], False, True),
    ]
]


@pytest.mark.parametrize("k", range(len(RESIZES)))
def test_interpolate_and_its_gradients(k):
    _, size, target, mode, corners = RESIZES[k]
    rng, dtype = np.random.default_rng(k), "float64" if k % 6 == 5 else "float32"
    x = normal(rng, (2, 3, *size), dtype)
    args = {**target, "mode": mode, "align_corners": corners}
    compare(lambda x: F.interpolate(x, **args), lambda x: TF.interpolate(x, **args), [x], rng)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("out", [(3, 4), (5, 2), (13, 5), (4, 20)])
def test_antialiased_interpolation(mode, corners, out):
    x = normal(np.random.default_rng(0), (2, 2, 9, 11), "float32")
    args = {"size": out, "mode": mode, "align_corners": corners, "antialias": True}
    compare(
        lambda x: F.interpolate(x, **args), lambda x: TF.interpolate(x, **args), [x], np.random.default_rng(1)
    )


GRIDS = [
    (n, mode, padding, corners)
    for n in (2, 3)
    for mode in (("bilinear", "nearest", "bicubic") if n == 2 else ("bilinear", "nearest"))
    for padding in ("zeros", "border", "reflection")
    for corners in (False, True)
]


@pytest.mark.parametrize(("n", "mode", "padding", "corners"), GRIDS)
def test_grid_sample_and_its_gradients(n, mode, padding, corners):
    rng = np.random.default_rng(4)
    x = normal(rng, (2, 3, *(4, 5, 3)[:n]), "float64")
    grid = rng.uniform(-1.6, 1.6, (2, *(3, 4, 2)[:n], n))
    args = mode, padding, corners
    compare(lambda x, g: F.grid_sample(x, g, *args), lambda x, g: TF.grid_sample(x, g, *args), [x, grid], rng)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(2, 1, 3, 4), (2, 1, 1, 5), (1, 2, 2, 3, 4)])
def test_affine_grid(size, corners):
    n = len(size) - 2
    theta = normal(np.random.default_rng(0), (size[0], n, n + 1), "float32")
    run = lambda lib: lambda t: lib.affine_grid(t, size, corners)
    compare(run(F), run(TF), [theta], np.random.default_rng(1))


PATCHES = [
    (window, dilation, padding, stride)
    for window, dilation in (((2, 3), 1), ((3, 3), (2, 1)), ((1, 2), 1))
    for padding, stride in ((0, 1), (1, 2), ((1, 0), (1, 2)))
]


@pytest.mark.parametrize("args", PATCHES)
def test_unfold_and_fold(args):
    rng = np.random.default_rng(0)
    x = normal(rng, (2, 3, 6, 7), "float32")
    compare(lambda x: F.unfold(x, *args), lambda x: TF.unfold(x, *args), [x], rng)
    columns = TF.unfold(torch.from_numpy(x), *args).numpy()
    fold = lambda lib: lambda c: lib.fold(c, (6, 7), *args)
    compare(fold(F), fold(TF), [columns], rng)


# ---------------------------------------------------------------- layers

LAYERS = [
    ("MaxPool1d", (3, 2, 1), (2, 3, 9)), ("MaxPool3d", (2,), (2, 3, 4, 4, 5)), ("AvgPool1d", (3,), (2, 3, 9)),
    ("AvgPool3d", (2, None, 1), (1, 2, 4, 4, 4)), ("LPPool2d", (2.0, 2), (1, 2, 4, 6)),
    ("AdaptiveAvgPool2d", ((2, None),), (1, 2, 5, 4)), ("AdaptiveMaxPool1d", (3,), (1, 2, 7)),
    ("Upsample", (None, 2), (1, 2, 3, 4)), ("UpsamplingBilinear2d", ((5, 6),), (1, 2, 3, 4)),
    ("Unfold", (2,), (1, 2, 3, 4)), ("Fold", ((3, 4), 2), (1, 8, 6)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "shape"), LAYERS)
def test_layers_equal_torch(name, args, shape):
    x = normal(np.random.default_rng(0), shape, "float32")
    mine, peer = getattr(dg.nn, name)(*args), getattr(torch.nn, name)(*args)
    compare(mine, peer, [x], np.random.default_rng(1))


def test_unpool_layer_inverts_the_pool():
    x = normal(np.random.default_rng(0), (1, 2, 4, 6), "float32")
    y, places = dg.nn.MaxPool2d(2, return_indices=True)(dg.tensor(x))
    ty, tplaces = torch.nn.MaxPool2d(2, return_indices=True)(torch.from_numpy(x))
    agree(dg.nn.MaxUnpool2d(2)(y, places), torch.nn.MaxUnpool2d(2)(ty, tplaces), "unpool")


def test_errors_name_the_function():
    x = dg.ones((1, 2, 4, 4))
    for call, text in (
        (lambda: F.conv2d(x, dg.ones((3, 1, 3, 3))), "[conv2d]"),
        (lambda: F.conv_transpose2d(x, dg.ones((3, 1, 3, 3))), "[conv_transpose2d]"),
        (lambda: F.max_pool2d(x, 5), "[max_pool2d]"),
        (lambda: F.avg_pool1d(x, 2), "[avg_pool1d]"),
        (lambda: F.interpolate(x, 3, mode="linear"), "[interpolate] mode='linear'"),
        (lambda: F.interpolate(x), "[interpolate] size=None and scale_factor=None"),
        (lambda: F.adaptive_avg_pool2d(x, 0), "[adaptive_avg_pool2d]"),
        (lambda: F.fold(dg.ones((1, 8, 5)), 3, 2), "[fold]"),
        (lambda: dg.nn.Conv2d(4, 6, 3, groups=4), "[Conv2d] groups=4"),
        (lambda: dg.nn.ConvTranspose2d(4, 6, 3, padding="same"), "[ConvTranspose2d]"),
    ):
        with pytest.raises(dg.errors.DuogradError) as caught:
            call()
        assert text in str(caught.value)
        assert "test_spatial_peers.py" in str(caught.value)
