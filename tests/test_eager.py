"""Eager mode: tape, views, in-place changes, hooks, orders of gradients, plain Python anywhere."""

import gc
import weakref

import duograd as dg
import numpy as np
import pytest


def test_backward_adds_to_grad():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 8.0])


def test_backward_twice_on_one_tape_is_an_error():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(dg.errors.AutogradError, match="already used and freed"):
        y.backward()


def test_retain_graph_allows_a_second_backward():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4.0, 8.0])


def test_backward_of_many_numbers_is_an_error():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(dg.errors.AutogradError, match="one number only") as caught:
        (x * x).backward()
    assert "test_eager.py" in str(caught.value)


def test_backward_without_history_is_an_error():
    with pytest.raises(dg.errors.AutogradError, match="requires a gradient"):
        dg.ones(()).backward()


def test_gradient_of_gradient():
    x = dg.tensor(3.0, requires_grad=True)
    (x**3).backward(create_graph=True)
    first = x.grad
    assert first.item() == pytest.approx(27.0)
    x.grad = None
    first.backward()
    assert x.grad.item() == pytest.approx(18.0)


def test_no_grad_records_nothing():
    x = dg.tensor([1.0], requires_grad=True)
    with dg.no_grad():
        y = x * 2
        with dg.enable_grad():
            z = x * 2
    assert not y.requires_grad
    assert z.requires_grad


def test_detach_shares_memory_and_stops_gradients():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    d = x.detach()
    assert not d.requires_grad
    with dg.no_grad():
        x.mul_(3)
    np.testing.assert_array_equal(d.numpy(), [3.0, 6.0])


def test_views_share_memory():
    x = dg.arange(12).reshape(3, 4)
    for view in (x[1], x[:, 1:3], x.reshape(4, 3), x.T, x.permute(1, 0), x[::-1]):
        assert np.shares_memory(view.numpy(), x.numpy())


def test_writing_through_a_view_changes_the_base():
    x = dg.zeros((3, 4))
    x[1, ::2] = 5
    x.T[3] = dg.ones(3)
    want = np.zeros((3, 4), np.float32)
    want[1, ::2] = 5
    want[:, 3] = 1
    np.testing.assert_array_equal(x.numpy(), want)


def test_overlapping_copy_reads_before_it_writes():
    x = dg.arange(5)
    x[1:] = x[:-1]
    np.testing.assert_array_equal(x.numpy(), [0, 0, 1, 2, 3])


def test_in_place_on_a_saved_tensor_names_both_lines():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    z = (y * y).sum()  # saves y
    y.add_(1)  # changes it
    with pytest.raises(dg.errors.AutogradError, match="changed in place") as caught:
        z.backward()
    text = str(caught.value)
    first = test_in_place_on_a_saved_tensor_names_both_lines.__code__.co_firstlineno
    assert f"test_eager.py:{first + 3}" in text
    assert f"test_eager.py:{first + 4}" in text


def test_in_place_on_a_leaf_is_an_error():
    x = dg.tensor([1.0], requires_grad=True)
    with pytest.raises(dg.errors.AutogradError, match="leaf"):
        x.add_(1)


def test_in_place_keeps_history():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y += x
    y *= 2
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [8.0, 8.0])


def test_gradients_through_assignment_to_a_slice():
    x = dg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    v = dg.tensor([10.0], requires_grad=True)
    y = x * 2
    y[1:2] = v * 3
    (y * dg.tensor([1.0, 10.0, 100.0])).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 0.0, 200.0])
    np.testing.assert_array_equal(v.grad.numpy(), [30.0])


def test_a_view_taken_before_a_recorded_change_follows_it():
    x = dg.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    early = y[0:2]
    y *= 5
    early.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [5.0, 5.0, 0.0])


def test_gradients_of_leaves_share_no_memory():
    a = dg.tensor([1.0, 2.0], requires_grad=True)
    b = dg.tensor([3.0, 4.0], requires_grad=True)
    seed = dg.ones((2,))
    (a + b).backward(seed)
    a.grad.zero_()
    np.testing.assert_array_equal(b.grad.numpy(), [1.0, 1.0])
    np.testing.assert_array_equal(seed.numpy(), [1.0, 1.0])
    a.grad = None
    a.sum().backward()
    a.grad[0] = 5
    np.testing.assert_array_equal(a.grad.numpy(), [5.0, 1.0])


def test_hooks_see_and_replace_gradients():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    seen = []
    y.register_hook(lambda g: seen.append(g.numpy().copy()))
    remove = x.register_hook(lambda g: g * 10)
    (y * y).sum().backward()
    np.testing.assert_array_equal(seen[0], [6.0, 12.0])
    np.testing.assert_array_equal(x.grad.numpy(), [180.0, 360.0])
    remove()
    x.grad = None
    (x * 1).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1.0, 1.0])


def test_the_handle_of_a_hook_takes_it_out():
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    seen = []
    handle = x.register_hook(lambda g: seen.append("a"))
    with x.register_hook(lambda g: seen.append("b")):
        x.sum().backward()
    x.sum().backward()
    handle.remove()
    handle.remove()
    x.sum().backward()
    assert seen == ["a", "b", "a"]


def used_up_beside(a, w, seen):
    h = a * a
    h.sum().backward()
    return dg.autograd.grad((h * w).sum(), w)[0]


def changed_beside(a, w, seen):
    b = a * 2
    h = b * b
    b.add_(1)
    return dg.autograd.grad((h + w).sum(), w)[0]


def hooked_beside(a, w, seen):
    h = a * a
    h.register_hook(lambda g: seen.append("beside"))
    v = w * 2
    v.register_hook(lambda g: seen.append("on the way"))
    return dg.autograd.grad((h + v).sum(), w)[0]


def used_up_behind_the_target(a, w, seen):
    h = a * a
    h.sum().backward()
    h.register_hook(lambda g: seen.append("target"))
    return dg.autograd.grad((h * w).sum(), h)[0]


def used_up_behind_a_push(a, w, seen):
    h = a * a
    h.sum().backward()
    return dg.jvp(lambda t: t * w, (h,), (w,))[1].detach()


def kept_beside(a, w, seen):
    h = a * a
    dg.autograd.grad((h * 2 + w).sum(), w)
    return dg.autograd.grad(h.sum(), a)[0]


def one_target_behind_another(a, w, seen):
    h = a * w
    found = dg.autograd.grad((h * h).sum(), (h, a))
    return found[0] + found[1]


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize(
    ("body", "expected", "ran"),
    [
        (used_up_beside, [1.0, 4.0], []), (changed_beside, [1.0, 1.0], []), (hooked_beside, [2.0, 2.0], ["on the way"]),
        (used_up_behind_the_target, [3.0, 5.0], ["target"]), (used_up_behind_a_push, [9.0, 25.0], []),
        (kept_beside, [2.0, 4.0], []), (one_target_behind_another, [24.0, 120.0], []),
    ],
)  # fmt: skip
def test_only_what_leads_to_the_targets_takes_part(body, expected, ran, mode):
    a, w = dg.tensor([1.0, 2.0], requires_grad=True), dg.tensor([3.0, 5.0], requires_grad=True)
    seen = []
    found = dg.function(lambda a, w: body(a, w, seen), mode=mode)(a, w)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert seen == ran


@pytest.mark.parametrize("body", [used_up_beside, changed_beside])
def test_what_leads_to_a_target_is_checked(body):
    a, w = dg.tensor([1.0, 2.0], requires_grad=True), dg.tensor([3.0, 5.0], requires_grad=True)
    with pytest.raises(dg.errors.AutogradError, match=r"already used|changed in place"):
        body(a, a, [])
    h = dg.exp(a)
    y = h * w
    h.add_(1)
    with pytest.raises(dg.errors.AutogradError, match="changed in place"):
        dg.autograd.grad(y.sum(), w)


def test_python_control_flow_and_print(capsys):
    x = dg.tensor([1.0, -2.0])
    total = 0.0
    for v in x:
        if v > 0:
            total += v.item()
    print(x)
    assert total == 1.0
    assert "tensor([ 1., -2.])" in capsys.readouterr().out


def test_tape_leaves_no_cycles():
    """Memory is freed by reference counts, without the garbage collector."""
    gc.disable()
    try:
        x = dg.tensor([1.0, 2.0], requires_grad=True)
        y = dg.exp(x)  # saves its own output
        node = weakref.ref(y)
        z = y.sum()
        del y, z
        assert node() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("left", "right", "want"),
    [
        (dg.float32, 1.5, "float32"), (dg.int64, 1.5, "float32"), (dg.int8, 1, "int8"), (dg.bool, 1, "int64"),
        (dg.float64, 1, "float64"), (dg.int32, dg.float32, "float64"), (dg.int8, dg.uint8, "int16"),
        (dg.float32, dg.float64, "float64"),
    ],
)  # fmt: skip
def test_promotion_as_numpy_2_with_a_float32_default(left, right, want):
    a = dg.ones((2,), dtype=left)
    b = dg.ones((2,), dtype=right) if isinstance(right, dg.DType) else right
    assert (a + b).dtype == want
    assert (b + a).dtype == want


def test_a_number_that_does_not_fit_is_an_error():
    with pytest.raises(dg.errors.ArgumentTypeError, match="does not fit"):
        dg.ones((2,), dtype=dg.int8) + 300


def test_device_errors():
    with pytest.raises(dg.errors.DeviceError, match="is not a device"):
        dg.ones((2,), device="tpu")
    with pytest.raises(dg.errors.DuogradError):
        dg.tensor([1.0], device="cpu7")


def test_grad_and_value_and_grad_nest():
    f = lambda x: (x**3).sum()
    x = dg.tensor([2.0])
    assert dg.grad(f)(x).item() == pytest.approx(12.0)
    assert dg.grad(lambda y: dg.grad(f)(y).sum())(x).item() == pytest.approx(12.0)
    value, g = dg.value_and_grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(x, dg.tensor([5.0]))
    assert (value.item(), g[0].item(), g[1].item()) == (10.0, 5.0, 2.0)


def test_pickle_and_deepcopy_keep_values_and_setting():
    import copy
    import pickle

    x = dg.tensor([[1.0, 2.0]], requires_grad=True)
    for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        np.testing.assert_array_equal(y.detach().numpy(), [[1.0, 2.0]])
        assert y.requires_grad
        assert not np.shares_memory(y.detach().numpy(), x.detach().numpy())


def test_asarray_shares_numpy_memory():
    a = np.zeros(3, np.float32)
    x = dg.asarray(a)
    a[1] = 7
    assert x[1].item() == 7.0
    x[2] = 1
    assert a[2] == 1.0


def test_random_numbers_follow_the_seed():
    dg.manual_seed(3)
    a, b = dg.rand(4), dg.randn(4)
    dg.manual_seed(3)
    np.testing.assert_array_equal(a.numpy(), dg.rand(4).numpy())
    np.testing.assert_array_equal(b.numpy(), dg.randn(4).numpy())
    many = dg.rand(100_000).numpy()
    assert 0 <= many.min() < 0.001
    assert 0.999 < many.max() < 1
    normal = dg.randn(100_000).numpy()
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
