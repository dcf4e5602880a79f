"""The README's Python runs as it stands, in one namespace, top to bottom; so does what docs/porting.md names."""

import re
from pathlib import Path

import duograd

README = Path(duograd.__file__).parent / "README.md"
PORTING = README.parent / "docs" / "porting.md"


def test_readme_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 4
    # One compiled text with the README's own line numbers, so that a failure points into the README.
    exec(compile("\n".join(blocks), str(README), "exec"), {"__name__": "readme"})
    assert (tmp_path / "model.onnx").stat().st_size > 0


def test_porting_names_what_there_is():
    text = PORTING.read_text()
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, str(PORTING), "exec"), {"__name__": "porting"})
    names = set(re.findall(r"dg\.([a-z_.A-Z]+[a-zA-Z])", text))
    assert len(names) > 20
    for name in names:
        found = duograd
        for part in name.split("."):
            found = getattr(found, part)
