"""Importers of ai.onnx.ml's linear models, support vectors and preparation of features; all on duograd's ops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...core import types as T
from ...core.op import REGISTRY as ops
from ...core.value import Tensor
from .coded import Coded, Texts
from .program import host_tensor
from .table import adapter

ML = "ai.onnx.ml"


def numbers(row: Any, dtype: Any = np.float32) -> Any:
    """A row of numbers as a tensor."""
    return host_tensor(np.asarray(row, dtype))


def labels(index: Any, ints: Any, words: Any) -> Any:
    """The class labels at places: integers, or texts as Coded."""
    if words:
        book = Texts(sorted(set(words)))
        places = {w: k for k, w in enumerate(book.words.tolist())}
        return Coded(ops["take"](numbers([places[w] for w in words], np.int64), index, axis=0), book)
    return ops["take"](numbers(ints, np.int64), index, axis=0)


def softmax_zero(x: Any) -> Any:
    """Softmax over what is not 0; zeros stay."""
    kept = ops["greater"](ops["abs"](x), 1e-7)
    y = ops["where"](kept, ops["exp"](x - x.max(axis=-1, keepdims=True)), 0.0)
    total = ops["sum"](y, axis=-1, keepdims=True)
    return y / ops["where"](ops["equal"](total, 0), 1.0, total)


_TRANSFORMS: dict[str, Any] = {
    "NONE": lambda x: x,
    "SOFTMAX": lambda x: ops["softmax"](x, axis=-1),
    "LOGISTIC": lambda x: ops["sigmoid"](x),
    "SOFTMAX_ZERO": softmax_zero,
    "PROBIT": lambda x: ops["erfinv"](x * 2.0 - 1.0) * math.sqrt(2.0),
}


def transformed(x: Any, name: Any) -> Any:
    """Scores after a transform, by its name or its number in TreeEnsemble."""
    return _TRANSFORMS[name if isinstance(name, str) else [*_TRANSFORMS][{1: 1, 2: 2}.get(name, name)]](x)


def two_columns(score: Any, transform: str, positive: bool) -> Any:
    """Scores of both classes from those of the second, [N, 1]; positive: they are shares already."""
    if positive and transform != "LOGISTIC":
        return ops["concat"]([1.0 - score, score], axis=1)
    both = ops["concat"]([ops["negative"](score), score], axis=1)
    return transformed(both, transform) if transform in ("LOGISTIC", "PROBIT") else both


def _rows(x: Any) -> Any:
    x = x if isinstance(x, Tensor) and x.dtype.is_float else x.to(T.float32)
    return ops["reshape"](x, shape=(1, -1)) if x.ndim == 1 else x


@adapter("LinearRegressor", domain=ML)
def linear_regressor(x, *, coefficients, intercepts=None, targets=1, post_transform="NONE"):
    """`x @ coefficients' + intercepts`, transformed."""
    x = _rows(x).to(T.float32)
    y = ops["matmul"](x, numbers(np.reshape(coefficients, (targets, -1)).T))
    return transformed(y if not intercepts else y + numbers(intercepts), post_transform)


@adapter("LinearClassifier", domain=ML)
def linear_classifier(
    x, *, coefficients, classlabels_ints=None, classlabels_strings=None, intercepts=None, multi_class=0,
    post_transform="NONE",
):  # fmt: skip
    """The class of the largest score, and the scores; one row of coefficients tells two classes apart by its sign."""
    x = _rows(x).to(T.float32)
    weights = np.reshape(coefficients, (-1, x.shape[1]))
    score = ops["matmul"](x, numbers(weights.T))
    score = score if not intercepts else score + numbers(intercepts)
    count = len(classlabels_strings or classlabels_ints)
    if score.shape[1] == 1 and count == 2:
        index = ops["greater"](score, 0.0)[:, 0].to(T.int64)
        shares = post_transform not in ("LOGISTIC", "PROBIT")
        return labels(index, classlabels_ints, classlabels_strings), two_columns(
            score, post_transform, shares
        )
    index = ops["argmax"](score, axis=1)
    return labels(index, classlabels_ints, classlabels_strings), transformed(score, post_transform)


def _kernel(x: Any, vectors: np.ndarray, kind: str, params: Any) -> Any:
    gamma, coef, degree = params or (0.0, 0.0, 0.0)
    v = numbers(vectors.T)
    if kind == "RBF":
        near = ops["expand_dims"](x, axis=1) - numbers(vectors[None])  # [N, V, F]
        return ops["exp"](ops["sum"](near * near, axis=2) * -gamma)
    y = ops["matmul"](x, v)
    if kind == "LINEAR":
        return y
    y = y * gamma + coef
    return ops["tanh"](y) if kind == "SIGMOID" else ops["power"](y, float(degree))


@adapter("SVMRegressor", domain=ML)
def svm_regressor(
    x, *, coefficients, kernel_params=None, kernel_type="LINEAR", n_supports=0, one_class=0, post_transform="NONE",
    rho=(0.0,), support_vectors=None,
):  # fmt: skip
    """A weighted sum of kernels between x and the support vectors; one_class: its sign."""
    x = _rows(x).to(T.float32)
    if n_supports:
        kernels = _kernel(x, np.reshape(support_vectors, (n_supports, -1)), kernel_type, kernel_params)
    else:
        kernels = x
    y = ops["matmul"](kernels, numbers(np.reshape(coefficients, (-1, 1)))) + float(rho[0])
    if one_class:
        return ops["where"](ops["greater"](y, 0.0), 1.0, -1.0).to(T.float32)
    return transformed(y, post_transform)


def _coupled(r: list[list[Any]], n: int) -> Any:
    """Class probabilities from those of each pair (Wu, Lin and Weng, 2004): the least squares solution."""
    rows = []
    for i in range(n):
        row = []
        for j in range(n):
            row.append(-(r[j][i] * r[i][j]) if i != j else sum(r[k][i] * r[k][i] for k in range(n) if k != i))
        rows.append(ops["stack"]([*row, ops["full"](1.0, shape=row[0].shape, dtype=row[0].dtype)], axis=-1))
    one = ops["full"](1.0, shape=(rows[0].shape[0],), dtype=rows[0].dtype)
    zero = one * 0.0
    rows.append(ops["stack"]([one] * n + [zero], axis=-1))
    right = ops["stack"]([zero] * n + [one], axis=-1)
    system = ops["stack"](rows, axis=1)
    return ops["solve"](system, ops["expand_dims"](right, axis=-1))[:, :n, 0]


@adapter("SVMClassifier", domain=ML)
def svm_classifier(
    x, *, classlabels_ints=None, classlabels_strings=None, coefficients, kernel_params=None, kernel_type="LINEAR",
    post_transform="NONE", prob_a=None, prob_b=None, rho, support_vectors=None, vectors_per_class=None,
):  # fmt: skip
    """Votes of all pairs of classes, each decided by its support vectors; or a linear model where there are none."""
    x = _rows(x).to(T.float32)
    count = len(classlabels_strings or classlabels_ints)
    named = lambda index: labels(index, classlabels_ints, classlabels_strings)
    if not vectors_per_class:
        score = ops["matmul"](x, numbers(np.reshape(coefficients, (count, -1)).T)) + numbers(rho[:1])
        return named(ops["argmax"](score, axis=1)), transformed(score, post_transform)
    total = sum(vectors_per_class)
    kernels = _kernel(x, np.reshape(support_vectors, (total, -1)), kernel_type, kernel_params)
    weights = np.reshape(coefficients, (count - 1, total))
    starts = np.concatenate([[0], np.cumsum(vectors_per_class)]).tolist()
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    mixed = np.zeros((total, len(pairs)), np.float32)  # the coefficients of each pair's decision
    for k, (i, j) in enumerate(pairs):
        mixed[starts[i] : starts[i + 1], k] = weights[j - 1, starts[i] : starts[i + 1]]
        mixed[starts[j] : starts[j + 1], k] = weights[i, starts[j] : starts[j + 1]]
    decisions = ops["matmul"](kernels, numbers(mixed)) + numbers(rho)
    voted = np.zeros((2, len(pairs), count), np.float32)
    for k, (i, j) in enumerate(pairs):
        voted[0, k, i] = voted[1, k, j] = 1
    won = ops["greater"](decisions, 0.0).to(T.float32)
    votes = ops["matmul"](won, numbers(voted[0])) + ops["matmul"](1.0 - won, numbers(voted[1]))
    index = named(ops["argmax"](votes, axis=1))
    if prob_a:
        share: list[list[Any]] = [[None] * count for _ in range(count)]
        first = ops["sigmoid"](ops["negative"](decisions * numbers(prob_a) + numbers(prob_b)))
        first = ops["clip"](first, min=1e-7, max=1.0 - 1e-7)
        for k, (i, j) in enumerate(pairs):
            share[i][j], share[j][i] = first[:, k], 1.0 - first[:, k]
        scores = ops["stack"]([share[0][1], share[1][0]], axis=1) if count == 2 else _coupled(share, count)
        return index, transformed(scores, post_transform)
    if count == 2:
        scores = ops["concat"]([ops["negative"](decisions), decisions], axis=1)
        return index, transformed(scores, post_transform)
    return index, transformed(decisions, post_transform)


# ---------------------------------------------------------------- features


@adapter("Binarizer", domain=ML)
def binarizer(x, *, threshold=0.0):
    """1 above a threshold, else 0."""
    return ops["greater"](x, threshold if x.dtype.is_float else math.floor(threshold)).to(x.dtype)


@adapter("Scaler", domain=ML)
def scaler(x, *, offset=None, scale=None):
    """`(x - offset) * scale` along the last axis."""
    x = x.to(T.float32)
    x = x if not offset else x - numbers(offset)
    return x if not scale else x * numbers(scale)


@adapter("Normalizer", domain=ML)
def normalizer(x, *, norm="MAX"):
    """Each row over its maximum, its sum or the root of its squares; as it is where that is 0."""
    x = x.to(T.float32)
    if norm == "MAX":
        size = ops["max"](ops["abs"](x), axis=-1, keepdims=True)
    elif norm == "L1":
        size = ops["sum"](ops["abs"](x), axis=-1, keepdims=True)
    else:
        size = ops["sqrt"](ops["sum"](x * x, axis=-1, keepdims=True))
    return x / ops["where"](ops["equal"](size, 0), 1.0, size)


@adapter("Imputer", domain=ML)
def imputer(
    x,
    *,
    imputed_value_floats=None,
    imputed_value_int64s=None,
    replaced_value_float=0.0,
    replaced_value_int64=0,
):
    """A value that stands for missing ones, replaced."""
    new = imputed_value_floats or imputed_value_int64s
    old = replaced_value_float if imputed_value_floats else replaced_value_int64
    missing = ops["isnan"](x) if isinstance(old, float) and math.isnan(old) else ops["equal"](x, old)
    return ops["where"](missing, numbers(new, x.dtype.np), x)


@adapter("ArrayFeatureExtractor", domain=ML, codes=(0,))
def array_feature_extractor(x, index):
    """Columns of x."""
    y = ops["take"](x, ops["reshape"](index, shape=(-1,)), axis=-1)
    return ops["reshape"](y, shape=(1, -1)) if y.ndim == 1 else y


@adapter("FeatureVectorizer", domain=ML)
def feature_vectorizer(*xs, inputdimensions=None):
    """Columns side by side, as floats."""
    row = [_rows(x).to(T.float32) for x in xs]
    cut = inputdimensions or [x.shape[1] for x in row]
    return ops["concat"]([x[:, : int(n)] for x, n in zip(row, cut)], axis=1)
