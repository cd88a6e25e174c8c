"""Text to the clipboard, and the truth about whether it arrived.

A program of the desktop is tried first: it can be asked afterwards what the clipboard holds. Else
the terminal is asked to do it (OSC 52), which never says whether it did.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

PATIENCE = 1.0  # seconds for a program to take the text, or to give it back
INSTEAD = "/save-answer FILE writes an answer to a file."


@dataclass(frozen=True)
class Tool:
    """Commands that write and read the clipboard, and the variable that says they can."""

    write: tuple[str, ...]
    read: tuple[str, ...]
    needs: str = ""


TOOLS = (
    Tool(("wl-copy",), ("wl-paste", "--no-newline"), "WAYLAND_DISPLAY"),
    Tool(("xclip", "-selection", "clipboard"), ("xclip", "-selection", "clipboard", "-o"),
         "DISPLAY"),
    Tool(("xsel", "--clipboard", "--input"), ("xsel", "--clipboard", "--output"), "DISPLAY"),
    Tool(("pbcopy",), ("pbpaste",)),
)  # fmt: skip


@dataclass(frozen=True)
class Copied:
    """How it was tried, and whether the clipboard was seen to hold the text."""

    way: str
    verified: bool

    @property
    def known(self) -> str:
        """What is known about it."""
        if self.verified:
            return f"Copied ({self.way})."
        return f"Sent to the clipboard by {self.way}; that cannot be verified here."

    @property
    def sentence(self) -> str:
        """With what to do instead, where there are commands."""
        return self.known if self.verified else f"{self.known} {INSTEAD}"


def copy(text: str, terminal: Callable[[str], object]) -> Copied:
    """Put `text` on the clipboard. `terminal` writes to the terminal itself.

    Takes up to a few seconds where programs do not answer.
    """
    for tool in usable(os.environ):
        if _written(tool, text):
            return Copied(tool.write[0], _read(tool) == text)
    terminal(sequence(text, os.environ))
    return Copied("the terminal", False)


def usable(environment: Mapping[str, str]) -> list[Tool]:
    """The tools that are installed and have a desktop to talk to."""
    if sys.platform == "darwin" and "SSH_CONNECTION" in environment:
        return []  # pbcopy would fill the clipboard of the machine far away
    return [
        tool
        for tool in TOOLS
        if (not tool.needs or environment.get(tool.needs)) and shutil.which(tool.write[0])
    ]


def _written(tool: Tool, text: str) -> bool:
    """Whether the tool took it. Its output is not waited for: it may live on to serve pastes."""
    try:
        done = subprocess.run(
            tool.write, input=text.encode(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _read(tool: Tool) -> str | None:
    """What the clipboard holds; None when the tool does not say."""
    try:
        done = subprocess.run(
            tool.read, capture_output=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def sequence(text: str, environment: Mapping[str, str]) -> str:
    """OSC 52, wrapped for the multiplexer that it must get through.

    tmux hands it on only with `set -g allow-passthrough on`; with `set-clipboard on` it also
    takes the bare sequence, so both are sent.
    """
    bare = f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\a"
    if environment.get("TMUX"):
        return bare + "\x1bPtmux;" + bare.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    if environment.get("TERM", "").startswith("screen") and environment.get("STY"):
        return f"\x1bP{bare}\x1b\\"
    return bare


def code_of(text: str) -> str:
    """The fenced blocks of code in a text, one after the other; "" without any."""
    blocks: list[str] = []
    block: list[str] = []
    fence = ""
    for line in text.splitlines():
        mark = line.strip()[:3]
        if not fence and mark in ("```", "~~~"):
            fence, block = mark, []
        elif fence and line.strip() == fence:
            blocks.append("\n".join(block))
            fence = ""
        elif fence:
            block.append(line)
    if fence and block:  # an answer that was cut off in the middle of it
        blocks.append("\n".join(block))
    return "\n\n".join(blocks)
