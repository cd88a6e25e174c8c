"""Text that is never read as markup, and redrawn only when it changes."""

from __future__ import annotations

from rich.console import RenderableType
from textual.widgets import Static


class Line(Static):
    """A Static for one changing piece of text."""

    def __init__(
        self, text: str = "", *, id: str | None = None, classes: str | None = None
    ) -> None:
        super().__init__(text, id=id, classes=classes, markup=False)
        self._shown: RenderableType = text

    def show(self, text: RenderableType) -> None:
        """Draw this, unless it is drawn already."""
        if text != self._shown:
            self._shown = text
            self.update(text)
