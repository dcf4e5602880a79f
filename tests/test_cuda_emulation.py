"""What the emulation of CUDA finds: each fault alone, in a kernel that is right without it."""

import numpy as np
import pytest
from duograd.backends.cuda import emulate, kernel_text
from duograd.backends.cuda.device import CudaBackend
from duograd.core import types as T
from duograd.core.backend import Program
from duograd.core.errors import KernelError
from duograd.core.lower import lower_reduce
from duograd.core.scalar import Expr, s
from duograd.tests.device_programs import OpProgram, Place, run

pytestmark = pytest.mark.skipif(not emulate.is_available(), reason="no g++: kernels are not emulated")


def _backend(order="ascending", max_blocks=64, **options):
    return CudaBackend(emulate.EmulatedDriver(order, max_blocks, **options), "emulated")


def _without(nth, what, function):
    """reduce.cuh without the n-th `what` of a function."""
    text = kernel_text.headers()["reduce.cuh"]
    at = text.index(f"INSTRUCTION T {function}")
    for _ in range(nth + 1):
        at = text.index(what, at + 1)
    return {"reduce.cuh": text[:at] + text[at:].replace(what, "", 1)}


@pytest.mark.parametrize("order", ["ascending", 7])
@pytest.mark.parametrize(
    ("function", "which"), [("reduce_x", 0), ("reduce_x", 1), ("reduce_y", 0), ("reduce_y", 1)]
)
def test_a_deleted_barrier_is_seen(function, which, order):
    """Without the first barrier a result is overwritten before all have read it, without the second one read
    before all have written it."""
    shape, axes = ((6, 2500), (1,)) if function == "reduce_x" else ((70, 200), (0,))
    x = np.random.default_rng(0).normal(size=shape).astype("f4")
    arg = Expr("arg", T.float32, (), 0)
    top = Expr("reduce", T.float32, (arg,), "max")
    total = Expr("reduce", T.float32, (s.exp(arg - top),), "sum")
    outputs = [np.zeros([1 if a in axes else n for a, n in enumerate(shape)], "f4")] * 2

    def build(program, inputs, outs):
        lower_reduce(program, shape, axes, inputs, [top, total], outs)

    whole = run(_backend(order, 2), build, [x], outputs)
    np.testing.assert_array_equal(whole[0], x.max(axes, keepdims=True))
    with pytest.raises(
        KernelError, match=r"shared memory, which (nothing has written|thread .* no barrier between)"
    ):
        run(_backend(order, 2, headers=_without(which, "__syncthreads();", function)), build, [x], outputs)


#: header, how many barriers it has, and an op that needs them all: op, arguments, settings
BARRIERS = {
    "product": (2, "matmul", (np.ones((70, 40), "f4"), np.ones((40, 70), "f4")), {}),
    "conv": (1, "conv", (np.ones((2, 3, 9, 9), "f4"), np.ones((3, 3, 3, 3), "f4")), {}),
    "sort": (2, "sort", (np.arange(1400.0, 0, -1).reshape(7, 200),), {}),
    "pick": (4, "flat_places", (np.ones(5000, bool),), {"size": 5000}),
}


@pytest.mark.parametrize("header", BARRIERS)
def test_every_barrier_of_a_written_kernel_is_needed(header):
    count, op, arguments, settings = BARRIERS[header]
    text, barrier = kernel_text.headers()[f"{header}.cuh"], "__syncthreads();"
    parts = text.split(barrier)
    assert len(parts) == count + 1
    OpProgram(right := _backend(max_blocks=1), op, arguments, settings).run(right)
    for k in range(count):
        without = barrier.join(parts[: k + 1]) + barrier.join(parts[k + 1 :])
        broken = _backend(7, max_blocks=1, headers={f"{header}.cuh": without})
        with pytest.raises(KernelError, match=r"nothing has written|no barrier between"):
            OpProgram(broken, op, arguments, settings).run(broken)


def test_a_warp_that_writes_over_what_it_reads_meets_before():
    x, y = np.ones((5, 40), "f4"), np.ones((5, 1), "f4")

    def build(program, inputs, outputs):
        row = Expr("arg", T.float32, (), 1)
        root = Expr("reduce", T.float32, (Expr("arg", T.float32, (), 0) * row,), "sum") + row
        lower_reduce(program, x.shape, (1,), inputs, [root], outputs)

    (got,) = run(_backend(), build, [x, y], [y], alias={0: 1})
    np.testing.assert_array_equal(got, y + 40)
    broken = _backend(headers=_without(0, "__syncwarp();", "reduce_x"))
    with pytest.raises(
        KernelError, match=r"writes byte 0 of 20 bytes of memory, which thread \d+ of block 0 reads"
    ):
        run(broken, build, [x, y], [y], alias={0: 1})


# ---------------------------------------------------------------- kernels of two lines


def _launch(body, memories, threads=64, blocks=1, bounds=64, **options):
    """Run a kernel over memories that begin with the given arrays (a number: so many bytes, not written)."""
    backend = _backend(**options)
    source = f"""// launch: grid threads={threads}
#include "loop.cuh"
#include "reduce.cuh"
extern "C" __global__ void __launch_bounds__({bounds})
KERNEL(const __grid_constant__ Slots<{len(memories)}> args) {{
    f32* const a = (f32*)args.at[0];
    f32* const b = (f32*)args.at[{len(memories) - 1}];
    const int i = threadIdx.x;
    {body}
}}
"""
    places = [Place(backend, a) if isinstance(a, np.ndarray) else backend.empty(a) for a in memories]
    program = Program(backend)
    slots = [place.address if isinstance(place, Place) else place.ptr for place in places]
    program.launch(source, slots, blocks)
    backend.load(program).run([])
    return [place.fetch() if isinstance(place, Place) else None for place in places]


ONES = np.ones(64, "f4")


def test_a_right_kernel_runs():
    (a,) = _launch(
        "a[i] += 1; __syncthreads(); const f32 x = a[63 - i]; __syncthreads(); a[i] = x + i;", [ONES]
    )
    np.testing.assert_array_equal(a, 2 + np.arange(64))
    _launch("a[i] = 1; a[i] += 1;", [256])


FAULTS = {
    "race": ("a[i] = a[63 - i];", [ONES], "of 256 bytes of memory, which thread .* of block 0 .* with no barrier"),
    "race_of_one_place": ("a[0] = i;", [ONES], "writes byte 0 of 256 bytes of memory, which thread 0"),
    "race_over_blocks": ("if (i == 0) a[0] += 1;", [ONES], "block 1, thread 0 reads .* thread 0 of block 0 writes"),
    "nothing_written": ("a[i] = b[i];", [256, 256], "reads byte 0 of 256 bytes of memory, which nothing has written"),
    "shared_not_written": ("__shared__ f32 s[64]; a[i] = s[i];", [ONES], "shared memory, which nothing has written"),
    "behind": ("a[i + 1] = 0;", [ONES], "thread 63 writes 4 bytes at byte 256 of 256 bytes"),
    "half_behind": ("if (i == 63) a[16] = 0;", [np.ones(66, "u1")], "at byte 64 of 66"),
    "before": ("a[i - 1] = 0;", [ONES], "is no memory of the device"),
    "misaligned": ("f32* p = (f32*)((u8*)a + 2); a[i] = p[i];", [ONES], "accesses 4 bytes at 0x.*, no multiple"),
    "barrier_of_some": ("if (i < 40) __syncthreads();", [ONES], "only 40 of 64 threads reach a barrier"),
    "shuffle_of_some": ("if (i < 40) a[i] = lane_at(a[i], 0);", [ONES], "the lanes of a warp part at a shuffle"),
    "two_shuffles": (
        "a[i] = i % 2 ? __shfl_sync(ALL_LANES, a[i], 0) : __shfl_sync(ALL_LANES, a[i], 1);", [ONES], "another shuffle",
    ),
    "half_a_mask": ("a[i] = __shfl_sync(0xffffu, a[i], 0);", [ONES], "a part of its warp, 0xffff"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_an_error_that_says_where(fault):
    body, memories, text = FAULTS[fault]
    with pytest.raises(KernelError, match=text) as error:
        _launch(body, memories, blocks=2 if fault == "race_over_blocks" else 1)
    assert "// launch: grid threads=64" in str(error.value)


def test_the_hosts_memory_is_not_the_devices():
    backend = _backend()
    program = Program(backend)
    source = """// launch: grid threads=32
#include "loop.cuh"
extern "C" __global__ void KERNEL(const Slots<1> args) { ((f32*)args.at[0])[threadIdx.x] = 0; }
"""
    there = np.zeros(32, "f4")
    program.launch(source, [there.ctypes.data])
    with pytest.raises(KernelError, match="no memory of the device"):
        backend.load(program).run([])


def test_freed_memory_is_no_memory():
    backend = _backend()
    kept, gone = backend.empty(256), backend.empty(256)
    address = gone.ptr
    del gone
    program = Program(backend)
    source = """// launch: grid threads=64
#include "loop.cuh"
extern "C" __global__ void KERNEL(const Slots<2> args) {
    ((f32*)args.at[threadIdx.x / 32])[threadIdx.x] = 0;
}
"""
    program.launch(source, [kept.ptr, address])
    with pytest.raises(KernelError, match=r"thread 32 writes 4 bytes at .* no memory of the device"):
        backend.load(program).run([])


@pytest.mark.parametrize(
    ("options", "text"),
    [({"threads": 128}, "128 x 1 threads, where the kernel is compiled for up to 64"),
     ({"threads": 2048, "bounds": 2048}, "2048 x 1 threads"), ({"blocks": 2**31}, "a grid has 1 to 2,147,483,647"),
     ({"memories": [4] * 4096}, "parameters may have 32,764 bytes")],
)  # fmt: skip
def test_a_launch_that_a_gpu_refuses_is_an_error(options, text):
    with pytest.raises(KernelError, match=text):
        _launch("", **{"memories": [ONES], **options})


def test_launches_that_wait_see_what_they_were_given():
    """Slots may be changed when a call returns, and memory that waiting launches use may be given back."""
    backend = _backend(waits=True)
    program = Program(backend)
    source = """// launch: grid threads=64
#include "loop.cuh"
extern "C" __global__ void KERNEL(const Slots<2> args) {
    ((f32*)args.at[0])[threadIdx.x] = ((const f32*)args.at[1])[threadIdx.x] + 1;
}
"""
    from duograd.core.backend import Slot

    program.launch(source, [Slot(program.dynamic()), Slot(program.dynamic())])
    executable = backend.load(program)
    inputs = [Place(backend, np.full(64, k, "f4")) for k in range(3)]
    outputs = [Place(backend, ONES, filled=False) for _ in range(3)]
    for place, out in zip(inputs, outputs):
        executable.run([out.address, place.address])
    del inputs, place
    for k, out in enumerate(outputs):
        np.testing.assert_array_equal(out.fetch(), np.full(64, k + 1, "f4"))
