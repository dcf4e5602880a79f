"""Programs over NumPy's arrays in the memory of a device, and the machines that CUDA tests run them on."""

import functools
from contextlib import contextmanager

import numpy as np
import pytest
from duograd.backends.cuda import emulate
from duograd.backends.cuda.device import CudaBackend, open_device
from duograd.core import backend as core_backend
from duograd.core.backend import Operand, Program, Scalar, scalar_bits, scalar_words
from duograd.core.errors import DeviceError, MissingExtraError
from duograd.core.op import REGISTRY
from duograd.core.op_lower import lower_op
from duograd.core.types import DTYPES, TensorType

#: of the fixtures that give machines: the second kind is a GPU, and skipped aloud where there is none
MACHINES = ("emulation", "gpu")


def gpu():
    """The backend of the first GPU; skips the test where there is none."""
    try:
        return open_device(0)
    except (DeviceError, MissingExtraError) as error:
        pytest.skip(f"no GPU: {error.message}")


def emulations():
    """Emulations that must give equal bits: other orders of threads, other grids, launches that wait for a copy."""
    if not emulate.is_available():
        pytest.skip("no g++: kernels are not emulated")
    first = emulate.EmulatedDriver()
    others = [
        emulate.EmulatedDriver("descending", max_blocks=1),
        emulate.EmulatedDriver(20261, max_blocks=3, waits=True),
    ]
    for driver in others:
        driver.share(first)
    return [CudaBackend(driver, "emulated") for driver in (first, *others)]


def machines(kind):
    """The backends that a kind of machine stands for."""
    return [gpu()] if kind == "gpu" else emulations()


@functools.cache
def _emulated():
    """One for the process: what ops keep for a device of this name runs on it."""
    return CudaBackend(emulate.EmulatedDriver(waits=True), "emulated:0")


@contextmanager
def device_of(kind):
    """The name of a device: the GPU's, or one of a kind of its own whose machine is the emulation (launches wait)."""
    if kind == "gpu":
        gpu()
        yield "cuda"
        return
    if not emulate.is_available():
        pytest.skip("no g++: kernels are not emulated")
    backend = _emulated()

    def open_emulated(index):
        if index:
            raise DeviceError("device", "there is one emulated device", 'use "emulated"')
        return backend

    core_backend.register_backend("emulated", open_emulated)
    yield "emulated"
    del core_backend._factories["emulated"]
    core_backend._backends.pop("emulated:0", None)


class Place:
    """An array in a device's memory, with its strides and what lies around it.

    filled: whether the array's values are there; else what nobody has written.
    """

    def __init__(self, backend, array, filled=True):
        self.array = array
        base = array if array.base is None else array.base
        self.storage = backend.empty(max(1, base.nbytes))
        self.offset = array.ctypes.data - base.ctypes.data if array.size else 0
        if filled:
            self.storage.fill_from(np.frombuffer(base.tobytes("A"), np.uint8), DTYPES["uint8"])

    @property
    def address(self):
        return self.storage.ptr + self.offset

    def fetch(self):
        """The values now."""
        a = self.array
        strides = tuple(st // a.itemsize for st in a.strides)
        return self.storage.to_host(DTYPES[a.dtype.name], a.shape, strides, self.offset)


def operand(program, array):
    """What `array` is in a program: an array, None, or (number, dtype)."""
    if array is None:
        return None
    if isinstance(array, tuple):
        return Scalar(program.dynamic(), array[1])
    strides = tuple(st // array.itemsize for st in array.strides)
    return Operand(program.dynamic(), 0, DTYPES[array.dtype.name], array.shape, strides)


def run(backend, build, inputs, outputs, alias=None):
    """The results of the program that `build(program, inputs, outputs)` makes of operands.

    inputs: arrays, numbers as (value, dtype); outputs: arrays that tell shape, dtype and strides; alias: output
    number -> number of the input whose memory it has.
    """
    program = Program(backend)
    ins = [a if isinstance(a, tuple) else Place(backend, a) for a in inputs]
    outs = [ins[alias[k]] if k in (alias or {}) else Place(backend, a, False) for k, a in enumerate(outputs)]
    operands = [operand(program, a if isinstance(a, tuple) else a.array) for a in (*ins, *outs)]
    build(program, operands[: len(ins)], operands[len(ins) :])
    execute(backend, program, [scalar_bits(*a) if isinstance(a, tuple) else a.address for a in (*ins, *outs)])
    return [place.fetch() for place in outs]


def execute(backend, program, values):
    """Run a program with dynamic values and the scratch area that it asks for."""
    scratch = backend.empty(program.scratch_bytes) if program.scratch_bytes else None
    backend.load(program).run([*values, scratch.ptr] if scratch else values)


class _Typed:
    """Stands for a tensor where attributes are bound."""

    def __init__(self, type):
        self.type, self.shape, self.dtype = type, type.shape, type.dtype


class OpProgram:
    """The program of one op over arrays of any strides, and numbers; it runs on any backend of one kind."""

    def __init__(self, backend, op, arguments, attrs):
        op = REGISTRY[op]
        types = [
            TensorType(DTYPES[a.dtype.name], a.shape) if isinstance(a, np.ndarray) else a for a in arguments
        ]
        _, bound = op.bind(tuple(_Typed(t) if isinstance(t, TensorType) else t for t in types), dict(attrs))
        self.outs = [np.zeros(t.shape, t.dtype.np) for t in op.infer(types, bound)]
        self.program, self.given, operands = Program(backend), [], []
        numbers = [t.dtype if isinstance(t, TensorType) else type(t) for t in types]
        dtypes = op.form(numbers, bound).arg_dtypes if op.kind == "pointwise" else [None] * len(types)
        for a, dtype in zip(arguments, dtypes):
            if isinstance(a, np.ndarray):
                self.given.append(a)
                operands.append(operand(self.program, a))
            else:
                dtype = dtype or DTYPES[self.outs[0].dtype.name]
                words = scalar_words(a, dtype)
                self.given.append(words)
                first, *_ = [self.program.dynamic() for _ in words]
                operands.append(Scalar(first, dtype))
        outputs = [operand(self.program, out) for out in self.outs]
        lower_op(self.program, op, operands, outputs, bound)

    @property
    def sources(self):
        return [launch.source for launch in self.program.launches]

    def run(self, backend):
        """The results, from memory that nothing has written before."""
        places = [Place(backend, a) if isinstance(a, np.ndarray) else a for a in self.given]
        results = [Place(backend, out, filled=False) for out in self.outs]
        values = []
        for place in (*places, *results):
            values += [place.address] if isinstance(place, Place) else place
        if self.program.launches:
            execute(backend, self.program, values)
        return [place.fetch() for place in results]
