"""Every key, in one table: the bindings, the help, `[keys]` of config.toml and docs/keys.md.

An action keeps its id for ever; its keys are a person's to choose. No user interface is imported
here, so that a configuration can be checked without one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.errors import BadSetting

PLACES = {
    "anywhere": "Anywhere",
    "writing": "Writing",
    "conversation": "Conversation (Tab goes there)",
    "checks": "Checks of an edit (Tab goes there)",
    "history": "History (both lists)",
    "timeline": "History: the timeline",
    "sessions": "History: the sessions",
    "compare": "Compare",
    "replay": "Replay (llm-edit replay)",
}
CHAT = tuple(place for place in PLACES if place != "replay")
WITHIN = {"timeline": "history", "sessions": "history"}  # keys of the one work in the other too


@dataclass(frozen=True)
class Key:
    """What a key does, and where.

    id      what config.toml calls it; "" for a key that cannot be changed
    keys    by default, separated by commas; as Textual names them
    action  what the widget of that place is asked to do; "" when it is not a binding
    also    further keys that some terminals send for the same, not shown
    """

    id: str
    keys: str
    action: str
    help: str
    place: str
    also: str = ""
    priority: bool = False


KEYS: tuple[Key, ...] = (
    Key("", "enter", "", "send", "writing"),
    Key("newline", "ctrl+j,alt+enter", "newline", "new line", "writing", "shift+enter", True),
    Key("", "up,down", "", "earlier lines, by their beginning", "writing"),
    Key("", "/,tab", "", "commands, and their completion", "writing"),
    Key("compose", "ctrl+g", "compose", "write in $EDITOR (also Ctrl+X Ctrl+E)", "writing"),
    Key("fix", "f2", "app.fix", "correct the last answer", "anywhere"),
    Key("undo", "f3", "app.undo", "undo the last edit, exactly", "anywhere"),
    Key("redo", "f8,shift+f3", "app.redo", "redo it", "anywhere", "f15"),
    Key("history", "f4", "app.history", "the timeline, branches, other sessions; back", "anywhere"),
    Key("compare", "f5", "app.compare", "two states of the model side by side; back", "anywhere"),
    Key("panes", "f6", "next_pane", "next pane: log, edit over the whole width", "anywhere",
        priority=True),
    Key("checks", "f7", "details", "the checks of the last edit, one by one", "anywhere",
        priority=True),
    Key("search", "ctrl+r", "search_history", "search what was written before", "anywhere",
        priority=True),
    Key("end", "ctrl+end", "jump_end", "to the end, follow again", "anywhere", priority=True),
    Key("palette", "ctrl+p", "app.command_palette", "all commands", "anywhere", priority=True),
    Key("help", "f1,?", "app.help", "help for where you are, and this sheet", "anywhere"),
    Key("stop", "escape", "stop", "stop the work, close, go back: in this order", "anywhere"),
    Key("interrupt", "ctrl+c", "app.interrupt",
        "copy a selection, or stop; twice when idle: quit", "anywhere"),
    Key("quit", "ctrl+q", "app.quit", "quit", "anywhere", priority=True),
    Key("message.previous", "up,k", "cursor(-1)", "the message before", "conversation"),
    Key("message.next", "down,j", "cursor(1)", "the next message", "conversation"),
    Key("message.first", "home", "first", "the first message", "conversation"),
    Key("message.last", "end", "jump_end", "the last message", "conversation"),
    Key("message.fix", "f", "act('fix')", "correct the chosen answer", "conversation"),
    Key("message.copy", "c", "act('copy')", "copy the chosen message", "conversation"),
    Key("message.retry", "r", "act('retry')", "ask again (the last question)", "conversation"),
    Key("message.explain", "e", "act('explain')", "say what the edits did to it", "conversation"),
    Key("message.more", "m", "load_more", "load earlier messages", "conversation"),
    Key("check.previous", "up,k", "cursor(-1)", "the check above", "checks"),
    Key("check.next", "down,j", "cursor(1)", "the check below", "checks"),
    Key("check.open", "enter", "open", "its single answers, before and after", "checks"),
    Key("replay.play", "space", "play_pause", "play, pause; at the end: from the start", "replay"),
    Key("replay.next", "right", "step(1)", "the next event", "replay"),
    Key("replay.previous", "left", "step(-1)", "the event before", "replay"),
    Key("replay.next-edit", "]", "step_edit(1)", "the next edit", "replay"),
    Key("replay.previous-edit", "[", "step_edit(-1)", "the edit before", "replay"),
    Key("replay.speed-1", "1", "speed(0)", "as fast as it was", "replay"),
    Key("replay.speed-2", "2", "speed(1)", "twice as fast", "replay"),
    Key("replay.speed-3", "3", "speed(2)", "four times", "replay"),
    Key("replay.speed-4", "4", "speed(3)", "eight times", "replay"),
    Key("replay.time", "g", "time", "go to a time", "replay"),
    Key("replay.leave", "q", "leave", "leave (also Esc)", "replay"),
    Key("history.search", "/", "search", "search questions, answers and facts", "history"),
    Key("history.other", "tab", "other", "to the other list", "history", "shift+tab", True),
    Key("timeline.previous", "up,k", "cursor_up", "the line above", "timeline"),
    Key("timeline.next", "down,j", "cursor_down", "the line below", "timeline"),
    Key("timeline.show", "enter", "select", "show it in the conversation", "timeline"),
    Key("timeline.undo", "u", "act('undo')", "undo to here (asks first)", "timeline"),
    Key("timeline.redo", "y", "act('redo')", "put the last undone edit back", "timeline"),
    Key("timeline.branch", "b", "act('branch')", "go on from this message", "timeline"),
    Key("timeline.diff", "d", "act('diff')", "compare the model as it was there with now",
        "timeline"),
    Key("timeline.export", "x", "act('export')", "export the session as a bundle", "timeline"),
    Key("session.previous", "up,k", "cursor_up", "the session above", "sessions"),
    Key("session.next", "down,j", "cursor_down", "the session below", "sessions"),
    Key("session.show", "enter", "select", "to its timeline", "sessions"),
    Key("session.open", "o", "act('open')", "go on with it in the conversation", "sessions"),
    Key("session.rename", "r", "act('rename')", "give it a name", "sessions"),
    Key("session.delete", "delete,D", "act('delete')", "remove it for good (asks first)",
        "sessions"),
    Key("session.export", "x", "act('export')", "export it as a bundle", "sessions"),
    Key("compare.previous", "up,k", "row(-1)", "the prompt above", "compare"),
    Key("compare.next", "down,j", "row(1)", "the prompt below", "compare"),
    Key("compare.a", "a", "pick('a')", "choose the state on the left", "compare"),
    Key("compare.b", "b", "pick('b')", "choose the state on the right", "compare"),
    Key("compare.swap", "s", "swap", "swap them", "compare"),
    Key("compare.type", "/", "type", "type a prompt, ask it of both", "compare"),
    Key("compare.remove", "delete,D", "remove", "take a typed prompt away", "compare"),
    Key("compare.tokens", "t", "tokens", "the likeliest next tokens (also Enter)", "compare"),
    Key("compare.run", "r", "run", "ask again what was stopped", "compare"),
)  # fmt: skip

BY_ID: dict[str, Key] = {key.id: key for key in KEYS if key.id}

MODIFIERS = ("ctrl", "alt", "shift", "super")
NAMED = {
    *(f"f{n}" for n in range(1, 25)), "up", "down", "left", "right", "home", "end", "insert",
    "delete", "pageup", "pagedown", "enter", "escape", "tab", "space", "backspace", "comma",
}  # fmt: skip
SAME = {"ctrl+m": "enter", "ctrl+i": "tab", "ctrl+[": "escape", "ctrl+h": "backspace"}
NEEDED = {"enter", "tab", "up", "down", "left", "right", "backspace", "delete", "space"}

SHOWN = {
    "up": "↑", "down": "↓", "left": "←", "right": "→", "escape": "Esc", "pageup": "PgUp",
    "pagedown": "PgDn", "ctrl": "Ctrl", "alt": "Alt", "shift": "Shift", "super": "Super",
    "comma": ",",
}  # fmt: skip
SHORT = {"Enter": "↵", "Delete": "Del"}  # where there is little room


def normalised(text: str) -> str:
    """Keys as a person may write them ("Ctrl+R, F9") as the table has them ("ctrl+r,f9").

    Raises ValueError saying which of them is no key.
    """
    found = [_one(part.strip()) for part in text.split(",")]
    return ",".join(found)


def _one(text: str) -> str:
    *modifiers, key = text.split("+") if text != "+" else [text]
    modifiers = [name.strip().lower() for name in modifiers]
    key = key.strip()
    key = key if len(key) == 1 and not modifiers else key.lower()
    known = key in NAMED or (len(key) == 1 and key.isprintable() and key != " ")
    if not known or any(name not in MODIFIERS for name in modifiers):
        raise ValueError(f"{text!r} is not a key. Examples: f9, ctrl+o, alt+up, x")
    if modifiers == ["shift"] and len(key) == 1:
        raise ValueError(f"{text!r}: write {key.upper()!r}")
    whole = "+".join([*(name for name in MODIFIERS if name in modifiers), key])
    if whole in SAME:
        raise ValueError(f"{text!r} is what terminals send for {SAME[whole]}")
    return whole


def checked(given: Mapping[str, object], source: str) -> dict[str, str]:
    """The `[keys]` of a configuration, by action.

    source  the file, for the errors. Raises BadSetting: an action or key that does not exist,
    a key with two meanings in one place, a key that writing needs.
    """
    found: dict[str, str] = {}
    for name, value in given.items():
        if name not in BY_ID:
            near = difflib.get_close_matches(name, BY_ID, n=1)
            raise BadSetting(
                f"{source}: [keys] has no action {name!r}.",
                f"Did you mean {near[0]!r}?" if near else "llm-edit config keys lists them.",
            )
        if not isinstance(value, str) or not value.strip():
            raise BadSetting(f"{source}: [keys] {name} must be a text of keys, not {value!r}.")
        try:
            found[name] = normalised(value)
        except ValueError as error:
            raise BadSetting(f"{source}: [keys] {name}: {error}.") from None
        _usable(name, found[name], source)
    _distinct(found, source)
    return found


def _usable(name: str, keys: str, source: str) -> None:
    place = BY_ID[name].place
    if place not in ("anywhere", "writing"):
        return
    each = keys.split(",")
    needed = [key for key in each if key in NEEDED]
    if needed:
        raise BadSetting(f"{source}: [keys] {name}: {needed[0]!r} is needed for writing.")
    if all(len(key) == 1 for key in each):
        raise BadSetting(
            f"{source}: [keys] {name}: {keys!r} would be written into the text.",
            "Name a key that writes nothing, such as f9 or ctrl+o.",
        )


def _distinct(mine: Mapping[str, str], source: str) -> None:
    """No key has two meanings where both could be meant."""
    for name, keys in mine.items():
        here = BY_ID[name].place
        for other in BY_ID.values():
            overlap = "anywhere" in (here, other.place) or other.place in (here, WITHIN.get(here))
            overlap = overlap or WITHIN.get(other.place) == here
            if other.id == name or not overlap:
                continue
            taken = set(keys.split(",")) & set(keys_of(other, mine).split(","))
            if taken:
                raise BadSetting(
                    f"{source}: [keys] {name}: {taken.pop()!r} is the key of {other.id!r}.",
                    f"Give {other.id!r} another one too.",
                )


def keys_of(key: Key, mine: Mapping[str, str]) -> str:
    """The keys of an action in force, `mine` being those a person chose."""
    return mine.get(key.id, key.keys) if key.id else key.keys


def shown(keys: str) -> str:
    """Keys as a person reads them: "ctrl+r,f9" as "Ctrl+R, F9"."""
    return ", ".join(_shown(key) for key in keys.split(","))


def _shown(key: str) -> str:
    parts = key.split("+") if key != "+" else [key]
    if len(parts) == 1 and len(key) == 1:
        return key
    return "+".join(SHOWN.get(part, part.capitalize()) for part in parts)


def short(keys: str) -> str:
    """The first of the keys, in as few characters as possible: "ctrl+r,f9" as "^R"."""
    text = _shown(keys.split(",")[0])
    return SHORT.get(text, text.replace("Ctrl+", "^"))


def sheet(
    mine: Mapping[str, str], places: Iterable[str] = PLACES
) -> list[tuple[str, list[tuple[str, str]]]]:
    """(place, [(keys, what they do)]) in the table's order."""
    return [
        (PLACES[place], [(shown(keys_of(k, mine)), k.help) for k in KEYS if k.place == place])
        for place in places
    ]
