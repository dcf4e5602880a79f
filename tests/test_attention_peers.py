"""Attention against PyTorch: masks, causality, grouped heads, shapes; gradients, threads, memory; the layers."""

import duograd as dg
import numpy as np
import pytest
import torch
from duograd import nn
from duograd.nn import functional as F

SHAPES = [  # batch, heads, groups, queries, keys, features, values
    (1, 1, 1, 1, 1, 1, 1),
    (1, 2, 2, 5, 7, 4, 3),
    (2, 4, 2, 70, 300, 16, 24),
    (1, 3, 1, 75, 401, 33, 20),
    (1, 2, 2, 8, 800, 64, 64),
    (2, 2, 1, 3, 40, 5, 8),
    (1, 1, 1, 300, 40, 8, 8),
]
MASKS = ["none", "bool", "bool by key", "float", "float by row"]


def random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def make_mask(kind, b, h, m, n, dtype):
    rng = np.random.default_rng(7)
    if kind == "bool":
        return rng.random((m, n)) > 0.3
    if kind == "bool by key":
        return rng.random((b, 1, 1, n)) > 0.3
    if kind == "float":
        return rng.standard_normal((b, h, m, n)).astype(dtype)
    return rng.standard_normal((b, 1, m, 1)).astype(dtype) if kind == "float by row" else None


def agree(got, want, dtype, scale=1.0):
    tolerance = scale * (2e-5 if dtype == "float32" else 1e-11)
    np.testing.assert_allclose(
        got, want, rtol=tolerance, atol=tolerance * max(1.0, np.abs(want).max(initial=0))
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_equals_torch(shape, kind, causal, dtype):
    b, h, groups, m, n, d, v = shape
    arrays = [
        random(*s, seed=k, dtype=dtype)
        for k, s in enumerate(((b, h, m, d), (b, groups, n, d), (b, groups, n, v)))
    ]
    mask, g = make_mask(kind, b, h, m, n, dtype), random(b, h, m, v, seed=5, dtype=dtype)
    ours = [dg.tensor(x, requires_grad=True) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    whole = mask
    if causal and mask is not None:
        seen = np.tril(np.ones((m, n), bool))
        whole = mask & seen if mask.dtype == bool else np.where(seen, mask, -np.inf).astype(dtype)
    if whole is not None:
        whole = torch.tensor(np.broadcast_to(whole, (b, h, m, n)).copy())
    want = torch.nn.functional.scaled_dot_product_attention(
        *theirs, whole, is_causal=causal and mask is None, enable_gqa=h != groups
    )
    got = F.scaled_dot_product_attention(
        *ours, None if mask is None else dg.tensor(mask), is_causal=causal, enable_gqa=h != groups
    )
    agree(got.detach().numpy(), want.detach().numpy(), dtype)
    want.backward(torch.tensor(g))
    got.backward(dg.tensor(g))
    for p, q in zip(ours, theirs):
        agree(p.grad.numpy(), q.grad.numpy(), dtype, 2)


def run(arrays, g, causal=False, mask=None, fn=dg.scaled_dot_product_attention):
    leaves = [dg.tensor(x, requires_grad=True) for x in arrays]
    out = fn(*leaves, mask, is_causal=causal)
    out.backward(dg.tensor(g))
    return [out.detach().numpy(), *(x.grad.numpy() for x in leaves)]


@pytest.mark.parametrize("causal", [False, True])
def test_results_do_not_depend_on_threads(causal):
    from duograd.backends.cpu import pool

    arrays, g = [random(1, 2, 500, 16, seed=k) for k in range(3)], dg.tensor(random(1, 2, 500, 16, seed=4))
    threads, results = pool.get_num_threads(), []

    def step(q, k, v):
        out = dg.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out.backward(g)
        return out.detach(), q.grad, k.grad, v.grad

    for n in (1, 2, 3):
        pool.set_num_threads(n)
        try:
            # A new function has a new program, made for this number of threads.
            made = dg.function(step)(*(dg.tensor(x, requires_grad=True) for x in arrays))
            results.append([x.numpy() for x in made])
        finally:
            pool.set_num_threads(threads)
    for other in results[1:]:
        for p, q in zip(results[0], other):
            np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("causal", [False, True])
def test_a_graph_gives_the_same(causal):
    arrays, g = [random(1, 2, 90, 16, seed=k) for k in range(3)], random(1, 2, 90, 16, seed=4)
    g = dg.tensor(g)

    def step(q, k, v):
        out = dg.scaled_dot_product_attention(q, k, v, is_causal=causal)
        out.backward(g)
        return out.detach(), q.grad, k.grad, v.grad

    made = [
        (dg.function(step) if graph else step)(*(dg.tensor(x, requires_grad=True) for x in arrays))
        for graph in (False, True)
    ]
    for p, q in zip(*made):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_layout_of_heads_changes_no_bit():
    x = random(3, 70, 2, 16)
    whole = dg.tensor(x)
    apart = [dg.tensor(np.ascontiguousarray(x[k].transpose(1, 0, 2)))[None] for k in range(3)]
    views = [whole[k].permute(1, 0, 2)[None] for k in range(3)]
    np.testing.assert_array_equal(
        dg.scaled_dot_product_attention(*apart).numpy(), dg.scaled_dot_product_attention(*views).numpy()
    )


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_sees_nothing_gets_zero(kind):
    arrays, g = [random(1, 1, 4, 8, seed=k) for k in range(3)], random(1, 1, 4, 8, seed=4)
    mask = np.ones((4, 4), bool)
    mask[2] = False
    mask = mask if kind == "bool" else np.where(mask, 0, -np.inf).astype(np.float32)
    out, dq, dk, dv = run(arrays, g, mask=dg.tensor(mask))
    assert (out[0, 0, 2] == 0).all()
    assert (dq[0, 0, 2] == 0).all()
    assert all(np.isfinite(x).all() for x in (out, dq, dk, dv))
    np.testing.assert_allclose(out[0, 0, :2], run(arrays, g)[0][0, 0, :2], rtol=1e-6)


def test_no_keys_give_zero():
    out = dg.scaled_dot_product_attention(dg.ones((1, 2, 3, 4)), dg.ones((1, 2, 0, 4)), dg.ones((1, 2, 0, 5)))
    np.testing.assert_array_equal(out.numpy(), np.zeros((1, 2, 3, 5)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(bad):
    arrays = [random(1, 1, 40, 8, seed=k) for k in range(3)]
    arrays[0][0, 0, 3, 2] = bad
    out = dg.scaled_dot_product_attention(*(dg.tensor(x) for x in arrays)).numpy()
    assert np.isnan(out[0, 0, 3]).all()
    assert np.isfinite(np.delete(out, 3, axis=2)).all()


def test_a_mask_that_is_trained_gets_its_gradient():
    arrays, bias = [random(2, 2, 5, 4, seed=k) for k in range(3)], random(1, 2, 5, 5, seed=8)
    ours = [dg.tensor(x, requires_grad=True) for x in (*arrays, bias)]
    theirs = [torch.tensor(x, requires_grad=True) for x in (*arrays, bias)]
    (dg.scaled_dot_product_attention(*ours) ** 2).sum().backward()
    (torch.nn.functional.scaled_dot_product_attention(*theirs) ** 2).sum().backward()
    for p, q in zip(ours, theirs):
        agree(p.grad.numpy(), q.grad.numpy(), "float32", 2)


def test_memory_is_linear_in_the_sequence():
    from duograd.core.backend import get_backend

    backend = get_backend("cpu")

    def peak(n):
        arrays, g = [random(1, 1, n, 16, seed=k) for k in range(3)], random(1, 1, n, 16, seed=4)
        backend.allocator.reset_peak()
        before = backend.memory_stats()["current_bytes"]
        run(arrays, g, causal=True)
        return backend.memory_stats()["peak_bytes"] - before

    small, large = peak(1024), peak(4096)
    assert large < 4.5 * small
    assert large < 4096 * 4096  # a quarter of the scores


def test_dropout_keeps_the_mean_and_the_modes_agree():
    q, k, v = (dg.tensor(random(1, 2, 6, 4, seed=s)) for s in range(3))
    v = dg.ones((1, 2, 6, 4))
    results = []
    for graph in (False, True):
        f = lambda q, k, v: dg.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
        dg.manual_seed(3)
        results.append((dg.function(f) if graph else f)(q, k, v).numpy())
    np.testing.assert_array_equal(*results)
    assert 0 < results[0].mean() < 2
    assert (results[0] != 1).any()


# ---------------------------------------------------------------- layers

OPTIONS = [
    {},
    {"bias": False},
    {"kdim": 5, "vdim": 7},
    {"batch_first": True},
]


def pair(name, *args, **options):
    ours, theirs = getattr(nn, name)(*args, **options), getattr(torch.nn, name)(*args, **options)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    with dg.no_grad(), torch.no_grad():
        for k, (p, q) in enumerate(zip(ours.parameters(), theirs.parameters(), strict=True)):
            assert p.shape == tuple(q.shape)
            value = random(*p.shape, seed=20 + k) * 0.3
            p.copy_(dg.tensor(value))
            q.copy_(torch.tensor(value))
    return ours.eval(), theirs.eval()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("masks", ["none", "padding", "attn", "both", "float"])
def test_multihead_attention_equals_torch(options, weights, masks):
    ours, theirs = pair("MultiheadAttention", 8, 2, **options)
    axes = (1, 0, 2) if options.get("batch_first") else (0, 1, 2)
    widths = (8, options.get("kdim", 8), options.get("vdim", 8))
    rows = [random(n, 3, w, seed=k).transpose(axes) for k, (n, w) in enumerate(zip((4, 5, 5), widths))]
    padding = np.zeros((3, 5), bool)
    padding[1, 3:] = True
    attn = np.random.default_rng(3).random((4, 5)) > 0.7
    attn[:, 0] = False
    given = {}
    if masks in ("padding", "both"):
        given["key_padding_mask"] = padding
    if masks in ("attn", "both"):
        given["attn_mask"] = attn
    if masks == "float":
        given["attn_mask"] = random(6, 4, 5, seed=11)
    a = [dg.tensor(x.copy(), requires_grad=True) for x in rows]
    b = [torch.tensor(x.copy(), requires_grad=True) for x in rows]
    got, got_weights = ours(*a, need_weights=weights, **{k: dg.tensor(v) for k, v in given.items()})
    want, want_weights = theirs(*b, need_weights=weights, **{k: torch.tensor(v) for k, v in given.items()})
    agree(got.detach().numpy(), want.detach().numpy(), "float32")
    if weights:
        agree(got_weights.detach().numpy(), want_weights.detach().numpy(), "float32")
    g = random(*got.shape, seed=12)
    got.backward(dg.tensor(g))
    want.backward(torch.tensor(g))
    for p, q in zip([*a, *ours.parameters()], [*b, *theirs.parameters()], strict=True):
        agree(p.grad.numpy(), q.grad.numpy(), "float32", 2)


@pytest.mark.parametrize("form", ["self", "memory", "one"])
def test_multihead_attention_shares_projections(form):
    ours, theirs = pair("MultiheadAttention", 8, 4)
    x, m = random(6, 2, 8), random(5, 2, 8, seed=1)
    a, c = (dg.tensor(v) for v in (x, m))
    b, d = (torch.tensor(v) for v in (x, m))
    if form == "one":
        a, b = a[:, 0], b[:, 0]
    got = ours(a, c, c)[0] if form == "memory" else ours(a, a, a)[0]
    want = theirs(b, d, d)[0] if form == "memory" else theirs(b, b, b)[0]
    agree(got.detach().numpy(), want.detach().numpy(), "float32")


# PyTorch's hints about its own fast paths
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True", "ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_transformer_equals_torch(norm_first, activation, batch_first, causal):
    ours, theirs = pair(
        "Transformer", 8, 2, 2, 2, 12, norm_first=norm_first, activation=activation, batch_first=batch_first
    )
    src, tgt = random(5, 3, 8), random(4, 3, 8, seed=1)
    if batch_first:
        src, tgt = src.transpose(1, 0, 2).copy(), tgt.transpose(1, 0, 2).copy()
    make = lambda module, tensor: {} if not causal else {
        "tgt_mask": module.generate_square_subsequent_mask(4), "tgt_is_causal": True,
        "src_key_padding_mask": tensor(np.array([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])),
    }  # fmt: skip
    a = [dg.tensor(x, requires_grad=True) for x in (src, tgt)]
    b = [torch.tensor(x, requires_grad=True) for x in (src, tgt)]
    got, want = (
        ours(*a, **make(nn.Transformer, dg.tensor)),
        theirs(*b, **make(torch.nn.Transformer, torch.tensor)),
    )
    agree(got.detach().numpy(), want.detach().numpy(), "float32", 5)
    g = random(*got.shape, seed=2)
    got.backward(dg.tensor(g))
    want.backward(torch.tensor(g))
    for p, q in zip([*a, *ours.parameters()], [*b, *theirs.parameters()], strict=True):
        agree(p.grad.numpy(), q.grad.numpy(), "float32", 10)


def test_a_transformer_trains_the_same_in_a_graph():
    def train(graph):
        dg.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2)
        model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(8, 1))
        optimizer = dg.optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            optimizer.zero_grad()
            loss = (model(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        call = dg.function(step) if graph else step
        return [call(dg.tensor(random(5, 3, 8, seed=k))).item() for k in range(3)]

    assert train(False) == train(True)


# ---------------------------------------------------------------- ONNX


def attention_model(inputs, n_outputs=1, **attrs):
    from onnx import helper

    row = ["q", "k", "v", "mask", "past_k", "past_v"]
    names = [n if n in inputs else "" for n in row]
    while not names[-1]:
        names.pop()
    outs = [f"out{k}" for k in range(n_outputs)]
    node = helper.make_node("Attention", names, outs, **attrs)
    types = {np.dtype("float32"): 1, np.dtype("bool"): 9}
    made = [helper.make_tensor_value_info(n, types[a.dtype], a.shape) for n, a in inputs.items()]
    graph = helper.make_graph([node], "g", made, [helper.make_tensor_value_info(n, 1, None) for n in outs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_onnx_attention_comes_in(causal, mask, past, flat):
    inputs = {"q": random(2, 4, 3, 8), "k": random(2, 2, 5, 8, seed=1), "v": random(2, 2, 5, 8, seed=2)}
    attrs = {"is_causal": causal}
    if flat:
        inputs = {n: a.transpose(0, 2, 1, 3).reshape(2, a.shape[2], -1).copy() for n, a in inputs.items()}
        attrs |= {"q_num_heads": 4, "kv_num_heads": 2}
    total = 5 + 2 * past
    if mask:
        inputs["mask"] = random(3, total, seed=3) if mask == "float" else np.tri(3, total, 3, dtype=bool)
    if past:
        inputs |= {"past_k": random(2, 2, 2, 8, seed=4), "past_v": random(2, 2, 2, 8, seed=5)}
    model = attention_model(inputs, 3 if past else 1, **attrs)
    from onnx.reference import ReferenceEvaluator

    want = ReferenceEvaluator(model).run(None, inputs)
    got = dg.onnx.load(model)(*(dg.tensor(a) for a in inputs.values()))
    for p, q in zip(got if past else [got], want, strict=True):
        agree(p.numpy(), q, "float32")


@pytest.mark.parametrize("opset", [17, 23])
def test_a_transformer_goes_out(opset):
    import warnings

    model, _ = pair("TransformerEncoderLayer", 8, 2, 12, batch_first=True)
    x = dg.tensor(random(2, 5, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the installed onnxruntime may be older than the opset
        exported = dg.onnx.export(model, (x,), opset=opset)
    kinds = {n.op_type for n in exported.graph.node}
    assert ("Attention" in kinds) == (opset >= 23)
    agree(dg.onnx.load(exported)(x).detach().numpy(), model(x).detach().numpy(), "float32")
