"""The player: every way to a position shows the same, and time passes as the clock says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import LONG, SYDNEY, TOWER, recording
from scripted import Clock

from engine.events import EditPlanned, ReplyEnded, Token
from tui.player import PAUSE, Player
from tui.tape import Tape, tape


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Tape:
    return tape(recording(tmp_path_factory.mktemp("busy")))


class Played:
    """The stage at every position, by playing on from the beginning."""

    def __init__(self, tape: Tape) -> None:
        player = Player(tape)
        self.stages = [player.stage()]
        for position in range(1, len(player.moments) + 1):
            player.seek(position)
            self.stages.append(player.stage())


@pytest.fixture(scope="module")
def played(busy: Tape) -> Played:
    return Played(busy)


def test_seeking_somewhere_shows_what_playing_there_shows(busy: Tape, played: Played) -> None:
    for position, stage in enumerate(played.stages):
        player = Player(busy)
        player.seek(position)
        assert player.stage() == stage, position


def test_backwards_shows_the_same_as_forwards(busy: Tape, played: Played) -> None:
    player = Player(busy)
    for position in reversed(range(len(played.stages))):
        player.seek(position)
        assert player.stage() == played.stages[position], position


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), st.integers(-3, 400)),
        st.tuples(st.just("seek_seconds"), st.floats(-5, 80)),
        st.tuples(st.just("step"), st.sampled_from([-1, 1])),
        st.tuples(st.just("step_edit"), st.sampled_from([-1, 1])),
        st.tuples(st.just("wait"), st.floats(0, 20)),
        st.tuples(st.just("set_speed"), st.sampled_from([0.25, 1.0, 8.0])),
        st.just(("play",)),
        st.just(("stop",)),
        st.just(("look",)),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@given(moves=MOVES)
def test_whatever_was_done_the_stage_is_that_of_the_position(
    busy: Tape, played: Played, moves: list[tuple]
) -> None:
    clock = Clock()
    player = Player(busy, clock.monotonic)
    for name, *arguments in moves:
        if name == "wait":
            clock.advance(*arguments)
            player.tick()
        elif name == "look":
            player.stage()
        else:
            getattr(player, name)(*arguments)
        assert 0 <= player.position <= len(player.moments)
        assert 0 <= player.seconds <= player.length
        assert sum(m.at <= player.seconds for m in player.moments) >= player.position or (
            not player.playing
        )
    assert player.stage() == played.stages[player.position]


def test_events_back_and_forth_are_the_same_places(busy: Tape) -> None:
    player = Player(busy)
    places = [0]
    while not player.ended:
        player.step(1)
        places.append(player.position)
    assert len(places) < len(player.moments), "pieces of answers are no places to stop at"
    back = [player.position]
    while player.position:
        player.step(-1)
        back.append(player.position)
    assert back == places[::-1]
    kinds = {player.moments[p - 1].kind for p in places[1:]}
    assert kinds == {"begin", "event", "end"}


def test_from_the_middle_of_an_answer_an_event_is_a_step_away(busy: Tape) -> None:
    player = Player(busy)
    token = next(i for i, m in enumerate(player.moments, start=1) if m.kind == "token")
    player.seek(token + 2)
    player.step(1)
    assert isinstance(player.moments[player.position - 1].event, ReplyEnded)
    player.seek(token + 2)
    player.step(-1)
    assert player.moments[player.position - 1].kind == "begin"


def test_edits_are_reached_one_by_one(busy: Tape) -> None:
    player = Player(busy)
    numbers = []
    while not player.ended:
        player.step_edit(1)
        act = player.act
        assert act is not None
        numbers.append(act.number if not player.ended else "end")
    assert numbers == [1, 2, 3, 4, 5, "end"]
    player.step_edit(-1)
    assert player.act is not None
    assert player.act.number == 5
    for _ in range(5):
        player.step_edit(-1)
    assert player.position == 0


def test_time_passes_with_the_clock_and_the_speed(busy: Tape) -> None:
    clock = Clock()
    player = Player(busy, clock.monotonic)
    assert not player.tick(), "it does not run by itself"
    player.play()
    clock.advance(0.75)
    assert player.tick()
    assert player.seconds == pytest.approx(0.75)
    assert 0 < player.position < len(player.moments)
    assert all(m.at <= 0.75 for m in player.moments[: player.position])
    assert player.moments[player.position].at > 0.75
    player.set_speed(4.0)
    clock.advance(1.0)
    assert player.seconds == pytest.approx(4.75)
    player.stop()
    clock.advance(100)
    assert not player.tick()
    assert player.seconds == pytest.approx(4.75)
    player.play()
    clock.advance(1e6)
    assert player.tick()
    assert player.ended
    assert not player.playing, "it stops at the end"
    player.play()
    assert player.position == 0, "and begins anew"


def test_a_speed_is_above_zero(busy: Tape) -> None:
    for speed in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above 0"):
            Player(busy).set_speed(speed)


def test_waiting_is_shortened_and_work_is_not(busy: Tape) -> None:
    player = Player(busy)
    began = {m.act: m.at for m in player.moments if m.kind == "begin"}
    ended = {m.act: m.at for m in player.moments}
    for index in range(1, len(busy.acts)):
        assert began[index] - ended[index - 1] <= PAUSE + 1e-9
    first = busy.acts[1]
    assert ended[1] - began[1] == pytest.approx(first.events[-1].t)
    assert first.waited > 100
    assert player.length < 60, "a day of waiting is in the recording"


def test_moments_never_go_back_in_time(busy: Tape) -> None:
    times = [m.at for m in Player(busy).moments]
    assert times == sorted(times)


def test_answers_are_said_word_by_word_and_come_out_whole(busy: Tape) -> None:
    player = Player(busy)
    for index, act in enumerate(busy.acts):
        said = "".join(
            m.event.text
            for m in player.moments
            if m.act == index and m.kind == "token" and isinstance(m.event, Token)
        )
        if act.answer is not None:
            assert said == act.answer.text, act.kind


def test_what_is_on_the_stage_while_an_edit_runs(busy: Tape) -> None:
    player = Player(busy)
    planned = next(
        i for i, m in enumerate(player.moments, start=1) if isinstance(m.event, EditPlanned)
    )
    player.seek(planned + 5)
    stage = player.stage()
    assert stage.doing == "editing"
    assert [turn.answer for turn in stage.turns] == [SYDNEY]
    assert [edit.state for edit in stage.edits] == ["running"]
    assert stage.edit is not None
    assert (stage.edit.number, len(stage.edit.steps), stage.edit.running) == (1, 5, True)


def test_the_end_says_what_became_of_everything(played: Played) -> None:
    last = played.stages[-1]
    texts = [said.text for said in last.said]
    assert texts == [
        "Edit #1 · Changed and kept: 10 of 10 neighbours answer as before.",
        f"Edit #1 undone, exactly. The answer is now: {SYDNEY}",
        "Edit #1 put back. The answer is now: Canberra",
        "the target equals the present answer ('Seattle').",
        "the loss diverged. Lower lr.",
        "Edit #3 was stopped. Nothing was changed.",
        "Edit #4: it was interrupted: the process ended before it did. Nothing of it was applied.",
        f"Edit #5 · Not changed: the model says {TOWER!r}, not 'Paris' (P(new) 0.55).",
        "Edit #5 dropped, exactly.",
    ]
    assert [said.tone for said in last.said][3:7] == ["bad", "bad", "info", "bad"]
    assert last.turns[-1].stopped == "cancelled"
    assert LONG in [turn.question for turn in last.turns]
    assert last.reply is None
    assert last.doing == ""


def test_the_log_ends_where_the_replay_stands(busy: Tape) -> None:
    player = Player(busy)
    player.seek(len(player.moments))
    lines = player.log(10_000)
    assert lines[-1:] == player.log(1)
    assert any(line.startswith("step  1/12  loss") for line in lines)
    player.seek(0)
    assert player.log(10) == []
