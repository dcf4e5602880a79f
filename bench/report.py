"""The result of a bench run as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..core.errors import MissingExtraError
from ..core.files import write_atomic
from ..interop.terminal import seconds, size, table
from .cases import CASES
from .op_cases import SIZES

_ORDER = (
    "duograd-graph",
    "duograd-fast",
    "duograd-eager",
    "torch-eager",
    "torch-compile",
    "jax",
    "tensorflow",
    "tensorflow-xla",
    "onnxruntime",
)
_COLORS = dict(
    zip(
        _ORDER,
        ("#0b6e4f", "#1fa37a", "#6bbf59", "#d1495b", "#edae49", "#30638e", "#ff8c42", "#b5651d", "#5f4b8b"),
    )
)


def reference(group: list[dict[str, Any]]) -> dict[str, Any]:
    """The record that ratios are taken against: torch eager when it ran, else duograd eager."""
    for name in ("torch-eager", "duograd-eager"):
        for r in group:
            if r["runner"] == name:
                return r
    return group[0]


def groups(result: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Records by case and phase, in the order they ran."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in result["records"]:
        found.setdefault((r["case"], r["phase"]), []).append(r)
    return list(found.values())


def limit(record: dict[str, Any]) -> str:
    """What the machine could do at most, beside what was done."""
    if record["bytes"]:
        rate = record["bytes"] / record["median_s"]
        large, own = record["copy_bytes_per_s"], record.get("own_copy_bytes_per_s", 0.0)
        text = f"{100 * rate / large:.0f}% of copy ({large / 1e9:.0f} GB/s)"
        return text + (f", {100 * rate / own:.0f}% of its size ({own / 1e9:.0f})" if own else "")
    if record["flops"] > 1e6:
        return f"{record['flops'] / record['median_s'] / 1e9:.0f} GFLOP/s"
    return ""


def print_table(result: dict[str, Any], console: Any) -> None:
    """Print medians, spread, ratios, first call, memory and the physical limit."""
    machine = result["machine"]
    bandwidth = machine["copy_bytes_per_s"]
    rows = []
    for group in groups(result):
        if group[0]["case"] not in CASES:
            continue
        base = reference(group)["median_s"]
        rows.append([f"[bold]{group[0]['case']} {group[0]['phase']}"] + [""] * 6)
        for r in group:
            spread = (r["p90_s"] - r["p10_s"]) / 2 / r["median_s"]
            rows.append([
                f"  {r['runner']}", seconds(r["median_s"]), f"{100 * spread:.0f}%", f"{base / r['median_s']:.2f}x",
                seconds(r["first_s"]), size(r["peak_bytes"]), limit(r),
            ])  # fmt: skip
    columns = ["case and runner", "median", "+-", "speed", "first call", "memory", "limit"]
    if rows:
        console.print(
            table("Speed: times as fast as torch eager (duograd eager where no peer ran)", columns, rows)
        )
        for runner in ("duograd-graph", "duograd-fast"):
            for phase, ratios in peer_ratios(result, runner).items():
                mean = geometric_mean(ratios.values())
                each = ", ".join(f"{case} {ratio:.2f}" for case, ratio in ratios.items())
                console.print(
                    f"{phase}: time of the fastest peer over {runner} {mean:.2f} (geometric mean); {each}"
                )
    console.print(
        f"{machine['cpu']}, {machine['threads']} threads, copy {bandwidth / 1e9:.0f} GB/s, commit {machine['commit']}"
    )


def op_ratios(result: dict[str, Any], runner: str = "duograd-eager") -> dict[str, dict[str, float]]:
    """PyTorch's time over ours, by size and op, of the single ops that both ran."""
    found: dict[str, dict[str, float]] = {size: {} for size in SIZES}
    for group in groups(result):
        by = {r["runner"]: r["median_s"] for r in group}
        op, _, size = group[0]["case"].rpartition("_")
        if group[0]["case"] not in CASES and runner in by and "torch-eager" in by:
            found[size][op] = by["torch-eager"] / by[runner]
    return found


def peer_ratios(result: dict[str, Any], runner: str = "duograd-graph") -> dict[str, dict[str, float]]:
    """The fastest peer's time over ours, by phase and case, of the cases that both ran."""
    found: dict[str, dict[str, float]] = {}
    for group in groups(result):
        ours = [r["median_s"] for r in group if r["runner"] == runner]
        peers = [r["median_s"] for r in group if not r["runner"].startswith("duograd")]
        if group[0]["case"] in CASES and ours and peers:
            found.setdefault(group[0]["phase"], {})[group[0]["case"]] = min(peers) / ours[0]
    return found


def geometric_mean(values: Iterable[float]) -> float:
    """The geometric mean of positive numbers; NaN of none."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def print_ops(result: dict[str, Any], console: Any) -> None:
    """Single ops, one a row: medians of every runner at each size; then geometric means and the slowest."""
    cells: dict[str, dict[str, dict[str, float]]] = {}
    for r in result["records"]:
        if r["case"] not in CASES:
            op, _, size = r["case"].rpartition("_")
            cells.setdefault(op, {}).setdefault(size, {})[r["runner"]] = r["median_s"]
    if not cells:
        return
    runners = [r for r in _ORDER if any(r in by for row in cells.values() for by in row.values())]
    sizes = [s for s in SIZES if any(s in row for row in cells.values())]
    rows = [
        [op, *(seconds(row[s][r]) if r in row.get(s, {}) else "" for s in sizes for r in runners)]
        for op, row in cells.items()
    ]
    console.print(table("Single ops", ["op", *(f"{r} {s}" for s in sizes for r in runners)], rows))
    for runner in ("duograd-eager", "duograd-graph"):
        for size, ratios in op_ratios(result, runner).items():
            if ratios:
                worst = sorted(ratios, key=ratios.__getitem__)[:8]
                console.print(
                    f"{runner}, {size}: {geometric_mean(ratios.values()):.2f} times torch eager's speed "
                    f"(geometric mean of {len(ratios)} ops); slowest: "
                    + ", ".join(f"{op} {ratios[op]:.2f}" for op in worst)
                )


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write `{"machine": ..., "records": [...]}`."""
    write_atomic(path, lambda p: p.write_text(json.dumps(result, indent=1) + "\n"))


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw, for each case, the speed of every runner relative to the reference, on a log scale."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("bench", "--plot needs matplotlib", "pip install duograd[demo]") from None
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    cases = groups(result)
    runners = [r for r in _ORDER if any(rec["runner"] == r for rec in result["records"])]
    height = 0.8 / len(runners)
    fig, ax = plt.subplots(figsize=(9, 1.2 + 0.22 * sum(len(g) + 1 for g in cases)), layout="constrained")
    for k, group in enumerate(cases):
        base = reference(group)["median_s"]
        for r in group:
            y = k + (runners.index(r["runner"]) - (len(runners) - 1) / 2) * height
            ratio = base / r["median_s"]
            ax.barh(y, ratio - 1, left=1, height=height * 0.92, color=_COLORS[r["runner"]])
            text = f" {ratio:.2g}x  {seconds(r['median_s'])} "
            ax.text(ratio if ratio >= 1 else 1, y, text, va="center", ha="left", fontsize=7)
    ax.set_yticks(range(len(cases)), [f"{g[0]['case']}\n{g[0]['phase']}" for g in cases])
    ax.invert_yaxis()
    ax.set_xscale("log")
    ratios = [reference(g)["median_s"] / r["median_s"] for g in cases for r in g]
    ax.set_xlim(min([0.5, *ratios]) * 0.8, max([2.0, *ratios]) * 2.5)
    ax.axvline(1, color="#333", linewidth=0.8)
    ax.set_xlabel(f"speed relative to {reference(cases[0])['runner']} (log scale, higher is faster)")
    handles = [plt.Rectangle((0, 0), 1, 1, color=_COLORS[r]) for r in runners]
    fig.legend(
        handles, runners, loc="outside upper center", ncols=min(6, len(runners)), frameon=False, fontsize=8
    )
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    machine = result["machine"]
    ax.set_title(
        f"{machine['cpu']}, {machine['threads']} threads, commit {machine['commit']}",
        fontsize=8,
        color="#555",
    )
    write_atomic(path, lambda p: fig.savefig(p, dpi=140, format=path.suffix[1:] or "png"))
    plt.close(fig)
