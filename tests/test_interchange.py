"""DLPack both ways, NumPy both ways, and what can be asked about dtypes."""

import gc
import weakref

import duograd as dg
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from duograd.core.types import DTYPES

NAMES = [n for n in DTYPES if n not in ("uint16", "uint32", "uint64")]  # those PyTorch has in full


def _torch_dtype(name):
    return getattr(torch, name)


@pytest.mark.parametrize("name", NAMES)
def test_torch_reads_our_memory_and_we_theirs(name):
    x = dg.tensor(np.arange(6).reshape(2, 3) % 2, dtype=name)
    theirs = torch.from_dlpack(x)
    assert theirs.dtype == _torch_dtype(name)
    assert theirs.data_ptr() == x.ptr
    assert theirs.shape == (2, 3)
    theirs[0, 1] = 0
    assert not x[0, 1].item()
    back = dg.from_dlpack(torch.ones(3, 2, dtype=_torch_dtype(name)).T)
    assert back.dtype == name
    assert back.shape == (2, 3)
    assert back.strides == (1, 2)
    assert back[1, 2].item() == 1


def test_views_go_through_with_their_strides():
    base = dg.arange(24, dtype="float32").reshape(4, 6)
    view = base[1:4:2, ::-2]
    theirs = np.from_dlpack(view)
    np.testing.assert_array_equal(theirs, np.arange(24, dtype=np.float32).reshape(4, 6)[1:4:2, ::-2])
    array = np.arange(24.0).reshape(4, 6)[::-1, 1::2]
    ours = dg.from_dlpack(array)
    np.testing.assert_array_equal(ours.numpy(), array)
    ours += 1
    assert array[0, 0] == 20.0
    np.testing.assert_array_equal((ours * 2).numpy(), array * 2)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)])
def test_small_and_empty_tensors_go_both_ways(shape):
    x = dg.ones(shape)
    assert np.from_dlpack(x).shape == shape
    assert dg.from_dlpack(np.ones(shape)).shape == shape
    assert dg.from_dlpack(np.ones(shape)).sum().item() == np.ones(shape).sum()


@pytest.mark.usefixtures("own_garbage")
def test_memory_lives_as_long_as_either_side_needs_it():
    x = dg.arange(1000, dtype="float32")
    watch = weakref.ref(x._storage)
    theirs = torch.from_dlpack(x)
    del x
    gc.collect()
    assert theirs.sum().item() == 499500
    assert watch() is not None
    del theirs
    gc.collect()
    assert watch() is None
    array = np.arange(1000.0)
    watch = weakref.ref(array)
    ours = dg.from_dlpack(array)[10:]
    del array
    gc.collect()
    assert ours.sum().item() == 499500 - 45
    del ours
    gc.collect()
    assert watch() is None


@pytest.mark.usefixtures("own_garbage")
def test_a_capsule_nobody_takes_lends_nothing():
    x = dg.ones((3,))
    watch = weakref.ref(x._storage)
    capsule = x.__dlpack__(max_version=(1, 0))
    del x
    assert watch() is not None
    del capsule
    gc.collect()
    assert watch() is None


def test_copies_and_refusals():
    array = np.arange(4.0)
    array.flags.writeable = False
    ours = dg.from_dlpack(array)
    ours += 1  # a copy: the owner said read-only
    assert array[0] == 0
    with pytest.raises(dg.errors.CopyError, match="read-only"):
        dg.from_dlpack(array, copy=False)
    x = dg.ones((2,))
    assert dg.from_dlpack(x).ptr == x.ptr
    assert dg.from_dlpack(x, copy=True).ptr != x.ptr
    assert dg.from_dlpack(jnp.arange(3.0)).tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(dg.errors.ArgumentTypeError, match="no __dlpack__"):
        dg.from_dlpack([1, 2])
    with pytest.raises(BufferError, match="detach"):
        np.from_dlpack(x.requires_grad_())
    with pytest.raises(dg.errors.DtypeError, match="not a dtype of duograd"):
        dg.from_dlpack(torch.ones(2, dtype=torch.float8_e4m3fn))
    capsule = np.ones(2).__dlpack__()

    class Twice:
        def __dlpack__(self, **_):
            return capsule

        def __dlpack_device__(self):
            return 1, 0

    dg.from_dlpack(Twice())
    with pytest.raises(dg.errors.ArgumentTypeError, match="used"):
        dg.from_dlpack(Twice())


def test_questions_about_dtypes():
    assert dg.finfo(dg.float32).eps == np.finfo(np.float32).eps
    assert dg.finfo(dg.ones((1,))).bits == 32
    assert dg.iinfo("int8") == (8, 127, -128, dg.int8)
    assert dg.isdtype(dg.int8, "integral")
    assert dg.isdtype(dg.float64, ("bool", "real floating"))
    assert not dg.isdtype(dg.bool, "numeric")
    assert dg.isdtype(dg.bool, "bool")
    assert dg.result_type(dg.int8, dg.uint8) is dg.int16
    assert dg.result_type(dg.ones((1,)), dg.float64, 1) is dg.float64
    assert dg.result_type(dg.int32, 1.5) is dg.float32
    assert dg.can_cast(dg.int8, dg.int64)
    assert not dg.can_cast(dg.float64, dg.float32)
    with pytest.raises(dg.errors.DtypeError, match="not a floating-point"):
        dg.finfo(dg.int8)
    with pytest.raises(dg.errors.ArgumentTypeError, match="is not a kind"):
        dg.isdtype(dg.int8, "integers")


def test_the_namespace_describes_itself():
    x = dg.ones((2,))
    assert x.__array_namespace__(api_version="2024.12") is dg
    info = dg.__array_namespace_info__()
    assert info.default_device() in info.devices()
    assert set(info.dtypes(kind="integral")) == {
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    }
    assert info.default_dtypes()["real floating"] is dg.float32
    y = x.to_device("cpu")
    assert y is x
    assert dg.astype(x, dg.float32) is not x
    assert dg.astype(x, dg.float32, copy=False) is x
