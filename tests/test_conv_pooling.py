"""Pooling inside the kernel of a convolution: the bits of separate kernels, by every way, and when it is not done."""

import collections

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import conv, conv_pixels, conv_wide, conv_winograd, pool
from duograd.core.backend import get_backend
from duograd.graph.explain import explain_variant
from duograd.graph.report import kernels, stretches

F, nn = dg.nn.functional, dg.nn
WAYS = ("windows", "windows of other CPUs", "filters", "tasks")
#: images, filters, window, the convolution's settings: odd sizes, lines in no window, images that share a task
CASES = [
    ((3, 3, 16, 16), (8, 3, 3, 3), (2, 2), {"padding": 1}),
    ((2, 3, 13, 19), (21, 3, 3, 3), (2, 2), {"padding": 1}),
    ((5, 7, 6, 6), (37, 7, 1, 1), (2, 2), {}),
    ((2, 9, 9, 70), (17, 9, 2, 3), (3, 3), {}),
    ((1, 50, 11, 9), (18, 50, 3, 3), (2, 1), {"padding": 1}),
    ((4, 2, 8, 13), (5, 2, 3, 3), (1, 2), {"stride": 2, "padding": 2, "dilation": 2}),
    ((2, 8, 12, 8), (16, 4, 3, 3), (4, 4), {"padding": 1, "groups": 2}),
    ((2, 4, 15, 10), (6, 4, 1, 1), (5, 3), {}),
    ((2, 8, 7, 6), (9, 8, 1, 1), (2, 2), {}),
    ((3, 5, 41), (9, 5, 3), (2,), {}),
    ((2, 3, 60), (4, 3, 5), (3,), {"stride": 2}),
]
WINOGRAD = [
    ((2, 32, 16, 16), (33, 32, 3, 3), (2, 2), {"padding": 1}),
    ((3, 16, 15, 22), (70, 16, 3, 3), (2, 2), {"padding": 1}),
    ((1, 33, 18, 14), (32, 33, 3, 3), (4, 1), {}),
    ((2, 40, 14, 37), (32, 40, 3, 3), (1, 3), {"padding": 1}),
]
WIDE = [
    ((3, 3, 16, 16), (8, 3, 3, 3), (2, 2), {"padding": 1}),
    ((2, 3, 13, 19), (21, 3, 3, 3), (2, 2), {"padding": 1}),
    ((5, 3, 32, 34), (32, 3, 3, 3), (2, 2), {"padding": 1}),
    ((2, 5, 20, 71), (7, 5, 3, 3), (2, 2), {"stride": 2, "padding": 2}),
]
POOLS = {
    "max": lambda y, window: dg.max_pool(y, window=window),
    "mean": lambda y, window: dg.avg_pool(y, window=window),
    "mean of elements": lambda y, window: dg.avg_pool(y, window=window, count_include_pad=False),
}


@pytest.fixture
def way(monkeypatch):
    """Choose what a convolution packs, and count the launches by way."""
    count, masks = collections.Counter(), conv.has_masked_memory()
    tasks, pixels, windows, tiles = (
        conv_pixels.tasks, conv_pixels.windowed, conv._windowed, conv_winograd.windowed
    )  # fmt: skip
    applies, wide, wide_tasks = conv_wide.applies, conv_wide.windowed, conv_wide.tasks
    monkeypatch.setattr(conv_wide, "vectors", lambda: (256, 16))  # its kernels run everywhere
    monkeypatch.setattr(conv_wide, "tasks", lambda *a: wide_tasks(*a)._replace(cycles=0.0))

    def counts(kernel, name):
        def run(program, product, fused, *rest):
            key = name or ("tasks" if rest[0] is None else "filters")
            count[key, fused is not None and fused.pool is not None] += 1
            kernel(program, product, fused, *rest)

        return run

    monkeypatch.setattr(conv_pixels, "windowed", counts(pixels, ""))
    monkeypatch.setattr(conv, "_windowed", counts(windows, "windows"))
    monkeypatch.setattr(conv_winograd, "windowed", counts(tiles, "winograd"))
    monkeypatch.setattr(conv_wide, "windowed", counts(wide, "wide"))

    def choose(way):
        cycles = 1e30 if way.startswith("w") else -1.0
        monkeypatch.setattr(conv_wide, "applies", lambda *a: way == "wide" and applies(*a))
        monkeypatch.setattr(conv, "has_masked_memory", lambda: masks != (way == "windows of other CPUs"))
        monkeypatch.setattr(conv_pixels, "tasks", lambda *a: tasks(*a)._replace(cycles=cycles))
        monkeypatch.setattr(conv_pixels, "pack_cycles", lambda *_: 1e30 if way == "tasks" else 0.0)
        count.clear()
        return count

    return choose


@pytest.fixture
def threads():
    yield pool.set_num_threads
    pool.set_num_threads(2)


def normal(*shape, dtype="float32"):
    return dg.tensor(np.random.standard_normal(shape).astype(dtype))


def bits(x):
    a = x.numpy()
    return a.view(f"u{a.itemsize}")


def titles(fn):
    """The kernels of a function's first variant."""
    return [k.title for _, runner in stretches(fn.variants[0]) for k in kernels(runner.compiled)]


def check(body, *args):
    """Graph mode gives the bits of eager mode; returns the function."""
    fn = dg.function(body)
    with dg.no_grad():
        expected, found = body(*args), fn(*args)
    np.testing.assert_array_equal(bits(expected), bits(found))
    return fn


def images(case, dtype="float32", nan=False):
    x, w = (normal(*shape, dtype=dtype) for shape in case[:2])
    if nan:
        x = x.numpy().copy()
        x.reshape(-1)[:: max(2, x.size // 3)] = np.nan
        x = dg.tensor(x)
    return x, w, normal(case[1][0], dtype=dtype)


def convolved(case):
    f = F.conv1d if len(case[0]) == 3 else F.conv2d
    return lambda x, w, b: f(x, w, b, **case[3])


def pooled(case, kind, between=lambda y: y):
    return lambda x, w, b: POOLS[kind](between(convolved(case)(x, w, b)), case[2])


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_way_gives_the_bits_of_separate_kernels(way, threads, case, kind):
    body = pooled(case, kind, F.relu)
    args = images(case)
    for number, chosen in enumerate(WAYS):
        threads(1 + number)
        count = way(chosen)
        fn = check(body, *args)
        assert count[chosen.partition(" ")[0], True] == 1
        assert titles(fn)[-1].startswith("conv, add, relu, ")
        assert "pool" in titles(fn)[-1]


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_sums_in_registers_are_pooled(way, threads, case, kind):
    for n in (1, 3):
        threads(n)
        count = way("wide")
        check(pooled(case, kind, F.relu), *images(case, nan=n == 3))
        assert count["wide", True] == 1


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("case", WINOGRAD, ids=str)
def test_winograds_tiles_are_pooled(way, threads, case, kind):
    body = pooled(case, kind, F.relu)
    for n in (1, 3):
        threads(n)
        count = way("windows")
        check(body, *images(case, nan=n == 3))
        assert count["winograd", True] == 1


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3], WINOGRAD[0]], ids=str)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_nan_wins_in_any_batch(way, batch, case):
    way("windows")
    case = ((batch, *case[0][1:]), *case[1:])
    for kind in POOLS:
        check(pooled(case, kind), *images(case, nan=True))


@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[4], CASES[9]], ids=str)
def test_float64_and_registers_of_all_widths(way, vector_bits, case):
    for chosen, dtype in (("windows", "float64"), ("filters", "float64"), ("tasks", "float32")):
        count = way(chosen)
        for kind in POOLS:
            check(pooled(case, kind, F.gelu), *images(case, dtype=dtype))
        assert count[chosen, True] == len(POOLS)


@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[4], WINOGRAD[1]], ids=str)
def test_batch_norm_and_residuals_are_finished_first(way, case):
    x, w, b = images(case)
    scale, shift = normal(w.shape[0], 1, 1), normal(w.shape[0], 1, 1)
    r = normal(*convolved(case)(x, w, b).shape)

    def body(x, w, b, r):
        return dg.max_pool(F.relu(convolved(case)(x, w, b) * scale + shift) + r, window=case[2])

    for chosen in WAYS:
        way(chosen)
        fn = check(body, x, w, b, r)
        assert "max_pool" in titles(fn)[-1]
        assert titles(fn)[-1].startswith("conv")


def test_signed_zeros_and_infinities_keep_their_bits(way):
    for case in (CASES[0], CASES[3], WINOGRAD[0]):
        x, w, b = map(dg.trunc, images(case))
        for chosen in ("windows", "filters"):
            way(chosen)
            for kind in POOLS:
                check(pooled(case, kind, lambda y: -F.relu(y)), x, w, b)
                check(pooled(case, kind, lambda y: 1 / F.relu(y)), x, w, b)


def test_images_of_any_strides(way):
    x, w, b = images(CASES[1])
    last = dg.permute(normal(2, 13, 19, 3), axes=(0, 3, 1, 2))
    for chosen in WAYS:
        way(chosen)
        for view in (last, dg.flip(x, axis=3), x[:, :, ::2]):
            fn = check(lambda x: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2), view)
            assert "max_pool" in titles(fn)[-1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_halves_are_not_pooled_there(way, dtype):
    way("windows")
    x, w, b = (t.to(dtype) for t in images(CASES[0]))
    body = lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2)
    fn = dg.function(body)
    with dg.no_grad():
        np.testing.assert_array_equal(body(x, w, b).to("float32").numpy(), fn(x, w, b).to("float32").numpy())
    assert "max_pool" in titles(fn)


def scaled(x, w, **settings):
    return F.relu(F.conv2d(x, w, padding=1, **settings))


REFUSED = {
    "overlapping windows": (
        lambda x, w: F.max_pool2d(scaled(x, w), 3, 2), "its windows overlap, meet padding or leave elements out"
    ),
    "padding": (
        lambda x, w: F.max_pool2d(scaled(x, w), 2, padding=1), "its windows overlap, meet padding or leave elements out"
    ),
    "gaps": (
        lambda x, w: F.max_pool2d(scaled(x, w), 2, 3), "its windows overlap, meet padding or leave elements out"
    ),
    "windows beyond the image": (
        lambda x, w: F.max_pool2d(scaled(x, w), 5, ceil_mode=True), "its last windows leave the image"
    ),
    "a window of one element": (lambda x, w: F.max_pool2d(scaled(x, w), 1), "its windows have one element"),
    "large windows": (lambda x, w: F.max_pool2d(scaled(x, w), 6), "its windows have one element or more than 25"),
    "the mean of an image": (lambda x, w: F.avg_pool2d(scaled(x, w)[..., :4, :4], 4), "in another shape"),
    "a global mean": (lambda x, w: F.avg_pool2d(scaled(x, w), (14, 12)), "more than 25"),
    "a divisor": (
        lambda x, w: F.avg_pool2d(scaled(x, w), 2, divisor_override=3), "or with a divisor of its own"
    ),
    "another reader": (
        lambda x, w: (y := scaled(x, w), F.max_pool2d(y, 2) + y.sum())[1], "is also read by sum"
    ),
    "a result": (
        lambda x, w: (y := scaled(x, w), dg.cat([F.max_pool2d(y, 2).reshape(-1), y.reshape(-1)]))[1],
        "is also read by concat",
    ),
    "a transposed image": (
        lambda x, w: F.max_pool2d(scaled(x, w).mT, 2), "reads the result of conv in another shape or dtype"
    ),
    "depthwise": (
        lambda x, w: F.max_pool2d(scaled(x, w[:, :1], groups=4), 2), "for few channels in a group"
    ),
    "another dtype": (
        lambda x, w: F.max_pool2d(scaled(x, w).to(dg.float64), 2), "in another shape or dtype"
    ),
    "three axes": (
        lambda x, w: dg.max_pool(F.relu(F.conv3d(x[:, :, None], w[:, :, None], padding=(0, 1, 1))), window=(1, 2, 2)),
        "images of one or two axes",
    ),
    "other windows of sums in registers": (
        lambda x, w: F.max_pool2d(scaled(x, w), 3), "pools in windows of 2 x 2 alone"
    ),
    "an image gradient": (
        lambda x, w: F.max_pool2d(F.conv_transpose2d(x, w), 2), "the kernel of conv_x_grad takes no pooling",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_explain_tells_why_a_pooling_stands_alone(way, name):
    way("wide" if "registers" in name else "windows")
    body, reason = REFUSED[name]
    fn = check(body, normal(2, 4, 14, 12), normal(4, 4, 3, 3))
    assert not any("conv" in t and "pool" in t for t in titles(fn)), titles(fn)
    assert reason in fn.explain(), fn.explain()


def test_a_result_that_is_also_returned_is_kept(way):
    way("windows")
    x, w, b = images(CASES[0])

    def body(x):
        y = F.relu(F.conv2d(x, w, b, padding=1))
        return y, F.max_pool2d(y, 2)

    fn = dg.function(body)
    with dg.no_grad():
        for mine, expected in zip(fn(x), body(x)):
            np.testing.assert_array_equal(bits(mine), bits(expected))
    assert titles(fn) == ["conv, add, relu", "max_pool"]
    assert "the result of relu is also a result of the function" in fn.explain()


def test_training_keeps_what_the_gradient_reads(way):
    way("windows")
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    x = normal(2, 3, 10, 8)

    @dg.function
    def step(x):
        loss = model(x).square().mean()
        loss.backward()
        return loss

    step(x)
    assert "the result of relu is also read by max_pool_x_grad" in step.explain()
    found = [p.grad.numpy().copy() for p in model.parameters()]
    model.zero_grad()
    step.eager(x)
    for p, g in zip(model.parameters(), found):
        np.testing.assert_array_equal(p.grad.numpy(), g)


def test_work_behind_the_pooling_is_a_kernel_of_its_own(way):
    way("windows")
    x, w, b = images(CASES[0])
    fn = check(lambda x: F.relu(F.max_pool2d(F.conv2d(x, w, b, padding=1), 2)), x)
    assert titles(fn) == ["conv, add, max_pool", "relu"]
    assert "the kernel of conv takes no work on what it has pooled" in fn.explain()


def test_the_convolutions_result_takes_no_memory_and_no_traffic(way):
    way("windows")
    x, w, b = normal(16, 3, 64, 64), normal(32, 3, 3, 3), normal(32)
    fn = check(lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2), x, w, b)
    (compiled,) = [runner.compiled for _, runner in stretches(fn.variants[0])]
    assert compiled.arena_bytes < 4 * 16 * 32 * 64 * 64 // 2
    (kernel,) = kernels(compiled)
    tensors = 4 * (x.size + w.size + b.size)
    assert sum(n for _, n in kernel.reads) == tensors
    assert sum(n for _, n in kernel.writes) == 4 * 16 * 32 * 32 * 32
    assert kernel.flops >= 2 * 16 * 32 * 64 * 64 * 27
    (row,) = fn.profile(x, w, b, seconds=0.05).rows
    assert row.kernel.title == "conv, add, relu, max_pool"


def test_another_batch_compiles_nothing(way):
    way("windows")
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 40, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Conv2d(40, 20, 3), nn.MaxPool2d(2), nn.Conv2d(20, 30, 1), nn.MaxPool2d((1, 2)),
    ).eval()  # fmt: skip
    fn = dg.function(lambda x: model(x))
    stats = get_backend("cpu").kernel_stats
    with dg.no_grad():
        fn(normal(4, 3, 30, 26))
        assert sum("conv" in t and "pool" in t for t in titles(fn)) == 4
        before = stats()
        for n in (2, 3, 33, 64):
            x = normal(n, 3, 30, 26)
            np.testing.assert_array_equal(bits(fn(x)), bits(model(x)))
    after = stats()
    assert (after["compiled"], after["loaded"]) == (before["compiled"], before["loaded"])


def test_sizes_that_change_have_one_plan(way):
    """Images of any batch are pooled where they are made; of images of any size, the pooling stands alone."""
    way("windows")
    w, b = normal(5, 3, 3, 3), normal(5)
    for make in (lambda n: normal(n, 3, 12, 10), lambda n: normal(2, 3, n, 8), lambda n: normal(2, 3, 8, n)):
        fn = dg.function(lambda x: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2))
        with dg.no_grad():
            for n in range(6, 20):
                x = make(n)
                expected = F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2)
                np.testing.assert_array_equal(bits(fn(x)), bits(expected))


def test_compare_and_fast_precision_take_it(way):
    way("windows")
    x, w, b = images(CASES[1])
    body = lambda x: F.max_pool2d(F.gelu(F.conv2d(x, w, b, padding=1)), 2)
    with dg.no_grad():
        assert dg.compare(body, x).equal
        fast = dg.function(body, precision="fast")
        np.testing.assert_allclose(fast(x).numpy(), body(x).numpy(), rtol=1e-4, atol=1e-5)
    assert "max_pool" in titles(fast)[-1]
    assert titles(fast)[-1].startswith("conv")


def test_the_backend_is_asked(monkeypatch, way):
    way("windows")
    monkeypatch.setattr(type(get_backend("cpu")), "takes_pooling", lambda *_: "not today")
    x, w, b = images(CASES[0])
    fn = check(lambda x: F.max_pool2d(F.conv2d(x, w, b, padding=1), 2), x)
    assert titles(fn) == ["conv, add", "max_pool"]
    assert "not today" in "\n".join(explain_variant(fn.variants[0]))


@pytest.mark.parametrize(
    "name", ["overlapping windows", "padding", "windows beyond the image", "a divisor", "depthwise"]
)
def test_what_the_kernel_does_not_take_is_done_behind_it(monkeypatch, way, name):
    way("windows")
    monkeypatch.setattr(type(get_backend("cpu")), "takes_pooling", lambda *_: "")
    fn = check(REFUSED[name][0], normal(2, 4, 14, 12), normal(4, 4, 3, 3))
    ((_, runner),) = stretches(fn.variants[0])
    assert "conv, relu, " in titles(fn)[-1]
    assert len(runner.compiled.program.launches) > 1
