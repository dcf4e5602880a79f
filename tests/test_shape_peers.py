"""Shapes, joining, padding, triangles and their layers against NumPy and PyTorch: values and gradients."""

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.nn import functional as F


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")


def array(*shape, dtype=np.float32):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


def equal(got, want):
    """Tensors (or tuples of them) equal arrays, shape and dtype included."""
    if isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            equal(g, w)
        return
    got = got.detach().numpy()
    want = np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


X, Y = array(2, 3, 4), array(2, 3, 4, dtype=np.float64)
V = np.arange(5, dtype=np.int64)

NUMPY = {
    "reshape": (dg.reshape, np.reshape, (X, (4, -1))),
    "permute_dims": (dg.permute_dims, np.permute_dims, (X, (2, 0, 1))),
    "matrix_transpose": (dg.matrix_transpose, np.matrix_transpose, (X,)),
    "moveaxis": (dg.moveaxis, np.moveaxis, (X, 0, -1)),
    "moveaxis two": (dg.moveaxis, np.moveaxis, (X, (0, 1), (-1, 0))),
    "swapaxes": (dg.swapaxes, np.swapaxes, (X, 0, 2)),
    "expand_dims": (dg.expand_dims, np.expand_dims, (X, (0, -1))),
    "squeeze": (dg.squeeze, np.squeeze, (X[:, :1, :, None], (1, 3))),
    "broadcast_to": (dg.broadcast_to, np.broadcast_to, (X[:, :1], (5, 2, 3, 4))),
    "broadcast_arrays": (dg.broadcast_arrays, np.broadcast_arrays, (X, X[0, :1])),
    "flip": (dg.flip, np.flip, (X,)),
    "flip axis": (dg.flip, np.flip, (X, (0, 2))),
    "fliplr": (dg.fliplr, np.fliplr, (X,)),
    "flipud": (dg.flipud, np.flipud, (X,)),
    "roll": (dg.roll, np.roll, (X, 5)),
    "roll axes": (dg.roll, np.roll, (X, (1, -2), (0, 2))),
    "roll one axis twice": (dg.roll, np.roll, (X, (1, 2), (2, 2))),
    "roll by one": (dg.roll, np.roll, (X, -1, (0, 1))),
    "rot90": (dg.rot90, np.rot90, (X, 3, (1, 2))),
    "tile": (dg.tile, np.tile, (X, (2, 1, 3))),
    "tile more": (dg.tile, np.tile, (V, (2, 2, 1))),
    "repeat": (dg.repeat, np.repeat, (X, 3)),
    "repeat axis": (dg.repeat, np.repeat, (X, 2, 1)),
    "repeat counts": (dg.repeat, np.repeat, (X, np.array([2, 0, 3]), 1)),
    "concat none": (lambda a, b: dg.concat([a, b], axis=None), lambda a, b: np.concatenate([a, b], axis=None), (X, V)),
    "concat promotes": (lambda a, b: dg.concat([a, b]), lambda a, b: np.concatenate([a, b]), (X, Y)),
    "stack": (lambda a, b: dg.stack([a, b], axis=2), lambda a, b: np.stack([a, b], axis=2), (X, X)),
    "hstack": (lambda *a: dg.hstack(a), lambda *a: np.hstack(a), (V, V)),
    "hstack matrices": (lambda *a: dg.hstack(a), lambda *a: np.hstack(a), (X, X)),
    "vstack": (lambda *a: dg.vstack(a), lambda *a: np.vstack(a), (V, V)),
    "dstack": (lambda *a: dg.dstack(a), lambda *a: np.dstack(a), (V, V)),
    "dstack matrices": (lambda *a: dg.dstack(a), lambda *a: np.dstack(a), (X[0], X[1])),
    "column_stack": (lambda *a: dg.column_stack(a), lambda *a: np.column_stack(a), (V, V)),
    "tensor_split": (dg.tensor_split, np.array_split, (X, 3, 2)),
    "tensor_split at": (dg.tensor_split, np.array_split, (V, (1, 1, 4))),
    "tensor_split past": (dg.tensor_split, np.array_split, (V, (3, 9))),
    "unstack": (dg.unstack, np.unstack, (X,)),
    "meshgrid xy": (dg.meshgrid, np.meshgrid, (V, V[:3], V[:2])),
    "meshgrid ij": (
        lambda *a: dg.meshgrid(*a, indexing="ij"), lambda *a: np.meshgrid(*a, indexing="ij"), (V, V[:3])
    ),
    "tril": (dg.tril, np.tril, (X, -1)),
    "triu": (dg.triu, np.triu, (X, 2)),
    "tril bool": (dg.tril, np.tril, (X > 0,)),
    "diag vector": (dg.diag, np.diag, (V, -2)),
    "diag matrix": (dg.diag, np.diag, (X[0], 1)),
    "diagflat": (dg.diagflat, np.diagflat, (X[0], 1)),
    "diagonal": (dg.diagonal, np.diagonal, (X, -1, 2, 0)),
    "atleast_1d": (dg.atleast_1d, np.atleast_1d, (np.float32(3),)),
    "atleast_2d": (dg.atleast_2d, np.atleast_2d, (V,)),
    "atleast_3d": (dg.atleast_3d, np.atleast_3d, (X[0],)),
    "take flat": (lambda a: dg.take(a, dg.tensor([3, -1]), axis=None), lambda a: np.take(a, [3, -1]), (X,)),
    "take wrap": (
        lambda a: dg.take(a, dg.tensor([5, -7]), 1, mode="wrap"), lambda a: np.take(a, [5, -7], 1, mode="wrap"), (X,)
    ),
    "take clip": (
        lambda a: dg.take(a, dg.tensor([5, -7]), 1, mode="clip"), lambda a: np.take(a, [5, -7], 1, mode="clip"), (X,)
    ),
}  # fmt: skip


def _tensors(args):
    return [dg.tensor(np.asarray(a)) if isinstance(a, (np.ndarray, np.generic)) else a for a in args]


@pytest.mark.parametrize("name", NUMPY)
def test_equals_numpy_in_both_modes(name):
    ours, theirs, args = NUMPY[name]
    want = theirs(*args)
    row = _tensors(args)
    equal(ours(*row), want)
    tensors = [a for a in row if isinstance(a, dg.Tensor)]

    def traced(*given):
        rest = iter(given)
        return ours(*[next(rest) if isinstance(a, dg.Tensor) else a for a in row])

    equal(dg.function(traced)(*tensors), want)


MODES = ["constant", "reflect", "symmetric", "edge", "wrap"]
PADS = [
    ((0, 0), (2, 1), (1, 3)),
    ((1, 1), (0, 2), (2, 0)),
    ((0, 5), (7, 2), (0, 9)),
    ((1, 0), (-1, 0), (0, -2)),
    1,
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pads", PADS, ids=str)
def test_pad_equals_numpy(mode, pads):
    if pads == PADS[3]:
        cut = X[:, 1:, :-2]
        want = np.pad(cut, ((1, 0), (0, 0), (0, 0)), mode=mode)
    else:
        want = np.pad(X, pads, mode=mode)
    equal(dg.pad(dg.tensor(X), pads, mode), want)


@pytest.mark.parametrize(
    ("dtype", "value"), [("int64", 2**53 + 1), ("bool", True), ("bool", 0.5), ("uint8", 7), ("float64", 0.1)]
)
def test_pad_keeps_value_and_dtype(dtype, value):
    x = np.ones((2, 2), dtype)
    equal(
        dg.pad(dg.tensor(x), ((1, 0), (0, 2)), value=value),
        np.pad(x, ((1, 0), (0, 2)), constant_values=value),
    )


def compare(torch, ours, theirs, *arrays, tolerance=1e-6):
    """Values and gradients of a function of floats."""
    leaves = [dg.tensor(a, requires_grad=True) for a in arrays]
    peers = [torch.tensor(a, requires_grad=True) for a in arrays]
    got, want = ours(*leaves), theirs(*peers)
    got, want = (got, want) if isinstance(want, (tuple, list)) else ((got,), (want,))
    assert len(got) == len(want)
    total, peer = 0, 0
    for k, (g, w) in enumerate(zip(got, want)):
        np.testing.assert_allclose(g.detach().numpy(), w.detach().numpy(), tolerance, tolerance)
        weight = array(*w.shape, dtype=arrays[0].dtype) + k
        total, peer = total + (g * dg.tensor(weight)).sum(), peer + (w * torch.tensor(weight)).sum()
    total.backward()
    peer.backward()
    for x, y in zip(leaves, peers):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), 1e-5, 1e-5)


IMAGE = array(2, 8, 4, 6)
TORCH = {
    "reflect": (lambda F_: lambda x: F_.pad(x, (1, 2, 3, 0), "reflect")),
    "replicate": (lambda F_: lambda x: F_.pad(x, (1, 7, 3, 0), "replicate")),
    "circular": (lambda F_: lambda x: F_.pad(x, (1, 2, 3, 4), "circular")),
    "negative": (lambda F_: lambda x: F_.pad(x, (-1, 2, 3, -2), "constant", 1.5)),
    "pixel_shuffle": (lambda F_: lambda x: F_.pixel_shuffle(x, 2)),
    "pixel_unshuffle": (lambda F_: lambda x: F_.pixel_unshuffle(x, 2)),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functional_equals_torch(torch, name, dtype):
    make = TORCH[name]
    compare(torch, make(F), make(torch.nn.functional), IMAGE.astype(dtype))


METHODS = {
    "unfold": lambda x: x.unfold(2, 3, 1),
    "unfold apart": lambda x: x.unfold(3, 2, 3),
    "chunk": lambda x: x.chunk(3, 1),
    "split": lambda x: x.split(3, 3),
    "unbind": lambda x: x.unbind(1),
    "repeat": lambda x: x.repeat(2, 1, 1, 2),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, 6),
    "flip": lambda x: x.flip(0, 2),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "movedim": lambda x: x.movedim((0, 1), (2, 0)),
    "narrow": lambda x: x.narrow(1, 2, 3),
    "select": lambda x: x.select(2, -1),
    "diagonal": lambda x: x.diagonal(1, 2, 3),
    "diag_embed": lambda x: x[0, 0].diag_embed(1),
    "roll": lambda x: x.roll((1, 2), (0, 3)),
    "tril": lambda x: x.tril(1),
    "swapaxes": lambda x: x.swapaxes(1, 3).reshape(2, -1),
    "tensor_split": lambda x: x.tensor_split(3, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_equal_torch(torch, name):
    compare(torch, METHODS[name], METHODS[name], IMAGE)


LAYERS = [
    ("ZeroPad1d", (2,), (2, 3, 4)), ("ZeroPad2d", ((1, 2, 0, 1),), (2, 3, 4, 5)), ("ZeroPad3d", (1,), (1, 2, 2, 2, 3)),
    ("ConstantPad2d", (1, 0.5), (3, 4, 5)), ("ReflectionPad1d", (2,), (2, 3, 4)),
    ("ReflectionPad2d", ((1, 2, 2, 0),), (1, 2, 4, 5)), ("ReflectionPad3d", (1,), (1, 2, 3, 2, 3)),
    ("ReplicationPad1d", (5,), (3, 4)), ("ReplicationPad3d", ((1, 0, 2, 1, 0, 3),), (1, 2, 3, 2, 3)),
    ("CircularPad2d", ((1, 2, 2, 0),), (1, 2, 4, 5)), ("PixelShuffle", (2,), (1, 8, 2, 3)),
    ("PixelUnshuffle", (2,), (1, 2, 4, 6)), ("ChannelShuffle", (3,), (2, 6, 2)), ("Unflatten", (1, (2, 3)), (2, 6, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "args", "shape"), LAYERS, ids=lambda v: v if isinstance(v, str) else "")
def test_layers_equal_torch(torch, name, args, shape):
    compare(torch, getattr(nn, name)(*args), getattr(torch.nn, name)(*args), array(*shape))


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("scale", [False, True])
def test_embedding_equals_torch(torch, padding_idx, scale):
    index, table = np.array([[1, 2, 1], [0, 2, 2]]), array(4, 3)
    options = {"padding_idx": padding_idx, "scale_grad_by_freq": scale}
    compare(
        torch,
        lambda w: F.embedding(dg.tensor(index), w, **options),
        lambda w: torch.nn.functional.embedding(torch.tensor(index), w, **options),
        table,
    )


def test_embedding_max_norm_equals_torch(torch):
    index, table = np.array([1, 2, 1]), array(4, 3) * 3
    mine, theirs = dg.tensor(table), torch.tensor(table)
    got = F.embedding(dg.tensor(index), mine, max_norm=1.0)
    want = torch.nn.functional.embedding(torch.tensor(index), theirs, max_norm=1.0)
    np.testing.assert_allclose(got.numpy(), want.numpy(), 1e-5)
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), 1e-5)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("offsets", [None, [0, 0, 3]], ids=["rows", "offsets"])
def test_embedding_bag_equals_torch(torch, mode, padding_idx, offsets):
    index = np.array([[1, 2, 1], [0, 2, 3]]) if offsets is None else np.array([1, 2, 1, 0, 2, 3])
    options = {"mode": mode, "padding_idx": padding_idx}
    mine = None if offsets is None else dg.tensor(offsets)
    theirs = None if offsets is None else torch.tensor(offsets)
    compare(
        torch,
        lambda w: F.embedding_bag(dg.tensor(index), w, mine, **options),
        lambda w: torch.nn.functional.embedding_bag(torch.tensor(index), w, theirs, **options),
        array(4, 3),
    )


def test_one_hot_equals_torch(torch):
    index = np.array([[0, 2], [1, 1]])
    equal(F.one_hot(dg.tensor(index)), torch.nn.functional.one_hot(torch.tensor(index)).numpy())


# ---------------------------------------------------------------- views share memory


VIEWS = {
    "flip": lambda x: dg.flip(x, axis=1),
    "diagonal": lambda x: dg.diagonal(x),
    "moveaxis": lambda x: dg.moveaxis(x, 0, 1)[1],
    "split": lambda x: dg.split(x, 2, axis=1)[1],
    "unstack": lambda x: dg.unstack(x, axis=0)[2],
    "narrow": lambda x: x.narrow(0, 1, 2),
    "rot90": lambda x: dg.rot90(x),
    "unflatten": lambda x: x.unflatten(1, (2, 2)),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_share_memory_and_gradients(name):
    view = VIEWS[name]

    def step(x, w):
        y = x * 1.0
        part = view(y)
        part *= 3.0
        part += w
        return (y * y).sum()

    data = array(4, 4)
    plain = data.copy()
    target = dg.tensor(plain)
    part = view(target)
    part *= 2.0
    assert not np.array_equal(target.numpy(), plain)
    results = []
    for f in (step, dg.function(step)):
        x, w = dg.tensor(data, requires_grad=True), dg.tensor(np.float32(0.5), requires_grad=True)
        value = f(x, w)
        value.backward()
        results.append((value.detach().numpy(), x.grad.numpy(), w.grad.numpy()))
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)
    mask = np.zeros_like(data)
    view(t := dg.tensor(mask)).fill_(1.0)
    mask = t.numpy()
    want = 2 * (data + 2 * mask * data + 0.5 * mask) * (1 + 2 * mask)
    np.testing.assert_allclose(results[0][1], want, 1e-5)


def test_reshape_says_when_it_must_copy():
    x = dg.tensor(X)
    assert dg.reshape(x, (6, 4), copy=True)._storage is not x._storage
    assert dg.reshape(x, (6, 4), copy=False)._storage is x._storage
    with pytest.raises(dg.errors.ArgumentError, match="without a copy"):
        dg.reshape(dg.permute_dims(x, (2, 1, 0)), (6, 4), copy=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: dg.meshgrid(x, indexing="ab"), "indexing='ab'"),
        (lambda x: dg.repeat(x, -1), "not a count"),
        (lambda x: x.narrow(0, 1, 9), "do not fit"),
        (lambda x: dg.tensor_split(x, 0), "indices_or_sections=0 is too small"),
        (lambda x: dg.broadcast_arrays(x, dg.ones((3,))), "do not broadcast"),
        (lambda x: F.pad(x, (1, 2, 3)), "does not fit"),
        (lambda x: nn.ZeroPad2d((1, 2)), "4 ints"),
        (lambda x: nn.ReflectionPad1d(1)(dg.ones((2, 2, 2, 2))), "neither"),
    ],
)
def test_misuse_is_explained(call, message):
    with pytest.raises(dg.errors.DuogradError, match=message):
        call(dg.ones((2,)))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 3])
@pytest.mark.parametrize(("bags", "length"), [(4, 7), (3, 256), (0, 3), (3, 0)])
def test_bags_of_one_length_equal_those_cut_at_offsets(mode, padding_idx, bags, length):
    """Side by side they are added up along an axis: the same bits up to 256 rows, and the same gradient."""
    index = np.random.default_rng(1).integers(0, 9, (bags, length))
    table, at = dg.tensor(array(9, 5)), dg.tensor(np.arange(bags) * length)
    grid, flat = dg.tensor(index), dg.tensor(index.reshape(-1))
    looks = (
        lambda w: F.embedding_bag(grid, w, mode=mode, padding_idx=padding_idx),
        lambda w: F.embedding_bag(flat, w, at, mode=mode, padding_idx=padding_idx),
    )
    for wrap in (lambda f: f, dg.function):
        results = [(wrap(f)(table), wrap(dg.grad(lambda w, f=f: (f(w) ** 2).sum()))(table)) for f in looks]
        for one, other in zip(*results):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(("offsets", "last"), [
    ([0, 9], False), ([0, -5], False), ([1, 2], False), ([0, 2, 1], False), ([0, 2], True), ([0, 2, 4], True),
])  # fmt: skip
def test_offsets_that_cut_no_bags_are_refused(offsets, last, mode):
    bags = dg.function(
        lambda at: F.embedding_bag(dg.tensor([0, 1, 2]), dg.ones((3, 2)), at, include_last_offset=last),
        mode=mode,
    )
    bags(dg.tensor([0, 1, 3] if last else [0, 3]))
    with pytest.raises(dg.errors.ArgumentError, match="do not rise from 0"):
        bags(dg.tensor(offsets))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_negative_counts_in_a_tensor_are_refused(mode):
    fn = dg.function(lambda n: dg.repeat_interleave(dg.arange(2), n), mode=mode)
    assert fn(dg.tensor([0, 2])).tolist() == [1, 1]
    with pytest.raises(dg.errors.ArgumentError, match="repeats has -1"):
        fn(dg.tensor([-1, 2]))
