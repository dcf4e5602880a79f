"""Reading and writing by index against NumPy and PyTorch, in both modes: any mixture, gradients, order of writes."""

import duograd as dg
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")


SHAPE = (3, 4, 5)
DATA = np.random.default_rng(3).normal(size=SHAPE).astype(np.float32)


@st.composite
def indices(draw):
    """A NumPy index into SHAPE: integers, slices, None, ..., integer arrays and masks, in any mixture."""
    shape = draw(st.sampled_from([(), (1,), (2,), (3,), (2, 1), (2, 3)]))
    out, axis, dots = [], 0, False
    count = draw(st.integers(0, 4))
    for _ in range(count):
        kind = draw(st.sampled_from(["int", "slice", "array", "array", "mask", "none", "dots", "list"]))
        if kind == "none":
            out.append(None)
        elif kind == "dots" and not dots:
            out.append(Ellipsis)
            dots = True
        elif axis < len(SHAPE):
            n = SHAPE[axis]
            if kind == "int":
                out.append(draw(st.integers(-n, n - 1)))
            elif kind == "array":
                size = int(np.prod(shape))
                values = draw(st.lists(st.integers(-n, n - 1), min_size=size, max_size=size))
                cut = draw(st.sampled_from([shape, shape[-1:]]))
                out.append(np.array(values, np.int64).reshape(shape)[(0,) * (len(shape) - len(cut))])
            elif kind == "list" and len(shape) <= 1:
                out.append(
                    draw(
                        st.lists(
                            st.integers(0, n - 1),
                            min_size=shape[0] if shape else 1,
                            max_size=shape[0] if shape else 1,
                        )
                    )
                )
            elif kind == "mask":
                ndim = draw(st.integers(1, min(2, len(SHAPE) - axis)))
                part = SHAPE[axis : axis + ndim]
                seed = draw(st.integers(0, 5))
                mask = np.random.default_rng(seed).random(part) < 0.5
                out.append(mask)
                axis += ndim - 1
            else:
                step = draw(st.sampled_from([None, 1, 2, -1, -2]))
                ends = st.one_of(st.none(), st.integers(-n - 1, n + 1))
                out.append(slice(draw(ends), draw(ends), step))
            axis += 1
    return out[0] if len(out) == 1 and draw(st.booleans()) else tuple(out)


def as_tensors(index):
    turn = lambda e: dg.tensor(e) if isinstance(e, np.ndarray) else e
    return tuple(map(turn, index)) if isinstance(index, tuple) else turn(index)


def numpy_result(index):
    try:
        return DATA[index]
    except IndexError:
        return None  # NumPy refuses it: arrays that do not broadcast, an ellipsis too many


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(indices())
def test_getitem_equals_numpy(index):
    want = numpy_result(index)
    x = dg.tensor(DATA)
    if want is None:
        with pytest.raises(dg.errors.IndexingError):
            x[as_tensors(index)]
        return
    got = x[as_tensors(index)].numpy()
    assert got.shape == want.shape
    np.testing.assert_array_equal(got, want)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(indices(), st.sampled_from(["number", "full", "row"]), st.booleans())
def test_setitem_equals_numpy(index, kind, add):
    part = numpy_result(index)
    if part is None:
        return
    value = 2.5 if kind == "number" else (np.arange(part.size, dtype=np.float32).reshape(part.shape) + 1)
    if kind == "row":
        value = value[..., :1] if part.ndim and part.shape[-1] else value
    want, x = DATA.copy(), dg.tensor(DATA.copy())
    given_value = dg.tensor(value) if isinstance(value, np.ndarray) else value
    if add:
        want[index] += value
        x[as_tensors(index)] += given_value
    else:
        want[index] = value
        x[as_tensors(index)] = given_value
    np.testing.assert_array_equal(x.numpy(), want)


I, J = np.array([0, 2, 0]), np.array([[1], [-1]])
MASK = DATA > 0.2
CASES = {
    "array": (I,),
    "array and slice": (slice(None), I),
    "two arrays": (I, J),
    "apart": (I, slice(1, 3), np.array([1, 4, 1])),
    "with an integer apart": (1, slice(None), np.array([1, 4])),
    "backwards": (slice(None, None, -1), np.array([3, 0])),
    "mask": (MASK,),
    "mask of rows": (slice(None), MASK[0, :, 0]),
    "mask and array": (MASK[:, :, 0], 0),
    "empty": (np.zeros(0, np.int64),),
    "basic": (slice(0, 2), None, 3),
}


@pytest.mark.parametrize("name", CASES)
def test_modes_agree_with_numpy_and_on_gradients(name):
    """Read, assigned, added to: the same in both modes, with gradients of x and of what is assigned."""
    index = CASES[name]
    at = as_tensors(index)
    part = DATA[index]
    value = np.linspace(-1, 1, part.size, dtype=np.float32).reshape(part.shape)

    def step(x, v):
        y = x * 2.0
        y[at] = v * v
        y[at] += v
        return (y * y).sum() + (x[at] * v).sum()

    results = []
    for f in (step, dg.function(step)):
        x, v = dg.tensor(DATA, requires_grad=True), dg.tensor(value, requires_grad=True)
        total = f(x, v)
        total.backward()
        results.append((total.detach().numpy(), x.grad.numpy(), v.grad.numpy()))
    for a, b in zip(*results):
        np.testing.assert_array_equal(a, b)
    y = DATA.astype(np.float64) * 2
    y[index] = value.astype(np.float64) ** 2 + value
    want = (y * y).sum() + (DATA[index].astype(np.float64) * value).sum()
    np.testing.assert_allclose(results[0][0], want, 1e-5)
    kept = np.ones(SHAPE)
    kept[index] = 0
    slope = 8.0 * DATA * kept
    np.add.at(slope, index, value)
    np.testing.assert_allclose(results[0][1], slope, 1e-5, 1e-5)


def test_equal_positions_last_value_stays_and_alone_gets_a_gradient():
    x, v = (
        dg.tensor(np.zeros(4), requires_grad=True),
        dg.tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True),
    )
    y = x * 1.0
    y[dg.tensor([1, 1, 2])] = v
    np.testing.assert_array_equal(y.detach().numpy(), [0, 2, 3, 0])
    y.sum().backward()
    np.testing.assert_array_equal(v.grad.numpy(), [0, 1, 1])
    np.testing.assert_array_equal(x.grad.numpy(), [1, 0, 0, 1])


def test_assignment_writes_in_place_whatever_the_mode():
    x = dg.tensor(np.zeros((3, 4), np.float32))
    pointer, view = x.ptr, x[1]
    x[dg.tensor([1, 2]), dg.tensor([0, 3])] = 5.0
    assert x.ptr == pointer
    np.testing.assert_array_equal(view.numpy(), [5, 0, 0, 0])

    @dg.function
    def put(x, at):
        x[at] = 7.0

    put(x, dg.tensor([0]))
    assert x.ptr == pointer
    np.testing.assert_array_equal(x.numpy()[0], [7] * 4)


def test_assigning_in_place_is_seen_by_the_tape():
    x = dg.tensor(np.ones(3, np.float32), requires_grad=True)
    y = x * 2.0
    z = y * y
    y[dg.tensor([0])] = 1.0
    with pytest.raises(dg.errors.AutogradError, match="changed in place"):
        z.sum().backward()


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool", "float64"])
def test_dtypes_of_assignment(dtype):
    x, value = np.arange(6).astype(dtype), np.array([1, 0, 3]).astype(dtype)
    at = np.array([4, 1, 0])
    got, want = dg.tensor(x), x.copy()
    got[dg.tensor(at)] = dg.tensor(value)
    want[at] = value
    np.testing.assert_array_equal(got.numpy(), want)
    got[dg.tensor(want > 2)] = 1
    want[want > 2] = 1
    np.testing.assert_array_equal(got.numpy(), want)


def _put(x, i):
    x += 1
    x[i] = 5
    return x


@pytest.mark.parametrize(
    "fn",
    [lambda x, i: x[i], lambda x, i: x[i, i], _put, lambda x, i: dg.take(x, i, axis=0) if x[0, 0] > 0 else x],
)
def test_a_graph_refuses_an_index_outside_at_every_call_and_changes_nothing(fn):
    x, step = dg.tensor(np.ones((3, 3), np.float32)), dg.function(fn)
    for at in ([1, 9], [1, 0], [-9, 2], [2, 1]):
        said = []
        for f in (fn, step):
            y = x.clone()
            try:
                f(y, dg.tensor(at))
            except dg.errors.IndexingError as e:
                said.append((e.op, e.message, e.fix, e.line))
                if f is step:
                    np.testing.assert_array_equal(y.numpy(), 1)
        assert len(said) == (0 if max(map(abs, at)) < 3 else 2)
        assert len(set(said)) <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x[dg.tensor([0, 3])], "index 3 is outside axis 0"),
        (lambda x: x[:, dg.tensor([0, 5])], "index 5 is outside axis 1"),
        (lambda x: x[dg.tensor([0, 1]), dg.tensor([0, -5])], "index -5 is outside axis 1 of size 4"),
        (lambda x: x.__setitem__(dg.tensor([4]), 0.0), "index 4 is outside axis 0"),
        (lambda x: x[dg.tensor([0.5])], "not integer or bool"),
        (lambda x: x[dg.tensor([True, False])], "does not fit axes 0 to 0"),
        (lambda x: x[0, 0, 0, 0], "4 indices"),
        (lambda x: x[..., 0, ...], "more than one"),
        (lambda x: x["a"], "not an index"),
        (lambda x: x[dg.tensor([0, 1]), dg.tensor([0, 1, 2])], "do not broadcast"),
        (lambda x: x.__setitem__(dg.tensor([0, 1]), dg.ones((3, 4, 5))), "do"),
        (lambda x: dg.take_along_axis(x, dg.tensor([1]), 0), "differ in axes"),
        (lambda x: dg.gather(x, 0, dg.zeros((2, 9, 5), dtype="int64")), "larger than x"),
        (
            lambda x: dg.scatter(x, 0, dg.zeros((2, 4, 5), dtype="int64"), dg.ones((1, 4, 5))),
            "smaller than index",
        ),
        (lambda x: dg.scatter(x, 0, dg.zeros((2, 4, 5), dtype="int64"), 1.0, reduce="max2"), "reduce='max2'"),
        (lambda x: dg.index_add(x, 0, dg.tensor([1]), dg.ones((2, 4, 5))), "should have the shape"),
    ],
)
def test_misuse_is_explained(call, message):
    with pytest.raises(dg.errors.DuogradError, match=message):
        call(dg.tensor(DATA))


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_fractions_are_not_added_to_integers(mode):
    x, at = dg.zeros((3,), dtype="int64"), dg.tensor([0, 2])
    ones = dg.ones((2,), dtype="int64")
    for source, alpha, text in (
        (ones, 0.5, "alpha=0.5 is no integer"), (ones, dg.tensor(0.5), "alpha=float32.* is no integer"),
        (ones * 0.5, 1, "source=.* is not of integers"), (0.5, 1, "source=0.5 is not of integers"),
    ):  # fmt: skip
        with pytest.raises(dg.errors.DtypeError, match=rf"\[index_add\] {text}") as caught:
            dg.function(lambda s=source, a=alpha: dg.index_add(x, 0, at, s, alpha=a), mode=mode)()
        assert "test_indexing_peers.py:" in str(caught.value)
    assert dg.index_add(x, 0, at, ones, alpha=3).tolist() == [3, 0, 3]
    assert dg.index_add(x, 0, at, ones, alpha=dg.tensor(2)).tolist() == [2, 0, 2]
    assert dg.index_add(x * 1.0, 0, at, ones, alpha=0.5).tolist() == [0.5, 0, 0.5]


# ---------------------------------------------------------------- gather and scatter against PyTorch


def compare(torch, ours, theirs, *arrays):
    leaves = [dg.tensor(a, requires_grad=True) for a in arrays]
    peers = [torch.tensor(a, requires_grad=True) for a in arrays]
    got, want = ours(*leaves), theirs(*peers)
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), 1e-6, 1e-6)
    weight = np.linspace(1, 2, got.size).reshape(got.shape).astype(arrays[0].dtype)
    (got * dg.tensor(weight)).sum().backward()
    (want * torch.tensor(weight)).sum().backward()
    for x, y in zip(leaves, peers):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), 1e-5, 1e-5)


AT = np.random.default_rng(5).integers(0, 4, (2, 6, 5))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gather_equals_torch(torch, dtype):
    compare(
        torch,
        lambda x: dg.gather(x, 1, dg.tensor(AT)),
        lambda x: torch.gather(x, 1, torch.tensor(AT)),
        DATA.astype(dtype),
    )


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("axis", [1, 2])
def test_scatter_reduce_equals_torch(torch, reduce, include_self, axis):
    at = AT[:, :4] if axis == 1 else np.swapaxes(AT, 1, 2)[:, :4]
    source = np.random.default_rng(1).uniform(0.5, 2, at.shape).astype(np.float32)
    if reduce in ("amax", "amin"):
        source[0, 0, :3] = DATA[0, 0, 0]
    compare(
        torch,
        lambda x, v: dg.scatter_reduce(x, axis, dg.tensor(at), v, reduce, include_self=include_self),
        lambda x, v: x.scatter_reduce(axis, torch.tensor(at), v, reduce, include_self=include_self),
        DATA, source,
    )  # fmt: skip


def test_scatter_product_with_zeros_equals_torch(torch):
    x = np.array([0.0, 2.0, 3.0, 0.0], np.float32)
    v = np.array([0.0, 5.0, 0.0, 0.0, 4.0, 2.0], np.float32)
    at = np.array([0, 0, 1, 2, 2, 3])
    compare(
        torch,
        lambda x, v: dg.scatter_reduce(x, 0, dg.tensor(at), v, "prod"),
        lambda x, v: x.scatter_reduce(0, torch.tensor(at), v, "prod"),
        x, v,
    )  # fmt: skip


INDEXED = {
    "index_add": (
        lambda x, v, i: dg.index_add(x, 1, i, v, alpha=2), lambda x, v, i: x.index_add(1, i, v, alpha=2)
    ),
    "index_copy": (lambda x, v, i: dg.index_copy(x, 1, i, v), lambda x, v, i: x.index_copy(1, i, v)),
    "index_fill": (
        lambda x, v, i: dg.index_fill(x, 1, i, 2.0) + v.sum(), lambda x, v, i: x.index_fill(1, i, 2.0) + v.sum()
    ),
    "index_reduce": (
        lambda x, v, i: dg.index_reduce(x, 1, i, v, "amax"), lambda x, v, i: x.index_reduce(1, i, v, "amax")
    ),
    "index_put": (
        lambda x, v, i: dg.index_put(x.swapaxes(0, 1), (i,), v.swapaxes(0, 1), accumulate=True),
        lambda x, v, i: x.swapaxes(0, 1).index_put((i,), v.swapaxes(0, 1), accumulate=True),
    ),
    "scatter_add": (
        lambda x, v, i: dg.scatter_add(x, 1, dg.broadcast_to(i.reshape(1, -1, 1), (3, 3, 5)), v),
        lambda x, v, i: x.scatter_add(1, i.reshape(1, -1, 1).expand(3, 3, 5), v),
    ),
    "scatter": (
        lambda x, v, i: dg.scatter(x, 1, dg.broadcast_to(i.reshape(1, -1, 1), (3, 3, 5)), v),
        lambda x, v, i: x.scatter(1, i.reshape(1, -1, 1).expand(3, 3, 5), v),
    ),
    "index_select": (lambda x, v, i: dg.index_select(x, 1, i) * v, lambda x, v, i: x.index_select(1, i) * v),
    "masked_fill": (
        lambda x, v, i: x.masked_fill(x > 0, 3.0) + v.sum(), lambda x, v, i: x.masked_fill(x > 0, 3.0) + v.sum()
    ),
    "masked_scatter": (
        lambda x, v, i: x.masked_scatter(x > 0.5, v), lambda x, v, i: x.masked_scatter(x > 0.5, v)
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("name", INDEXED)
def test_writes_by_index_equal_torch(torch, name):
    ours, theirs = INDEXED[name]
    at = np.array([3, 0, 2])
    value = np.random.default_rng(2).normal(size=(3, 3, 5)).astype(np.float32)
    compare(
        torch,
        lambda x, v: ours(x, v, dg.tensor(at)),
        lambda x, v: theirs(x, v, torch.tensor(at)),
        DATA, value,
    )  # fmt: skip


@pytest.mark.parametrize("add", [False, True])
def test_threads_do_not_change_the_order_of_writes(run_kernel, add):
    rng = np.random.default_rng(4)
    x, at = rng.normal(size=(2, 7, 64)).astype(np.float32), rng.integers(-7, 7, 300)
    v = rng.normal(size=(2, 300, 64)).astype(np.float32)
    made = [
        run_kernel("put_slices", [x, at, v], [(x.shape, x.dtype)], chunks=n, axis=1, depth=1, add=add)[0]
        for n in (1, 2, 3, 8)
    ]
    want = x.copy()
    for k, i in enumerate(at):
        want[:, i] = want[:, i] + v[:, k] if add else v[:, k]
    for got in made:
        np.testing.assert_array_equal(got, want)


IN_PLACE = {
    "scatter_": lambda x, i, v: x.scatter_(1, i, v),
    "scatter_add_": lambda x, i, v: x.scatter_add_(1, i, v),
    "scatter_reduce_": lambda x, i, v: x.scatter_reduce_(1, i, v, "amax"),
    "index_add_": lambda x, i, v: x.index_add_(1, i[0, :, 0], v[:, : i.shape[1]]),
    "index_copy_": lambda x, i, v: x.index_copy_(1, i[0, :, 0], v[:, : i.shape[1]]),
    "index_fill_": lambda x, i, v: x.index_fill_(1, i[0, :, 0], 3.0),
    "masked_fill_": lambda x, i, v: x.masked_fill_(v > 0, 3.0),
    "masked_scatter_": lambda x, i, v: x.masked_scatter_(v > 0, v),
    "index_put_": lambda x, i, v: x.index_put_((i[:, 1, 0], i[:, 0, 1]), v[0, 0], accumulate=True),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_methods_equal_torch(torch, name):
    write = IN_PLACE[name]
    at = np.array([[[3] * 5, [0] * 5]] * 3)
    value = np.random.default_rng(6).normal(size=SHAPE).astype(np.float32)
    x, y = dg.tensor(DATA.copy()), torch.tensor(DATA.copy())
    pointer = x.ptr
    part = value if "masked" in name else value[:, :2]
    write(x, dg.tensor(at), dg.tensor(part))
    write(y, torch.tensor(at), torch.tensor(part))
    assert x.ptr == pointer
    np.testing.assert_allclose(x.numpy(), y.numpy(), 1e-6)


def test_where_of_a_condition_alone_is_nonzero():
    for got, want in zip(dg.where(dg.tensor(MASK)), np.where(MASK)):
        np.testing.assert_array_equal(got.numpy(), want)
    with pytest.raises(dg.errors.ArgumentTypeError, match="only one of x and y"):
        dg.where(dg.tensor(MASK), 1.0)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(indices())
def test_graph_reads_and_writes_as_numpy(index):
    part = numpy_result(index)
    if part is None:
        return
    at = as_tensors(index)

    @dg.function
    def step(x):
        y = x.clone()
        y[at] = 1.5
        y[at] += x[at]
        return x[at] * 1.0, y

    want = DATA.copy()
    want[index] = 1.5
    want[index] += part
    got, changed = step(dg.tensor(DATA))
    assert got.shape == part.shape
    np.testing.assert_array_equal(got.numpy(), part)
    np.testing.assert_array_equal(changed.numpy(), want)
