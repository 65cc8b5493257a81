"""Lazy tables of plug-ins: a name stands for "module:attribute", imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from fitkit.errors import UsageError


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the choice nearest to a word, or "" when none is near.

    Args:
        word: what the user wrote.
        choices: the names that would have been right.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    nearest = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[nearest[0]]}'?" if nearest else ""


class Registry:
    """A table of plug-ins of one kind, by name; nothing is imported until `get` asks for it."""

    def __init__(self, kind: str, entries: Mapping[str, str] | None = None) -> None:
        """Make a table.

        Args:
            kind: what the plug-ins are, as error messages name it ("model", "term", "solver").
            entries: name -> "package.module:attribute".
        """
        self.kind = kind
        self._entries: dict[str, str] = {}
        for name, target in (entries or {}).items():
            self.register(name, target)

    def register(self, name: str, target: str) -> None:
        """Add a plug-in.

        Args:
            name: what users and recipes call it.
            target: "package.module:attribute" of the object that `get` is to return.

        Raises:
            UsageError: the target is not of that form, or the name already stands for another target.
        """
        module, colon, attribute = target.partition(":")
        if not (module and colon and attribute):
            raise UsageError(f"The {self.kind} '{name}' needs a target like 'package.module:Class'; got '{target}'.")
        if self._entries.get(name, target) != target:
            raise UsageError(
                f"The {self.kind} '{name}' is already registered as '{self._entries[name]}'; choose another name."
            )
        self._entries[name] = target

    def get(self, name: str) -> Any:
        """Return the object that a name stands for, importing its module.

        Raises:
            UsageError: no plug-in has that name; the message suggests the nearest and lists all.
        """
        if name not in self._entries:
            known = ", ".join(self._entries) or "none"
            raise UsageError(f"Unknown {self.kind} '{name}'.{did_you_mean(name, self._entries)} Known: {known}.")
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def names(self) -> tuple[str, ...]:
        """Return all names, in the order in which they were registered."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        """Return whether a plug-in has that name."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Return an iterator over the names."""
        return iter(self._entries)
