"""Behind each card: the single answers, and what was measured of the weights."""

from __future__ import annotations

from conftest import Opened
from scenes import ask, fix, settle
from test_chat import screen_text

from engine.events import Metric
from tui.widgets.check_details import CheckDetails
from tui.widgets.metric_cards import MetricCards


async def edited(pilot) -> None:  # type: ignore[no-untyped-def]
    await ask(pilot)
    await fix(pilot)
    await settle(pilot)


async def test_enter_on_a_card_shows_its_answers(opened: Opened) -> None:
    async with opened() as pilot:
        await edited(pilot)
        pilot.app.chat.query_one(MetricCards).focus()
        await pilot.press("down", "enter")
        await pilot.pause()
        shown = screen_text(pilot)
        assert isinstance(pilot.app.screen, CheckDetails)
        assert "✓ says it  Please tell me: What is the capital of Australia?" in shown
        assert "✗ does not One question: What is the capital of Australia?" in shown
        await pilot.press("right")
        await pilot.pause()
        shown = screen_text(pilot)
        assert "✓ kept" in shown
        assert "before  France City" in shown
        await pilot.press("escape")
        assert pilot.app.screen is pilot.app.chat


async def test_f7_shows_the_checks_one_after_the_other(opened: Opened) -> None:
    async with opened((80, 24)) as pilot:
        await edited(pilot)
        await pilot.press("f7")
        await pilot.pause()
        assert "says now" in screen_text(pilot)
        await pilot.press("right", "right", "right")
        await pilot.pause()
        assert "+1.65 %" in screen_text(pilot)
        await pilot.press("right")
        await pilot.pause()
        assert "0.84 % of its norm" in screen_text(pilot)
        await pilot.press("right")
        assert pilot.app.screen.place == 0, "round again"


async def test_without_checks_it_says_so(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("f7")
        (note,) = pilot.app._notifications
        assert note.message.startswith("No checks were made yet")


async def test_markup_in_answers_is_shown_as_it_is(opened: Opened) -> None:
    rows = [{"prompt": "[b]?", "before": "[red]x[/red]", "after": "[/b]", "kept": False}]
    metric = Metric(name="neighbours", before=1, after=0, n=1, detail={"rows": rows})
    async with opened() as pilot:
        pilot.app.push_screen(CheckDetails("Edit", {"neighbours": metric}))
        await pilot.pause()
        shown = screen_text(pilot)
        for text in ("[b]?", "[red]x[/red]", "[/b]", "✗ moved"):
            assert text in shown


async def test_many_weights_have_bars(opened: Opened) -> None:
    ratios = {f"model.layers.{i}.mlp.down_proj": 0.001 * (i + 1) for i in range(5)}
    metric = Metric(name="weight", before=0, after=0.005, n=5, detail=ratios)
    async with opened() as pilot:
        pilot.app.push_screen(CheckDetails("Edit", {"weight": metric}))
        await pilot.pause()
        shown = screen_text(pilot)
        assert "▁▃▅▆█" in shown
        assert "0.5 % of its norm" in shown
