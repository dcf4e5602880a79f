"""Importers of ops on texts. They run on the host, in Python: str, re (or google-re2, when installed)."""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

from ...core.errors import OnnxError
from .coded import Coded, texts
from .table import adapter


def _array(row: Any, shape: Any) -> np.ndarray:
    out = np.empty(shape, object)
    out.reshape(-1)[:] = row
    return out


@adapter("StringConcat", host=("x", "y"), library="Python")
def string_concat(x, y):
    """Texts joined element by element, with broadcasting."""
    x, y = np.broadcast_arrays(texts(x), texts(y))
    return _array([a + b for a, b in zip(x.ravel(), y.ravel())], x.shape)


@adapter("StringSplit", host=("x",), library="Python")
def string_split(x, *, delimiter=None, maxsplit=None):
    """The parts of each text along a new axis, filled up with empty texts; and how many there are."""
    rows = [w.split(delimiter or None, -1 if maxsplit is None else maxsplit) for w in texts(x).ravel()]
    width = max(map(len, rows), default=0)
    parts = _array([w for r in rows for w in r + [""] * (width - len(r))], (*x.shape, width))
    return parts, np.array([len(r) for r in rows], np.int64).reshape(x.shape)


#: what Python's re knows and RE2 refuses: looking around, atomic groups, back references, conditions
_BEYOND_RE2 = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?(?:=|!|<=|<!|>|\(|P=|#)|\\[1-9]|[*+?}]\+)")
_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "word": "0-9A-Za-z_",
    "space": r"\t\n\v\f\r ", "blank": r"\t ", "xdigit": "0-9A-Fa-f", "punct": r"!-/:-@\[-`{-~",
    "cntrl": r"\x00-\x1f\x7f", "print": " -~", "graph": "!-~", "ascii": r"\x00-\x7f",
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def _matcher(pattern: str) -> Any:
    """A function that says whether a text matches as a whole, by RE2's syntax. Raises OnnxError."""
    try:
        import re2
    except ImportError:
        pass
    else:
        try:
            return re2.compile(pattern).fullmatch
        except re2.error as e:
            raise OnnxError("onnx", f"the pattern {pattern!r} is not legal in RE2: {e}", "mend it") from None
    if _BEYOND_RE2.search(pattern):
        raise OnnxError(
            "onnx", f"the pattern {pattern!r} is not legal in RE2", "RE2 neither looks around nor back"
        )
    if re.search(r"(?<!\\)(?:\\\\)*\\[pPCQ]", pattern):
        raise OnnxError("onnx", f"the pattern {pattern!r} needs RE2 itself", "pip install google-re2")
    ready = re.sub(r"\[:(\w+):\]", lambda m: _POSIX.get(m[1], m[0]), pattern).replace(r"\z", r"\Z")
    try:
        return re.compile(ready, re.ASCII).fullmatch  # \d, \w and \s are those of ASCII in RE2
    except re.error as e:
        raise OnnxError("onnx", f"the pattern {pattern!r} is not legal: {e}", "mend it") from None


@adapter("RegexFullMatch", codes="own", library="Python's re, or google-re2")
def regex_full_match(x, *, pattern=""):
    """Whether a text matches as a whole. Nothing is read from a traced x: the texts it can hold are tried."""
    matches = _matcher(pattern)
    found = lambda words: np.array([matches(w) is not None for w in words.ravel()], bool)
    return x.book.map(x.codes, found) if isinstance(x, Coded) else found(texts(x)).reshape(x.shape)


def _case(action: str, language: str) -> Any:
    """A function that changes the case of a text. Turkish and Azerbaijani have an i of their own."""
    if action not in ("NONE", "LOWER", "UPPER"):
        raise ValueError(f"case_change_action is {action!r}")
    if action == "NONE":
        return lambda w: w
    dotted = language[:2].lower() in ("tr", "az")
    if action == "LOWER":
        return lambda w: (w.replace("\u0130", "i").replace("I", "\u0131") if dotted else w).lower()
    return lambda w: (w.replace("i", "\u0130") if dotted else w).upper()


@adapter("StringNormalizer", host=("x",), library="Python")
def string_normalizer(x, *, stopwords=None, locale="en_US", is_case_sensitive=0, case_change_action="NONE"):
    """A row of texts without stop words, in another case; one empty text when nothing is left."""
    if x.ndim > 2 or (x.ndim == 2 and x.shape[0] != 1):
        raise ValueError(f"takes [C] or [1, C], got {list(x.shape)}")
    change = _case(case_change_action, locale or "en_US")
    same = (lambda w: w) if is_case_sensitive else str.lower
    stop = {same(w) for w in stopwords or ()}
    row = [change(w) for w in texts(x).ravel() if same(w) not in stop] or [""]
    return _array(row, (1,) * (x.ndim - 1) + (len(row),))


@adapter("TfIdfVectorizer", host=("x",), library="Python")
def tfidf_vectorizer(
    x, *, max_gram_length, max_skip_count, min_gram_length, mode, ngram_counts, ngram_indexes, pool_int64s=None,
    pool_strings=None, weights=None,
):  # fmt: skip
    """Counts of the n-grams of a pool, with up to max_skip_count elements left out between neighbours."""
    pool = pool_int64s if pool_strings is None else pool_strings
    ends = [*ngram_counts[1:], len(pool)]
    grams: dict[tuple[Any, ...], int] = {}
    for n, (start, end) in enumerate(zip(ngram_counts, ends), 1):
        for k in range(start, end, n):
            grams[tuple(pool[k : k + n])] = len(grams)
    rows = (texts(x) if pool_strings is not None else x).reshape(-1, x.shape[-1] if x.ndim else 1).tolist()
    out = np.zeros((len(rows), max(ngram_indexes, default=-1) + 1), np.float32)
    for y, row in zip(out, rows):
        for n in range(max(1, min_gram_length), min(max_gram_length, len(ngram_counts)) + 1):
            for step in range(1, min(max_skip_count if n > 1 else 0, len(row)) + 2):
                for k in range(len(row) - (n - 1) * step):
                    found = grams.get(tuple(row[k : k + (n - 1) * step + 1 : step]))
                    if found is not None:
                        y[ngram_indexes[found]] += 1
    if mode == "IDF":
        out = np.minimum(out, 1)
    if mode != "TF" and weights is not None:
        factor = np.ones(out.shape[1], np.float32)
        factor[ngram_indexes] = weights
        out = out * factor
    return out[0] if x.ndim < 2 else out
