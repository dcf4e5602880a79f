"""The CUDA device: clear errors without a GPU, the backend over the emulation and over a stand-in for CuPy.

The emulation and the stand-in check logic; what goes to a device runs on a GPU too where there is one.
"""

import ctypes
import functools
import gc
import json
import re
import sys
import types
from contextlib import contextmanager

import duograd as dg
import numpy as np
import pytest
from duograd.backends.cuda import emulate, launch, nvrtc
from duograd.backends.cuda.device import CudaBackend
from duograd.backends.cuda.driver import CupyDriver
from duograd.bench import gpu as first_run
from duograd.core import backend as core_backend
from duograd.core import types as T
from duograd.core.backend import Operand, Program
from duograd.core.errors import DeviceError, KernelError, MissingExtraError
from duograd.core.lower import lower_map
from duograd.core.scalar import Expr
from duograd.interop.doctor import gpu_facts
from duograd.tests.device_programs import MACHINES, Place, device_of

needs_emulation = pytest.mark.skipif(not emulate.is_available(), reason="no g++: kernels are not emulated")

USES = {
    "device": lambda: dg.device("cuda"),
    "ones": lambda: dg.ones(3, device="cuda"),
    "zeros_indexed": lambda: dg.zeros((2, 2), device="cuda:1"),
    "rand": lambda: dg.rand(3, device="cuda"),
    "eye": lambda: dg.eye(2, device="cuda"),
    "arange": lambda: dg.arange(3, device="cuda"),
    "tensor": lambda: dg.tensor([1.0], device="cuda"),
    "to": lambda: dg.ones(3).to("cuda"),
}


def _has_gpu():
    try:
        CupyDriver(0)
    except (DeviceError, MissingExtraError):
        return False
    return True


@pytest.mark.parametrize("use", USES)
def test_without_a_gpu_every_way_to_it_is_an_error(use):
    if _has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises((DeviceError, MissingExtraError)) as error:
        USES[use]()
    text = str(error.value)
    assert "fix: " in text
    assert "test_cuda_device.py" in text
    assert "GPU" in text or "CuPy" in text


def test_without_cupy_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(core_backend, "_backends", {})
    with pytest.raises(MissingExtraError, match=r"needs CuPy") as error:
        dg.ones(3, device="cuda")
    assert 'pip install "duograd[cuda]"' in str(error.value)


def test_an_unknown_device_is_an_error():
    with pytest.raises(DeviceError, match="is not a device"):
        dg.ones(3, device="gpu")


# ---------------------------------------------------------------- the whole backend, over the emulation


@pytest.fixture(scope="module", params=MACHINES)
def device(request):
    """The GPU, and a device of its own kind whose machine is the emulation."""
    with device_of(request.param) as name:
        yield name


def test_a_tensor_goes_to_the_device_and_back(device):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    y = dg.tensor(x).to(device)
    assert y.device == f"{device}:0"
    assert y.to(device) is y
    np.testing.assert_array_equal(y.to("cpu").numpy(), x)
    np.testing.assert_array_equal(np.asarray(y), x)
    assert f"device='{device}:0'" in repr(y)
    assert repr(y).startswith("tensor([[[ 0.,")


def test_a_strided_view_goes_over_and_back(device):
    x = np.arange(24, dtype=np.int64).reshape(4, 6)
    there = dg.tensor(x)[1:, ::2].T.to(device)
    np.testing.assert_array_equal(np.asarray(there), x[1:, ::2].T)
    np.testing.assert_array_equal(np.asarray(dg.tensor(x).to(device)[1:, ::2].T), x[1:, ::2].T)
    np.testing.assert_array_equal(dg.tensor(x).to(device)[2:, 1].to("cpu").numpy(), x[2:, 1])


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_shapes_without_axes_or_elements_go_over(device, shape):
    x = np.ones(shape, np.float32)
    np.testing.assert_array_equal(dg.tensor(x).to(device).to("cpu").numpy(), x)


def test_new_tensors_are_made_on_the_device(device):
    for make in (
        lambda d: dg.ones((2, 3), device=d), lambda d: dg.arange(5, device=d), lambda d: dg.eye(3, device=d),
        lambda d: dg.linspace(0, 1, 5, device=d), lambda d: dg.zeros(2, dtype="int32", device=d),
    ):  # fmt: skip
        there = make(device)
        assert there.device == f"{device}:0"
        np.testing.assert_array_equal(there.to("cpu").numpy(), make("cpu").numpy())


def test_random_bits_are_the_cpus(device):
    dg.manual_seed(7)
    here = [dg.rand(5, 3), dg.randint(0, 100, (9,))]
    dg.manual_seed(7)
    there = [dg.rand(5, 3, device=device), dg.randint(0, 100, (9,), device=device)]
    for a, b in zip(here, there):
        np.testing.assert_array_equal(a.numpy(), b.to("cpu").numpy())


def test_a_chain_with_gradients_equals_the_cpus(device, close):
    x = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=40).astype(np.float32)

    def run(home):
        a, b = dg.tensor(x, requires_grad=True), dg.tensor(w, requires_grad=True)
        moved = a.to(home)
        out = dg.softmax(dg.layer_norm(moved, b.to(home)) * 2.0, axis=-1)
        loss = (out * out).sum()
        loss.backward()
        assert a.grad.device == "cpu"
        return np.float32(loss.item()), a.grad.numpy(), b.grad.numpy()

    for got, want in zip(run(device), run("cpu")):
        close(got, want, scale=4)


def test_a_traced_training_step_runs_on_the_device(device):
    x = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)

    @dg.function
    def step(p, x):
        loss = (dg.gelu(p * x - 1.0) ** 2).mean()
        loss.backward()
        with dg.no_grad():
            p -= p.grad * 10.0
        p.grad = None
        return loss

    def run(home):
        p, batch = dg.tensor(x[0]).to(home).requires_grad_(True), dg.tensor(x).to(home)
        return [step(p, batch).item() for _ in range(4)], np.asarray(p.detach())

    (losses, p), (want_losses, want_p) = run(device), run("cpu")
    assert losses[-1] < losses[0]
    # Four steps feed rounding back: the device adds up in another order than the CPU.
    np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
    np.testing.assert_allclose(p, want_p, rtol=1e-4, atol=1e-5)


def test_in_place_ops_change_the_memory(device):
    x = dg.ones((3, 4), device=device)
    row = x[1]
    x += 2.0
    row *= 3
    np.testing.assert_array_equal(x.to("cpu").numpy()[:, 0], [3, 9, 3])


def test_tensors_on_two_devices_do_not_mix(device):
    x, y = dg.ones(3, device=device), dg.ones(3)
    for first in (lambda: x + x, lambda: y + y):
        first()  # a recipe for this layout exists on either device
    for mix in (lambda: x + y, lambda: y + x, lambda: dg.where(x > 0, 2.0, y)):
        with pytest.raises(DeviceError, match=f"tensors on cpu and {device}:0"):
            mix()
    assert dg.where(x > 0, 2.0, x).device == f"{device}:0"


def test_an_op_without_a_kernel_is_an_error_not_a_detour(device):
    x = dg.ones((3, 3), device=device)
    with pytest.raises(KernelError, match="has no kernel for cuda") as error:
        dg.linalg.qr(x)
    assert 'x.to("cpu")' in error.value.fix


@pytest.mark.usefixtures("own_garbage")
def test_memory_is_counted_and_given_back(device):
    backend = core_backend.get_backend(f"{device}:0")
    gc.collect()
    before = backend.memory_stats()["current_bytes"]
    x = dg.ones((100, 10), device=device)
    assert backend.memory_stats()["current_bytes"] == before + 4000
    del x
    gc.collect()
    assert backend.memory_stats()["current_bytes"] == before
    assert backend.memory_stats()["peak_bytes"] >= before + 4000


@needs_emulation
def test_one_program_serves_calls_with_other_addresses():
    backend = CudaBackend(emulate.EmulatedDriver(), "emulated")
    program, runs = _add_program(backend)
    executable = backend.load(program)
    for arrays in runs:
        x, y, out = (Place(backend, a) for a in arrays)
        executable.run([place.address for place in (x, y, out)])
        np.testing.assert_array_equal(out.fetch(), x.array + y.array)


def _add_program(backend, size=1000):
    program = Program(backend)
    operands = [Operand(program.dynamic(), 0, T.float32, (size,), (1,)) for _ in range(3)]
    total = Expr("arg", T.float32, (), 0) + Expr("arg", T.float32, (), 1)
    lower_map(program, (size,), operands[:2], [total], operands[2:])
    rng = np.random.default_rng(0)
    runs = [(*rng.normal(size=(2, size)).astype("f4"), np.zeros(size, "f4")) for _ in range(3)]
    return program, runs


def test_the_doctor_runs_a_kernel(device, monkeypatch):
    assert gpu_facts(device).endswith("; a kernel has run")

    def refuse(*_):
        raise DeviceError("device", "an illegal address")

    monkeypatch.setattr(core_backend.get_backend(f"{device}:0").driver, "read", refuse)
    assert gpu_facts(device).endswith("; its first kernel fails: an illegal address")


def test_the_first_run_on_a_gpu(device, tmp_path, capsys):
    """`python -m duograd.bench.gpu`, its steps but the timing."""
    file = tmp_path / "gpu.json"
    steps = ["--device", device, "--steps", "machine,kernel,memory,ops", "--json", str(file)]
    assert first_run.main([*steps, "--names", "add,softmax,sort,qr"]) == 0
    text = capsys.readouterr().out
    assert "agree" in text
    assert "have no kernel" in text
    assert "FAIL" not in text
    assert {r["step"] for r in json.loads(file.read_text())} == {"machine", "kernel", "memory", "ops"}


# ---------------------------------------------------------------- launch geometry


def test_block_shapes_depend_on_sizes_alone():
    row, col = "// launch: row kept=1 reduced=1\n", "// launch: col kept=0 reduced=1\n"
    assert launch.geometry(row, [7, 10], 1, 99) == (2, 32, 4)
    assert launch.geometry(row, [7, 100_000], 1, 99) == (7, 512, 1)
    assert launch.geometry(row, [10**6, 300], 1, 99) == (99, 64, 2)
    assert launch.geometry(col, [3, 1000], 1, 99) == (4, 256, 1)
    assert launch.geometry(col, [5000, 10], 1, 99) == (1, 32, 8)
    assert launch.geometry("// launch: row kept=1 reduced=1 split\n", [4, 10**6, 2048], 1, 99) == (4, 256, 1)
    assert launch.geometry("// launch: map axes=2 items=1\n", [3, 1000], 1, 99) == (12, 256, 1)
    assert launch.geometry("// launch: map axes=1 items=4\n", [2**30], 1, 99) == (99, 256, 1)
    assert launch.geometry("// launch: map axes=1 items=4\n", [0], 1, 99) is None
    assert launch.geometry("// launch: grid threads=128\n", [], 17, 99) == (17, 128, 1)


def test_a_source_that_does_not_say_how_to_launch_it_is_refused():
    with pytest.raises(KernelError, match="begins with"):
        launch.geometry("__global__ void f() {}", [], 1, 1)


# ---------------------------------------------------------------- CupyDriver over a stand-in CuPy


class StandIn:
    """What CupyDriver uses of CuPy, over host memory. Records launches with the slots they were given."""

    def __init__(self, devices=1, capability="90"):
        self.current, self.launches, self.log = 0, [], []
        self.error = type("CUDARuntimeError", (RuntimeError,), {})
        self.fails = self.refused = ""
        self.devices, self.capability = devices, capability
        self.runtime = types.SimpleNamespace(
            CUDARuntimeError=self.error, getDeviceCount=self.count, getDevice=lambda: self.current,
            setDevice=self.set_device, memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDeviceToDevice=3,
            memcpyAsync=self.memcpy, driverGetVersion=lambda: 13010,
            memcpyPeerAsync=lambda dst, to, src, of, size, stream: self.memcpy(dst, src, size, (of, to), stream),
            getDeviceProperties=lambda index: {"name": b"Stand-in"},
        )  # fmt: skip
        self.driver = types.SimpleNamespace(
            launchKernel=self.launch_kernel, CUDADriverError=type("CUDADriverError", (RuntimeError,), {})
        )
        stream = types.SimpleNamespace(ptr=55, synchronize=lambda: self.log.append("synchronize"))
        self.cuda = types.SimpleNamespace(
            Device=lambda index: types.SimpleNamespace(
                attributes={"MultiProcessorCount": 2}, compute_capability=self.capability, mem_info=(1 << 30, 2 << 30)
            ),
            get_current_stream=lambda: stream, alloc=self.alloc,
            function=types.SimpleNamespace(Module=self.module),
            memory=types.SimpleNamespace(OutOfMemoryError=MemoryError),
        )  # fmt: skip

    def get_default_memory_pool(self):
        return types.SimpleNamespace(used_bytes=lambda: 1, free_bytes=lambda: 2)

    def count(self):
        if self.devices is None:
            raise self.error("cudaErrorInsufficientDriver")
        return self.devices

    __version__ = "14.2.0"

    def set_device(self, index):
        if self.fails:
            raise self.error(self.fails)
        self.current = index
        self.log.append(f"device {index}")

    def memcpy(self, target, source, size, kind, stream):
        assert stream == 55
        self.log.append(f"copy {kind}")
        ctypes.memmove(target, source, size)

    def alloc(self, nbytes):
        if nbytes > 10**6:
            raise MemoryError("out of memory")
        block = np.zeros(nbytes, np.uint8)
        return types.SimpleNamespace(ptr=block.ctypes.data, block=block, device_id=self.current)

    def module(self):
        def load(code):
            assert code.startswith(b"\x7fELF")
            self.log.append("load")

        return types.SimpleNamespace(load=load, get_function=lambda name: types.SimpleNamespace(ptr=name))

    def launch_kernel(self, function, gx, gy, gz, x, y, z, shared, stream, parameters, extra):
        assert (gy, gz, z, shared, stream, extra) == (1, 1, 1, 0, 55, 0)
        if self.refused:
            raise self.driver.CUDADriverError(self.refused)
        slots = ctypes.c_void_p.from_address(parameters).value
        first = list((ctypes.c_int64 * 7).from_address(slots))
        self.launches.append((function, gx, x, y, first))


@contextmanager
def _standing_in(monkeypatch, **options):
    stand_in = StandIn(**options)
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    for name in ("cupy_backends", "cupy_backends.cuda"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    api = types.ModuleType("cupy_backends.cuda.api")
    api.driver, api.runtime = stand_in.driver, stand_in.runtime
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.api", api)
    yield stand_in


@pytest.fixture
def compiler():
    try:
        nvrtc.library()
    except MissingExtraError as error:
        pytest.skip(f"kernels are not compiled: {error.message}")


def test_errors_of_the_machine_name_the_fix(monkeypatch, compiler):
    for options, index, text in (
        ({"devices": None}, 0, "no GPU can be used: cudaErrorInsufficientDriver"),
        ({"devices": 2}, 3, '"cuda:3" does not exist: this machine has 2 GPUs'),
        ({"devices": 0}, 0, "this machine has 0 GPUs"),
        ({"capability": "35"}, 0, "cannot compile for this GPU"),
    ):
        with _standing_in(monkeypatch, **options), pytest.raises(DeviceError) as error:
            CupyDriver(index)
        assert text in str(error.value)
        assert "fix: " in str(error.value)


def test_launches_go_to_the_current_stream_with_patched_slots(monkeypatch, compiler):
    with _standing_in(monkeypatch, devices=2) as machine:
        backend = CudaBackend(CupyDriver(1), "cuda:1")
        program, runs = _add_program(backend)
        executable = backend.load(program)
        for x, y, out in runs:
            executable.run([a.ctypes.data for a in (x, y, out)])
    assert machine.log.count("load") == 1
    assert machine.current == 0, "the caller's device is current again"
    for (function, gx, bx, by, slots), (x, y, out) in zip(machine.launches, runs, strict=True):
        assert function.startswith("duograd_")
        assert (gx, bx, by) == (1, 256, 1)
        assert slots == [1000, x.ctypes.data, 1, y.ctypes.data, 1, out.ctypes.data, 1]


def test_storages_copy_over_the_runtime(monkeypatch, compiler):
    with _standing_in(monkeypatch, devices=2) as machine:
        first, second = (CudaBackend(CupyDriver(k), f"cuda:{k}") for k in (0, 1))
        storage, other = first.empty(40), second.empty(40)
        storage.fill_from(np.arange(10, dtype=np.float32), T.float32)
        np.testing.assert_array_equal(storage.to_host(T.float32, (2, 3), (4, -1), 12), [[3, 2, 1], [7, 6, 5]])
        other.copy_from(storage, 8, 12)
        np.testing.assert_array_equal(other.to_host(T.float32, (3,), (1,), 0), [2, 3, 4])
        copies = [line for line in machine.log if line.startswith("copy")]
        assert copies == ["copy 1", "copy 2", "copy (0, 1)", "copy 2"], "up, down, between, down"
        machine.log.clear()
        second.empty(12).copy_from(other, 0, 12)
        assert machine.log == ["device 1", "device 0", "device 1", "copy 3", "device 0"], "nobody waits"
        with pytest.raises(DeviceError, match="no room for 2,000,000 bytes"):
            first.empty(2_000_000)


def test_errors_of_cuda_say_what_to_do(monkeypatch, compiler):
    with _standing_in(monkeypatch) as machine:
        backend = CudaBackend(CupyDriver(0), "cuda:0")
        program, runs = _add_program(backend)
        executable = backend.load(program)
        addresses = [a.ctypes.data for a in runs[0]]
        machine.refused = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES: too many resources requested for launch"
        with pytest.raises(
            DeviceError, match=r"too many resources .* at the launch of\n// launch: map axes=1"
        ) as error:
            executable.run(addresses)
        assert "nvidia-smi" in error.value.fix
        machine.refused = "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"
        with pytest.raises(DeviceError, match="cuda:0 reports CUDA_ERROR_ILLEGAL_ADDRESS") as error:
            executable.run(addresses)
        assert "CUDA_LAUNCH_BLOCKING=1" in error.value.fix
        machine.fails = "cudaErrorInitializationError: initialization error"
        monkeypatch.setattr("os.getpid", lambda: -1)
        with pytest.raises(DeviceError, match="initialization error") as error:
            backend.empty(8)
        assert "spawn" in error.value.fix


def test_the_doctor_tells_what_the_gpu_is(monkeypatch, compiler):
    with _standing_in(monkeypatch):
        facts = CudaBackend(CupyDriver(0), "cuda:0").describe()
    assert (facts["gpu"], facts["arch"], facts["driver"]) == ("Stand-in", "sm_90", "13.1")
    assert (facts["free_bytes"], facts["total_bytes"], facts["cached_bytes"]) == (1 << 30, 2 << 30, 2)


def test_a_taker_of_dlpack_gets_finished_memory(device):
    """The taker's stream knows nothing of ours; -1 says that it does not matter."""
    driver = core_backend.get_backend(f"{device}:0").driver
    waited, synchronize = [], driver.synchronize
    driver.synchronize = lambda: waited.append(synchronize())
    try:
        x = dg.ones(3, device=device)
        waited.clear()
        x.__dlpack__(stream=-1)
        assert not waited
        x.__dlpack__(stream=1)
        assert waited
    finally:
        del driver.synchronize


#: parameters of what the driver calls by position, as CuPy's own documentation strings have them
SIGNATURES = {
    "driver.launchKernel": "f grid_dim_x grid_dim_y grid_dim_z block_dim_x block_dim_y block_dim_z shared_mem_bytes "
    "stream kernel_params extra",
    "runtime.memcpyAsync": "dst src size kind stream", "runtime.setDevice": "device",
    "runtime.memcpyPeerAsync": "dst dstDevice src srcDevice size stream", "runtime.getDeviceProperties": "device",
    "function.Module.load": "self cubin", "function.Module.get_function": "self name",
    "stream.get_current_stream": "device_id", "memory.alloc": "size",
}  # fmt: skip


def test_what_the_driver_uses_is_in_cupy():
    """The stand-in cannot know what CuPy has."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    from cupy_backends.cuda.api import driver, runtime

    for module, names in (
        (runtime, "getDeviceCount getDevice driverGetVersion memcpyHostToDevice memcpyDeviceToHost"),
        (runtime, "memcpyDeviceToDevice CUDARuntimeError"),
        (driver, "CUDADriverError"),
        (cupy, "ndarray get_default_memory_pool __version__"),
        (cupy.cuda, "Device alloc get_current_stream memory function"),
        (cupy.cuda.Device, "attributes compute_capability mem_info"),
        (cupy.cuda.MemoryPointer, "ptr device_id __add__"),
        (cupy.cuda.MemoryPool, "used_bytes free_bytes"),
        (cupy.cuda.Stream.null, "ptr synchronize"),
        (cupy.cuda.function.Function, "ptr"),
        (cupy.cuda.memory, "OutOfMemoryError"),
    ):
        assert [n for n in names.split() if not hasattr(module, n)] == []
    homes = {"driver": driver, "runtime": runtime, "function": cupy.cuda.function, "stream": cupy.cuda.stream,
             "memory": cupy.cuda.memory}  # fmt: skip
    for name, parameters in SIGNATURES.items():
        home, *path = name.split(".")
        text = functools.reduce(getattr, path, homes[home]).__doc__
        inside = re.search(r"\((.*?)\)", text, re.DOTALL).group(1)
        have = [re.sub(r"=.*", "", each).split()[-1] for each in inside.split(",")]
        assert have == parameters.split(), name


def test_cupys_arrays_take_our_memory_in_every_dtype():
    """Also with strides that go backwards."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    block = np.zeros(4096, np.uint8)
    memory = cupy.cuda.UnownedMemory(block.ctypes.data, block.size, block, 0)
    pointer = cupy.cuda.MemoryPointer(memory, 0)
    driver = CupyDriver.__new__(CupyDriver)
    driver._cupy, driver._runtime = (
        cupy,
        types.SimpleNamespace(getDevice=lambda: 0, setDevice=lambda index: None),
    )
    driver._errors, driver.index = (), 0
    for dtype in T.DTYPES.values():
        array = driver.array(pointer, dtype, (3, 2), (2, -1), 16 * dtype.itemsize)
        assert (array.dtype, array.shape) == (dtype.np, (3, 2))
        assert array.strides == (2 * dtype.itemsize, -dtype.itemsize)
        assert array.data.ptr == block.ctypes.data + 16 * dtype.itemsize
