"""Losses by the names and arguments of torch.nn.functional, but for the class losses of `functional.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.errors import ArgumentError
from ..core.ops import distance_loss as _D
from ..core.ops import elementwise as _E
from ..core.ops import margin_loss as _M
from ..core.ops.creation import full as _full
from ..core.ops.ctc import ctc_loss as _ctc_loss
from ..core.value import Tensor
from .arguments import reduction as _reduction

__all__ = [
    "binary_cross_entropy", "cosine_embedding_loss", "cosine_similarity", "ctc_loss", "gaussian_nll_loss",
    "hinge_embedding_loss", "huber_loss", "kl_div", "margin_ranking_loss", "multi_margin_loss",
    "multilabel_margin_loss", "multilabel_soft_margin_loss", "pairwise_distance", "poisson_nll_loss", "smooth_l1_loss",
    "soft_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip


def _weighted(op: str, each: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    _reduction(op, reduction)
    if weight is not None:
        each = each * weight
    return each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each


def huber_loss(
    x: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """A square near 0, a line beyond delta; see `dg.huber_loss`. weight: a factor of each loss, or None."""
    if weight is None:
        return _D.huber_loss(x, target, delta=delta, reduction=reduction)
    each = _D.huber_loss(x, target, delta=delta, reduction="none")
    return _weighted("huber_loss", each, weight, reduction)


def smooth_l1_loss(x: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """A square near 0, a line beyond beta; see `dg.smooth_l1_loss`."""
    return _D.smooth_l1_loss(x, target, beta=beta, reduction=reduction)


def kl_div(x: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """The Kullback-Leibler divergence of log-probabilities x from targets; see `dg.kl_div`."""
    return _D.kl_div(x, target, reduction=reduction, log_target=log_target)


def binary_cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The binary cross entropy of probabilities; see `dg.binary_cross_entropy`."""
    return _D.binary_cross_entropy(x, target, weight, reduction=reduction)


def poisson_nll_loss(
    x: Tensor, target: Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Minus the log-likelihood of counts; see `dg.poisson_nll_loss`."""
    return _D.poisson_nll_loss(x, target, log_input=log_input, full=full, eps=eps, reduction=reduction)


def gaussian_nll_loss(
    x: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-likelihood under normal laws; see `dg.gaussian_nll_loss`. var: a tensor or a number."""
    if not isinstance(var, Tensor):
        var = _full(x.shape, float(var), dtype=x.dtype, device=x.device)
    return _D.gaussian_nll_loss(x, target, var, full=full, eps=eps, reduction=reduction)


def hinge_embedding_loss(x: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """x where the target is 1, `max(0, margin - x)` where -1; see `dg.hinge_embedding_loss`."""
    return _M.hinge_embedding_loss(x, target, margin=margin, reduction=reduction)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """`max(0, -target * (input1 - input2) + margin)`; see `dg.margin_ranking_loss`."""
    return _M.margin_ranking_loss(input1, input2, target, margin=margin, reduction=reduction)


def multi_margin_loss(
    x: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """A margin between the right class and all others; see `dg.multi_margin_loss`."""
    return _M.multi_margin_loss(x, target, weight, p=p, margin=margin, reduction=reduction)


def multilabel_margin_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """A margin between right and wrong classes; see `dg.multilabel_margin_loss`."""
    return _M.multilabel_margin_loss(x, target, reduction=reduction)


def soft_margin_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """`log(1 + exp(-target * x))`; see `dg.soft_margin_loss`."""
    return _M.soft_margin_loss(x, target, reduction=reduction)


def multilabel_soft_margin_loss(
    x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The binary cross entropy of logits, averaged over classes; see `dg.multilabel_soft_margin_loss`."""
    return _M.multilabel_soft_margin_loss(x, target, weight, reduction=reduction)


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """1 - cos for equal pairs, `max(0, cos - margin)` for others; see `dg.cosine_embedding_loss`."""
    return _M.cosine_embedding_loss(input1, input2, target, margin=margin, reduction=reduction)


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)`; see `dg.triplet_margin_loss`."""
    settings = {"margin": margin, "p": p, "eps": eps, "swap": swap, "reduction": reduction}
    return _M.triplet_margin_loss(anchor, positive, negative, **settings)


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0, swap: bool = False,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """`triplet_margin_loss` with a distance of one's own (`pairwise_distance` when None)."""
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = _E.minimum(far, distance(positive, negative))
    each = _E.clip(near - far + margin, min=0.0)
    return _weighted("triplet_margin_with_distance_loss", each, None, reduction)


def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """Minus the log-likelihood of label sequences over all alignments; see `dg.ctc_loss`."""
    return _ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of `x1 - x2 + eps` along the last axis."""
    return _D.pairwise_distance(x1, x2, p=p, eps=eps, keepdims=keepdim)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """`x1.x2 / (|x1| |x2|)` along axis `dim`."""
    if not eps > 0:
        raise ArgumentError("cosine_similarity", f"eps={eps} is not above 0", "use such as 1e-8")
    return _D.cosine_similarity(x1, x2, axis=dim, eps=eps)
