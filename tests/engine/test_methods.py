"""The registry: methods by name, those of other packages among them."""

from __future__ import annotations

import dataclasses
import importlib.metadata

import pytest

from engine import methods
from engine.errors import UnknownName
from engine.methods.rome import RomeParams, r_rome, rome


def test_methods_are_found_by_name() -> None:
    assert methods.get("rome").run() is rome
    assert methods.get("r-rome").run() is r_rome
    assert methods.get("r-rome").params_class() is RomeParams
    for name, info in methods.methods().items():
        assert info.name == name
        assert info.summary
        assert info.paper
    with pytest.raises(UnknownName, match=r"unknown method 'r-rom'\. Did you mean 'r-rome'"):
        methods.get("r-rom")


def test_installed_packages_can_add_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = methods.MethodInfo(name="mine", target="a:b", params="a:c", summary="s", paper="p")
    impostor = dataclasses.replace(theirs, name="rome")

    class Point:
        def __init__(self, value: object) -> None:
            self.name, self.value = "theirs", "a:b"
            self.load = lambda: value

    points = [Point(theirs), Point(impostor), Point("not a method")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert methods.get("mine") is theirs
    assert methods.get("rome").run() is rome
