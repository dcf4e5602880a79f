"""The op registry: three decorators turn a documented function into an op; rules hang on it by name.

    @pointwise              the body is a scalar expression, run on symbols
    @composite              the body calls other ops
    @primitive              the body is plain NumPy; type rule, kernels and gradient are written by hand

Parameters before `*` are tensors (Python numbers are allowed and weakly typed), keyword-only parameters are
attributes. What is declared beside an op, its rules and samples, stands in declared.py.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from . import dispatch, kinds
from . import types as T
from .declared import Attrs as Attrs
from .declared import Declared
from .declared import Ints as Ints
from .errors import ArgumentTypeError, DtypeError, DuogradError, ShapeError, user_line
from .exact import exact
from .floats import widened
from .numbers import holds_live, without_live
from .parameters import parameters
from .scalar import Expr, cast, const, substitute, weak_arg
from .spoken import in_words, is_own_error, may_say_more, spelled, translated
from .strangers import (
    STUMBLES,
    is_vast,
    kind_of,
    known_kinds,
    no_tensor_among,
    refuse_nothing,
    stranger,
    unfit,
)
from .types import DType, TensorType

REGISTRY: dict[str, Op] = {}
#: functions around ops that users call as `dg.name`; see `public`
PUBLIC: dict[str, Callable[..., Any]] = {}


class PointwiseForm(NamedTuple):
    """A pointwise op for given input dtypes: expressions over `arg` k, and each argument's dtype."""

    roots: tuple[Expr, ...]
    arg_dtypes: tuple[DType, ...]

    @property
    def dtypes(self) -> tuple[DType, ...]:
        return tuple(r.dtype for r in self.roots)


class Op(Declared):
    """A registered op. Calling it goes through the door (`core.dispatch.apply`)."""

    #: the first of the results that the tape keeps for a rule which wants results
    first_out = 0
    #: attributes that are inputs, after the others: see `opened`
    open: tuple[str, ...] = ()

    def __init__(self, fn: Callable[..., Any], kind: str, **options: Any):
        self.fn, self.kind = fn, kind
        self.name: str = options.pop("name", None) or fn.__name__.rstrip("_")
        self.__doc__, self.__name__, self.__wrapped__ = fn.__doc__, self.name, fn
        self.module = fn.__module__
        declared = parameters(fn)
        self.variadic = bool(declared.rest)
        self.input_names = declared.names[: len(declared.names) - len(declared.keyword)]
        self.optional = {n for n in declared.positional if n in declared.defaults}
        self.n_inputs = len(declared.positional)
        self.attr_names = declared.keyword
        self._attr_index = {name: k for k, name in enumerate(self.attr_names)}
        self.required_attrs = {n for n in declared.keyword if n not in declared.defaults}
        self.defaults: Attrs = tuple(map(declared.defaults.get, declared.keyword))
        self._flags = tuple(k for k, d in enumerate(self.defaults) if isinstance(d, bool))
        #: makes a tensor from numbers: they stay numbers, and the device is an attribute
        self.creates = "device" in self.attr_names and self.name != "to_device"
        self._simple = not self.variadic and not self.required_attrs
        #: integers are converted to the default float first (exp, sqrt, true division)
        self.to_float: bool = options.pop("to_float", False)
        #: Python floats are float64 inside, whatever the dtype of the result (counted floats)
        self.wide_numbers: bool = options.pop("wide_numbers", False)
        #: numbers are seeds and counters: int64 inside, whatever the dtype of the result
        self.counts: bool = options.pop("counts", False)
        #: the first input chooses between the others: its dtype has no say in theirs
        self.selects: bool = options.pop("selects", False)
        #: the reduction (one of loops.REDUCTIONS) when the kernel is a generated reduction
        self.reduction: str | None = options.pop("reduction", None)
        #: the business of gradients, optimisers and other ops: not a name of `dg`
        self.internal: bool = options.pop("internal", False)
        #: takes programs as attributes and stands in graphs only: not in the registry, a function around it is public
        unlisted: bool = options.pop("unlisted", False)
        #: the result shares memory with the first input
        self.is_view: bool = options.pop("view", False)
        #: the result is the first input with some elements replaced: it may be written into that input's memory
        self.updates: bool = options.pop("updates", False)
        #: the result is the input on the device of the attribute `device`: executors copy, no kernel runs
        self.is_transfer: bool = options.pop("transfer", False)
        #: same arguments may give different results (random ops): not folded, not merged
        self.impure: bool = options.pop("impure", False)
        #: attributes may be given positionally after the tensors
        self.no_gradient: str = options.pop("no_gradient", "")
        self.no_onnx: str = options.pop("no_onnx", "")
        self.onnx: Any = options.pop("onnx", None)
        #: the ONNX rule takes and gives complex numbers as pairs of real ones along a last axis
        self.takes_pairs: bool = options.pop("takes_pairs", False)
        #: a function of ops/column_steps.py that says the op in other ops, for formats that have none for it
        self.parts: str = options.pop("parts", "")
        super().__init__(options.pop("samples", ()))
        #: a primitive on complex numbers: "linear" and "bilinear" run on real and imaginary parts, "own" has a kernel
        self.complex: str = options.pop("complex", "own" if self.is_view or self.is_transfer else "")
        #: the rule is written for a holomorphic function: the reverse walk conjugates for complex results
        self.conjugate: bool = options.pop("conjugate", kind == "pointwise" or self.complex == "bilinear")
        #: 16-bit floats are computed in float32 and the result is rounded once: pointwise bodies unless they ask for
        #: limits of their dtype, composites that say so
        self.widen: bool = options.pop("widen", kind == "pointwise")
        #: takes floats: of a call without any, integers are not computed with, which would wrap around
        self.floats: bool = options.pop("floats", False)
        if self.widen and kind == "composite":
            self.fn = widened(fn, self.name if self.floats else "")
        self._forms: dict[Any, PointwiseForm] = {}
        self._opened: dict[tuple[str, ...], Op] = {}
        #: what the eager executor and the tape keep by the signature of a call
        self.recipes: dict[Any, Any] = {}
        self.shortcuts: dict[Any, Any] = {}
        self.in_place_recipes: dict[Any, Any] = {}
        self.tape_plans: dict[Any, Any] = {}
        if options:
            raise TypeError(f"unknown option of op {self.name}: {', '.join(options)}")
        if unlisted:
            return
        if self.name in REGISTRY:
            raise ValueError(
                f"op {self.name} is declared twice, in {REGISTRY[self.name].module} and {self.module}"
            )
        REGISTRY[self.name] = self

    @property
    def doc(self) -> str:
        """The docstring without its indentation."""
        return inspect.cleandoc(self.__doc__ or "")

    @property
    def __signature__(self) -> inspect.Signature:
        return _call_signature(inspect.signature(self.__wrapped__))

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def __reduce__(self) -> Any:
        return _named, (self.name,)

    def supported_dtypes(self) -> tuple[DType, ...]:
        """The dtypes that the op's floats may have (its integers, where it has no floats); see core/reference.py."""
        from .reference import supported_dtypes

        return supported_dtypes(self)

    # -- calling --------------------------------------------------------------------------

    @property
    def differentiable(self) -> bool:
        return bool(self.grads) or self.joint is not None

    def attrs_dict(self, attrs: Attrs) -> dict[str, Any]:
        return dict(zip(self.attr_names, attrs))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._simple and not kwargs and len(args) == self.n_inputs and self.normalize_rule is None:
                return dispatch.apply(self, args, self.defaults)
            return dispatch.apply_raw(self, args, kwargs)
        except STUMBLES as e:
            self.explain(e, args, kwargs)
            raise

    def explain(self, e: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise what an error in a rule or body is to the caller; nothing where it is in our words, or the user's."""
        given = {**dict(zip((*self.input_names, *self.attr_names), args)), **kwargs}
        if isinstance(e, DuogradError) and not may_say_more(self.name, e, given):
            return
        error: DuogradError | None = stranger(self, args, kwargs)
        if error is None and is_own_error(e):
            if isinstance(e, (TypeError, AttributeError)) and not self.creates:
                error = no_tensor_among(self, args)
            if error is None:
                defaults = {
                    n: d for n, d in zip(self.attr_names, self.defaults) if n not in self.required_attrs
                }
                raise in_words(self.name, e, given, defaults, f"it takes {self._usage()}") from e
        if error is not None:
            raise error from None

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Attrs]:
        """Sort arguments into tensors and attributes. Raises ArgumentTypeError for what does not fit."""
        n = self.n_inputs
        if self.variadic:
            listed = bool(args) and isinstance(args[0], (list, tuple))
            inputs: tuple[Any, ...] = tuple(args[0]) if listed else args
            rest: tuple[Any, ...] = args[1:] if listed else ()
            if not inputs and not self.creates and not kwargs:
                refuse_nothing(self, inputs)
        elif len(args) == n:
            inputs, rest = args, ()
        else:
            inputs, rest = args[:n], args[n:]
            if len(inputs) < n:
                inputs = self._complete(inputs, kwargs)
        if not self.variadic:
            for name, x in zip(self.input_names, inputs):
                if x is None and name not in self.optional:
                    raise ArgumentTypeError(
                        self.name, f"takes tensors, got {name}: None", "make it one: dg.tensor(...)"
                    )
        if rest or kwargs:
            attrs = self._bind_attrs(rest, kwargs)
        elif self.required_attrs:
            raise self._misses(sorted(self.required_attrs))
        else:
            attrs = self.defaults
        if self.normalize_rule is not None:
            try:
                attrs = self.normalize_rule(inputs, **dict(zip(self.attr_names, attrs)))
            except (AttributeError, TypeError) as e:
                if not isinstance(e, DuogradError):
                    self._refuse_strangers(inputs)
                raise
        for k in self._flags:
            if attrs[k].__class__ is not bool and not kinds.truth(attrs[k]):
                name = self.attr_names[k]
                if kind_of(attrs[k]) not in known_kinds(self, name):
                    raise ArgumentTypeError(self.name, *unfit(name, attrs[k], kinds.FLAG.words))
        # What cannot be a key, or no number of a kernel, is found here, not when a graph is compiled.
        for a in attrs:
            if a is not None and a.__class__ is not bool and not holds_live(a):
                hash(a)
                if is_vast(a) and (error := stranger(self, args, kwargs)) is not None:
                    raise error
        return inputs, attrs

    def _refuse_strangers(self, inputs: tuple[Any, ...]) -> None:
        """Raise for the first input that is no tensor, array or number."""
        for name, x in zip(itertools.chain(self.input_names, itertools.repeat("input")), inputs):
            if not hasattr(x, "dtype") and not isinstance(x, (bool, int, float, complex, type(None))):
                raise ArgumentTypeError(
                    self.name, f"takes tensors, got {name}: {type(x).__name__}", "make it one: dg.tensor(...)"
                ) from None

    def _complete(self, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Tensors given by name, and None for optional ones that are absent."""
        row = [*inputs, *(kwargs.pop(k, None) for k in self.input_names[len(inputs) :])]
        missing = [name for name, x in zip(self.input_names, row) if x is None and name not in self.optional]
        if missing:
            unknown = next((key for key in kwargs if key not in self._attr_index), None)
            raise self._misses(missing) if unknown is None else self._unknown(unknown)
        return tuple(row)

    def _unknown(self, key: str) -> ArgumentTypeError:
        if key in self.input_names:
            why = "which is given by position" if self.variadic else "twice"
            return ArgumentTypeError(self.name, f"got {key}= {why}", f"it takes {self._usage()}")
        listed = self.input_names if self.variadic else ()
        hint = translated(key, (*self.input_names, *self.attr_names), listed)
        return ArgumentTypeError(
            self.name, f"got {key}= but takes no such argument", f"{hint}it takes {self._usage()}"
        )

    def _bind_attrs(self, rest: tuple[Any, ...], kwargs: dict[str, Any]) -> Attrs:
        if len(rest) > len(self.attr_names):
            raise ArgumentTypeError(self.name, "got too many arguments", f"it takes {self._usage()}")
        attrs = [*rest, *self.defaults[len(rest) :]]
        for key, value in kwargs.items():
            k = self._attr_index.get(key)
            if k is None:
                raise self._unknown(key)
            if k < len(rest):
                raise ArgumentTypeError(self.name, f"got {key}= twice", f"it takes {self._usage()}")
            attrs[k] = value
        if self.required_attrs:
            missing = self.required_attrs - kwargs.keys() - set(self.attr_names[: len(rest)])
            if missing:
                raise self._misses(sorted(missing))
        return tuple([_tupled(a) if a.__class__ is list or a.__class__ is tuple else a for a in attrs])

    def _misses(self, names: list[str]) -> ArgumentTypeError:
        return ArgumentTypeError(
            self.name, f"misses {', '.join(names)}", f"it takes {self._usage()}", user_line(3)
        )

    def _usage(self) -> str:
        names = [f"*{n}" if self.variadic else n for n in self.input_names]
        return f"{self.name}({', '.join(names + [f'{n}=' for n in self.attr_names])})"

    # -- types ----------------------------------------------------------------------------

    def form(self, dtypes: Sequence[Any], attrs: Attrs) -> PointwiseForm:
        """The expressions of a pointwise op; a number's dtype is its Python type (weakly typed)."""
        if attrs and any(map(holds_live, attrs)):  # sizes: no expression may depend on them
            attrs = without_live(attrs)
        kinds = tuple([d.char if d.__class__ is DType else d for d in dtypes])
        found = self._forms.get((kinds, attrs))
        if found is None:
            found = self._forms[kinds, exact(attrs)] = self._trace_body(tuple(dtypes), attrs)
        return found

    def opened(self, names: tuple[str, ...]) -> Op:
        """A pointwise op with some of its attributes as further inputs: Python floats, with the same bits.

        It has no gradient; its `form` raises for a body that chooses by what such a number is.
        """
        found = self._opened.get(names)
        if found is None:
            found = self._opened[names] = object.__new__(Op)
            found.__dict__.update(self.__dict__)
            rest = [(n, d) for n, d in zip(self.attr_names, self.defaults) if n not in names]
            found.open, found.input_names = names, (*self.input_names, *names)
            found.attr_names, found.defaults = tuple(n for n, _ in rest), tuple(d for _, d in rest)
            found._attr_index = {name: k for k, name in enumerate(found.attr_names)}
            found._flags = tuple(k for k, d in enumerate(found.defaults) if isinstance(d, bool))
            found.required_attrs, found.n_inputs = self.required_attrs - set(names), len(found.input_names)
            found.grads, found.normalize_rule, found.onnx = {}, None, None
            found._forms, found._opened, found.recipes, found.shortcuts = {}, {}, {}, {}
            found.in_place_recipes, found.tape_plans = {}, {}
        return found

    def _trace_body(self, dtypes: tuple[Any, ...], attrs: Attrs) -> PointwiseForm:
        count = len(dtypes) - len(self.open)
        named = dict(zip(self.attr_names, attrs))
        named.update((name, weak_arg(count + k)) for k, name in enumerate(self.open))
        form = self._trace_named(dtypes[:count], named)
        if not self.open:
            return form
        kinds = (*form.arg_dtypes, *(T.float64 for _ in self.open))
        args = [Expr("arg", d, (), k) for k, d in enumerate(kinds)]
        return PointwiseForm(tuple(substitute(form.roots, args)), kinds)

    def _trace_named(self, dtypes: tuple[Any, ...], named: dict[str, Any]) -> PointwiseForm:
        if type(None) in dtypes:
            name = self.input_names[dtypes.index(type(None))]
            raise ArgumentTypeError(self.name, f"{name} is None", "pass a tensor or a number")
        mixed = dtypes[1:] if self.selects else dtypes
        kinds = [d for d in mixed if isinstance(d, DType)]
        common: DType | None = T.promote_all(kinds) if kinds else named.get("dtype")
        resolved = [d if isinstance(d, DType) else T.scalar_dtype(d(0), common) for d in dtypes]
        if self.wide_numbers:
            resolved = [T.float64 if d is float else r for d, r in zip(dtypes, resolved)]
        if self.counts:
            resolved = [T.int64 if d is int else r for d, r in zip(dtypes, resolved)]
        args: list[Expr] = [Expr("arg", d, (), k) for k, d in enumerate(resolved)]
        weak = float in mixed or complex in mixed
        if weak and not self.wide_numbers and (self.selects if common is None else common.is_integer):
            # A Python float beside integers brings the default float for all of them, not float64.
            n = len(args) - len(mixed)
            args[n:] = [cast(a, T.default_float) if a.dtype.is_integer else a for a in args[n:]]
        if self.to_float and all(d.rank < 2 for d in resolved):
            args = [cast(a, T.default_float) for a in args]
        try:
            roots = self._run_body(args, named, common)
            if self.widen and any(a.dtype.is_half for a in args):
                # The whole body in float32, its results rounded once.
                wide = [cast(a, T.float32) if a.dtype.is_half else a for a in args]
                computed = self._run_body(wide, named, None if common is None else common.computed)
                roots = [cast(c, r.dtype) for c, r in zip(computed, roots)]
        except DtypeError as e:
            raise DtypeError(self.name, e.message, e.fix) from None
        return PointwiseForm(tuple(roots), tuple(resolved))

    def _run_body(self, args: list[Expr], named: dict[str, Any], common: DType | None) -> list[Expr]:
        body = self.fn(*args, **named)
        roots = body if isinstance(body, tuple) else (body,)
        return [r if isinstance(r, Expr) else const(r, common or T.default_float) for r in roots]

    def infer(self, inputs: Sequence[Any], attrs: Attrs) -> tuple[TensorType, ...]:
        """Output types. inputs: TensorType, Python number or None, as given."""
        outs = self._types(inputs, attrs)
        for t in outs:
            if t.nbytes >= _MOST:  # views too: their strides and offsets are numbers of 64 bits
                raise ShapeError(
                    self.name, f"the result would be {t}, more than can be addressed", "use smaller sizes"
                )
        return outs

    def _types(self, inputs: Sequence[Any], attrs: Attrs) -> tuple[TensorType, ...]:
        if self.kind == "pointwise" and self.type_rule is None:
            shapes = [x.shape for x in inputs if x.__class__ is TensorType]
            if not shapes and None in inputs:
                raise ArgumentTypeError(
                    self.name, f"{self.input_names[0]} is None", "pass a tensor or a number"
                )
            shape = T.broadcast_shapes(self.name, *shapes) if len(shapes) > 1 else shapes[0]
            dtypes = [x.dtype if x.__class__ is TensorType else _number_kind(x) for x in inputs]
            form = self.form(dtypes, attrs)
            if len(shapes) < len(inputs):
                for x, d in zip(inputs, form.arg_dtypes):
                    if isinstance(x, int):
                        T.check_scalar_range(self.name, x, d)
            return tuple([TensorType(r.dtype, shape) for r in form.roots])
        if self.type_rule is None:
            raise TypeError(f"op {self.name} has no type rule")
        if self.kind == "primitive" and not self.complex and self.lower_rule is None:
            for name, x in zip(itertools.chain(self.input_names, itertools.repeat("input")), inputs):
                if x.__class__ is TensorType and x.dtype.is_complex:
                    raise DtypeError(
                        self.name, f"takes real numbers, got {name}: {x}", "take its real and imag"
                    )
        result = self.type_rule(*inputs, **dict(zip(self.attr_names, attrs)))
        outs = (result,) if result.__class__ is TensorType else tuple(result)
        plain = [type(x) for x in inputs]
        if complex in plain and not any(t.dtype.is_complex for t in outs):
            raise DtypeError(
                self.name, "got a complex number where real ones are computed", "take its real part"
            )
        if self.kind != "composite" and int in plain:
            wanted = [outs[0].dtype] * len(inputs)  # numbers take that of the result
            if self.kind == "pointwise":
                kinds = [x.dtype if isinstance(x, TensorType) else _number_kind(x) for x in inputs]
                wanted = list(self.form(kinds, attrs).arg_dtypes)
            for x, d in zip(inputs, wanted):
                if isinstance(x, int):
                    T.check_scalar_range(self.name, x, d)
        return outs


#: bytes that cannot be addressed
_MOST = 1 << 63


def _named(name: str) -> Op:
    return REGISTRY[name]


def public(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that calls ops a name of `dg`; a trailing underscore is dropped.

    It is made `spelled`. Returns: that.
    """
    name = fn.__name__.rstrip("_")
    if name in PUBLIC:
        raise ValueError(f"dg.{name} is declared twice, in {PUBLIC[name].__module__} and {fn.__module__}")
    fn.__qualname__ = name  # what Python says when a call does not fit
    PUBLIC[name] = made = spelled(fn, name)
    return made


def _call_signature(declared: inspect.Signature) -> inspect.Signature:
    """How the op is called: attributes may follow the tensors (or the list of them) by position."""
    out, seen_default = [], False
    for p in declared.parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            p = p.replace(kind=p.POSITIONAL_ONLY)
        elif p.kind is p.KEYWORD_ONLY and not (seen_default and p.default is p.empty):
            p = p.replace(kind=p.POSITIONAL_OR_KEYWORD)
        seen_default = seen_default or p.default is not p.empty
        out.append(p)
    return declared.replace(parameters=sorted(out, key=lambda p: p.kind))


def _tupled(x: list[Any] | tuple[Any, ...]) -> tuple[Any, ...]:
    """A sequence that an attribute is given as, with tuples for lists."""
    return tuple([_tupled(v) if v.__class__ is list or v.__class__ is tuple else v for v in x])


def _number_kind(x: Any) -> type:
    kind = type(x)
    if kind in dispatch.NUMBERS:
        return kind
    return next((kind for kind in (bool, int, float, complex) if isinstance(x, kind)), kind)


def _decorator(kind: str) -> Callable[..., Any]:
    def declare(fn: Callable[..., Any] | None = None, **options: Any) -> Any:
        if fn is not None:
            return Op(fn, kind)
        return lambda f: Op(f, kind, **options)

    declare.__name__ = kind
    declare.__doc__ = f"Declare a {kind} op; see the module's first lines."
    return declare


pointwise = _decorator("pointwise")
composite = _decorator("composite")
primitive = _decorator("primitive")
