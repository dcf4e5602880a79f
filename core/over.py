"""What an executor that stands over another one hands on as it is: numbers, seeds, places in random streams."""

from __future__ import annotations

from typing import Any


class Over:
    """Base of executors over `outer`, the executor outside."""

    outer: Any

    def number(self, owner: Any, key: str) -> Any:
        return self.outer.number(owner, key)

    def offset(self, generator: Any, count: int) -> tuple[Any, Any]:
        return self.outer.offset(generator, count)  # type: ignore[no-any-return]

    def seed(self, generator: Any, seed: int) -> None:
        self.outer.seed(generator, seed)

    def random_state(self, generator: Any) -> Any:
        return self.outer.random_state(generator)

    def set_random_state(self, generator: Any, state: Any) -> None:
        self.outer.set_random_state(generator, state)
