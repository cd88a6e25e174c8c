"""What the shell offers for an argument or the value of an option. Neither torch nor textual."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Pairs = Iterable[tuple[str, str]]  # (word, what it is)


def _matching(pairs: Pairs, typed: str) -> list[CompletionItem]:
    low = typed.lower()
    return [CompletionItem(word, help=hint) for word, hint in pairs if word.lower().startswith(low)]


def _is_path(typed: str) -> bool:
    return typed.startswith((".", "/", "~"))


def models(context: click.Context, option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Aliases; files and folders once the beginning of a path was typed."""
    from engine import catalog
    from engine.errors import BadFile

    if _is_path(typed):
        return [CompletionItem(typed, type="file")]
    try:
        found = catalog.aliases()
    except BadFile:  # a command will say what is wrong with the file; Tab is silent
        return []
    return _matching(((name, s.summary or str(s)) for name, s in found.items()), typed)


def methods(context: click.Context, option: click.Parameter, typed: str) -> list[CompletionItem]:
    from engine.methods import methods as known

    return _matching(((m.name, m.summary) for m in known().values()), typed)


def sessions(context: click.Context, option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Short ids with titles beside them, and titles of one word; by the beginning of either."""
    from engine import paths
    from sessions.names import session_names

    names = session_names(paths.home())
    low = typed.lower()
    titled = {title: short for short, title in reversed(names) if len(title.split()) == 1}
    found = _matching(((short, title) for short, title in names), typed)
    found += _matching(((title, short) for title, short in titled.items()), typed)
    if not found and low:  # a title of several words has to be quoted: its id stands for it
        found = [CompletionItem(s, help=t) for s, t in names if t.lower().startswith(low)]
    return found


def sessions_or_files(
    context: click.Context, option: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Sessions; files where none begins so."""
    found = sessions(context, option, typed) if not _is_path(typed) else []
    return found or [CompletionItem(typed, type="file")]


def themes(context: click.Context, option: click.Parameter, typed: str) -> list[CompletionItem]:
    from tui.settings import THEMES

    return _matching(((name, "") for name in THEMES), typed)


def words(*known: str) -> Completer:
    """Of a fixed list."""

    def complete(
        context: click.Context, option: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        return _matching(((word, "") for word in known), typed)

    return complete
