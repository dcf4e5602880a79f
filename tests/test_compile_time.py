"""What makes tracing and compiling quick must not make it blind: the resting tracer, shared arenas and expressions."""

from __future__ import annotations

import gc
import threading

import duograd as dg
import numpy as np
from duograd.core.backend import get_backend
from duograd.core.scalar import Expr
from duograd.core.types import float32
from duograd.graph.arena import Arenas
from duograd.graph.assemble import _build


def test_what_a_hook_reads_during_the_walk_is_guarded():
    scale = 2.0
    w = dg.ones((3,)).requires_grad_(True)

    @dg.function
    def step(x):
        w.grad = None
        y = w * x
        y.register_hook(lambda g: g * scale)
        y.sum().backward()
        return w.grad

    x = dg.ones((3,))
    assert step(x).numpy().tolist() == [2.0, 2.0, 2.0]
    scale = 5.0
    assert step(x).numpy().tolist() == [5.0, 5.0, 5.0]


def test_what_a_gradient_of_the_users_own_reads_is_guarded():
    scale = {"by": 2.0}

    @dg.custom_gradient
    def double(x):
        return x * 1.0, lambda g: g * scale["by"]

    @dg.function
    def step(w):
        return dg.grad(lambda w: double(w).sum())(w)

    w = dg.ones((3,))
    assert step(w).numpy().tolist() == [2.0, 2.0, 2.0]
    scale["by"] = 3.0
    assert step(w).numpy().tolist() == [3.0, 3.0, 3.0]


def test_what_is_read_between_ops_is_guarded():
    class Config:
        bias = 1.0

    @dg.function
    def f(x):
        y = dg.exp(x)
        y = y + Config.bias
        return dg.softmax(y) * Config.bias

    x = dg.zeros((4,))
    before = f(x).numpy()
    Config.bias = 2.0
    assert np.array_equal(f(x).numpy(), before * 2)


def _chain(x):
    return (dg.softmax(x @ x) @ x).sum()


def test_functions_use_the_same_temporary_memory():
    x = dg.ones((256, 256))
    first, second = dg.function(_chain), dg.function(lambda x: _chain(x) + 1)
    first(x)
    used = get_backend("cpu").memory_stats()["current_bytes"]
    second(x)
    assert get_backend("cpu").memory_stats()["current_bytes"] < used + x.nbytes


def test_temporary_memory_goes_with_the_last_function_that_needs_it():
    backend = get_backend("cpu")
    gc.collect()
    x = dg.ones((600, 600))
    before = backend.memory_stats()["current_bytes"]
    fn = dg.function(_chain)
    fn(x)
    del fn
    gc.collect()
    assert backend.memory_stats()["current_bytes"] <= before + 4096


def test_an_arena_is_lent_to_one_call_at_a_time():
    arenas = Arenas("cpu")
    arenas.add_need(1 << 16)
    lent: set[int] = set()
    twice: list[int] = []

    def borrow(sizes):
        for nbytes in sizes:
            arena = arenas.take(nbytes)
            if id(arena) in lent or arena.nbytes < nbytes:
                twice.append(nbytes)
            lent.add(id(arena))
            lent.discard(id(arena))
            arenas.give(arena)

    rng = np.random.default_rng(0)
    threads = [
        threading.Thread(target=borrow, args=(rng.integers(64, 1 << 16, 1000).tolist(),)) for _ in range(4)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not twice


def test_equal_groups_share_their_expressions():
    roots = (Expr("neg", float32, (Expr("arg", float32, (), 0),)),)
    terms = (("arg", 0, float32), (roots, ((0, 0),)))
    assert _build(terms, ((1, 0),))[0] is _build(terms, ((1, 0),))[0]


def test_a_second_batch_size_compiles_nothing():
    model = dg.nn.Sequential(dg.nn.Linear(6, 5), dg.nn.ReLU(), dg.nn.Linear(5, 3))
    optimizer = dg.optim.Adam(model.parameters(), lr=1e-3)

    @dg.function
    def step(x, y):
        optimizer.zero_grad()
        loss = dg.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step(dg.ones((8, 6)), dg.zeros((8,), dtype=dg.int64))
    before = get_backend("cpu").kernel_stats()["compiled"]
    step(dg.ones((5, 6)), dg.zeros((5,), dtype=dg.int64))
    assert get_backend("cpu").kernel_stats()["compiled"] == before
