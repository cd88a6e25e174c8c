"""The full screen of a replay: no model, no engine's thread, nothing that writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from . import settings
from .full_screen import FullScreen
from .launch import theme_of
from .player import Player
from .screens.replay import ReplayScreen

if TYPE_CHECKING:
    from textual.screen import Screen


class ReplayApp(FullScreen):
    """Plays a recording."""

    TITLE = "llm-edit replay"
    ENABLE_COMMAND_PALETTE = False
    PLACES: ClassVar = ("replay", "conversation", "checks")  # whose keys mean something here

    def __init__(
        self,
        player: Player,
        *,
        theme: str = "llm-edit-dark",
        ascii: bool = False,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """`ascii`: plots and frames without braille and lines; `keys`: those a person chose."""
        super().__init__(theme=theme, ascii=ascii, keys=keys)
        self.replay = ReplayScreen(player)

    def get_default_screen(self) -> Screen[None]:
        return self.replay

    def copy(self, text: str) -> None:
        """To the clipboard, saying what is known about whether it got there."""
        self.copy_to_clipboard(text, lambda done: self.notify(done.known))


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
