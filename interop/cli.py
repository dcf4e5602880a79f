"""The command line: demo, bench, onnx, ops, warmup, doctor."""

from __future__ import annotations

import argparse
import errno
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import DuogradError


def _demo(options: argparse.Namespace) -> int:
    from .demo import demo

    demo(Path(options.out), epochs=options.epochs, seed=options.seed)
    return 0


def _bench(options: argparse.Namespace) -> int:
    from ..bench.report import plot, print_ops, print_table, write_json
    from ..bench.runner import MODES, run
    from .terminal import console, status

    phases = [options.phase] if options.phase else ["train", "op"]
    split = lambda text: [t for t in text.split(",") if t]
    _writable(options.json)
    _writable(options.plot)
    with status("measuring") as tell:
        result = run(
            split(options.cases) or None,
            phases,
            split(options.vs),
            options.threads,
            options.budget,
            tell,
            options.ops,
            split(options.mode) or MODES,
        )
    print_table(result, console())
    print_ops(result, console())
    if options.json:
        write_json(result, Path(options.json))
    if options.plot:
        plot(result, Path(options.plot))
    return 0


def _size(text: str, least: int = 0) -> int:
    """A number from 0."""
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{value} is below {least}")
    return value


def _count(text: str) -> int:
    """A number from 1."""
    return _size(text, 1)


def _seconds(text: str) -> float:
    """A length of time."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def _writable(path: str | None) -> None:
    """Refuse a file that could not be written, before there is anything to write. Raises: OSError."""
    if path:
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(folder))
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, "is a folder", path)


def _onnx(options: argparse.Namespace) -> int:
    from . import onnx
    from .onnx.command import info, run

    if options.action == "check":
        report = onnx.check(options.file)
        print(report)
        return 0 if report.ok else 1
    print(info(options.file) if options.action == "info" else run(options.file, batch=options.batch))
    return 0


def _ops(options: argparse.Namespace) -> int:
    from ..core.explain import explain
    from ..core.op_table import markdown

    if options.markdown:
        Path(options.markdown).write_text(markdown())
    else:
        print(explain(options.name) if options.name else markdown(), end="\n" if options.name else "")
    return 0


def _warmup(options: argparse.Namespace) -> int:
    from .warmup import warmup

    return 1 if warmup(options.calls, options.file, options.no_grad) else 0


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import clear_cache, doctor

    if options.clear_cache:
        print(clear_cache())
    else:
        doctor()
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    top = argparse.ArgumentParser(
        prog="duograd", description="Deep learning with two front ends over one op registry.",
        epilog="Set DUOGRAD_DEBUG=1 to see tracebacks of errors.",
    )  # fmt: skip
    version = sys.modules[__name__.partition(".")[0]].__version__
    top.add_argument("--version", action="version", version=f"duograd {version}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", help="train on real digits in both modes, compare, export, check, import back"
    )
    demo.add_argument(
        "--out", default="demo-out", help="folder for model.onnx, report.json and demo.png (%(default)s)"
    )
    demo.add_argument("--epochs", type=_count, default=25, help="passes over the training data (%(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="seed of weights, order and dropout (%(default)s)")
    demo.set_defaults(run=_demo)

    bench = commands.add_parser(
        "bench", help="measure the standard cases in both modes and against other frameworks"
    )
    bench.add_argument("--cases", default="", help="names or patterns, separated by commas (all)")
    bench.add_argument("--phase", choices=("train", "infer", "op"), help="one phase only (train and op)")
    bench.add_argument("--ops", action="store_true", help="single ops at three sizes too")
    bench.add_argument(
        "--mode", choices=("graph", "eager", "fast"), default="",
        help='one mode only (graph and eager); fast: graph mode with precision="fast"',
    )  # fmt: skip
    bench.add_argument(
        "--vs", default="", help="peers: torch,torch-compile,jax,tensorflow,tensorflow-xla,onnxruntime"
    )
    bench.add_argument("--threads", type=_count, default=2, help="threads for every runner (%(default)s)")
    bench.add_argument(
        "--budget", type=_seconds, default=2.0, help="seconds for each runner and case (%(default)s)"
    )
    bench.add_argument("--json", help="write machine and records to this file")
    bench.add_argument("--plot", help="draw the ratios to this file (PNG, SVG)")
    bench.set_defaults(run=_bench)

    model = commands.add_parser("onnx", help="look at, check or run an ONNX file")
    model.add_argument("action", choices=("check", "run", "info"))
    model.add_argument("file")
    model.add_argument("--batch", type=_size, default=1, help="size of open axes in run (%(default)s)")
    model.set_defaults(run=_onnx)

    ops = commands.add_parser("ops", help="the table of all ops, or the story of one")
    ops.add_argument("name", nargs="?", help="an op's name")
    ops.add_argument("--markdown", metavar="FILE", help="write the table to this file")
    ops.set_defaults(run=_ops)

    warm = commands.add_parser(
        "warmup", help="compile what calls need into the cache, before they come",
        description="Trace calls without running them, and compile their kernels into the cache: in an image's build, "
        "at a server's start. One batch size serves all. Without calls, the standard cases are compiled. "
        "DUOGRAD_RECORD_CALLS=FILE makes a program write the calls that it traces, for --file.",
    )  # fmt: skip
    warm.add_argument(
        "calls", nargs="*", metavar="CALL",
        help='such as "app.model:predict(float32[8, 3, 224, 224], train=False)" or "model.onnx(float32[8, 10])"',
    )  # fmt: skip
    warm.add_argument("--file", default="", help="a file with one call a line; # begins a remark")
    warm.add_argument(
        "--no-grad", action="store_true", help="as inside dg.no_grad(): no gradients will be taken"
    )
    warm.set_defaults(run=_warmup)
    doctor = commands.add_parser("doctor", help="versions, CPU, threads, kernel cache, what is missing")
    doctor.add_argument("--clear-cache", action="store_true", help="delete all compiled kernels")
    doctor.set_defaults(run=_doctor)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except DuogradError as e:
        if os.environ.get("DUOGRAD_DEBUG"):
            raise
        # The line is one of ours here: of no use to whoever typed the command.
        print(f"[{e.op}] {e.message}" + (f"\n  fix: {e.fix}" if e.fix else ""), file=sys.stderr)
        return 1
    except OSError as e:  # of a file that was named
        if os.environ.get("DUOGRAD_DEBUG") or e.filename is None:
            raise
        print(f"[{options.command}] {e.filename}: {e.strerror}\n  fix: check the path", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
