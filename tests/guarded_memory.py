"""A program for `test_guarded_memory.py`: every sample, and sizes at the edges of kernels, on guarded memory.

    python guarded_memory.py after|before

Each tensor, scratch area and arena ends (or begins) right at a page that nobody may touch, so that an access beyond it
ends the process; fresh memory holds garbage, another one on each side. Prints a line when a call begins, and one with
a digest of its results.
"""

import ctypes
import faulthandler
import hashlib
import mmap
import random
import sys

import duograd as dg
import numpy as np
from duograd import nn
from duograd.backends.cpu import device, memory
from duograd.core.backend import get_backend
from duograd.core.reference import has_floats, make_arguments, samples
from duograd.graph import arena

F = nn.functional
PAGE = mmap.PAGESIZE
GARBAGE = {"after": 0xFF, "before": 0x2A}
_protect = ctypes.CDLL(None, use_errno=True).mprotect


class Guarded(memory.Block):
    """Memory of just `size` bytes beside a page without access."""

    __slots__ = ()

    def __init__(self, allocator, size, side):
        body = -(-max(size, 1) // PAGE) * PAGE
        self.raw = np.frombuffer(mmap.mmap(-1, body + PAGE), np.uint8)
        address = self.raw.ctypes.data
        self.skip = body - max(size, 1) if side == "after" else PAGE
        self.ptr = address + self.skip
        ctypes.memset(self.ptr, GARBAGE[side], max(size, 1))
        if _protect(ctypes.c_void_p(address + (body if side == "after" else 0)), PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.allocator, self.size, self.free, self.seen = allocator, size, None, True


class GuardedAllocator(memory.Allocator):
    """Keeps nothing: every storage has memory of its own."""

    side = "after"

    def maker(self, nbytes, op=""):
        def make():
            self.current += nbytes
            self.total += nbytes
            return memory.CpuStorage(Guarded(self, nbytes, self.side), nbytes)

        return make

    def exact(self, nbytes):
        return self.maker(nbytes)()


def install(side):
    GuardedAllocator.side = side
    device.Allocator = GuardedAllocator
    arena.Arenas.give = lambda self, used: None
    assert type(get_backend("cpu").allocator) is GuardedAllocator


def digest(t):
    array = np.ascontiguousarray(t.detach().numpy())
    return f"{array.dtype}{array.shape}{hashlib.md5(array.tobytes()).hexdigest()[:12]}"


def with_gradients(call, arguments):
    """Outputs of a call and gradients of its float arguments."""

    def run(*xs):
        made = call(*xs)
        outs = made if isinstance(made, tuple) else (made,)
        ways = [y for y in outs if y.dtype.is_float and y.requires_grad]
        if ways:
            parts = [(y * dg.arange(1, y.size + 1, dtype=y.dtype).reshape(y.shape)).sum() for y in ways]
            sum(parts[1:], parts[0]).backward()
        return *(y.detach() for y in outs), *(x.grad for x in xs if x.requires_grad)

    return run, [x.requires_grad_() if x.dtype.is_float else x for x in arguments]


# ---------------------------------------------------------------- calls


def of_samples():
    """(name, call, arrays) of every sample of every op."""
    for op, k, sample in samples():
        if op.name == "to_device":
            continue
        row = make_arguments(sample)
        spots = [n for n, a in enumerate(row) if isinstance(a, np.ndarray)]

        def call(*xs, op=op, row=row, spots=spots, sample=sample):
            given = list(row)
            for n, x in zip(spots, xs):
                given[n] = x
            return op(*given, **sample.attrs)

        wants = sample.grad and has_floats(sample) and (op.differentiable or op.kind == "composite")
        yield f"{op.name}-{k}", call, [row[n] for n in spots], wants


class Edges:
    """Calls whose sizes lie around those of vectors and blocks; drawn, so that they meet in many ways."""

    def __init__(self, seed):
        self.pick, self.numbers = random.Random(seed).choice, np.random.default_rng(seed)

    def array(self, *shape):
        return self.numbers.standard_normal(shape).astype(np.float32)

    def matmul(self):
        m, n, k = (self.pick((1, 2, 5, 6, 7, 13, 15, 16, 17, 33, 63, 65)) for _ in range(3))
        return dg.matmul, [self.array(m, k), self.array(k, n)]

    def narrow(self):
        m, n, k = (self.pick((1, 2, 5, 6, 7, 13, 15, 17, 33, 65)) for _ in range(3))
        half, turns = self.pick((dg.float16, dg.bfloat16)), [self.pick((False, True)) for _ in "xw"]
        in_16_bits = lambda x, turn: x.T.contiguous().to(half).T if turn else x.to(half)
        return lambda x, w: in_16_bits(x, turns[0]) @ in_16_bits(w, turns[1]), [
            self.array(m, k), self.array(k, n),
        ]  # fmt: skip

    def linear(self):
        m, n, k = self.pick((1, 5, 6, 7, 13)), self.pick((1, 15, 16, 17, 65)), self.pick((1, 15, 17, 257))
        return lambda x, w, b: F.gelu(F.linear(x, w, b)), [self.array(m, k), self.array(n, k), self.array(n)]

    def conv(self):
        c, o = self.pick((1, 3, 15, 16, 17)), self.pick((1, 3, 15, 16, 17, 31, 33))
        sizes = [self.pick((5, 7, 13, 14, 15, 16, 17)) for _ in "hw"]
        k, stride, padding = self.pick((1, 2, 3, 5)), self.pick((1, 1, 2, 3)), self.pick((0, 1, 2))
        return lambda x, w, b: F.conv2d(x, w, b, stride, padding), [
            self.array(self.pick((1, 2)), c, *sizes), self.array(o, c, k, k), self.array(o),
        ]  # fmt: skip

    def conv_pooled(self):
        conv, arrays = self.conv()
        k, pool = self.pick((1, 2, 2, 3)), self.pick((F.max_pool2d, F.avg_pool2d))
        window = k, self.pick((1, 2, k))
        return lambda x, w, b: pool(F.relu(conv(F.pad(x, (0, 8, 0, 9)), w, b)), window), arrays

    def depthwise(self):
        c, n, k = self.pick((1, 3, 16, 17)), self.pick((5, 7, 15, 16, 17)), self.pick((1, 3, 5))
        stride = self.pick((1, 2))
        return lambda x, w: F.conv2d(x, w, None, stride, k // 2, 1, c), [
            self.array(2, c, n, n), self.array(c, 1, k, k),
        ]  # fmt: skip

    def conv_transpose(self):
        c, o, n, k = (self.pick(row) for row in ((1, 3, 17), (1, 15, 17), (1, 5, 7, 13), (1, 2, 3)))
        stride = self.pick((1, 2, 3))
        return lambda x, w: F.conv_transpose2d(x, w, None, stride), [
            self.array(1, c, n, n), self.array(c, o, k, k),
        ]  # fmt: skip

    def pool(self):
        sizes, k = [self.pick((5, 7, 15, 16, 17, 31, 33)) for _ in "hw"], self.pick((2, 3, 5))
        stride, pool = self.pick((1, 2, 3)), self.pick((F.max_pool2d, F.avg_pool2d))
        padding = self.pick((0, k // 2))
        return lambda x: pool(x, k, stride, padding), [self.array(2, 3, *sizes)]

    def attention(self):
        m, n = self.pick((1, 5, 15, 17, 47, 49)), self.pick((1, 5, 15, 17, 65, 385))
        e, v, causal = self.pick((1, 3, 15, 17, 33)), self.pick((1, 3, 15, 17, 33)), self.pick((False, True))
        return lambda *qkv: F.scaled_dot_product_attention(*qkv, is_causal=causal), [
            self.array(2, 2, m, e), self.array(2, 2, n, e), self.array(2, 2, n, v),
        ]  # fmt: skip

    def recurrent(self):
        kind, b, i, h = self.pick(("RNN", "LSTM", "GRU")), *(self.pick((1, 3, 5, 7, 13, 17)) for _ in "bih")
        layer = getattr(nn, kind)(i, h)
        return lambda x: layer(x)[0], [self.array(self.pick((1, 3)), b, i)]

    def scan(self):
        shape = self.pick(((1,), (15,), (17,), (3, 33), (33, 3), (2, 17, 5)))
        axis, f = self.pick(range(len(shape))), self.pick((dg.cumsum, dg.cumprod, dg.logcumsumexp))
        return lambda x: dg.flip(f(dg.flip(x, axis), axis), axis), [self.array(*shape)]

    def sort(self):
        shape = self.pick(((1,), (39,), (41,), (2, 257), (257, 3)))
        axis, down = shape.index(max(shape)), self.pick((False, True))
        k = self.pick((1, max(shape) // 2 + 1))
        return lambda x: (
            dg.sort(x, axis=axis, descending=down), *dg.topk(x, k, axis=axis, largest=down),
        ), [self.array(*shape)]  # fmt: skip

    def picked(self):
        n, width, count = self.pick((1, 7, 33)), self.pick((1, 15, 16, 17)), self.pick((1, 5, 33))
        index = self.numbers.integers(-n, n, count)

        def call(x, i):
            y = x.clone()
            y[i] *= 2.0
            return x[i], x.T[:, i], y

        return call, [self.array(n, width), index]

    def rows(self):
        shape = self.pick(((1, 15), (3, 31), (17, 33), (300, 17), (5, 1, 65), (3, 5, 7)))
        return lambda x: (F.softmax(x, -1), F.layer_norm(x, shape[-1:]), dg.var(x, axis=0), dg.max(x, axis=0)), [
            self.array(*shape)
        ]  # fmt: skip

    def calls(self, count):
        """`count` rounds of all."""
        names = [n for n, f in vars(Edges).items() if callable(f) and n not in ("__init__", "array", "calls")]
        for k in range(count):
            for name in names:
                call, arrays = getattr(self, name)()
                # Without gradients a pooling is part of its convolution's kernel.
                yield f"{name} {[a.shape for a in arrays]} #{k}", call, arrays, name != "conv_pooled"


def main(side):
    faulthandler.enable()
    install(side)
    for source in (of_samples(), Edges(5).calls(12)):
        for name, call, arrays, wants in source:
            # Both modes run the same kernels; a graph's arena matters most at its end.
            for mode in ("eager", "graph") if side == "after" else ("eager",):
                print(f"> {name} {mode}", flush=True)
                dg.manual_seed(7)
                xs = [dg.tensor(a) for a in arrays]
                run, xs = with_gradients(call, xs) if wants else (call, xs)
                made = dg.function(run, mode=mode)(*xs)
                row = made if isinstance(made, tuple) else (made,)
                print(f"= {name} {mode}\t{' '.join(digest(t) for t in row if t is not None)}")


if __name__ == "__main__":
    main(sys.argv[1])
