"""Einstein summation: a parser, an order of contraction, and products made of matmul, multiply and sum.

A label is a letter, or a negative number for an axis that `...` stands for (counted from the right).
"""

from __future__ import annotations

import functools
import math
import string
from typing import NamedTuple

from .. import types as T
from ..errors import ArgumentError, ArgumentTypeError, DtypeError, ShapeError
from ..op import Ints, composite, public
from ..value import Tensor
from .linalg import matmul
from .reduction import sum_
from .shape import permute, reshape
from .views import diagonal

#: up to so many operands every order of contraction is weighed; beyond, the cheapest next pair is taken
_EXHAUSTIVE = 8


class Operand(NamedTuple):
    """How an operand is brought to distinct labels that others or the result have too.

    ones: axes of size 1 that other operands broadcast along; labels: of the axes that are left.
    """

    ones: tuple[int, ...]
    labels: tuple


class Plan(NamedTuple):
    """operands, the pairs to multiply (the product goes to the end of the list), and the result's labels."""

    operands: tuple[Operand, ...]
    pairs: tuple[tuple[int, int], ...]
    out: tuple


def _refuse(equation, why, fix="write it like 'ij,jk->ik'"):
    raise ArgumentError("einsum", f"{equation!r} {why}", fix)


def _term(equation, text, ndim):
    """The labels of one operand's axes."""
    head, dots, tail = text.partition("...")
    for c in head + tail:
        if c not in string.ascii_letters:
            _refuse(equation, f"has {c!r}, which is neither a letter, a comma, '...' nor '->'")
    named = len(head) + len(tail)
    if named > ndim or (named < ndim and not dots):
        raise ShapeError(
            "einsum",
            f"{text!r} in {equation!r} names {named} axes of a tensor with {ndim}",
            "use one letter for each axis, or ... for the others",
        )
    return (*head, *range(named - ndim, 0), *tail)


def _sizes(equation, terms, shapes):
    """The size of every label; 1 gives way to any other size."""
    sizes = {}
    for term, shape in zip(terms, shapes):
        own = {}
        for label, n in zip(term, shape):
            if own.setdefault(label, n) != n:
                raise ShapeError(
                    "einsum",
                    f"{label!r} in {equation!r} has sizes {own[label]} and {n} in {list(shape)}",
                    "axes of one letter have one size",
                )
        for label, n in own.items():
            before = sizes.get(label, 1)
            if before != n and 1 not in (before, n):
                what = "an axis of ..." if isinstance(label, int) else repr(label)
                raise ShapeError(
                    "einsum",
                    f"{what} in {equation!r} has sizes {before} and {n}, shapes are "
                    + " and ".join(str(list(s)) for s in shapes),
                    "make the sizes equal, or one of them 1",
                )
            sizes[label] = n if before == 1 else before
    return sizes


@functools.lru_cache(maxsize=4096)
def _plan(equation, shapes):
    """The plan for an equation without blanks and the operands' shapes."""
    left, arrow, right = equation.partition("->")
    texts = left.split(",")
    if len(texts) != len(shapes):
        _refuse(
            equation, f"has {len(texts)} terms for {len(shapes)} tensors", "write one term for each tensor"
        )
    terms = [_term(equation, text, len(shape)) for text, shape in zip(texts, shapes)]
    sizes = _sizes(equation, terms, shapes)
    every = [label for term in terms for label in term]
    dots = tuple(sorted(label for label in sizes if isinstance(label, int)))
    if arrow:
        head, has_dots, tail = right.partition("...")
        out = (*head, *(dots if has_dots else ()), *tail)
        for label in out:
            if label not in sizes:
                _refuse(equation, f"has {label!r} in its result only", "take it from a tensor")
            if out.count(label) > 1:
                _refuse(
                    equation, f"has {label!r} twice in its result", "use dg.diag_embed for a diagonal result"
                )
    else:
        out = dots + tuple(sorted({c for c in every if not isinstance(c, int) and every.count(c) == 1}))
    operands = []
    for term, shape in zip(terms, shapes):
        ones = tuple(k for k, (c, n) in enumerate(zip(term, shape)) if n == 1 and sizes[c] != 1)
        operands.append(Operand(ones, tuple(c for k, c in enumerate(term) if k not in ones)))
    sets = [frozenset(o.labels) for o in operands]
    return Plan(tuple(operands), _order(sets, sizes, frozenset(out)), out)


def _order(sets, sizes, out):
    """Pairs whose products cost least in all."""
    if len(sets) <= 2:
        return ((0, 1),) * (len(sets) - 1)
    return _cheapest(sets, sizes, out) if len(sets) <= _EXHAUSTIVE else _greedy(sets, sizes, out)


def _cost(labels, sizes):
    return math.prod(sizes[c] for c in labels)


def _cheapest(sets, sizes, out):
    """The best tree over subsets of the operands, written as bit sets."""
    n = len(sets)
    whole = (1 << n) - 1
    inside = [
        frozenset().union(*(s for k, s in enumerate(sets) if subset >> k & 1)) for subset in range(whole + 1)
    ]
    #: labels of a subset's product: what the rest or the result wants
    kept = [inside[s] & (inside[whole ^ s] | out) for s in range(whole + 1)]
    for k, s in enumerate(sets):
        kept[1 << k] = s
    best = {1 << k: (0, None) for k in range(n)}
    for subset in range(1, whole + 1):
        if subset in best:
            continue
        first = subset & -subset
        part, found = (subset - 1) & subset, None
        while part:
            if part & first:
                rest = subset ^ part
                cost = best[part][0] + best[rest][0] + _cost(kept[part] | kept[rest], sizes)
                if found is None or cost < found[0]:
                    found = (cost, part)
            part = (part - 1) & subset
        best[subset] = found
    pairs, row = [], [1 << k for k in range(n)]

    def build(subset):
        part = best[subset][1]
        if part is None:
            return
        build(part)
        build(subset ^ part)
        i, j = sorted((row.index(part), row.index(subset ^ part)))
        del row[j], row[i]
        row.append(subset)
        pairs.append((i, j))

    build(whole)
    return tuple(pairs)


def _greedy(sets, sizes, out):
    """At each step the pair whose product is smallest beside its factors."""
    sets, pairs = list(sets), []
    while len(sets) > 1:
        best = None
        for i in range(len(sets)):
            for j in range(i + 1, len(sets)):
                rest = out.union(*(s for k, s in enumerate(sets) if k not in (i, j)))
                made = (sets[i] | sets[j]) & rest
                gain = _cost(made, sizes) - _cost(sets[i], sizes) - _cost(sets[j], sizes)
                key = (gain, _cost(sets[i] | sets[j], sizes))
                if best is None or key < best[0]:
                    best = (key, i, j, made)
        _, i, j, made = best
        del sets[j], sets[i]
        sets.append(made)
        pairs.append((i, j))
    return tuple(pairs)


def _onnx_einsum(o, *xs, equation):
    return o.Einsum(*(o.cast(x, o.out_dtype) for x in xs), equation=equation)


@composite(name="einsum", internal=True, onnx=_onnx_einsum)
def einsum_(*xs, equation):
    """Sums of products by an equation; see `dg.einsum`. Source: ONNX Einsum."""
    xs = _promoted("einsum", xs)
    plan = _plan(equation.replace(" ", ""), tuple(x.shape for x in xs))
    row = []
    for k, (x, operand) in enumerate(zip(xs, plan.operands)):
        wanted = frozenset(plan.out).union(*(o.labels for j, o in enumerate(plan.operands) if j != k))
        row.append(_distinct(x, operand, wanted))
    for i, j in plan.pairs:
        (y, b), (x, a) = row.pop(j), row.pop(i)
        row.append(contract(x, a, y, b, frozenset(plan.out).union(*(labels for _, labels in row))))
    x, labels = row[0]
    return _permuted(x, labels, plan.out)


def _promoted(op, xs):
    dtype = T.promote_all(x.dtype for x in xs)
    if dtype is T.bool_:
        raise DtypeError(
            op, f"takes numbers, got {', '.join(str(x.type) for x in xs)}", "convert with .to(dg.int64)"
        )
    return [x.to(dtype) for x in xs]


def _distinct(x, operand, wanted):
    """x with one axis for each label, and only those that are wanted."""
    if operand.ones:
        x = reshape(x, shape=tuple(n for k, n in enumerate(x.shape) if k not in operand.ones))
    labels = list(operand.labels)
    for c in dict.fromkeys(operand.labels):
        while labels.count(c) > 1:
            i = labels.index(c)
            j = labels.index(c, i + 1)
            order = [k for k in range(len(labels)) if k not in (i, j)] + [i, j]
            x = diagonal_of_last(permute(x, axes=tuple(order)))
            labels = [labels[k] for k in order[:-1]]
    return _summed(x, tuple(labels), wanted)


def diagonal_of_last(x):
    """The diagonal of the last two axes, which have one size."""
    return diagonal(x, axis1=-2, axis2=-1)


def _summed(x, labels, wanted):
    """x summed over the axes that nobody wants."""
    gone = tuple(k for k, c in enumerate(labels) if c not in wanted)
    if not gone:
        return x, labels
    return sum_(x, axis=gone).to(x.dtype), tuple(c for c in labels if c in wanted)


def _permuted(x, labels, order):
    return x if labels == tuple(order) else permute(x, axes=tuple(labels.index(c) for c in order))


def contract(x, a, y, b, wanted):
    """x with distinct labels a times y with labels b, summed over labels not wanted; and the labels of the result."""
    (x, a), (y, b) = _summed(x, a, wanted | set(b)), _summed(y, b, wanted | set(a))
    batch = [c for c in a if c in b and c in wanted]
    common = [c for c in a if c in b and c not in wanted]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]
    labels = (*batch, *rows, *columns)
    if not common:
        return _aligned(x, a, labels) * _aligned(y, b, labels), labels
    size = {**dict(zip(a, x.shape)), **dict(zip(b, y.shape))}
    left = _matrices(x, a, batch, rows, common, size)
    right = _matrices(y, b, batch, common, columns, size)
    out = matmul(left, right)
    shape = tuple(size[c] for c in labels)
    return (out if out.shape == shape else reshape(out, shape=shape)), labels


def _aligned(x, own, labels):
    """x with an axis for every label, of size 1 where it has none."""
    x = _permuted(x, own, [c for c in labels if c in own])
    it = iter(x.shape)
    shape = tuple(next(it) if c in own else 1 for c in labels)
    while shape and shape[0] == 1 and len(shape) > 1 and labels[0] not in own:
        shape, labels = shape[1:], labels[1:]  # leading axes broadcast anyway
    return x if x.shape == shape else reshape(x, shape=shape)


def _matrices(x, own, batch, rows, columns, size):
    """x as [*batch, rows, columns]."""
    x = _permuted(x, own, (*batch, *rows, *columns))
    product = lambda labels: math.prod(size[c] for c in labels)
    shape = (*(size[c] for c in batch), product(rows), product(columns))
    return x if x.shape == shape else reshape(x, shape=shape)


@public
def einsum(equation, *xs):
    """Sums of products, by Einstein's convention: letters name axes, `"ij,jk->ik"` is the matrix product.

    equation: terms separated by commas, one for each tensor; `->` and the letters of the result, without it all
    letters that occur once, in order. `...` stands for axes that broadcast. A letter twice in a term takes the
    diagonal; letters that are not in the result are summed over. Blanks do not count. Also
    `einsum(x, [0, 1], y, [1, 2], [0, 2])`. xs: tensors, or one list of them.
    Returns: the promoted dtype; a view of x when only axes move. Raises: ArgumentError for a malformed equation,
    ShapeError when sizes differ, DtypeError for bool.
    Numerics: up to eight tensors are multiplied in the order of least cost, more in a greedy one; sums are
    matrix products in the result's dtype. Source: numpy.einsum, ONNX Einsum.
    Example: `dg.einsum("ij,j->i", dg.tensor([[1.0, 2.0], [3.0, 4.0]]), dg.tensor([1.0, 1.0]))` is `[3.0, 7.0]`.
    """
    if not isinstance(equation, str):
        equation, xs = _from_lists((equation, *xs))
    if len(xs) == 1 and isinstance(xs[0], (list, tuple)):
        xs = tuple(xs[0])
    return einsum_(*xs, equation=equation)


def _from_lists(row):
    """Equation and tensors of the form x, labels, y, labels, ..., labels of the result."""
    tensors, lists, last = (
        list(row[: len(row) // 2 * 2 : 2]),
        list(row[1::2]),
        row[-1] if len(row) % 2 else None,
    )
    if not tensors or not all(isinstance(x, Tensor) for x in tensors):
        raise ArgumentTypeError(
            "einsum", f"begins with a {type(row[0]).__name__}", "pass an equation such as 'ij,jk->ik' first"
        )

    def text(labels):
        if not isinstance(labels, (list, tuple)) or not all(
            c is Ellipsis or (isinstance(c, int) and 0 <= c < len(string.ascii_letters)) for c in labels
        ):
            raise ArgumentTypeError(
                "einsum", f"labels {labels!r} are not a list of small integers", "use 0 to 51"
            )
        return "".join("..." if c is Ellipsis else string.ascii_letters[c] for c in labels)

    equation = ",".join(map(text, lists)) + ("" if last is None else "->" + text(last))
    return equation, tuple(tensors)


einsum_.sample((3, 4), (4, 5), equation="ij,jk->ik").sample((3, 4), equation="ij->ji")
einsum_.sample((2, 3, 4), (2, 4, 5), equation="bij,bjk").sample((3, 3), equation="ii").sample(
    (3, 3), equation="ii->i"
)
einsum_.sample((2, 3, 4), (4, 5), (5,), equation="...ij, jk, k -> ...i").sample(
    (3,), (4,), equation="i,j->ij"
)
einsum_.sample((2, 1, 3), (4, 3), equation="b...i,...i->...b").sample((2, 3), (2, 3), equation="ij,ij->")
einsum_.sample((2, 3), (3, 4), (4, 2), (2, 5), equation="ab,bc,cd,de->ea").sample(
    (2, 0), (0, 3), equation="ij,jk"
)
einsum_.sample(Ints((2, 3)), Ints((3, 2)), equation="ij,jk->ik").sample((), (3,), equation=",i->i")
einsum_.error_sample((2, 3), (4, 5), equation="ij,jk->ik", match="sizes 3 and 4")
einsum_.error_sample((2, 3), equation="ijk->i", match="names 3 axes")
einsum_.error_sample((2, 3), equation="ij->ik", match="in its result only")
einsum_.error_sample((2, 3), equation="ij,jk", match="2 terms for 1 tensors")
einsum_.error_sample((2, 3), equation="i1->i", match="neither a letter")
