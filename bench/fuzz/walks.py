"""Gradients through the results of a call: of some of them, one after the other, to each other, with hooks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import duograd as dg
import numpy as np

from .program import Given

__all__ = ["ends", "leaves", "pick", "total"]

#: {i}, {j}: numbers of results, {leaves}: tensors that may ask for a gradient
HOOKS = (
    "pick(out, {i}).register_hook(lambda g: g * 3)",
    "pick(out, {i}).register_hook(noted(m, 2.0))",
    "pick(out, {i}).register_hook(lambda g: m.log.append(g.sum().item()))",
    "pick(out, {i}).register_hook(lambda g: m.log.append(1))",
    "pick(out, {i}).register_hook(lambda g: g * m.scale)",
    "pick(out, {i}).register_hook(noted(m))()",
    "leaves({leaves})[0].register_hook(noted(m, 0.5))",
)
#: a gradient of a gradient alone, without hooks on results: see docs/design.md
AGAIN = (
    "taken = dg.autograd.grad(total(pick(out, {i})), leaves({leaves}), create_graph=True, allow_unused=True)\n"
    "total(*taken).backward()"
)
WALKS = (
    "total(pick(out, {i})).backward()",
    "total(pick(out, {i})).backward(retain_graph=True)",
    "dg.autograd.backward([total(pick(out, {i})), total(pick(out, {j}))])",
    "(total(pick(out, {i})) + total(pick(out, {j}) * 2)).backward()",
    "(total(pick(out, {i}) * pick(out, {j}).sum())).backward()",
    "taken = dg.autograd.grad(total(pick(out, {i})), leaves({leaves}), allow_unused=True)",
    "taken = dg.autograd.grad(total(pick(out, {i})), leaves({leaves}), retain_graph=True, allow_unused=True)",
    "taken = dg.autograd.grad(total(pick(out, {i})), pick(out, {j}), allow_unused=True)",
    "taken = dg.autograd.grad(total(pick(out, {i})), pick(out, {j}), retain_graph=True, allow_unused=True)",
    "taken = dg.autograd.grad([total(y) for y in ends(out)], [pick(out, {i}), *leaves({leaves})], allow_unused=True)",
    "pick(out, {i}).backward(dg.ones_like(pick(out, {i})) * 0.25)",
)


def ends(results: Any) -> list[Any]:
    """The results through which a gradient goes."""
    row = results if isinstance(results, (tuple, list)) else (results,)
    return [y for y in row if isinstance(y, dg.Tensor) and y.requires_grad and y.dtype.has_gradient]


def pick(results: Any, k: int) -> Any:
    """One of these; a number without a gradient where there is none."""
    row = ends(results)
    return row[k % len(row)] if row else dg.zeros(())


def leaves(*tensors: Any) -> list[Any]:
    """The tensors that ask for a gradient."""
    return [x for x in tensors if isinstance(x, dg.Tensor) and x.requires_grad]


def total(*tensors: Any) -> Any:
    """A number to begin a walk with."""
    found = dg.zeros((), dtype="float64")
    for y in tensors:
        if y is not None:
            y = dg.view_as_real(y) if y.dtype.is_complex else y
            found = found + (y.to(dg.float64) * 0.5).sum()
    return found


def gradients(taken: Any) -> dict[str, Any]:
    """What can be seen of gradients that were asked for."""
    found: dict[str, Any] = {}
    for k, g in enumerate(taken or ()):
        found[f"{k} taken"] = g if g is None else np.array(g.detach().numpy())
        found[f"{k} requires a gradient"] = g is not None and g.requires_grad
        found[f"{k} strides"] = () if g is None else strides(g)
    return found


def strides(x: Any) -> list[int]:
    """How a tensor lies in memory, as far as that can be seen."""
    return [s for n, s in zip(x.shape, x.strides) if n > 1 and x.size]


def draw_walks(rng: random.Random, inputs: Sequence[Given]) -> tuple[str, ...]:
    """Lines to run after each call."""
    names = _asking(rng, inputs)
    if rng.random() < 0.1:
        return (AGAIN.format(i=rng.randrange(3), leaves=names),)
    forms = [rng.choice(HOOKS) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    forms += [rng.choice(WALKS) for _ in range(rng.choice((1, 1, 2, 3)))]
    return tuple([f.format(i=rng.randrange(3), j=rng.randrange(3), leaves=names) for f in forms])


def draw_again(rng: random.Random, inputs: Sequence[Given]) -> tuple[str, ...]:
    """The lines of a gradient of a gradient."""
    names = _asking(rng, inputs)
    return (AGAIN.format(i=rng.randrange(3), leaves=names),)


def _asking(rng: random.Random, inputs: Sequence[Given]) -> str:
    """Names of tensors that may ask for a gradient."""
    kept = ["m.w", "m.layer.weight"] + ["m.last"] * (rng.random() < 0.3)
    return ", ".join([n for x in inputs if x.is_tensor for n in (x.name, *x.behind)] + kept)


#: what these lines may name
WALKING: dict[str, Any] = {"ends": ends, "leaves": leaves, "pick": pick, "total": total}
