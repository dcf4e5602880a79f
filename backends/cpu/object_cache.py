"""The cache of object code on disk: a file for each kernel, named by all that its code depends on.

Files are written under another name and renamed, so a reader sees a whole file or none; a file whose hash
does not fit is deleted.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...core.errors import warn
from ...core.flags import size_from_environment

_MAGIC = b"duograd kernel 1\n"
_SUFFIX = ".kernel"
# Uses closer together than this are not told apart; unfinished files older than that are nobody's.
_USE_SECONDS, _FORGOTTEN_SECONDS = 600.0, 3600.0
_HERE = Path(__file__).parent
# A kernel source sees the names of `lang`; `compile` decides what they become.
_LANGUAGE_ROOTS = ("compile", "lang")
_IMPORT = re.compile(
    r"^\s*from (?:(?:\.|duograd\.backends\.cpu) import (?P<several>\([^)]*\)|[^\n]*)"
    r"|(?:\.|duograd\.backends\.cpu\.)(?P<one>\w+))",
    re.MULTILINE,
)
_NAMES = re.compile(r"(\w+)(?:\s+as\s+\w+)?")

_environment_text = ""
_modules: dict[str, tuple[str, tuple[str, ...]]] = {}
_languages: dict[tuple[str, ...], str] = {}
_warned_unwritable = False
#: bytes that this process has kept since it looked at the limit; -1: it never did
_written = -1
_SHARES = 64


def directory() -> Path:
    """Where object files are kept: `DUOGRAD_CACHE_DIR`, or duograd's folder in the user's cache."""
    chosen = os.environ.get("DUOGRAD_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "duograd"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "duograd" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "duograd"


def key(source: str, entries: object) -> str:
    """Name of the object code of `source`: its hash with the kernel language, the compilers and the CPU.

    Comment lines do not count: they name the user's lines, which move with every edit.
    """
    language = _language(_LANGUAGE_ROOTS + _imported(source))
    code = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("#"))
    return hashlib.sha256("\0".join((_environment(), repr(entries), language, code)).encode()).hexdigest()


def _imported(text: str) -> tuple[str, ...]:
    """The modules of this folder that a source imports from."""
    names: list[str] = []
    for found in _IMPORT.finditer(text):
        several = re.sub(r"#.*", "", found["several"] or "")
        names += [found["one"]] if found["one"] else _NAMES.findall(several)
    return tuple(names)


def is_empty() -> bool:
    """Whether no kernel has been kept yet."""
    try:
        with os.scandir(directory()) as files:
            return not any(file.name.endswith(_SUFFIX) for file in files)
    except OSError:
        return True


def path(name: str) -> Path:
    """The file of the object code `name`."""
    return directory() / (name + _SUFFIX)


def read(name: str) -> bytes | None:
    """The object code `name`, or None when it is not there or damaged."""
    file = path(name)
    try:
        data = file.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if time.time() - file.stat().st_mtime > _USE_SECONDS:
            os.utime(file)  # the time of its last use, for `trim`
    start = len(_MAGIC) + 32
    code = data[start:]
    if data[:start] == _MAGIC + hashlib.sha256(code).digest():
        return code
    remove(name)
    return None


def remove(name: str) -> None:
    """Forget the object code `name`."""
    with contextlib.suppress(OSError):
        path(name).unlink(missing_ok=True)


def write(name: str, code: bytes) -> None:
    """Keep object code under `name`; a folder that cannot be written is a warning, once."""
    global _warned_unwritable, _written
    file = path(name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            temporary.write_bytes(_MAGIC + hashlib.sha256(code).digest() + code)
            os.replace(temporary, file)
            _written += len(code) if _written >= 0 else 0
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if not _warned_unwritable:
            _warned_unwritable = True
            warn(
                f"duograd cannot write its kernel cache {file.parent} ({error.strerror}); kernels are "
                "compiled again in each process. Set DUOGRAD_CACHE_DIR to a writable folder.",
                RuntimeWarning,
            )


class Claim:
    """The right to compile some kernels, against other processes. A context manager; iterates over its keys.

    held: whether the system keeps it (in a folder that cannot be written, and on Windows, there are no locks:
    everybody compiles for himself, and the last one to write wins).
    """

    def __init__(self, keys: Iterable[str], wait: bool):
        self.keys: list[str] = list(keys)
        self.held = False
        file = _lock_file()
        if file is None:
            return
        import fcntl

        got = []
        for key in self.keys:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, _place(key))
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    continue
                # A file system without locks, or a circle of processes that wait for each other: ours all the same.
            got.append(key)
        self.keys, self.held = got, True

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        file = _lock_file() if self.held else None
        if file is not None:
            import fcntl

            for key in self.keys:
                with contextlib.suppress(OSError):
                    fcntl.lockf(file, fcntl.LOCK_UN, 1, _place(key))


def claim(keys: Iterable[str], wait: bool = False) -> Claim:
    """Claim those kernels that no other process is compiling; with wait=True all of them, once that is so.

    A claim ends with the process that holds it, however that ends.
    """
    return Claim(keys, wait)


# One byte of one file is locked per kernel. Closing any descriptor of the file would drop all locks of the process:
# it stays open.
_lock_files: dict[Path, int] = {}


def _lock_file() -> int | None:
    if os.name == "nt":
        return None
    folder = directory()
    file = _lock_files.get(folder)
    if file is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        file = _lock_files.setdefault(folder, file)
    return file


def _place(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:15], 16)


def clear() -> int:
    """Delete all object files; returns how many there were."""
    count = 0
    for file in directory().glob("*" + _SUFFIX):
        file.unlink(missing_ok=True)
        count += 1
    return count


def limit() -> int:
    """How many bytes of object code are kept: `DUOGRAD_CACHE_SIZE`, or 1 GiB."""
    return size_from_environment("DUOGRAD_CACHE_SIZE", 1 << 30)


def usage() -> tuple[int, int]:
    """How many object files there are, and their bytes."""
    sizes = [size for _, size, _ in _files()]
    return len(sizes), sum(sizes)


def _files() -> list[tuple[float, int, str]]:
    """Last use, size and path of each object file. There are tens of thousands, so paths stay text."""
    found = []
    try:
        with os.scandir(directory()) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(OSError):  # another process deleted it
                        facts = entry.stat()
                        found.append((facts.st_mtime, facts.st_size, entry.path))
    except OSError:
        return []
    return found


def trim_sometimes() -> None:
    """`trim` after the first kernel that this process keeps, and when it has kept another share of the limit."""
    if _written < 0 or _written > limit() / _SHARES:
        trim()


def trim() -> int:
    """Delete what was not used for longest when the files take more than the limit; returns how many.

    A process that wants one of them at this moment compiles it again. One process trims at a time.
    """
    global _written
    with claim(["trim"]) as turn:
        if not list(turn):
            return 0
        _written = 0
        files = _files()
        total, count = sum(size for _, size, _ in files), 0
        if total <= limit():
            return 0
        for _, size, file in sorted(files):
            if total <= 0.9 * limit():
                break
            with contextlib.suppress(OSError):
                os.unlink(file)
                total, count = total - size, count + 1
        _delete_left_over()
        return count


def _delete_left_over() -> None:
    """Files that processes were writing when they died."""
    for file in directory().glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _FORGOTTEN_SECONDS:
                file.unlink(missing_ok=True)


def _environment() -> str:
    global _environment_text
    if not _environment_text:
        import llvmlite

        from .target import target

        versions = _numba_version(), llvmlite.__version__
        cpu = target()
        _environment_text = repr((versions, cpu.triple, cpu.cpu, cpu.features))
    return _environment_text


def _numba_version() -> str:
    """Numba's version, without the import of Numba or of importlib.metadata (some 15 ms)."""
    spec = importlib.util.find_spec("numba")
    if spec is None or spec.origin is None:
        return ""
    file = Path(spec.origin).with_name("_version.py")
    if file.exists():
        return file.read_text(encoding="utf-8")
    from importlib.metadata import version

    return version("numba")


def _language(roots: tuple[str, ...]) -> str:
    """Hash of the modules `roots` of this folder and of all that they import from it."""
    known = _languages.get(roots)
    if known is None:
        seen: dict[str, str] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            if name not in _modules:
                file = _HERE / f"{name}.py"
                text = file.read_text(encoding="utf-8") if file.exists() else ""
                _modules[name] = hashlib.sha256(text.encode()).hexdigest(), _imported(text)
            seen[name], imported = _modules[name]
            waiting.extend(imported)
        known = hashlib.sha256(repr(sorted(seen.items())).encode()).hexdigest()
        _languages[roots] = known
    return known
