"""Settings far beyond any memory: the right result or an error that names the op, at once and without the memory."""

import resource

import duograd as dg
import numpy as np
import pytest
from duograd.core.errors import DuogradError

F, nn = dg.nn.functional, dg.nn
FAR = 2**40


def ones(*shape):
    return dg.ones(shape)


#: a call, and what its error names: the op that was called, or the primitive that all its names stand for
REFUSED = {
    "transposed stride": (
        lambda: F.conv_transpose1d(ones(1, 2, 8), ones(2, 2, 3), stride=FAR), "conv_transpose1d"
    ),
    "conv padding": (lambda: F.conv1d(ones(1, 2, 8), ones(2, 2, 3), padding=FAR), "conv1d"),
    "windows of many": (lambda: F.avg_pool2d(ones(1, 2, 8, 8), FAR, padding=FAR // 2), "avg_pool2d"),
    "adaptive": (lambda: F.adaptive_avg_pool1d(ones(1, 2, 8), FAR), "adaptive_avg_pool1d"),
    "adaptive maxima": (lambda: F.adaptive_max_pool1d(ones(1, 2, 8), 2**36), "adaptive_max_pool1d"),
    "interpolate": (lambda: F.interpolate(ones(1, 2, 8), size=FAR, mode="linear"), "interpolate"),
    "circular": (lambda: F.pad(ones(1, 2, 8), (FAR, 0), mode="circular"), "pad"),
    "grid": (lambda: F.affine_grid(ones(1, 2, 3), (1, 1, 2**20, 2**20)), "affine_grid"),
    "combinations": (lambda: dg.combinations(dg.arange(200), 20), "combinations"),
    "unbind": (lambda: dg.unbind(ones(1).expand(FAR, 1)), "unstack"),
    "split": (lambda: dg.split(ones(1).expand(FAR), 1), "split"),
    "zeros": (lambda: dg.zeros((FAR,)), "zeros"),
    "arange": (lambda: dg.arange(FAR), "arange"),
    "tile": (lambda: dg.tile(ones(2, 3), (FAR, 2)), "tile"),
    "tile of a tensor": (lambda: ones(2, 3).tile((FAR, 2)), "tile"),
    "repeat": (lambda: dg.repeat(ones(2, 3), FAR), "repeat"),
    "repeat_interleave": (lambda: ones(2, 3).repeat_interleave(FAR, 1), "repeat_interleave"),
    "kron": (lambda: dg.kron(ones(2**20), ones(2**20)), "kron"),
    "outer": (lambda: dg.outer(ones(2**20), ones(2**20)), "outer"),
    "one_hot": (lambda: F.one_hot(dg.tensor([1]), FAR), "one_hot"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_memory_holds_is_refused_at_once(name, mode):
    call, op = REFUSED[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DuogradError) as caught:
        dg.function(call, mode=mode)()
    assert caught.value.op == op
    assert __file__ in caught.value.line
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 19  # KiB


#: what nobody reads, and no system has addresses for
UNREAD = {
    "outer": lambda x: dg.outer(x, x),
    "multiply": lambda x: x[:, None] * x,
    "sum": lambda x: (x[:, None] - x).sum(),
    "reshape": lambda x: x.expand(2**24, -1).reshape(-1),
}


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("name", UNREAD)
def test_what_nobody_reads_and_no_memory_holds_is_refused(name, mode):
    """Graph mode dropped the op before anybody asked for its memory."""

    @dg.function(mode=mode)
    def fn(x):
        UNREAD[name](x)
        return x[:2] + 1

    with pytest.raises(dg.errors.OutOfMemoryError) as caught:
        fn(ones(2**24))
    assert caught.value.op == {"sum": "subtract"}.get(name, name)
    assert __file__ in caught.value.line
    assert fn(ones(3)).tolist() == [2, 2]


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_what_its_gradient_has_no_addresses_for_is_refused_where_it_is_made(mode):
    """The trace of the way back found it first, and named an op and a line of its own."""

    @dg.function(mode=mode)
    def fn(x):
        return dg.tanh(x.expand(2**42, 8)[..., 0])

    with pytest.raises(dg.errors.OutOfMemoryError) as caught:
        fn(ones(8).requires_grad_())
    assert caught.value.op == "tanh"
    assert __file__ in caught.value.line


def test_what_no_memory_holds_may_be_seen():
    """A view needs none."""

    @dg.function
    def fn(x):
        return x.expand(2**24, 2**24)[0, :2] + 1

    assert fn(ones(2**24)).tolist() == [2, 2]


def test_a_stride_beyond_the_image_is_one_window():
    x = dg.tensor(np.arange(16, dtype=np.float32).reshape(1, 2, 8), requires_grad=True)
    w = ones(3, 2, 3)
    near = F.conv1d(x, w, stride=8)
    far = F.conv1d(x, w, stride=FAR)
    np.testing.assert_array_equal(far.detach().numpy(), near.detach().numpy())
    far.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.broadcast_to(np.arange(8) < 3, (1, 2, 8)) * 3.0)


@pytest.mark.parametrize("window", [17, FAR])
def test_a_window_of_padding_alone_but_for_the_image(window):
    x = dg.tensor(np.array([[[3.0, 9.0, -2.0, 9.0]]], np.float32), requires_grad=True)
    best = F.max_pool1d(x, window, padding=window // 2)
    mean = F.avg_pool1d(x, window, padding=window // 2, count_include_pad=False)
    np.testing.assert_array_equal([best.item(), mean.item()], [9.0, 4.75])
    (best + mean).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[[0.25, 1.25, 0.25, 0.25]]])


def test_windows_far_apart_skip_what_lies_between():
    x = dg.tensor(np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4))
    out = F.max_pool1d(x, 3, stride=2**38, padding=2**38, dilation=2**38, ceil_mode=True)
    np.testing.assert_array_equal(out.numpy(), [[[1.0, 1.0]]])
