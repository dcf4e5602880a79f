"""Checkpoints: round trips, damaged files, and that a save is whole or not at all."""

import json
import math
import os
import signal
import struct
import subprocess
import sys
import time

import duograd as dg
import numpy as np
import pytest
from duograd import nn
from duograd.interop import checkpoint


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def _net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _train(net, opt, steps, seed):
    random = np.random.default_rng(seed)
    for _ in range(steps):
        x, y = (dg.tensor(random.standard_normal((5, n)).astype(np.float32)) for n in (3, 2))
        opt.zero_grad()
        nn.MSELoss()(net(x), y).backward()
        opt.step()


# ---------------------------------------------------------------- round trips


def test_a_module_comes_back_under_its_parameters_names(path):
    net, other = _net(), _net()
    dg.save(net, path)
    state = dg.load(path)
    assert sorted(state) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    other.load_state_dict(state)
    assert [p.tolist() for p in other.parameters()] == [p.tolist() for p in net.parameters()]


def test_the_file_is_plain_safetensors(path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    net = _net()
    dg.save(net, path)
    assert set(safetensors.load_file(path)) == set(net.state_dict())
    safetensors.save_file({"a": np.arange(3)}, path)
    assert dg.load(path)["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("shape", [(), (2, 3), (0,)])
def test_complex_tensors_come_back(path, dtype, shape):
    x = dg.tensor(np.arange(math.prod(shape)).reshape(shape) * (1 + 2j), dtype=dtype)
    dg.save({"a": x, "more": [x[None], np.ones(2)]}, path)
    state = dg.load(path)
    assert state["a"].type == x.type
    np.testing.assert_array_equal(state["a"].numpy(), x.numpy())
    np.testing.assert_array_equal(state["more"][0].numpy(), x.numpy()[None])


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"],
)
def test_every_dtype_and_shape_comes_back(path, dtype):
    values = {k: np.ones(shape, dtype) for k, shape in {"a": (), "b": (0, 3), "c": (2, 3)}.items()}
    dg.save({k: dg.tensor(v) for k, v in values.items()}, path)
    state = dg.load(path)
    for k, v in values.items():
        assert state[k].type == dg.tensor(v).type
        assert state[k].tolist() == v.tolist()


def test_views_are_saved_as_they_look(path):
    x = dg.arange(6).reshape(2, 3)
    dg.save({"t": x.T, "row": x[1], "even": x[:, ::2]}, path)
    state = dg.load(path)
    assert state["t"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert state["row"].tolist() == [3, 4, 5]
    assert state["even"].tolist() == [[0, 2], [3, 5]]


def test_nested_states_with_plain_values_come_back(path):
    net = _net()
    opt = dg.optim.Adam(net.parameters(), lr=0.1, betas=(0.8, 0.99))
    _train(net, opt, 1, 0)
    notes = {"list": [1, 2.5, None, True], "pair": (1, "a"), 3: {"x": dg.ones((2,))}, "n": np.float32(0.5)}
    dg.save({"model": net, "optimizer": opt, "epoch": 7, "notes": notes, "empty": {}}, path)
    state = dg.load(path)
    assert state["epoch"] == 7
    assert state["empty"] == {}
    assert state["notes"]["pair"] == (1, "a")
    assert state["notes"]["list"] == [1, 2.5, None, True]
    assert state["notes"][3]["x"].tolist() == [1.0, 1.0]
    assert state["optimizer"]["param_groups"][0]["betas"] == (0.8, 0.99)
    assert list(state["model"]) == list(net.state_dict())


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("make", [
    lambda p: dg.optim.Adam(p, lr=0.03), lambda p: dg.optim.SGD(p, lr=0.03, momentum=0.9, dampening=0.1),
], ids=["adam", "sgd"])  # fmt: skip
def test_training_goes_on_bit_equally(path, make, mode):
    def start():
        net = _net()
        return net, make(net.parameters())

    with dg.mode(mode):
        train = dg.function(_train)
        net, opt = start()
        train.eager(net, opt, 3, 0)
        dg.save({"model": net, "optimizer": opt}, path)
        _train(net, opt, 3, 1)
        other, again = start()
        state = dg.load(path)
        other.load_state_dict(state["model"])
        again.load_state_dict(state["optimizer"])
        _train(other, again, 3, 1)
    assert [p.tolist() for p in other.parameters()] == [p.tolist() for p in net.parameters()]


def test_a_loaded_tensor_owns_its_memory(path):
    dg.save({"a": dg.zeros((3,))}, path)
    state = dg.load(path)
    state["a"].fill_(1.0)
    assert dg.load(path)["a"].tolist() == [0.0] * 3
    os.unlink(path)
    assert state["a"].tolist() == [1.0] * 3


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (lambda: 3, "got a int"),
        (lambda: dg.zeros((2,)), "got a Tensor"),
        (lambda: {"a": {"b": {1, 2}}}, "a.b is a set"),
        (lambda: {"a": {1.5: 0}}, "a has the key 1.5"),
        (lambda: {"a.b": dg.zeros(()), "a": {"b": dg.zeros(())}}, "two tensors would have the name 'a.b'"),
        (lambda: {"a": np.zeros(2, "U3")}, "a is an array of <U3"),
    ],
)
def test_what_cannot_be_saved_is_named(path, value, match):
    with pytest.raises(dg.errors.ArgumentTypeError, match=match):
        dg.save(value(), path)
    assert not path.exists()


def test_missing_places_are_named(tmp_path):
    with pytest.raises(dg.errors.CheckpointError, match=r"folder .*nowhere of model does not exist"):
        dg.save({"a": dg.zeros(())}, tmp_path / "nowhere" / "model")
    with pytest.raises(dg.errors.CheckpointError, match=r"nothing\.safetensors does not exist"):
        dg.load(tmp_path / "nothing.safetensors")
    with pytest.raises(dg.errors.CheckpointError, match="is a folder"):
        dg.load(tmp_path)


def _header(entries, size=0):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def _whole():
    return _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 8)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 not this format at all", "no safetensors file"),
        (_whole()[:-3], "cut short"),
        (_whole()[:12], "cut short"),
        (_whole()[:8] + b"\xff" + _whole()[9:], "damaged"),
        (_header({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, 4), r"a .*F8_E4M3"),
        (_header({"__metadata__": {"duograd": "{"}}), "entry is damaged"),
        (_header({"__metadata__": {"duograd": '{"version": 99, "structure": {}}'}}), "version 99"),
        (
            _header(
                {
                    "__metadata__": {
                        "duograd": '{"version": 1, "structure": {"dict": [["a", {"tensor": "b"}]]}}'
                    }
                }
            ),
            "structure does not fit",
        ),
    ],
)
def test_an_unreadable_file_is_named(path, content, match):
    path.write_bytes(content)
    with pytest.raises(dg.errors.CheckpointError, match=match) as error:
        dg.load(path)
    assert str(path) in str(error.value)
    assert "test_checkpoint.py" in error.value.line


def test_a_file_of_this_form_is_whole(path):
    path.write_bytes(_whole())
    assert dg.load(path)["a"].tolist() == [0.0, 0.0]


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("fault", ["replace", "fsync"])
def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch, fault):
    dg.save({"a": dg.zeros((3,))}, path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, fault, fail)
    with pytest.raises(dg.errors.CheckpointError, match="No space left"):
        dg.save({"a": dg.ones((3,))}, path)
    monkeypatch.undo()
    assert dg.load(path)["a"].tolist() == [0.0] * 3
    assert os.listdir(path.parent) == [path.name]


def test_the_name_holds_the_old_file_until_the_new_one_is_on_disk(path, monkeypatch):
    dg.save({"a": dg.zeros((3,))}, path)
    seen = []
    flush, replace = os.fsync, os.replace

    def fsync(handle):
        seen.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        assert dg.load(path)["a"].tolist() == [float("replace" in seen)] * 3
        flush(handle)

    def put(source, target):
        assert os.path.dirname(source) == os.path.dirname(target)
        seen.append("replace")
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    monkeypatch.setattr(checkpoint.os, "replace", put)
    dg.save({"a": dg.ones((3,))}, path)
    assert seen == ["file", "replace", "folder"]


KILLED = """
import sys, numpy as np, duograd as dg
path, value = sys.argv[1], 2.0
print("ready", flush=True)
while True:
    dg.save({"a": dg.tensor(np.full(4_000_000, value, np.float32)), "last": dg.tensor([value])}, path)
    value += 1
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_save_leaves_a_whole_file(path):
    dg.save({"a": dg.tensor(np.ones(4_000_000, np.float32)), "last": dg.tensor([1.0])}, path)
    for delay in (0.01, 0.05):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        state = dg.load(path)
        # One save's values throughout: the old file or a new one, nothing in between.
        assert state["a"].shape == (4_000_000,)
        assert (state["a"] == state["last"]).all()


def test_a_link_keeps_pointing_at_the_replaced_file(path):
    target = path.with_name("target")
    dg.save({"a": dg.zeros(())}, target)
    path.symlink_to(target)
    dg.save({"a": dg.ones(())}, path)
    assert path.is_symlink()
    assert dg.load(target)["a"].item() == 1.0
