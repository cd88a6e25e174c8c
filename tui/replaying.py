"""The full screen of a replay: no model, no engine's thread, nothing that writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from textual.app import App

from . import settings
from .launch import theme_of
from .player import Player
from .screens.replay import ReplayScreen
from .theme import THEMES
from .widgets.bound import app_bindings
from .widgets.help import HelpScreen, help_for

if TYPE_CHECKING:
    from textual.screen import Screen

PLACES = ("replay", "conversation", "checks")  # whose keys mean something here
TWICE = 2.0  # seconds within which a second Ctrl+C quits


class ReplayApp(App[int], inherit_bindings=False):
    """Plays a recording."""

    TITLE = "llm-edit replay"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar = app_bindings()

    def __init__(
        self,
        player: Player,
        *,
        theme: str = "llm-edit-dark",
        ascii: bool = False,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """`ascii`: plots and frames without braille and lines; `keys`: those a person chose."""
        super().__init__()
        for each in THEMES:
            self.register_theme(each)
        self.theme = theme
        self.ascii = ascii
        self.set_class(ascii, "-ascii")
        self.my_keys = dict(keys or {})
        self.set_keymap(self.my_keys)
        self.replay = ReplayScreen(player)
        self._interrupted = -TWICE

    def get_default_screen(self) -> Screen[None]:
        return self.replay

    def copy(self, text: str) -> None:
        """To the clipboard, saying what is known about whether it got there."""
        self.copy_to_clipboard(text)
        self.notify("Sent to the terminal's clipboard. It cannot be verified from here.")

    def action_interrupt(self) -> None:
        """Ctrl+C twice quits, as in the chat."""
        now = time.monotonic()
        if now - self._interrupted < TWICE:
            self.exit(0)
        self._interrupted = now
        self.notify("Press Ctrl+C again to quit.", timeout=TWICE)

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            here = help_for(self.focused, self.screen)
            self.push_screen(HelpScreen((), here, self.my_keys, PLACES))

    async def action_quit(self) -> None:
        self.exit(0)


def run(player: Player, *, theme: str = "", mouse: bool = True, ascii: bool = False) -> int:
    """The replay on a terminal; returns the exit code.

    theme  "" for the configured one; `mouse` False and `ascii` True override the configuration
    Raises BadSetting, BadFile before the screen is taken.
    """
    chosen, _ = settings.load()
    look = theme_of(settings.known_theme(theme or chosen.theme, "--theme"))
    app = ReplayApp(player, theme=look, ascii=ascii or chosen.ascii, keys=chosen.keys)
    app.run(mouse=mouse and chosen.mouse)
    return app.return_code or 0
