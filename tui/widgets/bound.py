"""Bindings from the table of keys."""

from __future__ import annotations

from textual.binding import Binding, BindingType

from ..keys import BY_ID, KEYS, Key

APP = frozenset({"interrupt", "quit", "palette", "help"})  # on every screen


def bindings(place: str) -> list[BindingType]:
    """Those of a place, without the application's own."""
    return [bound(key) for key in KEYS if key.id and key.place == place and key.id not in APP]


def app_bindings() -> list[BindingType]:
    """Those that the application has on every screen."""
    return [bound(key, key.action.removeprefix("app.")) for key in KEYS if key.id in APP]


def shared(*ids: str) -> list[BindingType]:
    """Those of the main screen that another one has too, by id."""
    return [bound(BY_ID[id]) for id in ids]


def bound(key: Key, action: str = "") -> Binding:
    keys = f"{key.keys},{key.also}".rstrip(",")
    return Binding(
        keys, action or key.action, key.help, show=False, priority=key.priority, id=key.id
    )
