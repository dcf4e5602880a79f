"""No kernel touches memory beyond its operands, or reads what nobody has written.

Tensors of other libraries end anywhere, so reading past the end would end a program some day.
"""

import os
import subprocess
import sys
from pathlib import Path

import duograd as dg
import pytest

PROGRAM = Path(__file__).with_name("guarded_memory.py")


def _run(side):
    env = os.environ | {"PYTHONPATH": str(Path(dg.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), side], capture_output=True, text=True, env=env, check=False
    )
    lines = done.stdout.splitlines()
    where = lines[-1] if lines else "the start"
    assert done.returncode == 0, f"memory {side}: ended at {where}\n{done.stderr[-3000:]}"
    return dict(line[2:].split("\t") for line in lines if line.startswith("="))


@pytest.mark.skipif(sys.platform != "linux", reason="pages are protected through Linux's C library")
def test_kernels_keep_to_their_operands():
    after, before = _run("after"), _run("before")
    assert len(after) > 2000
    differing = [name for name in before if after[name] != before[name]]
    assert not differing, f"depend on what memory held before: {differing}"
