"""The CPU's native floor: kernel compilation and its disk cache."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from duograd.backends.cpu import compile_workers, native, object_cache, progress
from duograd.backends.cpu.compile import compile_assembly, compile_object
from duograd.core.errors import FlagError, KernelError
from kernels_by_hand import ADD_ONE, address, call, in_new_process

pytestmark = pytest.mark.usefixtures("cache_folder")

ADAM = """
def kernel(args, chunk, nchunks):
    p = args[0]
    g = args[1]
    m = args[2]
    v = args[3]
    a = args[4]
    b = args[5]
    c = args[6]
    rate = types.float32(bits_f64(args[7]))
    for i in range(args[8]):
        gi = load_in_f32(g, i)
        mi = load_in_f32(m, i) + rate * gi
        vi = load_in_f32(v, i) + rate * gi * gi
        pi = load_in_f32(p, i) - rate * mi / (vi + load_in_f32(a, i) + load_in_f32(b, i))
        store_out_f32(m, i, mi, 0)
        store_out_f32(v, i, vi, 1)
        store_out_f32(p, i, pi, 2)
        store_out_f32(c, i, pi * mi, 3)
"""


@pytest.fixture
def forgetful(monkeypatch):
    """A process that knows no kernel yet."""
    monkeypatch.setattr(native, "_addresses", {})
    monkeypatch.setattr(native, "_libraries", {})
    monkeypatch.setattr(native, "_announced", [])


def test_kernel_does_its_share_of_the_chunks():
    x = np.zeros(10, np.int64)
    for chunk in (0, 2):
        call(native.kernel_address(ADD_ONE), address(x), 10, chunk=chunk, nchunks=3)
    assert x.tolist() == [1, 1, 1, 0, 0, 0, 1, 1, 1, 1]


def test_kernel_is_compiled_once_and_found_in_memory():
    first = native.kernel_address(ADD_ONE)
    before = native.stats()
    assert native.kernel_addresses([ADD_ONE, ADD_ONE]) == [first, first]
    after = native.stats()
    assert after["compiled"] == before["compiled"]
    assert after["hits"] == before["hits"] + 2


DTYPES = {
    "b1": "?", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8", "u8": "u1", "u16": "u2", "u32": "u4",
    "u64": "u8", "f32": "f4", "f64": "f8",
}  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_is_loaded_and_stored(name):
    dtype = np.dtype(DTYPES[name])
    source = f"""
def kernel(args, chunk, nchunks):
    for i in range(args[2]):
        store_{name}(args[1], i, load_{name}(args[0], i))
        store_out_{name}(args[1], i + args[2], load_in_{name}(args[0], i), 0)
"""
    x = np.array([0, 1, 2, 3, 120], dtype)
    out = np.zeros(10, dtype)
    call(native.kernel_address(source), address(x), address(out), 5)
    np.testing.assert_array_equal(out, np.concatenate([x, x]))


def test_kernels_are_reloaded_in_a_new_process_without_numba():
    code = """
    from duograd.backends.cpu import native, pool
    x = np.zeros(5, np.int64)
    rows = np.array([[native.kernel_address(ADD_ONE), 0, 1, 1]])
    args = np.array([x.ctypes.data, 5])
    rows[0, 1] = args.ctypes.data
    pool.bind(rows.ctypes.data, 1, 0, 0, args.ctypes.data, 2, 0)([])
    print(x.tolist(), native.stats()["compiled"], native.stats()["loaded"], "numba" in sys.modules)
    """
    in_new_process(code)
    assert in_new_process(code).split("] ") == ["[1, 1, 1, 1, 1", "0 2 False\n"]


def test_corrupt_object_file_is_deleted_and_compiled_again(forgetful, cache_folder):
    native.kernel_address(ADD_ONE)
    path = object_cache.path(object_cache.key(ADD_ONE, native.KERNEL))
    good = path.read_bytes()
    for bad in (good[:-1], good[:200] + b"x" + good[201:], b""):
        path.write_bytes(bad)
        native._addresses.clear()
        native._libraries.clear()
        before = native.stats()["compiled"]
        x = np.zeros(3, np.int64)
        call(native.kernel_address(ADD_ONE), address(x), 3)
        assert x.tolist() == [1, 1, 1]
        assert native.stats()["compiled"] == before + 1
        assert len(path.read_bytes()) == len(good)


def test_cache_leaves_no_temporary_files(cache_folder):
    native.kernel_address(ADD_ONE)
    assert {path.suffix for path in cache_folder.iterdir() if path.name != "lock"} == {".kernel"}


def test_clear_cache_deletes_the_object_files(forgetful, monkeypatch, tmp_path):
    monkeypatch.setenv("DUOGRAD_CACHE_DIR", str(tmp_path))
    native.kernel_address(ADD_ONE)
    assert native.clear_cache() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_unwritable_cache_warns_once_and_goes_on(forgetful, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DUOGRAD_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(object_cache, "_warned_unwritable", False)
    with pytest.warns(RuntimeWarning, match="DUOGRAD_CACHE_DIR") as told:
        native.kernel_address(ADD_ONE)
    assert told[0].filename == __file__
    assert native.kernel_address(ADD_ONE + "\n# another\n")


def test_key_changes_with_the_source_and_the_language(monkeypatch):
    key = object_cache.key(ADD_ONE, native.KERNEL)
    assert key == object_cache.key(ADD_ONE, native.KERNEL)
    assert key != object_cache.key(ADD_ONE + "\n", native.KERNEL)
    # A changed module changes the keys of the kernels that can see it, and of no others.
    monkeypatch.setattr(object_cache, "_languages", {})
    monkeypatch.setitem(object_cache._modules, "posix", ("changed", ()))
    assert key == object_cache.key(ADD_ONE, native.KERNEL)
    monkeypatch.setattr(object_cache, "_languages", {})
    monkeypatch.setitem(object_cache._modules, "intrinsics", ("changed", ()))
    assert key != object_cache.key(ADD_ONE, native.KERNEL)


def test_language_modules_are_found_through_imports():
    object_cache._language(("compile", "lang"))
    assert {"compile", "lang", "intrinsics", "numba_front"} <= set(object_cache._modules)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("args[0] = missing(3)", "missing"),
        ("args[0] = chunk.real.nothing", "nothing"),
        ("if chunk > 3:\n        raise ValueError", "can raise an exception"),
        ("for i in range(0, chunk, nchunks):\n        args[0] = i", "variable step"),
        ("args[0] = len([i for i in range(chunk)])", ""),
        ("args[0] = (", "SyntaxError"),
    ],
)
def test_bad_kernel_is_an_error_with_its_source(body, reason):
    source = f"# a bad kernel\ndef kernel(args, chunk, nchunks):\n    {body}\n"
    with pytest.raises(KernelError) as error:
        native.kernel_address(source)
    assert reason in str(error.value)
    assert body.split("\n")[0] in str(error.value)


@pytest.fixture
def one_worker(monkeypatch, forgetful):
    """Batches of two and more use a worker process, whatever the number of CPUs."""
    compile_workers.end_workers()
    monkeypatch.setattr(compile_workers, "_JOBS_PER_WORKER", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    yield
    compile_workers.end_workers()


def numbered(count: int, first: int = 0) -> list[str]:
    """Kernels that store their own number."""
    return [f"{ADD_ONE}\n    store_i64(args[0], 0, {first + k})\n" for k in range(count)]


def test_batch_is_compiled_with_a_worker_process(one_worker):
    before = native.stats()["compiled"]
    addresses = native.kernel_addresses(numbered(6))
    assert native.stats()["compiled"] == before + 6
    assert len(compile_workers._workers) == 1
    for k, kernel in enumerate(addresses):
        x = np.zeros(3, np.int64)
        call(kernel, address(x), 3)
        assert x.tolist() == [k, 1, 1]


def test_worker_and_this_process_give_the_same_object_code(one_worker):
    job = compile_workers.Job(ADD_ONE, native.KERNEL, "same_")
    worker = compile_workers._Worker()
    try:
        assert worker.compile(job) == compile_object(*job)
    finally:
        worker.end()


def test_batch_survives_a_worker_that_dies(one_worker, monkeypatch):
    monkeypatch.setattr(
        compile_workers.sys, "executable", "/bin/false" if os.path.exists("/bin/false") else ""
    )
    addresses = native.kernel_addresses(numbered(3, 3000))
    assert len(set(addresses)) == 3
    assert not compile_workers._workers


def test_batch_with_a_bad_kernel_keeps_the_good_ones(one_worker):
    sources = numbered(4, 4000)
    with pytest.raises(KernelError, match="missing_name"):
        native.kernel_addresses([*sources, "def kernel(args, chunk, nchunks):\n    args[0] = missing_name\n"])
    before = native.stats()["compiled"]
    native.kernel_addresses(sources)
    assert native.stats()["compiled"] == before


def test_the_cache_on_disk_has_a_limit(monkeypatch, tmp_path):
    monkeypatch.setenv("DUOGRAD_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DUOGRAD_CACHE_SIZE", "1K")
    for k in range(4):
        object_cache.write(f"kernel{k}", bytes(300))
        os.utime(object_cache.path(f"kernel{k}"), (1000 + k, 1000 + k))
    assert object_cache.read("kernel0") == bytes(300)  # used just now
    (tmp_path / "dead.1.2.tmp").write_bytes(b"")
    os.utime(tmp_path / "dead.1.2.tmp", (1, 1))
    assert object_cache.trim() == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kernel0.kernel", "kernel3.kernel", "lock"]
    assert object_cache.usage()[0] == 2
    assert object_cache.trim() == 0
    monkeypatch.setenv("DUOGRAD_CACHE_SIZE", "much")
    with pytest.raises(FlagError, match="is not a size"):
        object_cache.limit()


COMPILE_SIX = """
import sys, time
from duograd.backends.cpu import native
sources = [f"def kernel(args, chunk, nchunks):\\n    store_i64(args[0], 0, {k})\\n" for k in range(6)]
sys.stdin.readline()
native.kernel_addresses(sources)
print(native.stats()["compiled"], native.stats()["loaded"])
"""


def test_processes_compile_a_kernel_once(tmp_path):
    env = {**os.environ, "DUOGRAD_CACHE_DIR": str(tmp_path)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", COMPILE_SIX], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    counts = [list(map(int, process.communicate(timeout=100)[0].split())) for process in started]
    assert [sum(row) for row in counts] == [6, 6]
    assert sum(compiled for compiled, _ in counts) == 6


def test_threads_compile_a_kernel_once(forgetful):
    sources = numbered(3, 1000)
    before = native.stats()["compiled"]
    found: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(native.kernel_addresses(sources[k:] + sources[:k])))
        for k in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert native.stats()["compiled"] == before + 3
    assert len({tuple(sorted(row)) for row in found}) == 1


def test_what_a_dead_process_was_compiling_is_compiled_here(forgetful):
    source = numbered(1, 2000)[0]
    key = object_cache.key(source, native.KERNEL)
    code = f"""
import os
from duograd.backends.cpu import object_cache
claim = object_cache.claim(["{key}"])
print(len(list(claim)), flush=True)
os._exit(1)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout == "1\n"
    assert native.kernel_address(source)


def test_progress_is_for_terminals_and_after_a_second(capsys, monkeypatch):
    line = progress.Line(2)
    line.start -= 5
    line.step()
    line.end()
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    line = progress.Line(2)
    line.step()
    assert capsys.readouterr().err == ""  # too early
    line.start -= 5
    line.step()
    assert "2 of 2 kernels" in capsys.readouterr().err
    line.end()
    assert capsys.readouterr().err == "\r\x1b[K"


def test_loop_over_seven_buffers_uses_the_widest_vectors():
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    if not features.get("avx2"):
        pytest.skip("needs an x86 CPU with AVX2 to know the name of its widest registers")
    register = "%zmm" if features.get("avx512f") else "%ymm"
    lines = compile_assembly(ADAM).splitlines()
    divisions = [line for line in lines if "vdivps" in line and register in line]
    stores = [line for line in lines if "vmovups" in line and line.split()[1].startswith(register)]
    assert len(divisions) >= 1
    assert len(stores) >= 4


def test_scoped_access_is_right_in_place():
    n = 1003
    rng = np.random.default_rng(0)
    p, g, m, v, a, b = (rng.random(n, np.float32) + 1 for _ in range(6))
    c = np.zeros(n, np.float32)
    rate = np.float32(0.125)
    m2 = m + rate * g
    v2 = v + rate * g * g
    p2 = p - rate * m2 / (v2 + a + b)
    slots = [address(t) for t in (p, g, m, v, a, b, c)]
    call(native.kernel_address(ADAM), *slots, np.array(0.125).view(np.int64).item(), n)
    for mine, expected in ((m, m2), (v, v2), (p, p2), (c, p2 * m2)):
        np.testing.assert_array_equal(mine, expected)


def test_comments_are_no_part_of_a_kernels_identity():
    """The notes in a generated kernel hold the user's lines; moving those compiles nothing."""
    body = "def kernel(args, chunk, nchunks):\n    # reads nothing\n    pass\n"
    first = object_cache.key("# add  user.py:3\n" + body, native.KERNEL)
    assert first == object_cache.key("# add  user.py:4\n" + body, native.KERNEL)
    assert first != object_cache.key(body.replace("pass", "args[0] = 1"), native.KERNEL)


def test_all_forms_of_import_are_followed_by_the_key():
    text = """
from . import (
    a,  # a comment, with words
    b as c,
)
from . import d, e as f
from .g import (h,
    i)
from duograd.backends.cpu import j
    from duograd.backends.cpu.k import l
import math
"""
    assert object_cache._imported(text) == ("a", "b", "d", "e", "g", "j", "k")
