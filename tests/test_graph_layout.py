"""Data that need not be copied: slices that fill a tensor, heads side by side, operands that repeat along rows."""

import duograd as dg
import numpy as np
import pytest
from duograd.core import dispatch
from duograd.core.ops.attention import attention, attention_grad
from duograd.graph.compile import compile_graph
from duograd.graph.trace import Trace

F = dg.nn.functional


@pytest.fixture(autouse=True)
def verified(monkeypatch):
    """Every graph is verified after every pass."""
    monkeypatch.setenv("DUOGRAD_VERIFY", "1")


def normal(*shape):
    rng = np.random.default_rng([7, *shape])
    return dg.tensor(rng.standard_normal(shape).astype(np.float32))


def compiled(fn, *tensors):
    tracer = Trace("f", dispatch._State.executor)
    with dispatch.executing(tracer):
        out = fn(*(tracer.argument(k, t) for k, t in enumerate(tensors)))
        tracer.graph.outputs = [tracer._use(tracer.face(out)._value)]
    tracer.done = True
    return compile_graph(tracer.graph, "cpu")


def slices_gradient(cut):
    def loss(x):
        q, k, v = cut(x)
        return (dg.relu(q) * k + v * v).sum()

    return dg.grad(loss)


CUTS = {
    "by index": (lambda a: (a[:, 0], a[:, 1], a[:, 2]), True),
    "ranges": (lambda a: (a[..., :4], a[..., 4:8], a[..., 8:]), True),
    "with a gap": (lambda a: (a[:, :1, :4], a[:, 1:2, :4], a[:, 2:, :4]), False),
    "overlapping": (lambda a: (a[..., :5], a[..., 4:9], a[..., 7:]), False),
}


@pytest.mark.parametrize("name", CUTS)
def test_gradients_of_slices_that_fill_a_tensor_are_joined(name):
    cut, joins = CUTS[name]
    f, x = slices_gradient(cut), normal(4, 3, 12)
    names = [n.op.name for n in compiled(f, x).optimised.nodes]
    assert ("concat" in names) == joins
    assert ("slice_update" in names) != joins
    np.testing.assert_array_equal(dg.function(f)(x).numpy().view(np.int32), f(x).numpy().view(np.int32))


def test_heads_leave_attention_without_a_copy():
    def f(x):
        q = x.reshape(2, 6, 3, 4).swapaxes(1, 2)
        return F.scaled_dot_product_attention(q, q, q).swapaxes(1, 2).reshape(2, 6, 12)

    graph = compiled(f, normal(2, 6, 12))
    assert [n.op.name for g in graph.groups for n in g.nodes] == ["attention"]
    assert len(graph.program.launches) == 1


@pytest.mark.parametrize("causal", [False, True])
def test_the_layout_of_heads_changes_no_bit(causal):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, n, 3, 16)).astype(np.float32) for n in (90, 100, 100)]
    apart = [dg.tensor(a).swapaxes(1, 2) for a in arrays]
    dense = [dg.tensor(np.ascontiguousarray(a.swapaxes(1, 2))) for a in arrays]
    settings = {"is_causal": causal, "scale": 0.25, "offset": 5}
    (out, lse), (same, _) = attention(*apart, **settings), attention(*dense, **settings)
    np.testing.assert_array_equal(out.numpy(), same.numpy())
    g = normal(2, 90, 3, 16)
    delta = dg.sum(g * out, axis=-1)
    grads = (attention_grad(*x, None, g, lse, delta, **settings) for x in (apart, dense))
    for a, b in zip(*grads):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_multihead_attention_batch_first_equals_batch_second():
    first = dg.nn.MultiheadAttention(12, 3, batch_first=True)
    second = dg.nn.MultiheadAttention(12, 3)
    second.load_state_dict(first.state_dict())
    x = normal(2, 5, 12)
    a = first(x, x, x)[0].detach().numpy()
    turned = x.swapaxes(0, 1)
    np.testing.assert_allclose(
        a, second(turned, turned, turned)[0].detach().numpy().swapaxes(0, 1), atol=1e-6
    )


def test_a_weight_of_channels_is_not_copied_to_a_group_norms_domain():
    x, w, b = normal(3, 6, 5, 4), normal(6), normal(6)
    f = dg.function(lambda x, w, b: F.group_norm(x, 2, w, b))
    graph = compiled(lambda x, w, b: F.group_norm(x, 2, w, b), x, w, b)
    assert not any("# copy" in launch.source[:40] for launch in graph.program.launches)
    assert not any("# assign" in launch.source[:40] for launch in graph.program.launches)
    np.testing.assert_array_equal(f(x, w, b).numpy(), F.group_norm(x, 2, w, b).numpy())


def test_a_table_of_places_is_not_copied_to_the_batch():
    x, places = normal(4, 7, 8), normal(7, 8)
    graph = compiled(lambda x, p: dg.layer_norm(x + p), x, places)
    assert len(graph.program.launches) == 1
