"""Importers of ai.onnx.ml's tree ensembles: all trees step down together, one level at a time, in tensor ops."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...core import types as T
from ...core.op import PUBLIC
from ...core.op import REGISTRY as ops
from .adapt_ml import ML, labels, numbers, transformed, two_columns
from .table import adapter

_MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
_COMPARE = ("less_equal", "less", "greater_equal", "greater", "equal", "not_equal")


class Forest(NamedTuple):
    """Trees as arrays over all nodes; leaves lead to themselves. votes: [nodes, targets], NaN where there is none.

    mode: a place in `_MODES`; sets: rows of members, filled up with NaN; of_set: the row of a node.
    """

    roots: np.ndarray
    feature: np.ndarray
    split: np.ndarray
    mode: np.ndarray
    true: np.ndarray
    false: np.ndarray
    track: np.ndarray
    votes: np.ndarray
    sets: np.ndarray
    of_set: np.ndarray

    def depth(self) -> int:
        """Steps from the roots until all are at leaves. Raises: ValueError for trees that are loops."""
        here, steps = np.unique(self.roots), 0
        while True:
            inner = here[(self.true[here] != here) | (self.false[here] != here)]
            if not inner.size:
                return steps
            steps += 1
            if steps > len(self.feature):
                raise ValueError("the nodes of a tree lead round in a circle")
            here = np.unique(np.concatenate([self.true[inner], self.false[inner]]))

    def leaves(self, x: Any) -> Any:
        """The leaf of every tree for every row of x: [N, trees]."""
        here = ops["broadcast_to"](numbers(self.roots, np.int64), shape=(x.shape[0], len(self.roots)))
        tables = {
            n: numbers(getattr(self, n), np.int64) for n in ("feature", "true", "false", "of_set", "mode")
        }
        split, track = numbers(self.split, x.dtype.np), numbers(self.track, bool)
        inner = (self.true != np.arange(len(self.true))) | (self.false != np.arange(len(self.true)))
        modes = np.unique(self.mode[inner]).tolist()
        at = lambda name: ops["take"](tables[name], here, axis=0)
        for _ in range(self.depth()):
            value = PUBLIC["gather"](x, 1, at("feature"))
            border = ops["take"](split, here, axis=0)
            goes: Any = None
            for mode in modes:
                if mode == 6:
                    rows = ops["take"](numbers(self.sets, x.dtype.np), at("of_set"), axis=0)
                    found = ops["any"](ops["equal"](rows, ops["expand_dims"](value, axis=-1)), axis=-1)
                else:
                    found = ops[_COMPARE[mode]](value, border)
                goes = found if goes is None else ops["where"](ops["equal"](at("mode"), mode), found, goes)
            if self.track.any():
                goes = ops["where"](ops["isnan"](value), ops["take"](track, here, axis=0), goes)
            here = ops["where"](goes, at("true"), at("false"))
        return here

    def scores(self, x: Any, how: str) -> Any:
        """The votes of all trees, [N, targets]: SUM, AVERAGE, MIN or MAX."""
        votes, leaves = self.votes.astype(x.dtype.np), self.leaves(x)
        absent = np.isnan(votes)
        if how in ("MIN", "MAX"):
            far = np.inf if how == "MIN" else -np.inf
            picked = ops["take"](numbers(np.where(absent, far, votes), x.dtype.np), leaves, axis=0)
            y = ops[how.lower()](picked, axis=1)
            return ops["where"](ops["isinf"](y), 0.0, y)
        total = ops["sum"](
            ops["take"](numbers(np.where(absent, 0, votes), x.dtype.np), leaves, axis=0), axis=1
        )
        return total / len(self.roots) if how == "AVERAGE" else total


def _paired(
    modes: list[str], trees: Any, nodes: Any, features: Any, values: Any, true: Any, false: Any, track: Any,
    vote_trees: Any, vote_nodes: Any, vote_ids: Any, weights: Any, n_targets: int,
) -> Forest:  # fmt: skip
    """The form before opset 5: nodes are named by tree and number, leaves are nodes."""
    place = {key: k for k, key in enumerate(zip(trees, nodes))}
    count = len(modes)
    leaf = np.array([m == "LEAF" for m in modes])
    here = np.arange(count)
    follow = lambda ids: np.array([k if leaf[k] else place[trees[k], ids[k]] for k in range(count)], np.int64)
    t, f = follow(true), follow(false)
    inner = ~leaf
    roots = np.setdiff1d(here, np.concatenate([t[inner], f[inner]]))
    votes = np.full((count, n_targets), np.nan)
    for tree, node, target, weight in zip(vote_trees, vote_nodes, vote_ids, weights):
        k = place[tree, node]
        votes[k, target] = weight + (0 if np.isnan(votes[k, target]) else votes[k, target])
    return Forest(
        roots, np.asarray(features, np.int64), np.asarray(values),
        np.array([0 if m == "LEAF" else _MODES.index(m) for m in modes]), t, f,
        np.asarray(track if track else np.zeros(count), bool), votes, np.zeros((1, 1)), np.zeros(count, np.int64),
    )  # fmt: skip


def _either(a: Any, b: Any) -> Any:
    return a if b is None else b


def _floats(x: Any, *others: Any) -> Any:
    """x in float32, or in float64 when the trees are given in it."""
    wide = any(v is not None and getattr(v, "dtype", None) == np.float64 for v in others)
    return x.to(T.float64 if wide or x.dtype is T.float64 else T.float32)


@adapter("TreeEnsembleRegressor", domain=ML)
def tree_regressor(
    x, *, aggregate_function="SUM", base_values=None, base_values_as_tensor=None, n_targets=1, nodes_falsenodeids,
    nodes_featureids, nodes_hitrates=None, nodes_hitrates_as_tensor=None, nodes_missing_value_tracks_true=None,
    nodes_modes, nodes_nodeids, nodes_treeids, nodes_truenodeids, nodes_values=None, nodes_values_as_tensor=None,
    post_transform="NONE", target_ids, target_nodeids, target_treeids, target_weights=None,
    target_weights_as_tensor=None,
):  # fmt: skip
    """The votes of the leaves that a row falls into, put together for each target."""
    weights = _either(target_weights, target_weights_as_tensor)
    forest = _paired(
        nodes_modes, nodes_treeids, nodes_nodeids, nodes_featureids, _either(nodes_values, nodes_values_as_tensor),
        nodes_truenodeids, nodes_falsenodeids, nodes_missing_value_tracks_true, target_treeids, target_nodeids,
        target_ids, weights, n_targets,
    )  # fmt: skip
    y = forest.scores(_floats(x, target_weights_as_tensor, nodes_values_as_tensor), aggregate_function)
    base = _either(base_values, base_values_as_tensor)
    y = y if base is None or not len(base) else y + numbers(base, y.dtype.np)
    return transformed(y, post_transform).to(T.float32)


@adapter("TreeEnsembleClassifier", domain=ML)
def tree_classifier(
    x, *, base_values=None, base_values_as_tensor=None, class_ids, class_nodeids, class_treeids, class_weights=None,
    class_weights_as_tensor=None, classlabels_int64s=None, classlabels_strings=None, nodes_falsenodeids,
    nodes_featureids, nodes_hitrates=None, nodes_hitrates_as_tensor=None, nodes_missing_value_tracks_true=None,
    nodes_modes, nodes_nodeids, nodes_treeids, nodes_truenodeids, nodes_values=None, nodes_values_as_tensor=None,
    post_transform="NONE",
):  # fmt: skip
    """The class with the largest sum of votes, and the sums; two classes may be told apart by the votes for one."""
    weights = _either(class_weights, class_weights_as_tensor)
    count = len(classlabels_strings or classlabels_int64s)
    forest = _paired(
        nodes_modes, nodes_treeids, nodes_nodeids, nodes_featureids, _either(nodes_values, nodes_values_as_tensor),
        nodes_truenodeids, nodes_falsenodeids, nodes_missing_value_tracks_true, class_treeids, class_nodeids,
        class_ids, weights, count,
    )  # fmt: skip
    y = forest.scores(_floats(x, class_weights_as_tensor, nodes_values_as_tensor), "SUM")
    base = _either(base_values, base_values_as_tensor)
    named = lambda index: labels(index, classlabels_int64s, classlabels_strings)
    if count == 2 and set(class_ids) == {0}:  # one vote tells two classes apart: the score of the second
        score = y[:, :1]
        if base is not None and len(base):
            score = score + float(np.asarray(base)[-1])
        positive = bool(np.min(weights) >= 0)
        index = ops["greater"](score, 0.5 if positive else 0.0)[:, 0].to(T.int64)
        return named(index), two_columns(score, post_transform, positive).to(T.float32)
    y = y if base is None or not len(base) else y + numbers(base, y.dtype.np)
    return named(ops["argmax"](y, axis=1)), transformed(y, post_transform).to(T.float32)


@adapter("TreeEnsemble", domain=ML, since=5)
def tree_ensemble(
    x, *, aggregate_function=1, leaf_targetids, leaf_weights, membership_values=None, n_targets=1, nodes_falseleafs,
    nodes_falsenodeids, nodes_featureids, nodes_hitrates=None, nodes_missing_value_tracks_true=None, nodes_modes,
    nodes_splits, nodes_trueleafs, nodes_truenodeids, post_transform=0, tree_roots,
):  # fmt: skip
    """Trees whose leaves are kept apart from their nodes, and that may test whether a value is in a set."""
    count, leaves = len(nodes_modes), len(leaf_weights)
    every = count + leaves
    after = lambda ids, is_leaf: np.concatenate(
        [np.asarray(ids) + count * (np.asarray(is_leaf) != 0), np.arange(count, every)]
    ).astype(np.int64)
    wide = lambda row, fill=0: np.concatenate([np.asarray(row), np.full(leaves, fill)])
    votes = np.full((every, n_targets), np.nan)
    votes[count + np.arange(leaves), np.asarray(leaf_targetids)] = leaf_weights
    members: list[list[float]] = [[]]
    for value in np.asarray(membership_values if membership_values is not None else []).ravel().tolist():
        if value != value:
            members.append([])
        else:
            members[-1].append(value)
    sets = np.full((len(members), max(1, *map(len, members))), np.nan)
    for row, found in zip(sets, members):
        row[: len(found)] = found
    modes = np.asarray(nodes_modes)
    of_set = np.where(modes == 6, np.cumsum(modes == 6) - 1, 0)
    track = nodes_missing_value_tracks_true
    forest = Forest(
        np.asarray(tree_roots, np.int64), wide(nodes_featureids), wide(np.nan_to_num(nodes_splits)), wide(modes),
        after(nodes_truenodeids, nodes_trueleafs), after(nodes_falsenodeids, nodes_falseleafs),
        wide(track if track else np.zeros(count)).astype(bool), votes, sets, wide(of_set),
    )  # fmt: skip
    y = forest.scores(x, ("AVERAGE", "SUM", "MIN", "MAX")[aggregate_function])
    return transformed(y, post_transform)
