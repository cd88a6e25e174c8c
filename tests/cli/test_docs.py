"""The pages that are read, against the program: what they name is there."""

from __future__ import annotations

import re

import click
import pytest

from engine.errors import UnknownName
from llm_edit.__main__ import COMMANDS, cli
from tui.commands import REGISTRY

from .conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_pages_name_exist(page) -> None:  # type: ignore[no-untyped-def]
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:`|^> |\\n)/([a-z]+)", text, re.MULTILINE):
        try:
            REGISTRY.get(name)
        except UnknownName as error:
            pytest.fail(f"{page.name}: {error}")
    fenced = "".join(re.findall(r"```.*?\n(.*?)```", text, re.DOTALL))
    word = r"llm-edit ([a-z]+)(?: ([a-z]+)\b(?![=.]))?"
    called = re.findall(rf"^(?:\$ )?{word}", fenced, re.MULTILINE)
    called += re.findall(rf"`{word}", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for name, below in called:
        assert name in COMMANDS, f"{page.name}: llm-edit {name}"
        command = cli.get_command(click.Context(cli), name)
        if below and isinstance(command, click.Group):
            assert command.get_command(click.Context(command), below), f"{name} {below}"


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [n for n in COMMANDS if not re.search(rf"`(llm-edit )?{n}\b", text)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page) -> None:  # type: ignore[no-untyped-def]
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
