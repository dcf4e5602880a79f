"""What registering a hook gives back."""

from __future__ import annotations

from typing import Any


class Handle:
    """A registered hook: `remove()`, calling the handle, or leaving `with handle:` takes it out again."""

    def remove(self) -> None:
        """Take the hook out; once it is out, nothing."""
        raise NotImplementedError

    def __call__(self) -> None:
        self.remove()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class InList(Handle):
    """A hook in a list of hooks."""

    def __init__(self, hooks: list[Any], hook: Any):
        self._hooks, self._hook = hooks, hook

    def remove(self) -> None:
        """Take the hook out; once it is out, nothing."""
        hooks, self._hooks = self._hooks, []
        if any(h is self._hook for h in hooks):
            hooks.remove(self._hook)
