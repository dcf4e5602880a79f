"""The README's Python runs as it stands, in one namespace, top to bottom."""

import re
from pathlib import Path

import duograd

README = Path(duograd.__file__).parent / "README.md"


def test_readme_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    # One compiled text with the README's own line numbers, so that a failure points into the README.
    exec(compile("\n".join(blocks), str(README), "exec"), {"__name__": "readme"})
    assert (tmp_path / "model.onnx").stat().st_size > 0
