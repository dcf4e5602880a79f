"""The command line as a user types it, the demo on real data, the bench."""

import json
import subprocess
import sys

import duograd as dg
import pytest
from duograd.bench import runner
from duograd.interop.cli import main


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in ("demo", "bench", "onnx", "warmup", "doctor"):
        assert command in text


def test_module_and_script_are_the_same():
    out = subprocess.run(
        [sys.executable, "-m", "duograd", "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: duograd" in out.stdout


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"duograd {dg.__version__}\n"


def test_a_misspelt_op_is_told_what_was_meant(capsys):
    assert main(["ops", "softmx"]) == 1
    assert "did you mean softmax or " in capsys.readouterr().err
    assert main(["ops", "nothing_like_it"]) == 1
    assert "`duograd ops` prints the table" in capsys.readouterr().err


def test_doctor_names_versions_and_what_is_missing(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in ("numba", "threads", "kernel cache", "cuda"):
        assert word in text


def test_doctor_names_settings_that_nothing_reads(capsys, monkeypatch):
    monkeypatch.setenv("DUOGRAD_NUM_THREADS", "2")
    monkeypatch.setenv("DUOGRAD_CACHEDIR", "/tmp")
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())  # however wide the table is
    assert "DUOGRAD_NUM_THREADS=2" in text
    assert "DUOGRAD_CACHEDIR: nothing reads it; did you mean DUOGRAD_CACHE_DIR" in text


def test_doctor_names_the_extra_that_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["doctor"]) == 0
    assert "pip install duograd[cuda]" in capsys.readouterr().out


def test_doctor_empties_the_kernel_cache(capsys, monkeypatch, tmp_path):
    from duograd.backends.cpu import object_cache

    monkeypatch.setenv("DUOGRAD_CACHE_DIR", str(tmp_path))
    object_cache.write("kernel", b"code")
    assert main(["doctor"]) == 0
    assert "1 kernels" in capsys.readouterr().out
    assert main(["doctor", "--clear-cache"]) == 0
    assert "1 kernels deleted" in capsys.readouterr().out
    assert object_cache.usage() == (0, 0)


def test_a_user_error_is_a_message_not_a_traceback(capsys):
    assert main(["bench", "--cases", "nosuch"]) == 1
    text = capsys.readouterr().err
    assert "'nosuch' is not a case" in text
    assert "fix:" in text
    assert "Traceback" not in text


def test_an_unknown_peer_is_an_error(capsys):
    assert main(["bench", "--cases", "linreg", "--vs", "caffe"]) == 1
    assert "'caffe' is not a peer" in capsys.readouterr().err


def test_a_missing_onnx_file_is_an_error(capsys, tmp_path):
    assert main(["onnx", "check", str(tmp_path / "none.onnx")]) == 1
    captured = capsys.readouterr()
    assert "none.onnx" in captured.err + captured.out


def test_demo_does_the_main_job(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the digits come with the extra `demo`")
    pytest.importorskip("matplotlib", reason="the picture needs the extra `demo`")
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), "--epochs", "4"]) == 0
    report = json.loads((out / "report.json").read_text())
    for key in (
        "accuracy", "loss_difference", "eager_step_s", "graph_step_s", "onnx_max_difference", "reloaded_equal",
        "seconds",
    ):  # fmt: skip
        assert key in report
    assert report["accuracy"] > 0.9
    assert report["loss_difference"] == 0
    assert report["reloaded_equal"]
    assert report["onnx_max_difference"] < 1e-4
    assert (out / "model.onnx").stat().st_size > 10_000
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in out.iterdir()) == ["demo.png", "model.onnx", "report.json"]
    assert "accuracy" in capsys.readouterr().out


@pytest.fixture
def hurried(monkeypatch):
    """The bench takes turns three times, without pauses: what it measures is not looked at."""
    monkeypatch.setattr(runner, "BLOCKS", 2)
    monkeypatch.setattr(runner, "SETTLE", 0.0)


def test_bench_writes_the_promised_json(tmp_path, hurried):
    target = tmp_path / "bench.json"
    arguments = ["bench", "--cases", "linreg,softmax", "--budget", "0.05", "--json", str(target)]
    assert main([*arguments, "--plot", str(tmp_path / "bench.png")]) == 0
    result = json.loads(target.read_text())
    assert result["machine"]["threads"] == 2
    assert {r["runner"] for r in result["records"]} == {"duograd-graph", "duograd-eager"}
    for record in result["records"]:
        for key in ("case", "phase", "runner", "median_s", "first_s", "peak_bytes", "threads"):
            assert key in record
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_bench_compares_with_torch(tmp_path, hurried):
    pytest.importorskip("torch", reason="the peer torch is not installed")
    target = tmp_path / "bench.json"
    assert main(["bench", "--cases", "mlp", "--vs", "torch", "--budget", "0.05", "--json", str(target)]) == 0
    runners = {r["runner"] for r in json.loads(target.read_text())["records"]}
    assert runners == {"duograd-graph", "duograd-eager", "torch-eager"}


def test_peak_memory_is_measured_in_processes_of_their_own():
    from duograd.bench import memory

    graph, eager = (memory.peak(f"duograd-{mode}", "linreg") for mode in ("graph", "eager"))
    assert 1500 < graph < eager < 4000
    events = [
        {"name": "[memory]", "ts": ts, "args": {"Bytes": n}} for ts, n in [(3, -4), (1, 4), (2, 8), (4, 7)]
    ]
    assert memory.highest([*events, {"name": "add", "ts": 0}]) == 15
