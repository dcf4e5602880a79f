"""`python -m duograd.bench.constructs --write`: what each framework makes of the rows, as the table of docs/graph.md.

The rows run in one process for each framework, each once with a `jit` that hands the function back and once with the
framework's. Needs the extras `peers` and `tensorflow`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Jit = Callable[[Any], Any]
_TOP = Path(__file__).resolve().parent.parent
PAGE = _TOP / "docs" / "graph.md"
START, END = "<!-- constructs -->", "<!-- end -->"


def rows() -> Any:
    """The module with the rows, which are part of the tests."""
    return importlib.import_module("duograd.tests.constructs")


class Duograd:
    """The names that rows use, in duograd. jit: what compiles, or hands the function back."""

    def __init__(self, jit: Jit):
        import duograd as dg

        self.jit = jit
        self.array = lambda values: dg.tensor(values)
        self.ints = lambda values: dg.tensor(values)
        self.sin, self.where, self.rand, self.grad, self.seed = (
            dg.sin,
            dg.where,
            dg.rand,
            dg.grad,
            dg.manual_seed,
        )
        self.stack = lambda parts: dg.stack(*parts)
        self.host = lambda x: x.numpy()
        self.assign = lambda x, value: x.fill_(value)
        self.Tensor = dg.Tensor
        self.eager = dg.function(mode="eager")
        self.print = lambda text, x, lines: dg.print(text, x, to=lines.append)
        self.x = self.array([1.0, 2.0, 3.0])


class Torch:
    """The same in PyTorch."""

    def __init__(self, jit: Jit):
        import torch

        self.jit = jit
        self.array = lambda values: torch.tensor(values, dtype=torch.float32)
        self.ints = lambda values: torch.tensor(values)
        self.sin, self.where, self.rand, self.seed = torch.sin, torch.where, torch.rand, torch.manual_seed
        self.grad = torch.func.grad
        self.stack = torch.stack
        self.host = lambda x: x.numpy()
        self.assign = lambda x, value: x.fill_(value)
        self.Tensor = torch.Tensor
        self.eager = torch.compiler.disable
        self.print = lambda text, x, lines: lines.append(text.format(x.tolist()))
        self.x = self.array([1.0, 2.0, 3.0])


class Jax:
    """The same in JAX, as far as it has it: no random state, no change in place."""

    def __init__(self, jit: Jit):
        import jax
        import jax.numpy as jnp

        self.jit = jit
        self.array = lambda values: jnp.array(values, jnp.float32)
        self.ints = lambda values: jnp.array(values)
        self.sin, self.where, self.grad = jnp.sin, jnp.where, jax.grad
        self.stack = jnp.stack
        self.host = np.asarray
        self.Tensor = jax.Array
        self.eager = lambda f: f
        self.print = lambda text, x, lines: jax.debug.callback(
            lambda x: lines.append(text.format(x.tolist())), x
        )
        self.x = self.array([1.0, 2.0, 3.0])


class TensorFlow:
    """The same in TensorFlow, with the methods and promotion of `tf.experimental.numpy`; variables are not used."""

    def __init__(self, jit: Jit):
        import tensorflow as tf

        tf.experimental.numpy.experimental_enable_numpy_behavior(dtype_conversion_mode="legacy")
        tf.Tensor.sum = lambda x, axis=None: tf.reduce_sum(x, axis)
        tf.Tensor.max, tf.Tensor.min = (lambda x: tf.reduce_max(x)), (lambda x: tf.reduce_min(x))
        tf.Tensor.item = lambda x: x.numpy().item()
        self.jit = jit
        self.array = lambda values: tf.constant(values, tf.float32)
        self.ints = lambda values: tf.constant(values)
        self.sin, self.where, self.stack, self.seed = tf.sin, tf.where, tf.stack, tf.random.set_seed
        self.rand = lambda n: tf.random.uniform((n,))
        self.host = lambda x: x.numpy()
        self.Tensor = tf.Tensor
        self.eager = lambda f: lambda x: tf.py_function(f, [x], x.dtype)
        self.print = lambda text, x, lines: tf.py_function(
            lambda x: lines.append(text.format(x.numpy().tolist())), [x], []
        )

        def grad(f: Any) -> Any:
            def slope(x: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = f(x)
                return tape.gradient(y, x)

            return slope

        self.grad = grad
        self.x = self.array([1.0, 2.0, 3.0])


def plain(x: Any) -> Any:
    """Tensors as arrays, so that later changes do not show and frameworks can be compared."""
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    if isinstance(x, (str, int, float, bool, dict, type(None))):
        return x
    if hasattr(x, "detach"):
        x = x.detach()
    return np.array(x)


def _same(a: Any, b: Any) -> bool:
    numbers = int | float
    if isinstance(a, numbers) and isinstance(b, np.ndarray) and b.shape == ():
        return bool(np.isclose(a, b))  # a compiler may hand numbers back as tensors
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-5))
    return repr(a) == repr(b)


def _frameworks() -> dict[str, tuple[Any, Callable[[], Jit]]]:
    def duograd() -> Jit:
        import duograd as dg

        return dg.function  # type: ignore[no-any-return]

    def torch() -> Jit:
        import torch

        return lambda f: torch.compile(f, backend="eager")

    def jax() -> Jit:
        import jax

        return jax.jit

    def tensorflow() -> Jit:
        import tensorflow as tf

        return tf.function  # type: ignore[no-any-return]

    return {
        "duograd": (Duograd, duograd),
        "torch": (Torch, torch),
        "jax": (Jax, jax),
        "tensorflow": (TensorFlow, tensorflow),
    }


def outcome(framework: str, name: str) -> str:
    """What a framework makes of a row: one word, or the error's name."""
    names, compiler = _frameworks()[framework]
    row = rows().ROWS[name]
    try:
        expected = plain(row(names(lambda f: f)))
    except Exception:
        return "not in its language"
    try:
        found = plain(row(names(compiler())))
    except Exception as e:
        return f"error: {type(e).__name__}"
    if not _same(expected, found):
        return "**wrong**"
    breaks = 0
    if framework == "torch":
        from torch._dynamo.utils import counters

        breaks = sum(counters["graph_break"].values())
    return "right" if not breaks else "right, leaves the graph"


def _column(framework: str, chosen: list[str]) -> dict[str, str]:
    """All rows in one process, each after a reset of the compiler."""
    code = f"from duograd.bench import constructs as c; c.report({framework!r}, {chosen!r})"
    # -P: not with the folder it is started in, whose modules may have names of the framework's.
    done = subprocess.run([sys.executable, "-P", "-W", "ignore", "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{framework} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


def report(framework: str, chosen: list[str]) -> None:
    """Print the outcomes of rows as a line of JSON."""
    warnings.simplefilter("ignore")
    found = {}
    for name in chosen:
        if framework == "torch":
            import torch._dynamo as dynamo
            from torch._dynamo.utils import counters

            dynamo.reset()
            counters.clear()
        found[name] = outcome(framework, name)
    print(json.dumps(found))


def _version(package: str) -> str:
    names = {"tensorflow": ("tensorflow-cpu", "tensorflow")}.get(package, (package,))
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "(version unknown)"


def table(columns: dict[str, dict[str, str]]) -> str:
    """The table as Markdown."""
    titles = {"torch": "torch.compile", "jax": "jax.jit", "tensorflow": "tf.function"}
    versions = [f"{title} {_version(package)}" for package, title in titles.items()]
    lines = ["| " + " | ".join(["construct", "duograd", *versions]) + " |", "|---" * (2 + len(titles)) + "|"]
    for name, row in rows().ROWS.items():
        cells = [f"{row.__doc__} (`{name}`)", *(columns[f][name] for f in columns)]
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    for f in columns:
        right = sum(v.startswith("right") for v in columns[f].values())
        wrong = sum(v == "**wrong**" for v in columns[f].values())
        lines.append(f"{f}: {right} of {len(columns[f])} right, {wrong} wrong without a word.")
    body = lines[: 2 + len(rows().ROWS)]
    return "\n".join([*body, "", *lines[len(body) :]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into docs/graph.md")
    parser.add_argument("names", nargs="*", help="rows; all when absent")
    options = parser.parse_args()
    chosen = options.names or list(rows().ROWS)
    columns = {f: _column(f, chosen) for f in _frameworks()}
    if options.names:
        for name in chosen:
            print(name, {f: columns[f][name] for f in columns})
        return
    text = table(columns)
    if options.write:
        page = PAGE.read_text()
        before, rest = page.split(START)
        PAGE.write_text(before + START + "\n\n" + text + "\n\n" + END + rest.split(END)[1])
    else:
        print(text)


if __name__ == "__main__":
    main()
