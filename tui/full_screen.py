"""What every application of the full screen has: colours, keys, help, a clipboard, a way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import App

from . import clipboard
from .keys import CHAT
from .theme import THEMES
from .widgets.bound import app_bindings

if TYPE_CHECKING:
    from .clipboard import Copied

TWICE = 2.0  # seconds within which a second Ctrl+C quits


class FullScreen(App[int], inherit_bindings=False):
    """The part that does not know what is shown. PLACES: those of tui/keys.py in the help."""

    CSS_PATH = "app.tcss"
    PLACES: ClassVar[Sequence[str]] = CHAT
    BINDINGS: ClassVar = app_bindings()

    def __init__(self, *, theme: str, ascii: bool, keys: Mapping[str, str] | None) -> None:
        """`ascii`: plots and frames without braille and lines; `keys`: those a person chose."""
        super().__init__()
        for each in THEMES:
            self.register_theme(each)
        self.theme = theme
        self._colours = self.get_css_variables()
        self.stylesheet.set_variables(self._colours)
        self.ascii = ascii
        self.set_class(ascii, "-ascii")
        self.my_keys = dict(keys or {})
        self.set_keymap(self.my_keys)
        self._interrupted = -TWICE

    def refresh_css(self, animate: bool = True) -> None:
        """Read the style sheets again, where the colours are not those they were read with.

        Textual asks for it at the start, too: all of them twice before the first picture.
        """
        colours = self.get_css_variables()
        if colours != self._colours:
            self._colours = colours
            super().refresh_css(animate)

    # -- the clipboard -----------------------------------------------------------------------

    def copy_to_clipboard(self, text: str, done: Callable[[Copied], object] | None = None) -> None:
        """Also what is selected on the screen comes here. The screen does not wait for it."""
        self._clipboard = text
        if self._driver is None:
            return
        terminal = self._driver.write

        def work() -> None:
            copied = clipboard.copy(text, terminal)
            if done is not None:
                self.call_later(done, copied)

        threading.Thread(target=work, name="llm-edit copy", daemon=True).start()

    # -- keys --------------------------------------------------------------------------------

    def stop_work(self) -> bool:
        """Cancel what runs; False when there was nothing to stop."""
        return False

    def action_interrupt(self) -> None:
        """Ctrl+C: stop the work; when idle, twice quits."""
        if self.stop_work():
            return
        now = time.monotonic()
        if now - self._interrupted < TWICE:
            self.exit(0)
        self._interrupted = now
        self.notify("Press Ctrl+C again to quit.", timeout=TWICE)

    def action_help(self) -> None:
        from .widgets.help import HelpScreen, help_for

        if not isinstance(self.screen, HelpScreen):
            here = help_for(self.focused, self.screen)
            self.push_screen(HelpScreen(self.command_sheet(), here, self.my_keys, self.PLACES))

    def command_sheet(self) -> Sequence[tuple[str, str]]:
        """The commands that can be typed: how each is written, and what it does."""
        return ()

    async def action_quit(self) -> None:
        """At once: nothing is waited for."""
        self.exit(0)
