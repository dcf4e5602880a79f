"""Importers of ai.onnx.ml's look-ups: LabelEncoder, CategoryMapper, OneHotEncoder, and its maps, which are dicts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core import types as T
from ...core.errors import OnnxError
from ...core.op import REGISTRY as ops
from .adapt_ml import ML, labels, numbers
from .coded import Coded, coded, is_texts, texts
from .program import as_array, host_tensor
from .table import adapter


def look_up(x: Any, keys: np.ndarray, values: np.ndarray, default: Any) -> Any:
    """The value of each element's key, or the default. Nothing is read: the table is searched in order."""
    known = dict(zip(keys.tolist(), values.tolist()))  # the last of equal keys counts
    if is_texts(x):
        kind = object if values.dtype.kind in "OUS" else values.dtype
        find = lambda words: np.array([known.get(w, default) for w in words.ravel()], kind).reshape(
            words.shape
        )
        return x.book.map(x.codes, find) if isinstance(x, Coded) else find(texts(x))
    x = host_tensor(x) if isinstance(x, np.ndarray) else x
    ordered = sorted(k for k in known if k == k)
    missing = known.get(next((k for k in known if k != k), None), default)
    table = [*(known[k] for k in ordered), default, missing]
    if ordered:
        row = host_tensor(np.array(ordered, x.dtype.np))
        place = ops["searchsorted"](row, x)
        hit = ops["equal"](ops["take"](row, ops["clip"](place, max=len(ordered) - 1), axis=0), x)
        place = ops["where"](hit, place, len(ordered))
    else:
        place = ops["full"](0, shape=x.shape, dtype=T.int64)
    if x.dtype.is_float:
        place = ops["where"](ops["isnan"](x), len(ordered) + 1, place)
    if values.dtype.kind in "OUS":
        return labels(place, None, table)
    return ops["take"](host_tensor(np.array(table, values.dtype)), place, axis=0)


def _chosen(**given: Any) -> np.ndarray:
    for name, value in given.items():
        if value is not None:
            kind = {"floats": np.float32, "int64s": np.int64, "strings": object}[name]
            return np.array(value, kind)
    raise OnnxError("onnx", "a LabelEncoder without keys or values", "export the model again")


@adapter("LabelEncoder", domain=ML, since=2, codes="own")
def label_encoder(
    x, *, keys_tensor=None, keys_floats=None, keys_int64s=None, keys_strings=None, values_tensor=None,
    values_floats=None, values_int64s=None, values_strings=None, default_tensor=None, default_float=-0.0,
    default_int64=-1, default_string="_Unused",
):  # fmt: skip
    """Values in place of keys."""
    pick = lambda tensor, floats, int64s, strings: (
        tensor if tensor is not None else _chosen(floats=floats, int64s=int64s, strings=strings)
    )
    keys = pick(keys_tensor, keys_floats, keys_int64s, keys_strings)
    values = pick(values_tensor, values_floats, values_int64s, values_strings)
    if default_tensor is not None:
        default = default_tensor.ravel().tolist()[0]
    else:
        default = {"f": default_float, "i": default_int64}.get(values.dtype.kind, default_string)
    return look_up(x, keys.ravel(), values.ravel(), default)


@adapter("LabelEncoder", domain=ML, codes="own")
def label_encoder_1(x, *, classes_strings=None, default_int64=-1, default_string="_Unused"):
    """Texts and their places in a list, either way."""
    words, places = np.array(classes_strings, object), np.arange(len(classes_strings))
    if is_texts(x):
        return look_up(x, words, places, default_int64)
    return look_up(x, places, words, default_string)


@adapter("CategoryMapper", domain=ML, codes="own")
def category_mapper(x, *, cats_int64s, cats_strings, default_int64=-1, default_string="_Unused"):
    """Integers in place of texts or the other way."""
    words, places = np.array(cats_strings, object), np.array(cats_int64s, np.int64)
    return (
        look_up(x, words, places, default_int64) if is_texts(x) else look_up(x, places, words, default_string)
    )


@adapter("OneHotEncoder", domain=ML, codes="own")
def one_hot_encoder(x, *, cats_int64s=None, cats_strings=None, zeros=1):
    """A one at the place of the category along a new last axis."""
    cats = np.array(cats_strings, object) if cats_strings else np.array(cats_int64s, np.int64)
    n = len(cats)
    if not is_texts(x):
        x = host_tensor(x) if isinstance(x, np.ndarray) else x
        x = x.to(T.int64)
    place = look_up(x, cats, np.arange(n), n)
    place = host_tensor(place) if isinstance(place, np.ndarray) else place
    if not zeros and (as_array(place) == n).any():
        raise ValueError("a category that the encoder does not know")
    eye = np.concatenate([np.eye(n, dtype=np.float32), np.zeros((1, n), np.float32)])
    return ops["take"](host_tensor(eye), place, axis=0)


# ---------------------------------------------------------------- maps: dicts from keys to numbers (0-d tensors)


@adapter("ZipMap", domain=ML)
def zip_map(x, *, classlabels_int64s=None, classlabels_strings=None):
    """A list of dicts, one for each row: from labels to 0-d tensors."""
    keys = classlabels_strings or classlabels_int64s
    x = x if x.ndim == 2 else ops["reshape"](x, shape=(1, -1))
    return [{key: x[n, k] for k, key in enumerate(keys)} for n in range(x.shape[0])]


def _cells(row: list[Any]) -> Any:
    return ops["stack"]([v if hasattr(v, "device") else numbers(v) for v in row], axis=0)


@adapter("DictVectorizer", domain=ML)
def dict_vectorizer(x, *, int64_vocabulary=None, string_vocabulary=None):
    """A dict's numbers in the order of a vocabulary, 0 where it has none."""
    kind = np.asarray(next(iter(x.values()), 0.0)).dtype
    kind = np.float32 if kind == np.float64 else kind
    row = [x.get(key, 0) for key in string_vocabulary or int64_vocabulary]
    return ops["reshape"](
        _cells([v if hasattr(v, "device") else np.asarray(v, kind) for v in row]), shape=(1, -1)
    )


@adapter("CastMap", domain=ML)
def cast_map(x, *, cast_to="TO_FLOAT", map_form="DENSE", max_map=1):
    """A dict's values in the order of its keys, or at the places that the keys say."""
    row = [x[k] for k in sorted(x)] if map_form == "DENSE" else [x.get(k, 0.0) for k in range(max_map)]
    if cast_to == "TO_STRING" or any(isinstance(v, str) for v in row):
        out = np.empty((1, len(row)), object)
        out[0] = [v if isinstance(v, str) else str(np.asarray(v)) for v in row]
        return out if cast_to == "TO_STRING" else numbers([[float(w) for w in out[0]]])
    y = ops["reshape"](
        _cells([v if hasattr(v, "device") else np.asarray(v, np.float32) for v in row]), shape=(1, -1)
    )
    return y.to(T.float32 if cast_to == "TO_FLOAT" else T.int64)


__all__ = ["coded", "look_up"]
