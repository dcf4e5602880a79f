"""The array API's functions over axes, shapes and indices, judged beside array_api_strict."""

import itertools

import array_api_strict as xs
import duograd as dg
import numpy as np
import pytest
from duograd.tests.array_api_cases import ALL, COMPLEX, FLOATS, NUMERIC, REAL, agree, call, few, seeds, values
from hypothesis import given
from hypothesis import strategies as st


def _axis_case(max_axes=3):
    return st.sampled_from([((7,), None), ((7,), 0), ((3, 4), None), ((3, 4), 1), ((3, 4), -2), ((2, 3, 4), (0, 2)),
                            ((2, 3, 4), (1, -1)), ((), None), ((2, 1, 3), 1)])  # fmt: skip


REDUCTIONS = {
    "sum": NUMERIC, "prod": REAL, "max": REAL, "min": REAL, "mean": FLOATS, "std": FLOATS, "var": FLOATS,
    "any": ALL, "all": ALL,
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name):
    @few
    @given(st.sampled_from(REDUCTIONS[name]), _axis_case(), st.booleans(), seeds, st.sampled_from([0.0, 1.0]))
    def check(dtype, case, keepdims, seed, correction):
        shape, axis = case
        x = values(
            dtype,
            shape,
            seed,
            corners=name in ("max", "min", "any", "all") and dtype not in COMPLEX,
            small=True,
        )
        more = {"correction": correction} if name in ("std", "var") else {}
        if more and correction >= (
            np.size(x) if axis is None else x.shape[axis] if isinstance(axis, int) else 9
        ):
            return
        call("", name, [x], axis=axis, keepdims=keepdims, scale=10, **more)
        if name in ("sum", "prod") and dtype in REAL:
            call("", name, [x], axis=axis, dtype="float64", scale=10)

    check()


@pytest.mark.parametrize("name", ["argmax", "argmin", "count_nonzero", "cumulative_sum", "cumulative_prod"])
def test_searching_and_running(name):
    @few
    @given(
        st.sampled_from(REAL),
        st.sampled_from([((7,), 0), ((3, 4), 1), ((2, 3, 4), -2)]),
        st.booleans(),
        seeds,
    )
    def check(dtype, case, flag, seed):
        shape, axis = case
        x = values(dtype, shape, seed, corners=False, small=True)
        more = {"include_initial": flag} if name.startswith("cum") else {"keepdims": flag}
        call("", name, [x], axis=axis, scale=10, **more)

    check()


@few
@given(
    st.sampled_from(REAL), st.sampled_from([((7,), 0), ((3, 4), 1), ((2, 9, 2), -2)]), st.booleans(), seeds
)
def test_sort_and_argsort(dtype, case, descending, seed):
    shape, axis = case
    x = values(dtype, shape, seed, corners=False, small=True)
    call("", "sort", [x], axis=axis, descending=descending)
    if descending:  # array_api_strict's order of equal elements is that of a flipped sort
        order = dg.argsort(dg.tensor(x), axis=axis, descending=True, stable=True)
        np.testing.assert_array_equal(
            np.take_along_axis(x, order.numpy(), axis),
            dg.sort(dg.tensor(x), axis=axis, descending=True).numpy(),
        )
    else:
        call("", "argsort", [x], axis=axis)


@few
@given(st.sampled_from(ALL), st.sampled_from([(), (9,), (3, 4), (3, 1), (2, 1, 3, 1)]), seeds)
def test_sets_and_nonzero(dtype, shape, seed):
    x = values(dtype, shape, seed, corners=False, small=True)
    for name in ("unique_values", "unique_counts", "unique_inverse"):
        call("", name, [x])
    everything = dg.unique_all(dg.tensor(x))
    assert everything._fields == ("values", "indices", "inverse_indices", "counts")
    flat = x.reshape(-1)
    np.testing.assert_array_equal(flat[everything.indices.numpy()], everything.values.numpy())
    np.testing.assert_array_equal(everything.values.numpy()[everything.inverse_indices.numpy()], x)
    if shape:
        call("", "nonzero", [x])


@few
@given(st.sampled_from(REAL), seeds, st.sampled_from(["left", "right"]))
def test_searchsorted(dtype, seed, side):
    a, v = np.sort(values(dtype, (9,), seed, False, True)), values(dtype, (2, 5), seed + 1, False, True)
    call("", "searchsorted", [a, v], side=side)


MANIPULATION = [
    ("reshape", (3, 4), ((4, 3),), {}), ("reshape", (3, 4), ((-1,),), {"copy": True}),
    ("permute_dims", (2, 3, 4), ((2, 0, 1),), {}), ("flip", (3, 4), (), {}), ("flip", (3, 4), (), {"axis": (0, -1)}),
    ("roll", (3, 4), (2,), {}), ("roll", (3, 4), ((1, -2),), {"axis": (0, 1)}), ("tile", (3, 4), ((2, 1, 2),), {}),
    ("repeat", (3, 4), (2,), {"axis": 1}), ("repeat", (3,), (3,), {}), ("moveaxis", (2, 3, 4), (0, -1), {}),
    ("moveaxis", (2, 3, 4), ((0, 1), (2, 0)), {}), ("expand_dims", (3, 4), (), {"axis": 1}),
    ("expand_dims", (3, 4), (), {"axis": -1}), ("squeeze", (1, 3, 1), (0,), {}), ("squeeze", (1, 3, 1), ((0, -1),), {}),
    ("broadcast_to", (3, 1), ((2, 3, 4),), {}), ("unstack", (3, 4), (), {"axis": 1}), ("tril", (3, 4), (), {"k": 1}),
    ("triu", (2, 3, 4), (), {"k": -1}), ("diff", (3, 5), (), {"axis": 0}), ("diff", (3, 5), (), {"n": 2}),
]  # fmt: skip


@pytest.mark.parametrize("case", MANIPULATION, ids=lambda c: c[0])
def test_manipulation(case):
    name, shape, args, kwargs = case
    for dtype in (
        ("float32", "int8", "complex64") if name == "diff" else ("bool", "float32", "int8", "complex64")
    ):
        call("", name, [values(dtype, shape, 3, corners=False, small=True)], *args, **kwargs)


def test_an_axis_outside_is_an_index_error():
    x = dg.ones((2, 3))
    for wrong in (lambda: dg.expand_dims(x, axis=-4), lambda: dg.sum(x, axis=2), lambda: dg.flip(x, axis=5)):
        with pytest.raises(IndexError, match="is outside") as caught:
            wrong()
        assert isinstance(caught.value, ValueError)


def test_copy_false_never_copies():
    x = dg.ones((2, 3))
    assert dg.asarray(x, copy=False) is x
    assert dg.reshape(x, (2, 3), copy=False).ptr == dg.from_dlpack(x, copy=False).ptr == x.ptr
    for wrong in (
        lambda: dg.asarray(1.0, copy=False),
        lambda: dg.asarray([1, 2], copy=False),
        lambda: dg.asarray(x, dtype=dg.float64, copy=False),
        lambda: dg.reshape(x.mT, (6,), copy=False),
    ):
        with pytest.raises(ValueError, match=r"cop|share") as caught:
            wrong()
        assert isinstance(caught.value, BufferError)


def test_astype_does_not_drop_imaginary_parts():
    z = dg.tensor([1 + 2j, 0j])
    for target in (dg.float32, dg.int64, dg.uint8):
        with pytest.raises(dg.errors.DtypeError, match="imaginary"):
            dg.astype(z, target)
    assert dg.astype(z, dg.bool).tolist() == [True, False]
    assert dg.astype(z, dg.complex128).dtype is dg.complex128


@pytest.mark.parametrize("kind", ["bool", "int32", "float64"])
def test_where_takes_its_dtype_from_the_sides(kind):
    c, x = dg.tensor([1, 0], dtype=kind), dg.tensor([1.0, 2.0], requires_grad=True)
    both = dg.function(lambda c, x: (dg.where(c, x, 3.0), dg.where(c, 1, 2.5), dg.where(c, 1, 2)))
    for a, b, n in (both(c, x.detach()), (dg.where(c, x, 3.0), dg.where(c, 1, 2.5), dg.where(c, 1, 2))):
        assert (a.dtype, b.dtype, n.dtype) == (dg.float32, dg.float32, dg.int64)
        assert (a.tolist(), b.tolist(), n.tolist()) == ([1.0, 3.0], [1.0, 2.5], [1, 2])
    dg.where(c, x, 3.0).sum().backward()
    assert x.grad.dtype is dg.float32
    assert x.grad.tolist() == [1.0, 0.0]


def test_promotion_of_several_does_not_depend_on_their_order():
    names = ["bool", "int8", "uint16", "uint64", "float16", "float32", "complex64"]
    for row in itertools.product(names, repeat=3):
        want = np.result_type(*map(np.dtype, row)).name
        assert dg.result_type(*(getattr(dg, n) for n in row)).name == want
    parts = [dg.ones((2,), dtype=n) for n in ("int8", "uint16", "float32")]
    for order in itertools.permutations(parts):
        assert dg.concat(order).dtype is dg.stack(order).dtype is dg.asarray(list(order)).dtype is dg.float32


@pytest.mark.parametrize(
    ("size", "mask"),
    [((0, 1), (0, 0)), ((3, 1), (0,)), ((3, 2), (3, 0)), ((3, 2), (0, 2)), ((2, 3, 4), (2, 0))],
)
def test_masks_without_elements_pick_nothing(size, mask):
    x, empty = np.ones(size, np.float32), np.zeros(mask, bool)
    ours = dg.tensor(x)
    np.testing.assert_array_equal(ours[dg.tensor(empty)].numpy(), x[empty])
    ours[dg.tensor(empty)] = 5.0
    np.testing.assert_array_equal(ours.numpy(), x)
    with pytest.raises(IndexError, match=r"does not fit|indices for"):
        ours[dg.tensor(np.zeros((*mask, 7), bool))]


def test_diagonals_far_outside():
    far, x = 2**70, dg.ones((2, 3))
    for k in (far, -far):
        assert dg.eye(2, 3, k=k).sum().item() == 0
    for kind in ("uint8", "int8"):  # neither the diagonal nor the width must fit the dtype
        agree(dg.eye(2, 300, k=-1, dtype=kind), xs.eye(2, 300, k=-1, dtype=getattr(xs, kind)))
    assert dg.tril(x, k=far).sum().item() == dg.triu(x, k=-far).sum().item() == 6
    assert dg.tril(x, k=-far).sum().item() == dg.triu(x, k=far).sum().item() == 0
    for op in (dg.tril, dg.triu):
        with pytest.raises(dg.errors.ArgumentTypeError, match=r"k=1\.5 is a float"):
            op(x, k=1.5)


def test_joining():
    a, b = values("int8", (2, 3), 1, small=True), values("int32", (2, 3), 2, small=True)
    call("", "concat", [[a, b]], axis=1)
    call("", "concat", [[a, b]], axis=None)
    call("", "stack", [[a, b]], axis=-1)
    call("", "broadcast_arrays", [a, b[:1]])
    call("", "meshgrid", [values("float32", (3,), 1), values("float32", (2,), 2)], indexing="xy")
    call("", "where", [a > 0, a, b])
    call("", "take", [a, np.array([2, 0])], axis=1)
    call("", "take_along_axis", [a, np.array([[2, 0], [1, 1]])], axis=1)
    call("", "clip", [values("float32", (7,), 1)], -1.0, 2.0)
    call("", "clip", [values("int16", (7,), 1)], None, 20)


def test_arange_counts_large_integers_exactly():
    for first, end, step in (
        (0, 2**62 + 1, 2**61),
        (2**61, -(2**61) - 1, -(2**60)),
        (np.int64(-3), 4, 3),
        (3, 3, 1),
    ):
        assert dg.arange(first, end, step).tolist() == list(range(first, end, step))


def test_creation():
    for ours, theirs in (
        (dg.arange(5), xs.arange(5)), (dg.arange(1, 9, 2, dtype=dg.float64), xs.arange(1, 9, 2, dtype=xs.float64)),
        (dg.arange(5, 0, -2, dtype=dg.uint8), xs.arange(5, 0, -2, dtype=xs.uint8)),
        (dg.linspace(0, 1, 5, dtype=dg.float64), xs.linspace(0, 1, 5, dtype=xs.float64)),
        (dg.linspace(0, 1, 5, endpoint=False, dtype=dg.float64),
         xs.linspace(0, 1, 5, endpoint=False, dtype=xs.float64)),
        (dg.eye(3, 4, k=-1, dtype=dg.float64), xs.eye(3, 4, k=-1, dtype=xs.float64)),
        (dg.full((2, 3), 7), xs.full((2, 3), 7)), (dg.full((2,), True), xs.full((2,), True)),
        (dg.zeros(3, dtype=dg.int16), xs.zeros(3, dtype=xs.int16)),
        (dg.ones((2, 0), dtype=dg.bool), xs.ones((2, 0), dtype=xs.bool)),
        (dg.full_like(dg.ones((2,), dtype=dg.int8), 3), xs.full_like(xs.ones((2,), dtype=xs.int8), 3)),
        (dg.asarray([[1, 2], [3, 4]]), xs.asarray([[1, 2], [3, 4]])), (dg.asarray(True), xs.asarray(True)),
        (dg.linspace(1j, 2 - 3j, 5, dtype=dg.complex128), xs.linspace(1j, 2 - 3j, 5, dtype=xs.complex128)),
        (dg.asarray([1 + 2j], dtype=dg.complex128), xs.asarray([1 + 2j], dtype=xs.complex128)),
    ):  # fmt: skip
        agree(ours, theirs)
    assert dg.asarray([1.0]).dtype is dg.float32
    assert dg.asarray([1j]).dtype is dg.complex64
    assert dg.empty((2, 3)).shape == dg.empty_like(dg.ones((2, 3))).shape == (2, 3)
    assert dg.zeros_like(dg.ones((2,)), dtype=dg.int8).dtype is dg.int8


@few
@given(st.data())
def test_indexing_and_assignment(data):
    shape = data.draw(st.sampled_from([(7,), (3, 4), (2, 3, 4)]))
    x = values(data.draw(st.sampled_from(ALL)), shape, data.draw(seeds), corners=False, small=True)
    entries = [data.draw(st.one_of(
        st.integers(-n, n - 1), st.slices(n), st.just(slice(None)))) for n in shape]  # fmt: skip
    index = tuple(entries)
    agree(dg.tensor(x)[index], xs.asarray(x)[index])
    mask = values("bool", shape, 5)
    agree(dg.tensor(x)[dg.tensor(mask)], xs.asarray(x)[xs.asarray(mask)])
    ours, theirs = dg.tensor(x), xs.asarray(x.copy())
    value = x.reshape(-1)[0]
    ours[index] = dg.tensor(value)
    theirs[index] = xs.asarray(value)
    agree(ours, theirs)
    ours[dg.tensor(mask)] = dg.tensor(value)
    theirs[xs.asarray(mask)] = xs.asarray(value)
    agree(ours, theirs)
