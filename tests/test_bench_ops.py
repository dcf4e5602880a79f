"""The table of single ops: each case computes what PyTorch computes, and the report sums them up."""

import math

import pytest
from duograd.bench import run_duograd, run_torch
from duograd.bench.cases import find, names
from duograd.bench.op_cases import ROWS, SIZES, split_name
from duograd.bench.report import geometric_mean, op_ratios
from duograd.interop.cli import main


def test_there_are_at_least_sixty_ops_at_three_sizes():
    assert len(ROWS) >= 60
    assert {f"exp_{size}" for size in SIZES} <= set(names(ops=True))


@pytest.mark.parametrize("op", ROWS)
def test_an_op_case_does_the_same_work_in_pytorch(op):
    name = f"{op}_16"
    results = []
    for module in (run_duograd, run_torch):
        run, value = module.build(find(name), "op", "eager")
        results.append([value(run()) for _ in range(2)])
    if not split_name(name)[0].random:
        assert results[0] == pytest.approx(results[1], rel=1e-4, abs=1e-6)


def test_ratios_are_geometric_means_by_size():
    record = lambda runner, seconds: {
        "case": "exp_16",
        "phase": "op",
        "runner": runner,
        "median_s": seconds,
    }
    result = {"records": [record("duograd-eager", 2.0), record("torch-eager", 1.0)]}
    assert op_ratios(result)["16"] == {"exp": 0.5}
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert math.isnan(geometric_mean([]))


def test_bench_takes_patterns_and_prints_the_means(capsys):
    arguments = ["bench", "--cases", "greater_1*", "--mode", "eager", "--vs", "torch", "--budget", "0.01"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "geometric mean of 1 ops" in " ".join(text.split())
