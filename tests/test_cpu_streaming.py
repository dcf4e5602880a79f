"""Stores round the caches: the same results, whatever the layout; only where they were measured to pay."""

from __future__ import annotations

import os
import subprocess
import sys

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cpu import streaming


@pytest.fixture
def around(monkeypatch):
    """Every output of a new program that can be written round the caches is."""
    monkeypatch.setattr(streaming, "BYTES", 0)
    monkeypatch.setattr(streaming, "pays", lambda threads: True)


def _softmax(x):
    return dg.softmax(x * 2 + 1)


def _map(x):
    return x * 2 + 1


@pytest.mark.parametrize("f", [_map, _softmax])
@pytest.mark.parametrize("shape", [(5, 64), (5, 70), (3, 2, 32)])
def test_results_are_the_same(around, f, shape):
    x = dg.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    for given in (x, x[:, 1:], x.transpose(-1, -2)):
        np.testing.assert_array_equal(dg.function(f)(given).numpy(), _reference(f, given))


def _reference(f, x):
    x = x.numpy() * np.float32(2) + np.float32(1)
    if f is _map:
        return x
    return dg.softmax(dg.tensor(x.copy()), axis=-1).numpy()


def test_a_tensor_may_be_overwritten_by_what_is_computed_from_it(around):
    @dg.function
    def step(x):
        x *= 3
        return x + 1

    x = dg.ones((100,))
    np.testing.assert_array_equal(step(x).numpy(), np.full(100, 4, np.float32))
    np.testing.assert_array_equal(x.numpy(), np.full(100, 3, np.float32))


def test_small_outputs_stay_in_the_caches(monkeypatch):
    asked = []
    monkeypatch.setattr(streaming, "pays", lambda threads: bool(asked.append(threads)))
    dg.function(lambda x: x * 5 - 1)(dg.ones((1000,)))
    assert not asked
    dg.function(lambda x: x * 5 - 1)(dg.ones((streaming.BYTES // 4,)))
    assert asked


def test_each_number_of_threads_is_measured_by_itself(monkeypatch):
    asked, before = [], dg.get_num_threads()
    monkeypatch.setattr(streaming, "pays", lambda threads: bool(asked.append(threads)))
    try:
        for threads in (1, 2):
            dg.set_num_threads(threads)
            dg.function(lambda x: x + 1)(dg.ones((streaming.BYTES // 4,)))
    finally:
        dg.set_num_threads(before)
    assert set(asked) == {1, 2}


LARGE_AFTER_SMALL = """
import duograd as dg
import numpy as np
from duograd.backends.cpu import native, streaming
w = dg.tensor(np.ones((16, 64), np.float32))
f = dg.function(lambda x: (dg.exp(x), x[:, :16] @ w))
compiled = []
for n in (4, streaming.BYTES // 256):
    f(dg.tensor(np.ones((n, 64), np.float32)))
    compiled.append(native.stats()["compiled"])
assert streaming.pays.cache_info().misses == 1
assert compiled[0] == compiled[1] > 2, compiled
"""


def test_the_first_large_batch_compiles_nothing(tmp_path):
    env = {**os.environ, "DUOGRAD_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", LARGE_AFTER_SMALL], env=env, check=True)
