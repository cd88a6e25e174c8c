"""Asking, streaming, stopping: the conversation as a person uses it."""

from __future__ import annotations

from conftest import Opened
from scenes import LONG, QUESTION, ask, fix, reach, settle
from scripted import ANSWERS, DEFAULT_ANSWER
from textual.pilot import Pilot
from textual.selection import SELECT_ALL

from tui.widgets.message import MessageView


def texts(pilot: Pilot, kind: str = "") -> list[str]:
    """What the mounted messages show."""
    views = pilot.app.screen_stack[0].query(MessageView)
    ordered = sorted(views, key=lambda v: v.parent.children.index(v))
    return [v.entry.text for v in ordered if not kind or v.entry.kind == kind]


def screen_text(pilot: Pilot) -> str:
    """The characters on the screen."""
    width = pilot.app.size.width
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text.ljust(width) for strip in strips)


async def test_a_question_is_answered(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        assert texts(pilot) == [QUESTION, ANSWERS[QUESTION]]
        assert pilot.app.chat.composer.editor.text == ""
        assert ANSWERS[QUESTION] in screen_text(pilot)


async def test_the_reply_is_shown_while_it_is_written(opened: Opened) -> None:
    async with opened() as pilot:
        gate = pilot.app.assistant.hold("token", 6)
        await ask(pilot, LONG, wait=False)
        await reach(pilot, gate)
        assert texts(pilot, "model") == ["The Space Needle is a"]
        assert "answering" in screen_text(pilot)
        gate.open()
        await settle(pilot)
        assert texts(pilot, "model") == [ANSWERS[LONG]]
        assert "answering" not in screen_text(pilot)


async def test_escape_stops_the_reply_and_keeps_what_was_said(opened: Opened) -> None:
    async with opened() as pilot:
        gate = pilot.app.assistant.hold("token", 6)
        await ask(pilot, LONG, wait=False)
        await reach(pilot, gate)
        await pilot.press("escape")
        await settle(pilot)
        (said,) = texts(pilot, "model")
        assert said.startswith("The Space Needle is a")
        assert said != ANSWERS[LONG]
        assert "stopped by you" in screen_text(pilot)
        await ask(pilot)
        assert texts(pilot)[-1] == ANSWERS[QUESTION], "the input is free again"


async def test_questions_typed_while_loading_are_queued(opened: Opened) -> None:
    async with opened(wait=False, load_gate=True) as pilot:
        gate = pilot.app.assistant.gates[0]
        await reach(pilot, gate)
        await ask(pilot, wait=False)
        await ask(pilot, LONG, wait=False)
        await settle(pilot, jobs=False)
        assert texts(pilot) == [QUESTION, LONG]
        assert screen_text(pilot).count("queued") == 2
        assert "loading the model" in screen_text(pilot)
        gate.open()
        await settle(pilot)
        assert texts(pilot) == [QUESTION, ANSWERS[QUESTION], LONG, ANSWERS[LONG]]


async def test_markup_is_shown_as_it_is(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot, "Show me markup")
        await ask(pilot, "[b]bold[/b] and [/nothing]")
        shown = screen_text(pilot)
        assert "[red]not red[/red] and [/b] as they are, [bold" in shown
        assert "[b]bold[/b] and [/nothing]" in shown


async def test_control_characters_do_not_reach_the_screen(opened: Opened) -> None:
    async with opened() as pilot:
        ANSWERS["escape"] = "before\x1b[31mafter\x07 end"
        try:
            await ask(pilot, "escape")
        finally:
            del ANSWERS["escape"]
        assert "\x1b" not in screen_text(pilot)
        assert "\x07" not in screen_text(pilot)


async def test_resizing_while_a_reply_is_written_loses_nothing(opened: Opened) -> None:
    async with opened() as pilot:
        gate = pilot.app.assistant.hold("token", 12)
        await ask(pilot, LONG, wait=False)
        await reach(pilot, gate)
        for size in ((80, 24), (60, 20), (45, 15), (120, 36)):
            await pilot.resize_terminal(*size)
            await settle(pilot, jobs=False)
            assert "The Space Needle" in screen_text(pilot)
        gate.open()
        await settle(pilot)
        assert texts(pilot, "model") == [ANSWERS[LONG]]


async def test_only_the_last_messages_are_mounted(opened: Opened) -> None:
    async with opened() as pilot:
        for number in range(30):
            pilot.app.assistant.ask(f"question {number}")
        await settle(pilot)
        transcript = pilot.app.chat.transcript
        assert len(transcript.entries()) == 60
        assert len(texts(pilot)) == 20
        assert "↑ 40 earlier messages" in str(transcript.query_one("#load-more").render())
        transcript.focus()
        await pilot.press("m")
        await settle(pilot)
        assert len(texts(pilot)) == 30
        assert texts(pilot)[-1] == DEFAULT_ANSWER


async def test_the_view_follows_until_the_reader_scrolls_up(opened: Opened) -> None:
    async with opened((80, 24)) as pilot:
        for _ in range(4):
            await ask(pilot, LONG)
        transcript = pilot.app.chat.transcript
        assert transcript.scroll_y == transcript.max_scroll_y > 0
        transcript.scroll_up(animate=False)
        transcript.scroll_up(animate=False)
        await pilot.pause()
        assert not transcript.follow
        place = transcript.scroll_y
        pilot.app.say("a note that comes meanwhile")
        await settle(pilot)
        assert transcript.scroll_y == place
        assert "more below" in screen_text(pilot)
        await pilot.press("ctrl+end")
        await settle(pilot)
        assert transcript.follow
        assert transcript.scroll_y == transcript.max_scroll_y


async def test_what_does_not_fit_is_shown_from_its_beginning(opened: Opened) -> None:
    async with opened() as pilot:
        for _ in range(6):
            await ask(pilot)
        transcript = pilot.app.chat.transcript
        pilot.app.send("/method")
        await settle(pilot)
        assert transcript.scroll_y < transcript.max_scroll_y, "it is longer than the screen"
        first = transcript.region.y + 1  # below the border
        assert "what it does" in screen_text(pilot).splitlines()[first]
        assert "more below" in screen_text(pilot)
        pilot.app.send("/help")
        await settle(pilot)
        assert "/undo [N]" in screen_text(pilot), "what is newer is shown"
        assert "command" in screen_text(pilot).splitlines()[first]
        pilot.app.send("/model")
        await settle(pilot)
        assert transcript.scroll_y == transcript.max_scroll_y, "what fits is shown at the end"
        pilot.app.send("/method")
        await settle(pilot)
        transcript.scroll_up(animate=False)
        await pilot.pause()
        place = transcript.scroll_y
        pilot.app.say("a note that comes while the reader reads")
        await settle(pilot)
        assert transcript.scroll_y == place
        await ask(pilot)
        assert transcript.scroll_y == transcript.max_scroll_y, "a question goes to the end"


async def test_what_does_not_fit_in_an_empty_conversation_too(opened: Opened) -> None:
    async with opened((80, 24)) as pilot:
        await settle(pilot)
        transcript = pilot.app.chat.transcript
        pilot.app.send("/method")
        pilot.app.say("and a remark on it")
        await settle(pilot)
        assert (transcript.scroll_y, transcript.follow) == (0, False)
        assert "what it does" in screen_text(pilot)
        await pilot.press("ctrl+end")
        await settle(pilot)
        assert transcript.scroll_y == transcript.max_scroll_y > 0


async def test_scrolling_back_to_the_end_follows_again(opened: Opened) -> None:
    async with opened((80, 24)) as pilot:
        for _ in range(4):
            await ask(pilot, LONG)
        transcript = pilot.app.chat.transcript
        transcript.scroll_home(animate=False)
        await pilot.pause()
        assert not transcript.follow
        transcript.scroll_end(animate=False)
        await pilot.pause()
        assert transcript.follow


async def test_a_chosen_message_is_corrected_with_f(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await ask(pilot, LONG)
        pilot.app.chat.transcript.focus()
        await pilot.press("up", "up", "f")
        await settle(pilot)
        dialog = pilot.app.screen
        assert dialog.turn.question == QUESTION
        assert "The later question will leave" in screen_text(pilot)


async def test_retry_asks_the_last_question_again(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        pilot.app.chat.transcript.focus()
        gate = pilot.app.assistant.hold("token", 3)
        await pilot.press("r")
        await reach(pilot, gate)
        assert texts(pilot) == [QUESTION, "The capital"]
        gate.open()
        await settle(pilot)
        assert texts(pilot) == [QUESTION, ANSWERS[QUESTION]]
        assert ("retry",) in pilot.app.assistant.calls


async def test_copy_does_not_claim_more_than_it_knows(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        pilot.app.chat.transcript.focus()
        await pilot.press("c")
        for _ in range(100):
            await pilot.pause(0.01)
            if pilot.app._notifications:
                break
        assert pilot.app.clipboard == ANSWERS[QUESTION]
        (note,) = pilot.app._notifications
        assert "cannot be verified" in note.message


async def test_escape_stops_then_closes_then_leaves_then_does_nothing(opened: Opened) -> None:
    async with opened((80, 24)) as pilot:
        app = pilot.app
        await ask(pilot)
        await pilot.press("f6")
        gate = app.assistant.hold("token", 4)
        await ask(pilot, LONG, wait=False)
        await reach(pilot, gate)
        app.chat.composer.set_text("/un")
        await pilot.pause()
        assert app.chat.composer.popup_open
        await pilot.press("escape")  # 1: the work
        await settle(pilot)
        assert app.assistant.turns[-1].stopped == "cancelled"
        assert app.chat.composer.popup_open
        await pilot.press("escape")  # 2: what is open
        assert not app.chat.composer.popup_open
        assert app.chat.pane == "edit"
        await pilot.press("escape")  # 3: the mode
        assert app.chat.pane == "chat"
        await pilot.press("escape")
        assert app.is_running


async def test_control_c_stops_and_twice_when_idle_quits(opened: Opened) -> None:
    async with opened() as pilot:
        app = pilot.app
        gate = app.assistant.hold("token", 3)
        await ask(pilot, LONG, wait=False)
        await reach(pilot, gate)
        await pilot.press("ctrl+c")
        await settle(pilot)
        assert app.assistant.turns[-1].stopped == "cancelled"
        await pilot.press("ctrl+c")
        assert app._exit is False
        await pilot.press("ctrl+c")
        assert app.return_code == 0


async def test_the_log_pane_has_the_engine_s_lines(opened: Opened) -> None:
    async with opened() as pilot:
        await ask(pilot)
        await fix(pilot)
        await settle(pilot)
        await pilot.press("f6")
        await settle(pilot)
        lines = [line for line, _ in pilot.app.chat.log_pane.texts]
        assert any(line.startswith("step 20/20") for line in lines)
        assert any("subject: 'Australia'" in line for line in lines)
        assert pilot.app.chat.pane == "log"


async def test_a_failing_load_leaves_with_its_exit_code(opened: Opened, monkeypatch) -> None:
    from scripted import ScriptedAssistant

    from engine.errors import ModelUnavailable

    def broken(self):  # type: ignore[no-untyped-def]
        yield from ()
        raise ModelUnavailable("gpt-j is not here.", "Name a local folder.")

    monkeypatch.setattr(ScriptedAssistant, "_load", broken)
    async with opened(wait=False) as pilot:
        for _ in range(100):
            await pilot.pause(0.02)
            if pilot.app._exit:
                break
        assert pilot.app.return_code == 3
        assert pilot.app.farewell == "llm-edit: gpt-j is not here. Name a local folder."


async def test_what_is_selected_is_what_was_said(opened: Opened) -> None:
    """Neither who said it nor how long it took."""
    async with opened() as pilot:
        await ask(pilot)
        screen = pilot.app.screen
        screen.selections = dict.fromkeys(screen.query(MessageView), SELECT_ALL)
        assert (screen.get_selected_text() or "").split("\n") == [QUESTION, ANSWERS[QUESTION]]
