"""IDX and CIFAR-10 files: written here as their documents say, read back; files that are cut or something else."""

import gzip
import struct

import duograd as dg
import numpy as np
import pytest

KINDS = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}


def idx(array, kind):
    return (
        bytes([0, 0, kind, array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + np.asarray(array, array.dtype.newbyteorder(">")).tobytes()
    )


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [(4, 3, 2), (5,), (0, 3), ()])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_come_back(tmp_path, dtype, shape, packed):
    array = np.asarray(np.random.default_rng(1).normal(size=shape) * 50).astype(dtype)
    content = idx(array, KINDS[dtype])
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) if packed else content)
    found = dg.data.read_idx(path)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no IDX file"),
        (b"\x89PNG", "is no IDX file"),
        (b"\0\0\x0a\1\0\0\0\0", "is no IDX file"),
        (b"\0\0\x08\3\0\0\0\1", "ends in its header"),
        (idx(np.zeros((2, 3), "int16"), 11)[:-1], r"has 23 bytes, its shape \[2, 3\] takes 24"),
        (idx(np.zeros(3, "uint8"), 8) + b"\0", "has 12 bytes"),
        (b"\0\0\x08\4" + b"\xff" * 16, r"its shape \[4294967295, "),
        (gzip.compress(idx(np.zeros(900, "uint8"), 8), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_other_idx_files_are_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(dg.errors.DataFileError, match=message):
        dg.data.read_idx(tmp_path / "x")


def test_cifar_files_come_back(tmp_path):
    rng = np.random.default_rng(2)
    parts = [
        (rng.integers(0, 10, n).astype("uint8"), rng.integers(0, 256, (n, 3, 32, 32)).astype("uint8"))
        for n in (2, 1, 3, 1, 1)
    ]
    for k, (y, x) in enumerate(parts, 1):
        rows = np.concatenate([y[:, None], x.reshape(len(y), -1)], 1)
        (tmp_path / f"data_batch_{k}.bin").write_bytes(rows.tobytes())
    x, y = dg.data.read_cifar10(tmp_path)
    np.testing.assert_array_equal(x, np.concatenate([b for _, b in parts]))
    np.testing.assert_array_equal(y, np.concatenate([a for a, _ in parts]))
    assert y.dtype == np.int64
    x, y = dg.data.read_cifar10([tmp_path / "data_batch_3.bin"])
    assert x.shape == (3, 3, 32, 32)
    loader = dg.data.DataLoader(dg.data.TensorDataset(x, y), batch_size=2)
    assert [tuple(a.shape) for a, _ in loader] == [(2, 3, 32, 32), (1, 3, 32, 32)]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no multiple of 3073"), (b"\x80\x04pickle", "pickled"), (b"\x0b" * 3073, "a label 11")],
)
def test_other_cifar_files_are_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(dg.errors.DataFileError, match=message):
        dg.data.read_cifar10(tmp_path / "x")


@pytest.mark.parametrize("call", [dg.data.read_idx, dg.data.read_cifar10])
def test_a_missing_file_is_named(tmp_path, call):
    with pytest.raises(dg.errors.DataFileError, match="nowhere cannot be read"):
        call(tmp_path / "nowhere")
    with pytest.raises(dg.errors.DataFileError, match=r"got no files|is no path"):
        dg.data.read_cifar10([] if call is dg.data.read_idx else 3)
