"""Values outside an interval, found in one pass: what losses and draws look at to refuse them."""

from __future__ import annotations

import math

import numpy as np

from .. import dispatch
from .. import types as T
from ..errors import ArgumentError
from ..lower import lower_reduce
from ..op import Ints, primitive
from ..scalar import Expr, cast, s
from ..types import TensorType

#: the least value outside that is told from -inf, which says that there is none
_FAR_BELOW = -3e38


@primitive(internal=True, no_gradient="tells what is wrong", no_onnx="a check of values")
def outlier(*xs, low=0.0, high=1.0):
    """The largest element of each x, all of one shape, that is below low or above high.

    xs: any[...]. Returns: float32[n], float64[n] where an x is float64; -inf for an x without such an element,
    -3e38 or more for one with. Numerics: NaN is not outside.
    """
    found = np.full(len(xs), -np.inf, _widest(xs).np)
    for k, x in enumerate(xs):
        x = x.astype(found.dtype)
        outside = x[(x < low) | (x > high)]
        if outside.size:
            found[k] = np.maximum(outside, _FAR_BELOW).max()
    return found


def _widest(xs):
    return T.float64 if any(x.dtype == T.float64 for x in xs) else T.float32


@outlier.type
def _(*xs, low, high):
    return TensorType(_widest(xs), (len(xs),))


@outlier.lower
def _(program, inputs, outputs, *, low, high):
    out, domain = outputs[0], inputs[0].shape
    roots, targets = [], []
    for k, x in enumerate(inputs):
        v = cast(Expr("arg", x.dtype, (), k), out.dtype)
        outside = s.logical_or(s.lt(v, low), s.gt(v, high))
        key = s.where(outside, s.maximum(v, _FAR_BELOW), -math.inf)
        roots.append(Expr("reduce", out.dtype, (key,), "max"))
        offset = out.offset + k * out.strides[0] * out.dtype.itemsize
        targets.append(out._replace(offset=offset, shape=(1,) * len(domain), strides=(0,) * len(domain)))
    lower_reduce(program, domain, tuple(range(len(domain))), inputs, roots, targets, ("outlier",))


outlier.sample((3, 4), low=-1.0, high=1.0).sample((3, 4), (3, 4), low=0.0, high=1.0).sample(
    (), low=0.0, high=3.0
)
outlier.sample((70, 3), Ints((70, 3), 0, 5), low=-2.0, high=2.0).sample((0, 3), low=0.0, high=1.0)


def refuse_outliers(op, named, low, high, words, fix):
    """Raise ArgumentError for the first of some tensors of one shape with an element below low or above high.

    named: (name, tensor) pairs; words: what elements have to be. Nothing is computed for those of which the executor
    knows that they are within.
    """
    executor = dispatch.state.executor
    known = getattr(executor, "within", None)
    if known is not None:
        named = [(name, x) for name, x in named if not known(x, low, high)]
    if not named or not named[0][1].size:
        return

    kinds, none = [(name, x.type) for name, x in named], [-math.inf] * len(named)

    def refuse(found):
        if found.tolist() == none:
            return
        for (name, kind), worst in zip(kinds, found.reshape(-1, len(kinds)).max(axis=0)):
            if worst != -math.inf:
                shown = "-inf" if worst <= _FAR_BELOW else str(worst)
                raise ArgumentError(op, f"{name}: {kind} has {shown}, which is not {words}", fix)

    executor.check(dispatch.apply(outlier, tuple([x for _, x in named]), (low, high)), refuse)
