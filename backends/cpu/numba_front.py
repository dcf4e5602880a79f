"""Numba's front end cut down to the kernel language: from a Python function to LLVM IR, nothing more.

Numba's usual CPU contexts load arrays, containers, BLAS and a runtime with reference counts, optimise every
function they meet and turn it into machine code. Kernels are scalar code on addresses; with contexts of our
own they start in a tenth of the time, and the LLVM IR of all functions is optimised once, in `compile`.
Kernel sources can use numbers, tuples, `range`, `math` and the names of `lang`; not NumPy's functions.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba.core import (
    codegen,
    compiler,
    compiler_machinery,
    cpu,
    registry,
    typed_passes,
    types,
    untyped_passes,
)
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import context as typing_context
from numba.core.typing import mathdecl

LANGUAGE = "duograd.backends.cpu.lang"

TYPES = {"p": types.CPointer(types.int64), "i": types.int64, "v": types.none}


class _Library(codegen.JITCodeLibrary):
    """Numba's container of LLVM IR, without its optimisation and its machine code."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        pass

    def _finalize_specific(self):
        pass

    def get_pointer_to_function(self, name):
        return 0


class _Codegen(codegen.JITCPUCodegen):
    _library_class = _Library

    def _add_module(self, module):
        pass

    def _check_llvm_bugs(self):
        pass

    def set_env(self, env_name, env):
        pass


class _Typing(typing_context.BaseContext):
    def load_additional_registries(self):
        self.install_registry(mathdecl.registry)


class _Context(cpu.CPUContext):
    def init(self):
        self.is32bit = False
        self._internal_codegen = _Codegen("duograd.kernels")

    def load_additional_registries(self):
        # Importing them fills Numba's builtin registry.
        from numba.cpython import builtins, mathimpl, numbers, rangeobj, tupleobj  # noqa: F401

        self.install_registry(mathimpl.registry)

    def post_lowering(self, mod, library):
        """No runtime to link: kernels neither allocate nor count references."""


# What is left of Numba's pipeline: no closures, no array expressions, no pruning by argument types, no
# inlining of Numba's IR (LLVM inlines).
_PASSES = (
    untyped_passes.TranslateByteCode,
    untyped_passes.FixupArgs,
    untyped_passes.IRProcessing,
    untyped_passes.GenericRewrites,
    untyped_passes.ReconstructSSA,
    typed_passes.NopythonTypeInference,
    typed_passes.PreLowerStripPhis,
    typed_passes.IRLegalization,
    typed_passes.NativeLowering,
    typed_passes.NoPythonBackend,
)


class KernelCompiler(compiler.CompilerBase):
    """Numba's compiler with the passes that kernels need."""

    def define_pipelines(self):
        manager = compiler_machinery.PassManager("kernel")
        for step in _PASSES:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


_contexts: tuple[_Typing, _Context] | None = None
_namespace: dict[str, Any] = {}
_operations: Any = None


@contextmanager
def kernel_language() -> Iterator[dict[str, Any]]:
    """Hold Numba's compiler with our contexts in the place of its own; gives a namespace for a source."""
    global _contexts
    # Functions that kernels call are compiled by Numba's dispatchers, which ask this object for contexts.
    target = registry.cpu_target.__dict__
    names = ("_toplevel_typing_context", "_toplevel_target_context")
    with global_compiler_lock:
        if _contexts is None:
            typing = _Typing()
            _contexts = typing, _Context(typing, "cpu")
        usual = {name: target[name] for name in names if name in target}
        target.update(zip(names, _contexts))
        try:
            if not _namespace:
                language = importlib.import_module(LANGUAGE)
                public = getattr(language, "__all__", None) or [n for n in vars(language) if n[0] != "_"]
                _namespace.update((name, getattr(language, name)) for name in public)
            yield dict(_namespace)
        finally:
            for name in names:
                del target[name]
            target.update(usual)


@contextmanager
def operations() -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Inside `kernel_language()`: what Numba knows of operations, the namespace, Numba's types by letter."""
    global _operations
    from .operations import Operations

    with kernel_language() as namespace:
        if _operations is None:
            assert _contexts is not None
            typing, context = _contexts
            typing.refresh()
            context.refresh()
            _operations = Operations(typing, context)
        yield _operations, namespace, TYPES


def lower(
    function: Callable[..., Any], arguments: str, result: str
) -> tuple[str, llvm.ModuleRef, list[llvm.ModuleRef]]:
    """LLVM IR of `function` for arguments and a result of TYPES, inside `kernel_language()`.

    Returns: the LLVM name of the function (its convention is status(result*, exception*, arguments...)),
    the module with it, and the modules of the functions that it calls.
    """
    assert _contexts is not None
    typing, context = _contexts
    flags: Any = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.enable_pyobject = False
    flags.enable_looplift = False
    flags.error_model = "numpy"
    library = context.codegen().create_library(function.__name__)
    compiled = compiler.compile_extra(
        typing,
        context,
        function,
        tuple(TYPES[letter] for letter in arguments),
        TYPES[result],
        flags,
        {},
        library=library,
        pipeline_class=KernelCompiler,
    )
    called = [other._get_module_for_linking() for other in dict.fromkeys(library._linking_libraries)]
    return compiled.fndesc.llvm_func_name, library._final_module, called
