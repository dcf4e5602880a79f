"""From a kernel's Numba source text to relocatable object code: the only module that runs Numba's compiler.

Numba types and lowers the function; linking, the C entry points, optimisation and code generation are
done here, so that the object needs neither Numba nor Python when it is loaded.
"""

from __future__ import annotations

import importlib
import linecache
from collections.abc import Iterable
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm

LANGUAGE = "duograd.backends.cpu.lang"

# One letter per argument and the result: an address of int64 slots, an int64, nothing.
KERNEL = (("kernel", "pii", "v"),)
_LLVM_TYPE = {"p": "ptr", "i": "i64", "v": "void"}

# Called in the LLVM IR where Numba's function reports an exception; optimisation removes it from kernels
# that cannot raise, and the others are refused.
_RAISES = "duograd_kernel_raises"

_toolchain: Any = None


class CompileFailure(Exception):
    """Numba or LLVM refused the source; the text says why."""


class _Toolchain:
    """Numba's contexts for the CPU and our own target machine, made once a process."""

    def __init__(self) -> None:
        from numba.core import codegen, compiler, registry, types
        from numba.core.runtime import rtsys

        class Library(codegen.JITCodeLibrary):
            """Numba's container of LLVM IR, without its optimisation and its machine code."""

            def _optimize_functions(self, ll_module):
                ll_module.data_layout = self._codegen._data_layout

            def _optimize_final_module(self):
                pass

            def _finalize_specific(self):
                pass

            def get_pointer_to_function(self, name):
                return 0

        class Codegen(codegen.JITCPUCodegen):
            _library_class = Library

            def _add_module(self, module):
                pass

            def set_env(self, env_name, env):
                pass

        target = registry.cpu_target
        self.typing, self.context = target.typing_context, target.target_context
        self.compiler, self.runtime = compiler, rtsys
        self.typing.refresh()
        self.context.refresh()
        self.codegen = Codegen("duograd.kernels")
        self.machine = create_target_machine()
        options = llvm.create_pipeline_tuning_options(3)
        options.loop_vectorization = True
        options.slp_vectorization = True
        self.options = options
        letters = {"p": types.CPointer(types.int64), "i": types.int64, "v": types.none}
        self.numba_type = letters.__getitem__
        flags = compiler.Flags()
        flags.no_compile = True
        flags.no_cpython_wrapper = True
        flags.no_cfunc_wrapper = True
        flags.enable_pyobject = False
        flags.enable_looplift = False
        flags.error_model = "numpy"
        self.flags = flags
        language = importlib.import_module(LANGUAGE)
        names = getattr(language, "__all__", None) or [n for n in vars(language) if not n.startswith("_")]
        self.namespace = {n: getattr(language, n) for n in names}


def create_target_machine() -> llvm.TargetMachine:
    """LLVM's target machine for this CPU, with vectors as wide as its registers."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=target_features(),
        opt=3,
        reloc="pic",
        codemodel="default",
        jit=True,
    )


def target_features() -> str:
    """This CPU's features as LLVM wants them; `-prefer-256-bit` lets AVX-512 use whole registers."""
    features = llvm.get_host_cpu_features()
    text = features.flatten()
    return text + ",-prefer-256-bit" if features.get("avx512f") else text


def compile_object(source: str, entries: Iterable[tuple[str, str, str]] = KERNEL, prefix: str = "") -> bytes:
    """Compile `source` and return an object file that exports `prefix + name` for each of `entries`.

    entries: (name of a function in the source, its argument letters, its result letter).
    Raises CompileFailure when the source is not a kernel: a type error, an exception that can be raised,
    memory that is allocated, a symbol that only Numba's process has.
    """
    from numba.core.compiler_lock import global_compiler_lock

    with global_compiler_lock:
        return _Compilation(source).run(tuple(entries), prefix)


class _Compilation:
    def __init__(self, source: str) -> None:
        global _toolchain
        if _toolchain is None:
            _toolchain = _Toolchain()
        self.tools: _Toolchain = _toolchain
        self.source = source

    def run(self, entries: tuple[tuple[str, str, str], ...], prefix: str) -> bytes:
        # Numba reads the source through linecache for its error messages.
        filename = f"<kernel {prefix or 'source'}>"
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(True), filename)
        try:
            namespace = dict(self.tools.namespace)
            exec(compile(self.source, filename, "exec"), namespace)
            module = llvm.parse_assembly("")
            machine = self.tools.machine
            module.triple = machine.triple
            module.data_layout = str(machine.target_data)
            linked: set[int] = set()
            for name, arguments, result in entries:
                self._lower(module, linked, namespace[name], prefix + name, arguments, result)
        except Exception as error:
            raise CompileFailure(f"{type(error).__name__}: {error}") from error
        finally:
            linecache.cache.pop(filename, None)
        return self._generate(module, {prefix + name for name, _, _ in entries})

    def _lower(self, module, linked, function, symbol, arguments, result) -> None:
        """Numba's typing and lowering of one function, linked into `module` behind a plain C function."""
        tools = self.tools
        library = tools.codegen.create_library(symbol)
        with self._only_llvm_ir():
            compiled = tools.compiler.compile_extra(
                tools.typing,
                tools.context,
                function,
                tuple(map(tools.numba_type, arguments)),
                tools.numba_type(result),
                tools.flags,
                {},
                library=library,
            )
        module.link_in(library._final_module)
        self._link_called(module, linked, library)
        module.link_in(
            llvm.parse_assembly(_c_function(symbol, compiled.fndesc.llvm_func_name, arguments, result))
        )

    def _link_called(self, module, linked: set[int], library) -> None:
        for called in library._linking_libraries:
            if called is not self.tools.runtime.library and id(called) not in linked:
                linked.add(id(called))
                module.link_in(called._get_module_for_linking(), preserve=True)

    @contextmanager
    def _only_llvm_ir(self):
        """Make Numba stop at LLVM IR for the functions that the source calls too, not only for its entries."""
        context = self.tools.context
        usual = context._internal_codegen
        context._internal_codegen = self.tools.codegen
        try:
            yield
        finally:
            context._internal_codegen = usual

    def _generate(self, module, exported: set[str]) -> bytes:
        for function in module.functions:
            if not function.is_declaration:
                if function.name not in exported:
                    function.linkage = "internal"
                function.add_function_attribute("nounwind")
        for variable in module.global_variables:
            if not variable.is_declaration:
                variable.linkage = "internal"
        builder = llvm.create_pass_builder(self.tools.machine, self.tools.options)
        builder.getModulePassManager().run(module, builder)
        _check(module)
        return self.tools.machine.emit_object(module)


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


def _check(module) -> None:
    """Refuse what a kernel may not do, seen in its optimised code."""
    for function in module.functions:
        name = function.name
        if function.is_declaration and not name.startswith("llvm."):
            if name == _RAISES:
                raise CompileFailure(
                    "the kernel can raise an exception: no raise or assert, no range() with a variable step"
                )
            if name.startswith("NRT_"):
                raise CompileFailure("the kernel allocates memory")
            if name.lstrip("_").startswith("numba") or llvm.address_of_symbol(name) is None:
                raise CompileFailure(f"the kernel needs the symbol {name!r}, which only Numba has")
