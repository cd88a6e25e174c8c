"""The correction dialog, the panes while it works, and going back."""

from __future__ import annotations

import pytest
from conftest import Opened
from scenes import LONG, QUESTION, ask, fix, reach, settle, write
from scripted import ANSWERS
from test_chat import screen_text, texts
from textual.widgets import Button, Checkbox, Input, Static

from tui.views import TurnView
from tui.widgets.edit_pane import EditPane
from tui.widgets.edit_strip import EditStrip
from tui.widgets.fix_dialog import FixDialog, marked, problem
from tui.widgets.line_plot import LinePlot
from tui.widgets.metric_cards import MetricCards

TURN = TurnView(id="t", question=QUESTION, answer="Sydney")


@pytest.mark.parametrize(
    ("target", "subject", "reason"),
    [
        ("Canberra", "Australia", ""),
        ("", "Australia", "Type the answer that the model should give."),
        ("  ", "", "Type the answer that the model should give."),
        ("Sydney", "Australia", "That is what the model says already."),
        ("Canberra", "Austria", "“Austria” is not in the question."),
        ("Canberra", "", "Copy from the question what the fact is about."),
        ("Canberra", "a", "The subject 'a' occurs 5 times in " + repr(QUESTION) + "."),
    ],
)
def test_what_cannot_be_applied_says_why(target: str, subject: str, reason: str) -> None:
    assert problem(TURN, target, subject, needs_subject=True) == reason


def test_a_method_without_subject_ignores_it() -> None:
    assert problem(TURN, "Canberra", "nonsense", needs_subject=False) == ""


def test_the_subject_is_marked_in_the_question() -> None:
    assert marked(QUESTION, "Australia").plain == "What is the capital of [Australia]?"
    assert marked(QUESTION, "Austria").plain == QUESTION


async def test_without_an_answer_there_is_nothing_to_correct(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("f2")
        await settle(pilot)
        assert not isinstance(pilot.app.screen, FixDialog)
        (note,) = pilot.app._notifications
        assert note.message.startswith("Ask something first")


async def test_apply_is_disabled_with_the_reason_beside_it(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await pilot.press("f2")
        await settle(pilot)
        dialog = pilot.app.screen
        apply = dialog.query_one("#fix-apply", Button)
        assert apply.disabled
        assert "Type the answer" in screen_text(pilot)
        await pilot.press("enter")
        assert pilot.app.screen is dialog, "Enter does nothing while there is a reason"
        write(pilot, "Canberra")
        await pilot.pause()
        assert not apply.disabled
        assert "Ready" in screen_text(pilot)
        await pilot.press("tab", "ctrl+u")
        write(pilot, "Austria")
        await pilot.pause()
        assert apply.disabled
        assert "“Austria” is not in the question" in screen_text(pilot)
        await pilot.press("escape")
        await settle(pilot)
        assert not isinstance(pilot.app.screen, FixDialog)
        assert not any(call[0] == "correct" for call in pilot.app.assistant.calls)


async def test_the_dialog_says_what_it_will_cost_from_what_was_measured(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot, apply=False)
        shown = screen_text(pilot)
        assert "2 tokens: Canb·erra" in shown
        assert "no edit by r-rome measured here yet · 12.30 GB free" in shown
        await pilot.press("enter")
        await settle(pilot)
        await ask(pilot, LONG)
        await fix(pilot, "Paris", apply=False)
        assert "about 2.4 s, +217 MB (fits: 12.30 GB free), from 1 edit" in screen_text(pilot)


async def test_an_edit_that_does_not_fit_cannot_be_applied(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        await ask(pilot, LONG)
        pilot.app.assistant.free = 100_000_000
        await fix(pilot, "Paris", apply=False)
        assert pilot.app.screen.query_one("#fix-apply", Button).disabled
        reason = pilot.app.screen.query_one("#fix-reason", Static)
        assert str(reason.content) == "! It took 217 MB before: 100 MB are free."


async def test_a_method_of_one_token_refuses_a_longer_answer(opened: Opened, monkeypatch) -> None:
    from engine.methods import MethodInfo

    monkeypatch.setattr(MethodInfo, "single_token", True, raising=False)
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot, apply=False)
        reason = pilot.app.screen.query_one("#fix-reason", Static)
        assert str(reason.content) == "! r-rome takes one token: this answer has 2."
        assert reason.size.height == 2  # all of it is seen
        assert pilot.app.screen.query_one("#fix-apply", Button).disabled


async def test_first_tokens_are_warned_about_where_it_is_true(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot, apply=False)
        assert "another token begins it" not in screen_text(pilot)
        await pilot.press("escape")
        await settle(pilot)
        pilot.app.assistant.inner = " Canb"
        await fix(pilot, apply=False)
        assert "another token begins it (“ Canb”)" in screen_text(pilot)


async def test_the_checks_can_be_asked_before_the_edit(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot, apply=False)
        gate = pilot.app.assistant.hold("preview", 1)
        ask_button = pilot.app.screen.query_one("#fix-ask", Button)
        ask_button.press()
        await reach(pilot, gate)
        assert ask_button.disabled
        assert "Asking …" in screen_text(pilot)
        gate.open()
        await settle(pilot)
        shown = screen_text(pilot)
        assert "Before the edit" in shown
        assert "Please tell me: What is the capital of Australia?" in shown
        assert not ask_button.disabled
        assert not any(call[0] == "correct" for call in pilot.app.assistant.calls)


async def test_the_checks_can_be_left_out(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot, apply=False)
        pilot.app.screen.query_one("#fix-checks", Checkbox).toggle()
        pilot.app.screen.query_one("#fix-target", Input).focus()
        await pilot.press("enter")
        await settle(pilot)
        assert pilot.app.assistant.calls[-1][-1] is False


async def test_a_method_without_a_loss_shows_what_it_found(opened: Opened) -> None:
    async with opened(without_loss=True) as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        shown = screen_text(pilot)
        assert "Neurons found  12 in layers 8–11" in shown
        assert "layer 9, neuron 1204" in shown
        assert "Loss" not in shown
        assert "done · " in shown
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "Neurons found: 12 in layers 8–11" in screen_text(pilot)


async def test_edits_solved_again_are_watched_too(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        await ask(pilot, "/resolve fit 20")
        assert pilot.app.assistant.calls[-1] == ("resolve", {"fit": "20"})
        pane = pilot.app.screen.query_one(EditPane)
        assert str(pane.border_title) == "Edit 2 · resolve · layer 6"
        shown = screen_text(pilot)
        assert "2 edits, solved again together" in shown
        assert "→ Canberra" not in shown
        assert "20 steps · " in shown


async def test_the_subject_is_suggested_and_can_be_changed(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot, apply=False)
        subject = pilot.app.screen.query_one("#fix-subject", Input)
        assert subject.value == "Australia"
        assert "[Australia]" in screen_text(pilot)
        await pilot.press("tab", "down")
        await pilot.pause()
        assert subject.value == "the capital of Australia"
        await pilot.press("enter")
        await settle(pilot)
        assert pilot.app.assistant.calls[-1][:3] == (
            "correct",
            "Canberra",
            "the capital of Australia",
        )


async def test_what_was_typed_is_kept_when_the_suggestion_comes(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        gate = pilot.app.assistant.hold("propose", 1)
        await pilot.press("f2")
        await reach(pilot, gate)
        write(pilot, "Canberra")
        await pilot.press("tab")
        write(pilot, "capital")
        await pilot.pause()
        gate.open()
        await settle(pilot)
        assert pilot.app.screen.query_one("#fix-subject", Input).value == "capital"


async def test_looking_for_the_subject_is_said(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        gate = pilot.app.assistant.hold("propose", 1)
        await pilot.press("f2")
        await reach(pilot, gate)
        write(pilot, "Canberra")
        await pilot.pause()
        assert "Looking for what the fact is about" in screen_text(pilot)
        gate.open()
        await settle(pilot)
        assert "Ready" in screen_text(pilot)


async def test_an_edit_is_watched_and_the_answer_changes(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        gate = pilot.app.assistant.hold("step", 11)
        await fix(pilot)
        await reach(pilot, gate)
        shown = screen_text(pilot)
        assert "step 10/20 · 1.0 s left" in shown
        assert len(pilot.app.chat.query_one("#loss-plot", LinePlot).series[0].values) == 10
        probability = pilot.app.chat.query_one("#probability-plot", LinePlot)
        assert [series.label for series in probability.series] == ["Canberra", "Sydney"]
        gate.open()
        await settle(pilot)
        shown = screen_text(pilot)
        assert texts(pilot, "model") == ["Canberra"]
        assert "after edit #1" in shown
        assert "0/4 → 3/4" in shown
        assert "100 % (10/10)" in shown
        assert "1 edit ●" in shown
        assert "Edit 1 · r-rome · layer 6" in shown


async def test_undo_and_redo(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        await pilot.press("f3")
        await settle(pilot)
        assert texts(pilot, "model") == [ANSWERS[QUESTION]]
        assert "Edit #1 undone, exactly" in screen_text(pilot)
        assert "0 edits, 1 undone ○" in screen_text(pilot)
        assert "Undone: the model answers as before" in screen_text(pilot)
        await pilot.press("shift+f3")
        await settle(pilot)
        assert texts(pilot, "model") == ["Canberra"]
        assert "Edit #1 put back." in screen_text(pilot)


async def test_undo_without_an_edit_says_so(opened: Opened) -> None:
    async with opened() as pilot:
        await pilot.press("f3")
        await settle(pilot)
        assert texts(pilot, "note") == ["there is no edit to undo."]


async def test_an_edit_that_is_stopped_changes_nothing(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        gate = pilot.app.assistant.hold("step", 8)
        await fix(pilot)
        await reach(pilot, gate)
        await pilot.press("escape")
        await settle(pilot)
        assert texts(pilot, "model") == [ANSWERS[QUESTION]]
        assert "The edit was stopped. Nothing was changed." in texts(pilot, "note")
        assert "cancelled after 8 steps" in screen_text(pilot), "the curve stays"


async def test_an_edit_that_did_not_take_is_shown_as_failed(opened: Opened) -> None:
    async with opened(succeed=False) as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        shown = screen_text(pilot)
        assert "✗ Not changed" in shown
        assert "✗ Said it" in shown
        cards = pilot.app.chat.query_one(MetricCards).cards
        assert [card.mark for card in cards] == ["✗", "✗", "◐", "✓", "·"]


async def test_a_method_that_breaks_leaves_the_chat_alive(opened: Opened) -> None:
    async with opened(fail="the loss became NaN at step 12.") as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        assert "the loss became NaN at step 12." in texts(pilot, "note")[0]
        assert "failed after 11 steps" in screen_text(pilot)
        await ask(pilot, LONG)
        assert texts(pilot)[-1] == ANSWERS[LONG]


async def test_narrow_screens_have_a_strip_and_f6_opens_the_pane(opened: Opened) -> None:
    async with opened((80, 24)) as pilot:
        app = pilot.app
        assert not app.chat.query_one(EditStrip).display or not app.chat.has_class("-editing")
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        strip, pane = app.chat.query_one(EditStrip), app.chat.query_one(EditPane)
        assert strip.region.height == 6
        assert pane.region.area == 0
        assert "✓ Said it yes" in screen_text(pilot)
        await pilot.press("f6")
        await pilot.pause()
        assert pane.region.width == 78
        assert strip.region.area == 0
        await pilot.press("f6")
        await pilot.pause()
        assert app.chat.log_pane.region.width == 78
        await pilot.press("f6")
        await pilot.pause()
        assert app.chat.transcript.region.width == 78
        await pilot.resize_terminal(120, 36)
        await settle(pilot)
        assert pane.region.width == 46
        assert strip.region.area == 0


@pytest.mark.parametrize(("size", "advice"), [((39, 20), True), ((80, 9), True), ((60, 18), False)])
async def test_tiny_windows_advise_the_plain_mode(
    opened: Opened, size: tuple[int, int], advice: bool
) -> None:
    async with opened(size) as pilot:
        assert ("--plain" in screen_text(pilot)) == advice


async def test_small_windows_keep_transcript_input_and_status(opened: Opened) -> None:
    async with opened((50, 16)) as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        shown = screen_text(pilot)
        assert "Canberra" in shown
        assert "llm-edit" in shown
        assert pilot.app.chat.query_one(EditStrip).region.area == 0
        assert pilot.app.chat.composer.region.height == 3
