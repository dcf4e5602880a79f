"""Other libraries' names for arguments, and how it is said here."""

from __future__ import annotations

#: other libraries' words for an argument, where the meaning is the same (or the remark says what differs)
WORDS = {
    "dim": "axis",
    "dims": "axis",
    "keepdim": "keepdims",
    "input": "x",
    "other": "y",
    "diagonal": "k",
    "unbiased": "correction",
    "ddof": "correction",
    "fill_value": "value",
    "a": "x",
    "a_min": "min",
    "a_max": "max",
    "size": "shape",
    "num_samples": "count",
    "repeats": "reps",
    "src": "source",
    "steps": "num",
}


def translated(key: str, names: tuple[str, ...]) -> str:
    """`write axis= for dim=; ` where a function with these names calls `key` so; else nothing."""
    word = WORDS.get(key)
    return f"write {word}= for {key}=; " if word in names else ""
