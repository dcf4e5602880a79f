"""Passes and fusion: any choice of them gives the bits of eager mode; what must fuse does."""

import random

import duograd as dg
import numpy as np
import pytest
from duograd.core import dispatch, vjp
from duograd.core.backend import get_backend, scalar_bits
from duograd.core.ops import REGISTRY
from duograd.core.ops.update import sgd_update
from duograd.graph.compile import compile_graph
from duograd.graph.ir import Graph, Node
from duograd.graph.passes import PASSES
from duograd.graph.report import borders
from duograd.graph.show import show
from duograd.graph.trace import Trace, effects
from duograd.graph.verify import GraphError, verify

# "attend" does nothing in precision="match".
SINGLE = [(), *((name,) for name in PASSES if name != "attend"), PASSES]


@pytest.fixture(autouse=True)
def verified(monkeypatch):
    """Every graph is verified after every pass."""
    monkeypatch.setenv("DUOGRAD_VERIFY", "1")


def trace(fn, tensors):
    """The graph of fn, and NumPy copies of its inputs."""
    tracer = Trace(fn.__name__, dispatch._State.executor)
    with dispatch.executing(tracer):
        symbols = [tracer.argument(k, t) for k, t in enumerate(tensors)]
        result = fn(*symbols)
        outs = result if isinstance(result, tuple) else (result,)
        tracer.graph.outputs = [tracer._use(tracer.face(y)._value) for y in outs]
        for tensor, symbol in effects(tracer)[0]:
            original = tracer.lifted[id(tensor)][1]
            new = tracer._use(tracer.face(symbol)._value)
            tracer.graph.writes.append((tracer.inputs[id(original)], new))
    tracer.done = True
    given = [tensors[s.key] if s.kind == "arg" else s.tensor for s in tracer.sources]
    return tracer.graph, [t.detach().numpy().copy() for t in given]


def run(compiled, arrays):
    """Run on NumPy arrays (written in place); the arena holds garbage before. Returns the outputs."""
    outs = [np.full(t.shape, 85, t.dtype.np) for t in compiled.outputs]
    dynamic = [a.ctypes.data for a in (*arrays, *outs)]
    dynamic += [scalar_bits(n.read(), dtype) for n, dtype in compiled.numbers] + list(compiled.constants)
    arena = np.full(compiled.arena_bytes // 8 + 8, np.nan)
    if compiled.arena_bytes:
        dynamic.append(-(-arena.ctypes.data // 64) * 64)
    compiled.executable.run(dynamic)
    return outs


def check(fn, tensors, passes=SINGLE):
    """Eager results and in-place changes are those of the graph under each choice of passes, to the bit."""
    graph, inputs = trace(fn, tensors)
    twins = [dg.tensor(t.detach().numpy().copy(), requires_grad=t.requires_grad) for t in tensors]
    dg.manual_seed(5)
    result = fn(*twins)
    expected = [y.detach().numpy() for y in (result if isinstance(result, tuple) else (result,))]
    after = [t.detach().numpy() for t in twins]
    compiled = None
    for chosen in passes:
        compiled = compile_graph(graph, "cpu", chosen)
        arrays = [a.copy() for a in inputs]
        dg.manual_seed(5)
        outs = run(compiled, arrays)
        for a, b in zip(expected + after, outs + arrays[: len(after)], strict=True):
            assert a.dtype == b.dtype
            if a.dtype.itemsize == 2 and a.dtype.kind not in "iu":  # NumPy takes no NaN of bfloat16 as one
                a, b = a.astype(np.float32), b.astype(np.float32)
            np.testing.assert_array_equal(a, b, err_msg=str(chosen))
            if a.dtype.kind == "f":
                np.testing.assert_array_equal(
                    np.signbit(a[a == 0]), np.signbit(b[b == 0]), err_msg=str(chosen)
                )
    return compiled


def normal(*shape, grad=False, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return dg.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=grad)


def ops_of(group):
    return [n.op.name for n in group.nodes]


def kinds(compiled):
    return [g.kind for g in compiled.groups]


# ---------------------------------------------------------------- programs


def mlp_step(x, y, w1, b1, w2, b2):
    loss = dg.cross_entropy(dg.linear(dg.relu(dg.linear(x, w1, b1)), w2, b2), y)
    params = [w1, b1, w2, b2]
    grads = vjp.walk([loss], [dg.ones(())], params)
    with dg.no_grad():
        for p, g in zip(params, grads):
            dispatch.update(sgd_update, (p,), (p, g, 0.1, 0.01), (False,))
    return loss.detach(), *grads


def mlp_arguments(batch=6):
    y = dg.tensor(np.arange(batch) % 5)
    return [normal(batch, 9), y, *(normal(*s, grad=True) for s in ((7, 9), (7,), (5, 7), (5,)))]


def cnn_step(x, y, w1, b1, w2, b2):
    h = dg.relu(REGISTRY["conv"](x, w1, padding=1) + b1.reshape(1, -1, 1, 1))
    h = dg.flatten(REGISTRY["max_pool"](h, window=2), start_axis=1)
    loss = dg.cross_entropy(dg.linear(h, w2, b2), y)
    params = [w1, b1, w2, b2]
    grads = vjp.walk([loss], [dg.ones(())], params)
    with dg.no_grad():
        for p, g in zip(params, grads):
            dispatch.update(sgd_update, (p,), (p, g, 0.1, 0.01), (False,))
    return loss.detach(), *grads


def cnn_arguments(batch=2):
    y = dg.tensor(np.arange(batch) % 3)
    shapes = ((4, 2, 3, 3), (4,), (3, 4 * 3 * 3), (3,))
    return [normal(batch, 2, 6, 6), y, *(normal(*s, grad=True) for s in shapes)]


def layer_norm_step(x, w, b):
    y = dg.layer_norm(x, w, b)
    return y.detach(), *vjp.walk([(y * y * 0.5).sum()], [dg.ones(())], [x, w, b])


def test_training_steps_match_eager_with_any_passes():
    check(mlp_step, mlp_arguments())
    check(cnn_step, cnn_arguments())
    check(layer_norm_step, [normal(5, 12, grad=True), normal(12, grad=True), normal(12, grad=True)])


# ---------------------------------------------------------------- random programs

UNARY = ["negative", "abs", "square", "exp", "tanh", "relu", "sigmoid", "sign", "gelu"]
BINARY = ["add", "subtract", "multiply", "maximum", "minimum", "divide"]
REDUCING = ["sum", "max", "min", "mean", "prod"]


def broadcasts(a, b):
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        return False
    return True


def random_shape(r, size):
    """One to three axes with this many elements in all."""
    parts = [1] * r.randrange(1, 4)
    factor = 2
    while size > 1:
        while size % factor:
            factor += 1
        parts[r.randrange(len(parts))] *= factor
        size //= factor
    return tuple(parts)


def random_step(r, pool, args):
    """One more value for the pool, or a write to an argument."""
    x = pool[-1 - min(int(r.expovariate(0.5)), len(pool) - 1)]
    kind = r.choices(
        ["unary", "binary", "number", "reduce", "view", "softmax", "matmul", "write"],
        [5, 6, 3, 5, 6, 1, 1, 1],
    )[0]
    if kind == "unary":
        return REGISTRY[r.choice(UNARY)](x)
    if kind == "binary":
        return REGISTRY[r.choice(BINARY)](x, r.choice([p for p in pool if broadcasts(p, x)]))
    if kind == "number":
        return REGISTRY[r.choice(BINARY)](x, r.choice([0.5, 2.0, 1, -1.0, 0]))
    if kind == "write":
        target = r.choice(args)
        other = r.choice([p for p in pool if p.shape == target.shape])
        dispatch.apply_in_place(REGISTRY["add"], target, (other, r.choice([0.5, target])), ())
        return None
    if not x.ndim:
        return None
    if kind == "reduce":
        axes = tuple(sorted(r.sample(range(x.ndim), r.randrange(1, x.ndim + 1))))
        return REGISTRY[r.choice(REDUCING)](x, axis=axes, keepdims=r.random() < 0.6)
    if kind == "softmax":
        return dg.softmax(x, axis=r.randrange(x.ndim))
    if kind == "matmul":
        return x @ x.mT if x.ndim > 1 else None
    view = r.randrange(5)
    if view == 0:
        return dg.permute(x, axes=tuple(r.sample(range(x.ndim), x.ndim)))
    if view == 1:
        return x.clone().reshape(random_shape(r, x.size))
    if view == 2:
        return x[tuple(slice(r.randrange(max(1, n // 2)), None, r.choice([1, 1, 2])) for n in x.shape)]
    if view == 3:
        return dg.broadcast_to(x, shape=(r.choice([1, 2, 3]), *x.shape)) if x.ndim < 3 else x.mT
    return dg.concat([x, x], axis=r.randrange(x.ndim))


def random_program(seed):
    """A function of random ops and its arguments. The same seed makes the same program in every mode."""
    r = random.Random(seed)
    dims = [r.choice([1, 2, 3, 4, 5, 8, 33]) for _ in range(3)]
    shapes = [tuple(d if r.random() < 0.8 else 1 for d in dims[r.randrange(4) :]) for _ in range(3)]
    rng = np.random.default_rng(seed)
    tensors = [dg.tensor(rng.uniform(-1.5, 1.5, s).astype(np.float32)) for s in shapes]

    def program(*args):
        r = random.Random(seed)
        pool = list(args)
        for _ in range(14):
            y = random_step(r, pool, args)
            if y is not None and 0 < y.size < 20_000:
                pool.append(y)
        return pool[-1], *r.sample(pool, 2)

    return program, tensors


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.filterwarnings("ignore")
def test_random_programs_match_eager(seed):
    check(*random_program(seed), passes=[("fuse",), PASSES])


# ---------------------------------------------------------------- what fuses


def test_softmax_with_prologue_is_one_kernel():
    compiled = check(lambda x: dg.softmax(x * 2.0 + 1.0), [normal(6, 40)])
    assert kinds(compiled) == ["reduce"]
    assert len(compiled.program.launches) == 1


def test_layer_norm_is_one_kernel_and_its_gradient_two():
    forward = check(lambda x, w, b: dg.layer_norm(x, w, b), [normal(6, 40), normal(40), normal(40)])
    assert len(forward.program.launches) == 1
    both = check(layer_norm_step, [normal(6, 40, grad=True), normal(40, grad=True), normal(40, grad=True)])
    # Rows forward and back, and the column sums for w and b.
    assert len(both.groups) == 2


def test_cross_entropy_and_its_gradient_are_one_row_kernel_and_a_mean():
    def f(x, y):
        loss = dg.cross_entropy(x, y)
        return loss.detach(), *vjp.walk([loss], [dg.ones(())], [x])

    compiled = check(f, [normal(6, 10, grad=True), dg.tensor(np.arange(6))])
    rows = [g for g in compiled.groups if g.sizes == (6, 10)]
    assert len(rows) == 1
    assert {"max", "exp", "log", "picked"} <= set(ops_of(rows[0]))


def test_bias_and_activation_are_in_the_product():
    compiled = check(
        lambda x, w, b: dg.relu(dg.linear(x, w, b)), [normal(40, 50), normal(36, 50), normal(36)]
    )
    assert [ops_of(g) for g in compiled.groups] == [["matmul", "add", "relu"]]


def test_the_value_before_the_activation_comes_out_of_the_product_too():
    def f(x, w, b):
        y = dg.linear(x, w, b)
        return y, dg.gelu(y)

    compiled = check(f, [normal(40, 50), normal(36, 50), normal(36)])
    assert [ops_of(g) for g in compiled.groups] == [["matmul", "add", "gelu"]]


@pytest.mark.parametrize("half", [dg.bfloat16, dg.float16])
def test_work_in_16_bits_is_in_the_product(half):
    def f(x, w, b):
        y = dg.linear(x, w, b)
        return dg.gelu(y), y.to(dg.float32), dg.relu(y) * 2

    x, w, b = (t.to(half) for t in (normal(40, 50), normal(36, 50), normal(36)))
    compiled = check(f, [x, w, b])
    assert [ops_of(g) for g in compiled.groups] == [["matmul", "add", "gelu", "cast", "relu", "multiply"]]


def test_a_product_in_float32_is_rounded_by_its_kernel():
    compiled = check(lambda x, w: (x @ w).to(dg.bfloat16) * 1.7, [normal(40, 50), normal(50, 36)])
    assert [ops_of(g) for g in compiled.groups] == [["matmul", "cast", "multiply"]]


def test_complex_work_in_16_bits_is_apart():
    compiled = check(
        lambda x, w: (x @ w).to(dg.complex64) * (1 + 2j),
        [t.to(dg.float16) for t in (normal(4, 5), normal(5, 3))],
    )
    assert [ops_of(g) for g in compiled.groups] == [["matmul"], ["cast", "multiply"]]


def test_reshapes_do_not_block_fusion():
    def f(x, b):
        y = dg.exp(x + b.reshape(1, 4, 1, 1))
        return dg.relu(y.reshape(2, -1)) * 2.0

    compiled = check(f, [normal(2, 4, 3, 5), normal(4)])
    assert len(compiled.groups) == 1


def test_cheap_work_for_the_gradient_is_done_again_not_kept():
    def f(x, w):
        y = dg.gelu(x)
        loss = (y @ w).sum()
        return loss.detach(), *vjp.walk([loss], [dg.ones(())], [x])

    compiled = check(f, [normal(20, 30, grad=True), normal(30, 5)])
    with_slope = next(g for g in compiled.groups if "gelu_x_grad" in ops_of(g))
    assert "multiply" in ops_of(with_slope)
    assert "gelu" not in ops_of(with_slope)


def test_a_long_sum_has_the_order_of_eager_mode_inside_a_kernel_too():
    """Sums over many elements are cut into blocks: a fused one must be cut in the same way."""
    check(lambda x: (dg.exp(x * 0.5).sum(), x * 2.0), [normal(700, 300)], [PASSES])
    check(lambda x: dg.exp(x).sum(axis=1, keepdims=True) * x, [normal(4, 30_000)], [PASSES])


def test_optimiser_updates_write_in_place_and_read_the_gradient_once():
    compiled = check(mlp_step, mlp_arguments())
    updates = [g for g in compiled.groups if "sgd_update" in ops_of(g)]
    assert len(updates) == 4
    assert not any("assign" in ops_of(g) for g in compiled.groups)


def test_results_go_straight_to_their_memory():
    compiled = check(lambda x: (dg.exp(x) + 1.0, dg.permute(x, axes=(1, 0)) * 2.0), [normal(30, 40)])
    assert compiled.arena_bytes == 0


def test_a_swap_and_crossed_updates_in_place_are_right():
    def crossed(x, y):
        a, b = x + y, x - y
        x.copy_(a)
        y.copy_(b)
        return x * 1.5

    def swap(x, y):
        a, b = x.clone(), y.clone()
        x.copy_(b)
        y.copy_(a)
        return x - y

    def swap_alone(x, y):
        old = x.clone()
        x.copy_(y)
        y.copy_(old)
        return ()

    def turned(x, y):
        x.copy_(x.mT)
        return x + y

    for f in (crossed, swap, swap_alone, turned):
        check(f, [normal(5, 5, seed=1), normal(5, 5, seed=2)])


def test_the_old_value_is_read_before_it_is_overwritten():
    def f(x, y):
        old = x
        x += y
        late = dg.exp(y).sum(axis=0, keepdims=True)
        return old * late, x.sum()

    check(f, [normal(5, 6, seed=1), normal(5, 6, seed=2)])


# ---------------------------------------------------------------- single passes


def graph_of(fn, *tensors):
    return trace(fn, list(tensors))[0]


def names_after(fn, *tensors, passes):
    compiled = compile_graph(graph_of(fn, *tensors), "cpu", passes)
    return [n.op.name for n in compiled.optimised.nodes]


def test_cse_merges_equal_ops_but_not_zeros_of_different_sign():
    def f(x):
        return dg.exp(x) + dg.exp(x), x * 0.0, x * -0.0, x + 1, x + True

    assert names_after(f, normal(3), passes=("cse",)).count("exp") == 1
    assert names_after(f, normal(3), passes=("cse",)).count("multiply") == 2


def test_dce_removes_what_nobody_needs():
    def f(x):
        dg.exp(x)
        return x + 1.0

    assert names_after(f, normal(3), passes=("dce",)) == ["add"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 3e9, -1.5, 300.0])
@pytest.mark.parametrize("fn", [
    lambda x: x.to(dg.int32),
    lambda x: x.to(dg.uint8),
    lambda x: dg.clip(x, 0.0, 3.0).to(dg.int64),
    lambda x: dg.clip(x, 0.0, 3.0),
    lambda x: 1 / dg.relu(x),
    lambda x: dg.minimum(x, 0.0),
], ids=["int32", "uint8", "clip cast", "clip", "relu", "minimum"])  # fmt: skip
def test_what_is_made_of_constants_has_the_bits_of_eager_mode(fn, value):
    want = fn(dg.full((3,), value)).numpy()
    got = dg.function(lambda: fn(dg.full((3,), value)))().numpy()
    if not np.isnan(want.astype("float64")).all():
        assert got.tobytes() == want.tobytes()
    np.testing.assert_array_equal(got, want)


def test_fold_makes_constants_of_constants():
    def f(x):
        return x * (dg.ones((1,)) * 0.25).reshape(()).broadcast_to((3,))

    assert names_after(f, normal(3), passes=("fold", "dce")) == ["full", "multiply"]


def test_algebra_keeps_the_sign_of_zero():
    def f(x):
        return x * 1.0, x - 0.0, x + 0.0

    assert names_after(f, normal(3), passes=("algebra",))[:1] == ["add"]
    check(f, [dg.tensor(np.array([-0.0, 0.0, 1.0], np.float32))])


def test_algebra_turns_a_transposed_product_into_a_product():
    def f(x, w):
        return (x.mT @ w).mT

    names = names_after(f, normal(6, 4), normal(6, 5), passes=("algebra", "dce"))
    assert names.count("matmul") == 1
    check(f, [normal(300, 40), normal(300, 50)])

    def heads(x, w):
        return dg.permute(x @ w, axes=(0, 3, 1, 2)), dg.permute(x @ w.clone(), axes=(1, 3, 0, 2)) + 1.0

    names = names_after(heads, normal(2, 3, 6, 4), normal(2, 3, 4, 5), passes=("algebra", "cse", "dce"))
    assert names.count("matmul") == 1  # both are the same product, turned
    check(heads, [normal(2, 3, 6, 4), normal(2, 3, 4, 5)])


def test_a_pass_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="no pass is called fusion"):
        compile_graph(graph_of(dg.exp, normal(3)), "cpu", ("fusion",))


# ---------------------------------------------------------------- verify, show, sources


def test_verify_names_the_fault_with_the_nodes_round_it():
    graph = graph_of(lambda x: dg.exp(x + 1.0), normal(3))
    graph.nodes.reverse()
    with pytest.raises(GraphError, match=r"made later or nowhere[\s\S]*> %1 = exp %2"):
        verify(graph)
    graph = graph_of(lambda x: dg.exp(x + 1.0), normal(3))
    node = graph.nodes[1]
    wrong = node.outputs[0].type._replace(shape=(4,))
    graph.nodes[1] = Node(node.op, node.inputs, node.attrs, (wrong,), "cpu", node.line)
    with pytest.raises(GraphError, match=r"makes float32\[4\], its rule says float32\[3\]"):
        verify(graph)


def test_verify_refuses_a_write_of_another_type():
    graph = Graph()
    x = graph.add_input(normal(3).type, "cpu")
    y = graph.add_input(normal(4).type, "cpu")
    graph.writes.append((x, y))
    with pytest.raises(GraphError, match="is written to an input of type"):
        verify(graph)


def test_show_prints_types_lines_kernels_writes_and_outputs():
    compiled = compile_graph(graph_of(lambda x, y: (x.add_(y), dg.exp(y))[1], normal(3), normal(3)), "cpu")
    text = show(compiled.optimised, compiled.groups)
    assert "%2 = add %0 %1 : float32[3]   # " in text
    assert "test_graph_passes.py:" in text
    assert "kernel 0, map over [3]" in text
    assert "write %0 <- %2" in text
    assert text.endswith("return %3")


@pytest.mark.parametrize(("step", "arguments"), [(mlp_step, mlp_arguments), (cnn_step, cnn_arguments)])
def test_a_new_batch_size_needs_no_new_kernel(step, arguments):
    def sources(batch):
        compiled = compile_graph(trace(step, arguments(batch))[0], "cpu")
        return {launch.source for launch in compiled.program.launches}

    assert sources(40) == sources(24)


def test_a_new_number_needs_no_new_kernel():
    def sources(rate):
        def f(x, y):
            return dg.softmax(x * rate + y) - rate

        return {
            row.source for row in compile_graph(graph_of(f, normal(4, 6), normal(6)), "cpu").program.launches
        }

    assert sources(0.5) == sources(0.25)


def test_equal_numbers_share_a_slot():
    compiled = compile_graph(graph_of(lambda x: (x * 0.5, x.sum() + 0.5, x - 0.5), normal(9)), "cpu")
    assert len(compiled.constants) == 1


def test_sources_name_their_ops():
    compiled = compile_graph(graph_of(lambda x: dg.exp(x) + 1.0, normal(9)), "cpu")
    ((label, source),) = compiled.sources()
    assert label.startswith("exp (")
    assert "test_graph_passes.py:" in label
    assert "def kernel(" in source


def test_the_backend_is_asked_what_fuses_into_its_products(monkeypatch):
    backend = get_backend("cpu")
    monkeypatch.setattr(type(backend), "takes_epilogue", lambda *_: False)
    compiled = check(lambda x, w, b: dg.relu(dg.linear(x, w, b)), [normal(4, 5), normal(3, 5), normal(3)])
    assert [ops_of(g) for g in compiled.groups] == [["matmul"], ["add", "relu"]]


def test_dropout_and_positions_fuse_with_reductions_and_products():
    """Random bits and counted numbers depend on the element's index in their own tensor, whatever the loop."""

    def f(x, w):
        mask = dg.greater(dg.rand((6, 10)), 0.25)
        h = dg.where(mask, x @ w, 0.0)
        place = dg.permute(dg.arange(60, dtype=dg.float32).reshape(10, 6), axes=(1, 0))
        return h, (h * place).sum(axis=1), (dg.rand((3, 6, 10)) * place).max(axis=(0, 2))

    def g(x):
        place = dg.permute(dg.arange(20, dtype=dg.float32).reshape(4, 5), axes=(1, 0)).reshape(5, 4, 1)
        return (dg.rand((5, 4, 7)) * place + x).sum(axis=2)

    check(f, [normal(6, 8), normal(8, 10)])
    check(g, [normal(5, 4, 7)])


def test_slices_are_written_into_the_memory_of_their_tensor():
    def grow(x, y):
        rows = dg.zeros((4, 6))
        for k in range(4):
            rows[k] = dg.exp(y[k]) * float(k)
        x[1:3, ::2] = y[:2, :3]
        return rows, rows.sum()

    compiled = check(grow, [normal(4, 6, seed=1), normal(4, 6, seed=2)])
    # Zeros, then each row in place; x is not copied either.
    whole = [row for row, label in zip(compiled.program.launches, compiled.labels()) if "full" in label]
    assert len(whole) == 1
    assert compiled.arena_bytes < 4 * 6 * 4 * 3

    def kept(x, y):
        old = x * 2.0
        new = old.clone()
        new[0] = y[0]
        x[0] = x[1]
        return old, new, x.sum()

    check(kept, [normal(4, 6, seed=1), normal(4, 6, seed=2)])


def test_arguments_of_any_layout_are_read_and_written():
    def f(x, y):
        x.mul_(2.0)
        y += x.sum(axis=0, keepdims=True)
        return x + y[::-1], (x @ x.mT).sum()

    results = []
    for fn in (f, dg.function(f)):
        a, b = normal(6, 4, seed=1), normal(8, 12, seed=2)
        out = fn(a.mT, b[::2, 1::2])
        results.append([t.numpy() for t in (*out, a, b)])
    for eager, graph in zip(*results, strict=True):
        np.testing.assert_array_equal(eager, graph)


def test_work_older_than_a_product_fuses_into_it():
    compiled = check(lambda x, w, y: dg.exp(y) * (x @ w), [normal(30, 40), normal(40, 35), normal(30, 35)])
    assert [ops_of(g) for g in compiled.groups] == [["exp", "matmul", "multiply"]]


@pytest.mark.filterwarnings("ignore")
def test_long_programs_do_not_nest():
    def scalars(x):
        s = x.sum()
        for _ in range(400):
            s = s * 0.5 + 1.0
        return x * s

    def elements(x):
        for k in range(300):
            x = dg.tanh(x) if k % 3 else x[::-1] + 0.25
        return x

    check(scalars, [normal(7)], [PASSES])
    check(elements, [normal(7)], [PASSES])


# ---------------------------------------------------------------- casts that products do


def names(compiled):
    """The first words of the kernels' texts, in order."""
    return [launch.source.split()[1] for launch in compiled.program.launches]


@pytest.fixture(params=[dg.bfloat16, dg.float16], ids=str)
def half(request):
    return request.param


def special(*shape):
    """Numbers of which some round to infinity, to denormals of 16 bits or to -0.0."""
    x = normal(*shape).numpy().copy()
    row = np.array([70000, 6e-8, -1e-9, 3e38, 1e-40, 65519, -np.inf, -0.0, 1 + 2**-9], np.float32)
    x.reshape(-1)[5::31] = np.resize(row, x.size)[5::31]
    return dg.tensor(x)


@pytest.mark.parametrize(
    "shapes", [((40, 50), (50, 36)), ((300, 130), (130, 70)), ((3, 7, 20), (20, 9)), ((2, 9, 17), (2, 17, 5))]
)
@pytest.mark.parametrize("turned", [False, True])
def test_casts_to_16_bits_are_in_the_packing(half, shapes, turned):
    x, w = (special(*s) for s in shapes)
    if turned:
        x, w = (dg.tensor(t.numpy().swapaxes(-1, -2).copy()) for t in (x, w))

    def f(x, w):
        x, w = x.to(half), w.to(half)
        return x.swapaxes(-1, -2) @ w.swapaxes(-1, -2) if turned else x @ w

    compiled = check(f, [x, w])
    assert [ops_of(g) for g in compiled.groups] == [["matmul"]]
    if len(shapes[0]) == 2:
        assert names(compiled) == ["pack", "gemm"]


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 300), (300, 70)),
        ((90, 300), (300, 1)),
        ((70, 1), (1, 70)),
        ((300,), (300, 5)),
        ((4, 0), (0, 5)),
        ((0, 4), (4, 5)),
    ],
)
def test_casts_of_products_with_vectors_and_of_nothing(half, shapes):
    x, w = (special(*s) if 0 not in s else normal(*s) for s in shapes)
    compiled = check(lambda x, w: (x.to(half) @ w.to(half), x.to(half) @ w), [x, w])
    assert not any("cast" in ops_of(g) for g in compiled.groups) or 0 in shapes[0]


def test_a_cast_that_several_products_read_is_in_each_of_them(half):
    def f(x, w):
        y = x.to(half)
        return y @ w.to(half), y @ y.T, y.T @ y

    compiled = check(f, [special(40, 30), special(30, 36)])
    # Four operands of 40 x 30 and one more: one pass that halves them is less.
    assert [ops_of(g) for g in compiled.groups].count(["cast"]) == 1
    compiled = check(
        lambda x, w: (x.to(half) @ w.to(half), x.to(half).T @ x), [special(40, 30), special(30, 36)]
    )
    assert [ops_of(g) for g in compiled.groups] == [["matmul"], ["matmul"]]


def test_casts_of_views_lie_where_their_base_does(half):
    f = lambda x, w: x[1].to(half).reshape(20, 30) @ w[2:].to(half)[3:, :].T
    compiled = check(f, [special(3, 10, 60), special(40, 30)])
    assert [ops_of(g) for g in compiled.groups] == [["matmul"]]


def test_gradients_of_products_in_16_bits_round_as_they_pack(half):
    def f(x, w, b):
        y = dg.relu(x.to(half) @ w.to(half) + b.to(half)).to(dg.float32)
        return dg.grad(
            lambda x, w, b: (dg.relu(x.to(half) @ w.to(half) + b.to(half)) * 0.5).to(dg.float32).sum(),
            argnums=(0, 1),
        )(x, w, b), y

    def flat(x, w, b):
        (dx, dw), y = f(x, w, b)
        return dx, dw, y

    compiled = check(flat, [normal(40, 30), normal(30, 36), normal(36)])
    assert not any(ops_of(g) == ["cast"] for g in compiled.groups)


def test_a_weight_that_is_written_is_read_before_through_its_cast(half):
    def f(x, w):
        w = w.detach()
        y = x.to(half) @ w.to(half)
        w *= 0.5
        z = y @ w.to(half).T
        w += 1.0
        return z

    compiled = check(f, [special(40, 30), special(30, 36)])
    assert not any(ops_of(g) == ["cast"] and g.total == 1200 for g in compiled.groups)


@pytest.mark.parametrize(("f", "why"), [
    (lambda x, w, half: (x.to(half) @ w, x.to(half)), "the function needs its result, too"),
    (lambda x, w, half: (x.to(half) @ w, dg.exp(x.to(half)[:5])), "needs its result, too"),
    (lambda x, w, half: x.to(dg.float64).to(half) @ w, ""),
    (lambda x, w, half: x.T.to(half).T @ w, "its operand is not in order in memory"),
    (lambda x, w, half: [x.to(half) @ (w * k) for k in range(1, 6)], "5 ops would round it, more than 3"),
    (lambda x, w, half: (x * 2).to(half) @ w, "what computes its operand rounds it"),
])  # fmt: skip
def test_why_a_cast_is_a_pass_of_its_own(half, f, why):
    def wanted(x, w):
        found = f(x, w.to(half), half)
        return tuple(found) if isinstance(found, list) else found

    compiled = check(wanted, [special(40, 30), normal(30, 36)])
    assert why in " ".join(b.reason for b in borders(compiled))


def test_a_float64_is_rounded_before_a_product(half):
    x = dg.tensor(special(40, 30).numpy().astype(np.float64))
    compiled = check(lambda x, w: x.to(half) @ w.to(half), [x, normal(30, 36)])
    assert [ops_of(g) for g in compiled.groups] == [["cast"], ["matmul"]]
    assert "which rounds float32 alone" in borders(compiled)[0].reason


@pytest.mark.parametrize(
    ("channels", "filters", "side", "groups"), [(8, 70, 14, 1), (32, 64, 13, 1), (6, 6, 9, 6)]
)
def test_a_convolution_in_16_bits_rounds_its_operands_and_its_result(half, channels, filters, side, groups):
    """Its float32 copies are rounded as they are made; a bias and an activation are in its kernel, each op rounded."""
    x, w, b = special(2, channels, side, side), normal(filters, channels // groups, 3, 3), normal(filters)

    def f(x, w, b):
        return (
            dg.relu(dg.nn.functional.conv2d(x.to(half), w.to(half), b.to(half), padding=1, groups=groups))
            * 1.7
        )

    compiled = check(f, [x, w, b])
    assert [ops_of(g) for g in compiled.groups] == [["conv", "add", "relu", "multiply"]]

    def slopes(x, w, b):
        return dg.grad(lambda x, w, b: f(x, w, b).to(dg.float32).sum(), argnums=(0, 1))(x, w, b)

    compiled = check(slopes, [x, w, b])
    assert not any(ops_of(g) == ["cast"] and g.total == x.size for g in compiled.groups)


@pytest.mark.parametrize("f", [
    lambda x: dg.nn.functional.max_pool2d(x, 2), lambda x: dg.cumsum(x, -1),
    lambda x: dg.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
])  # fmt: skip
def test_copies_for_kernels_without_16_bits_are_rounded_as_they_are_made(half, f):
    compiled = check(lambda x: f(x.to(half)), [normal(2, 3, 10, 12)])
    assert not any("cast" in ops_of(g) for g in compiled.groups)


def test_products_of_other_dtypes_read_what_is_rounded(half):
    check(
        lambda x, w: (x.to(half) @ w.to(dg.float64), x.to(half) @ w.to(dg.complex64)),
        [special(40, 30), normal(30, 36)],
    )
