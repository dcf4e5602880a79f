"""What a function with a mode tells of itself: its variants, their graphs, kernels and times."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..core.errors import ArgumentError
from .arrays import Sharing
from .given import flatten
from .variant import Variant, traced_path

if TYPE_CHECKING:
    from .budget import Budget
    from .changing import Changing
    from .profile import Profile


class Looking:
    """The part of `Function` that looks inside."""

    name: str
    _mode: str
    _count: int
    _dropped: int
    _variants: dict[Any, list[Variant]]
    _python: dict[Any, Any]
    _budgets: dict[Any, Budget]
    _changing: Changing
    graph: Any

    @property
    def variants(self) -> list[Variant]:
        """All variants, oldest first."""
        return [v for bucket in list(self._variants.values()) for v in bucket]

    def profile(self, *args: Any, seconds: float = 1.0, **kwargs: Any) -> Profile:
        """Time every kernel of a call in graph mode against the least it could take. Returns a Profile; print it.

        Raises: TraceError where no graph holds the function.

        seconds: how long to measure. What the calls change (parameters, gradients, optimiser state, random
        generators, Python state) is put back. Kernels that run side by side in a call are timed one after the other.
        `explain()` shows the times afterwards.
        """
        with Sharing(args, kwargs) as (args, kwargs):
            return self._profile(args, kwargs, seconds)

    def _profile(self, args: tuple[Any, ...], kwargs: dict[str, Any], seconds: float) -> Profile:
        from .profile import profile_variant
        from .snapshot import Snapshot

        path = traced_path(self, "profile", args, kwargs)
        snapshot = Snapshot(path)
        try:
            self.graph(*args, **kwargs)
            snapshot.restore()
            key, tensors, rest = flatten(args, kwargs)
            bucket, containers = self._variants.get(key, ()), () if rest is None else rest.containers
            fitting = (v for v in bucket if v.live is None and v.fits(tensors, containers))
            variant = next(fitting, path.variant)

            def again() -> None:
                """What calls change may be what the variant's guards ask for."""
                if not variant.fits(tensors, containers):
                    snapshot.restore()

            return profile_variant(variant, tensors, (args, kwargs), seconds, again)
        finally:
            snapshot.restore()

    def explain(self, guards: bool = False) -> str:
        """The variants: why each was traced, what fused, kernels, memory, guards. Returns the text.

        guards: list all guards, not only the first.
        """
        from .explain import explain_variant

        many = "1 variant" if self._count == 1 else f"{self._count} variants"
        lines = [f"{self.name}: mode {self._mode}, {many}", *("  " + s for s in self.remarks())]
        for k, v in enumerate(self.variants, 1):
            lines += [
                f"  variant {k}: {v.reason}" + (f"  ({v.line})" if v.line else ""),
                *("    " + s for s in explain_variant(v, guards)),
            ]
        return "\n".join(lines)

    def remarks(self) -> list[str]:
        """What to know besides the variants: those that were dropped, why Python runs, which sizes have their own."""
        lines = []
        if self._dropped:
            lines.append(
                f"{self._dropped} were dropped, for their memory (DUOGRAD_VARIANT_MEMORY sets the limit) or with "
                "modules that were not used lately"
            )
        for e in {e.told: e for e in self._python.values()}.values():
            when = "ran at a call" if e.chances > 0 else "runs at every call"
            lines.append(f"its Python {when}, op by op: it {e.told}")
        lines += [b.words() for b in self._budgets.values() if b.python]
        return lines + [f"sizes have a variant each: {why}" for why in self._changing.why]

    def show(self, html: str | os.PathLike[str] | None = None) -> str:
        """The graph of every variant, after tracing and after the passes. Returns the text.

        html: also write a self-contained page there: both graphs, kernels, memory, guards and sources, linked.
        Raises: ArgumentError for a page where there is no variant.
        """
        if html is not None:
            from .page import write_page

            if not self._variants:
                why, fix = "; ".join(self.remarks()), "explain() says so, too"
                raise ArgumentError(
                    self.name, f"has no graph to show: {why}" if why else "has no graph yet to show",
                    fix if why else "call it once in graph mode first",
                )  # fmt: skip
            write_page(self, html)
        return "\n\n".join(text for v in self.variants for text in v.show())

    def source(self) -> str:
        """The generated kernels of every variant, each once. Returns the text."""
        seen: dict[str, None] = {}
        for v in self.variants:
            for text in v.sources():
                seen.setdefault(text)
        return "\n\n".join(seen)
