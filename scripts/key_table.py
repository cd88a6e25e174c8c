"""Writes docs/keys.md from the table of keys and the registry of commands.

    python scripts/key_table.py [--check]

`--check` writes nothing; the exit code is 1 when the page is not what it would be.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tui.commands import REGISTRY  # noqa: E402
from tui.keys import KEYS, PLACES, shown  # noqa: E402

PAGE = ROOT / "docs" / "keys.md"
HEAD = """\
# Keys and commands

Made by `python scripts/key_table.py` from the program's own tables; change those, not this page.
**F1** shows the same in the app, with your own keys, and first what matters where you are.

## Keys

Every action with an id can have other keys, in `config.toml` (`llm-edit config path`):

```toml
enter = "newline"        # Enter begins a new line; Ctrl+J and Alt+Enter send

[keys]
fix = "f9"
search = "ctrl+r,ctrl+o" # two keys for one action
```

`llm-edit config validate` names what is not an action, not a key, or the key of two actions;
`llm-edit config keys` lists what is in force. Best are F-keys and Ctrl with a letter: Ctrl+B and
Ctrl+A belong to tmux and screen, Ctrl+S and Ctrl+Q to flow control in some terminals, and
Ctrl+M, Ctrl+I and Ctrl+[ are Enter, Tab and Esc. Everything is also a command.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for place, title in PLACES.items():
        lines += [f"### {title}", "", "| keys | action | id |", "|---|---|---|"]
        for key in KEYS:
            if key.place == place:
                name = f"`{key.id}`" if key.id else ""
                lines.append(f"| {cell(shown(key.keys))} | {cell(key.help)} | {name} |")
        lines.append("")
    lines += ["## Commands", "", "The same in the app and in plain mode; Tab completes them and",
              "their arguments.", "", "| command | what it does |", "|---|---|"]  # fmt: skip
    lines += [f"| `{cell(usage)}` | {cell(text)} |" for usage, text in REGISTRY.sheet()]
    return "\n".join(lines) + "\n"


def main() -> int:
    if "--check" in sys.argv[1:]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        if not same:
            sys.stderr.write(f"{PAGE} is out of date: run python scripts/key_table.py\n")
        return 0 if same else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
