"""The full screen as the commands of the registry see it, and the registry as a palette."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text
from textual.command import DiscoveryHit, Hit, Hits, Provider

if TYPE_CHECKING:
    from engine.worker import Job

    from .app import EditApp
    from .assistant import Assistant
    from .batch import Batch
    from .registry import Command, CommandRegistry, Suggestion


def registry() -> CommandRegistry:
    """The commands. The first picture needs none of them and does not wait for their imports."""
    from .commands import REGISTRY

    return REGISTRY


class ScreenFront:
    """A `tui.commands.Front`."""

    def __init__(self, app: EditApp) -> None:
        self.app = app

    @property
    def assistant(self) -> Assistant:
        return self.app.assistant

    # -- for the composer and the help -------------------------------------------------------

    def complete(self, text: str) -> Sequence[Suggestion]:
        return registry().complete(text, self.assistant.snapshot())

    def run_line(self, line: str) -> None:
        registry().run_line(self, line)

    def sheet(self) -> list[tuple[str, str]]:
        return registry().sheet()

    # -- for the commands --------------------------------------------------------------------

    def say(self, text: str, tone: str = "info") -> None:
        self.app.say(text, tone)

    def show(self, lines: Sequence[str]) -> None:
        self.app.say("\n".join(lines))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows in the conversation; their texts are never read as markup."""
        grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for name in head:
            grid.add_column(Text(name), overflow="fold")
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        self.app.say("\n".join("  ".join(row) for row in rows), body=grid)

    def run(self, job: Job[Any], done: Callable[[Job[Any]], None] | None = None) -> None:
        self.app.submit(job, done)

    def fix(self, target: str, subject: str | None) -> None:
        """With a subject at once; without one the dialog asks for it to be confirmed."""
        if target and subject:
            self.app.corrections.begin(target, subject=subject)
        else:
            self.app.corrections.open(target)

    def batch(self, batch: Batch | None) -> None:
        self.app.batches.begin(batch)

    def stop(self) -> bool:
        return self.app.stop_work()

    def copy(self, text: str) -> None:
        self.app.copy(text)

    def show_log(self) -> None:
        self.app.chat.pane = "log"

    def show_history(self) -> None:
        self.app.action_history()

    def compare(self, a: str, b: str, prompts: Sequence[str]) -> None:
        self.app.show_comparison(a, b, prompts)

    def quit(self) -> None:
        self.app.exit(0)


class CommandPalette(Provider):
    """The registry's commands; one that needs an argument is begun in the composer."""

    def _run(self, command: Command) -> None:
        app: EditApp = self.app  # type: ignore[assignment]
        if command.needs_argument:
            app.chat.composer.set_text(f"/{command.name} ")
            app.chat.composer.editor.focus()
        else:
            app.commands.run_line(f"/{command.name}")

    def _available(self) -> list[Command]:
        app: EditApp = self.app  # type: ignore[assignment]
        snapshot = app.assistant.snapshot()
        return [command for command in registry().commands if not command.unavailable(snapshot)]

    async def discover(self) -> Hits:
        for command in self._available():
            yield DiscoveryHit(
                f"{command.name}: {command.help}",
                partial(self._run, command),
                text=f"/{command.name}",
            )

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for command in self._available():
            title = f"{command.name}: {command.help}"
            score = matcher.match(title)
            if score > 0:
                yield Hit(score, matcher.highlight(title), partial(self._run, command), text=title)
