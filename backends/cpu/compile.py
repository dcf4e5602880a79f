"""From a kernel's Numba source text to relocatable object code: linking, optimisation, code generation.

The object exports plain C functions and needs neither Numba nor Python when it is loaded.
"""

from __future__ import annotations

import functools
import gc
import linecache
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm

from ...core import forks
from .blocks import parts
from .target import Target, target

# One letter per argument and the result: an address of int64 slots, an int64, nothing.
KERNEL = (("kernel", "pii", "v"),)
_LLVM_TYPE = {"p": "ptr", "i": "i64", "v": "void"}

# Called in the LLVM IR where Numba's function reports an exception; optimisation removes it from kernels
# that cannot raise, and the others are refused.
_RAISES = "duograd_kernel_raises"


class CompileFailure(Exception):
    """Numba or LLVM refused the source; the text says why."""


def _target_machine() -> llvm.TargetMachine:
    """LLVM's target machine for the CPU that kernels are compiled for, with vectors as wide as its registers."""
    return _machine(target())


@functools.cache
def _machine(cpu: Target) -> llvm.TargetMachine:
    if cpu.triple == llvm.get_process_triple():
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(cpu.triple).create_target_machine(
        cpu=cpu.cpu, features=cpu.features, opt=3, reloc="pic", codemodel="default", jit=True
    )


def compile_object(source: str, entries: Iterable[tuple[str, str, str]] = KERNEL, prefix: str = "") -> bytes:
    """Compile `source` and return an object file that exports `prefix + name` for each of `entries`.

    entries: (name of a function in the source, its argument letters, its result letter).
    Raises CompileFailure when the source is not a kernel: a type error, an exception that can be raised,
    memory that is allocated, a symbol that only Numba's process has.
    """
    return _target_machine().emit_object(_optimised(source, tuple(entries), prefix))


def compile_assembly(source: str) -> str:
    """The assembly text of a kernel and of what it calls, to see what became of it."""
    kernel = _optimised(source, KERNEL, "")
    called = (_optimised(p.source, p.entries, "") for p in parts(source))
    return "\n".join(map(_target_machine().emit_assembly, (kernel, *called)))


def _optimised(source: str, entries: tuple[tuple[str, str, str], ...], prefix: str) -> llvm.ModuleRef:
    machine = _target_machine()
    symbols = tuple(prefix + name for name, _, _ in entries)
    module = _in_one_walk(source, entries, symbols) or _by_numba(source, entries, symbols)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    _hide_all_but(module, set(symbols))
    (_simplify if _in_vectors(source) else _optimise)(module, machine)
    _check(module, {p.name for p in parts(source)})
    return module


_WIDE = re.compile(r"\bw_(all|mask)\(")
_MATRIX = re.compile(r"^from duograd\.backends\.cpu\.microkernel import", re.MULTILINE)
_ELEMENTS = re.compile(r"\b(load|store)(_in|_out)?_(?!i64)\w+\(")
# Products of a row and a matrix lose 6 % without all of LLVM (64 x 4096), which register blocks do not.
_LEFT_TO_LLVM = re.compile(r"\bdot_rows_|^@function", re.MULTILINE)


def _in_vectors(source: str) -> bool:
    """Whether a kernel's loops are vectors as they are written: over wide values, or by the matrix kernels' intrinsics.

    Loops over single elements, and functions that LLVM may or may not inline, want all that it has.
    """
    if _LEFT_TO_LLVM.search(source):
        return False
    return bool(_WIDE.search(source) or (_MATRIX.search(source) and not _ELEMENTS.search(source)))


def _simplify(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Optimise what is vectors already: the functions' simplification alone, a third of the cost of `_optimise`."""
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(1))
    for function in module.functions:
        if not function.is_declaration and function.linkage == llvm.Linkage.internal:
            function.add_function_attribute("alwaysinline")
    inlining = llvm.create_new_module_pass_manager()
    inlining.add_always_inliner_pass()
    inlining.add_global_dead_code_eliminate_pass()
    inlining.run(module, builder)
    simplification = builder.getFunctionPassManager()
    # Accumulators that take turns move about unless a loop does several at once.
    simplification.add_loop_unroll_pass()
    simplification.add_instruction_combine_pass()
    simplification.add_simplify_cfg_pass()
    for function in module.functions:
        if not function.is_declaration:
            simplification.run(function, builder)
    rest = llvm.create_new_module_pass_manager()
    rest.add_strip_dead_prototype_pass()
    rest.run(module, builder)


def _optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """All that LLVM has: scalar loops become vectors, what is called often is inlined where that pays."""
    options = llvm.create_pipeline_tuning_options(2)
    options.loop_vectorization = True
    # Reductions keep their lanes as separate accumulators; this is what makes vectors of them.
    options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def _in_one_walk(
    source: str, entries: tuple[tuple[str, str, str], ...], symbols: tuple[str, ...]
) -> llvm.ModuleRef | None:
    """The module by `syntax_front`, or None for a source that is not for that way."""
    with collector_rests():
        from .numba_front import operations
        from .operations import Unsupported
        from .syntax_front import translate

        try:
            with operations() as (known, namespace, types):
                namespace.update(_calls(source))
                typed = tuple(
                    (name, tuple(types[a] for a in letters), types[r]) for name, letters, r in entries
                )
                text, libraries = translate(source, typed, symbols, namespace, known, _RAISES)
                module = llvm.parse_assembly(text)
                for library in libraries:
                    module.link_in(library._get_module_for_linking(), preserve=True)
                return module
        except Unsupported:
            return None  # by_numba tells what is wrong with it, if anything is


#: whether the garbage collector rests for a translation; one runs at a time
_resting: list[bool] = []


@contextmanager
def collector_rests() -> Iterator[None]:
    """The thousands of objects of a translation die together: looking through them takes as long as making them.

    Those of the first one's imports live on; with the collector these take a third longer.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    _resting.append(True)
    try:
        yield
    finally:
        _resting.clear()
        gc.enable()


def _after_fork() -> None:
    if _resting:  # in a thread that the child does not have
        _resting.clear()
        gc.enable()


forks.after(_after_fork)


def _by_numba(
    source: str, entries: tuple[tuple[str, str, str], ...], symbols: tuple[str, ...]
) -> llvm.ModuleRef:
    """The module by Numba's whole front end."""
    from .numba_front import kernel_language, lower

    module = llvm.parse_assembly("")
    module.triple = _target_machine().triple
    module.data_layout = str(_target_machine().target_data)
    # Numba reads the source through linecache for its error messages.
    filename = f"<kernel {symbols[0]}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    try:
        with kernel_language() as namespace:
            namespace.update(_calls(source))
            exec(compile(source, filename, "exec"), namespace)
            linked: list[llvm.ModuleRef] = []
            for symbol, (name, arguments, result) in zip(symbols, entries):
                inner, body, called = lower(namespace[name], arguments, result)
                module.link_in(body)
                for other in called:
                    if all(other is not one for one in linked):
                        linked.append(other)
                        module.link_in(other, preserve=True)
                module.link_in(llvm.parse_assembly(_c_function(symbol, inner, arguments, result)))
    except Exception as error:
        raise CompileFailure(f"{type(error).__name__}: {error}") from error
    finally:
        linecache.cache.pop(filename, None)
    return module


def _calls(source: str) -> dict[str, Any]:
    """The names of the functions that stand apart, as intrinsics that call them."""
    from .vectors import calling

    return {p.name: calling(p.name, len(p.entries[0][1])) for p in parts(source)}


def _hide_all_but(module: llvm.ModuleRef, exported: set[str]) -> None:
    for function in module.functions:
        if not function.is_declaration:
            if function.name not in exported:
                function.linkage = "internal"
            function.add_function_attribute("nounwind")
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"


def _c_function(symbol: str, inner: str, arguments: str, result: str) -> str:
    """LLVM IR of a C function that calls Numba's, whose convention is status(result*, exception*, ...)."""
    types = [_LLVM_TYPE[letter] for letter in arguments]
    parameters = ", ".join(f"{t} %a{i}" for i, t in enumerate(types))
    declared = ", ".join(["ptr", "ptr", *types])
    passed = "".join(f", {t} %a{i}" for i, t in enumerate(types))
    ending = "ret void" if result == "v" else "%value = load i64, ptr %result\n  ret i64 %value"
    return f"""
declare i32 @"{inner}"({declared})
declare void @{_RAISES}()

define {_LLVM_TYPE[result]} @"{symbol}"({parameters}) {{
  %result = alloca i64
  %exception = alloca ptr
  %status = call i32 @"{inner}"(ptr %result, ptr %exception{passed})
  %raised = icmp sgt i32 %status, 0
  br i1 %raised, label %error, label %done
error:
  call void @{_RAISES}()
  br label %done
done:
  {ending}
}}
"""


def _check(module: Any, known: set[str]) -> None:
    """Refuse what a kernel may not do, seen in its optimised code."""
    for function in module.functions:
        name = function.name
        if function.is_declaration and name not in known and not name.startswith("llvm."):
            if name == _RAISES:
                raise CompileFailure(
                    "the kernel can raise an exception: no raise or assert, no range() with a variable step"
                )
            if name.startswith("NRT_"):
                raise CompileFailure("the kernel allocates memory")
            if name.lstrip("_").startswith("numba") or llvm.address_of_symbol(name) is None:
                raise CompileFailure(f"the kernel needs the symbol {name!r}, which only Numba has")
