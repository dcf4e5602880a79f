"""`autocast`: products in 16 bits, what needs range and precision in float32, without a change of the model.

An executor in front of another converts the operands of an op and hands the op on; what runs inside an op, and the
reverse walk, run as if it were not there. The conversions are ops on the tape: gradients come back in float32.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

from . import dispatch
from .errors import ArgumentError
from .swap import Swap
from .types import DType, as_dtype, bfloat16, float16, float32
from .value import Tensor

#: products: their float32 operands become 16 bits
LOWER = frozenset(
    (
        "addbmm addmm addmv addr baddbmm bilinear bmm conv conv_transpose dot einsum gru_layer inner linear lstm_layer "
        "lstm_projected_layer matmul mm mv outer rnn_layer scaled_dot_product_attention tensordot vecdot"
    ).split()
)
#: sums, powers, norms and losses: their 16-bit operands become float32
FULL = frozenset(
    (
        "batch_norm batch_norm_training binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss "
        "cosine_similarity cross_entropy cumprod cumsum exp expm1 gaussian_nll_loss group_norm hinge_embedding_loss "
        "huber_loss instance_norm kl_div l1_loss layer_norm local_response_norm log log10 log1p log2 log_softmax "
        "logcumsumexp logsumexp margin_ranking_loss mean mse_loss multi_margin_loss multilabel_margin_loss "
        "multilabel_soft_margin_loss nll_loss norm normalize pairwise_distance poisson_nll_loss power prod reciprocal "
        "rms_norm rsqrt smooth_l1_loss soft_margin_loss softmax std sum triplet_margin_loss var vector_norm"
    ).split()
)


class _Innermost(threading.local):
    """executor: the one of this thread that converts; others below it, with executors between, do not."""

    executor: Any = None


_innermost = _Innermost()


class _Cast(Swap):
    """An executor in front of another that converts the operands of some ops."""

    def __init__(self, outer: Any, dtype: DType):
        super().__init__(outer, ())
        self.dtype = dtype
        #: the executor of what is not converted: reverse walks, results written in place
        self.plain = outer

    def call(self, op: Any, inputs: tuple[Any, ...], attrs: Any) -> Any:
        with dispatch.executing(self.outer, dispatch.state.keeps):
            if _innermost.executor is not self:
                pass
            elif op.name in LOWER:
                inputs = tuple([self._to(x, (float32, float16, bfloat16), self.dtype) for x in inputs])
            elif op.name in FULL:
                inputs = tuple([self._to(x, (float16, bfloat16), float32) for x in inputs])
            return self.outer.call(op, inputs, attrs)

    def _to(self, x: Any, found: tuple[DType, ...], dtype: DType) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and x.dtype in found and x.dtype is not dtype else x


class autocast:
    """Inside, products run in a 16-bit float, and what needs range or precision in float32; parameters stay.

    device_type: "cpu" or "cuda", the choice of dtype when none is given (bfloat16, float16 on CUDA); enabled: False
    does nothing (inside another one: takes it back). A context manager, or a decorator. In a graph function use it
    inside the function: a graph function that is called in it runs op by op. `backward()` may run inside or after.
    What is written in place is not converted.
    float16 underflows: scale the loss by `dg.amp.GradScaler`. float64 stays. Raises: ArgumentError for another dtype.
    Example: `with dg.amp.autocast(dtype=dg.bfloat16): loss = loss_fn(model(x), y)`.
    """

    def __init__(self, device_type: str = "cpu", dtype: Any = None, enabled: bool = True):
        kind = (
            (float16 if device_type == "cuda" else bfloat16) if dtype is None else as_dtype(dtype, "autocast")
        )
        if not kind.is_half:
            raise ArgumentError("autocast", f"dtype={kind} has not 16 bits", "use bfloat16 or float16")
        self.device_type, self.dtype, self.enabled = device_type, kind, bool(enabled)
        self._inside: list[Any] = []

    def __enter__(self) -> autocast:
        below = dispatch.state.executor
        while isinstance(below, _Cast):
            below = below.outer
        executor = _Cast(below, self.dtype) if self.enabled else below
        context = dispatch.executing(executor, dispatch.state.keeps)
        context.__enter__()
        self._inside.append((context, _innermost.executor))
        _innermost.executor = executor if self.enabled else None
        return self

    def __exit__(self, *error: Any) -> None:
        context, _innermost.executor = self._inside.pop()
        context.__exit__(*error)

    def __call__(self, fn: Any) -> Any:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with autocast(self.device_type, self.dtype, self.enabled):
                return fn(*args, **kwargs)

        return wrapped


def is_autocast_enabled() -> bool:
    """Whether ops are converted at this point."""
    return _innermost.executor is not None
