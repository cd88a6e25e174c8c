"""Search, input history, events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessions import Store, UnknownNode

if TYPE_CHECKING:
    from conftest import Scribe


@pytest.fixture
def filled(scribe: Scribe) -> Store:
    session = scribe.session("capitals").id
    store = scribe.store
    store.add_message(session, "system", "You know about Ouagadougou")
    store.add_message(session, "user", "What is the capital of Côte d'Ivoire?")
    store.add_message(session, "assistant", "Abidjan is its largest city; 東京 is not.")
    scribe.begin(session, "edit-one", subject="Australia", target_old="Canberra")
    return store


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ("capital", ["fact", "question"]),
        ("COTE d'ivoire", ["question"]),
        ("largest abidjan", ["answer"]),
        ("largest city capital", []),
        ("abid", ["answer"]),
        ("bidjan", []),
        ("canberra", ["fact"]),
        ("melbourne australia", ["fact"]),
        ("東京", ["answer"]),
        ("Ouagadougou", []),
        ("", []),
        ("?!", []),
    ],
)
def test_what_is_found(filled: Store, words: str, kinds: list[str]) -> None:
    hits = filled.search(words)
    assert sorted(hit.kind for hit in hits) == kinds
    for hit in hits:
        assert hit.title == "capitals"
        assert hit.node in {node.id for node in filled.nodes(hit.session)}
        assert hit.snippet


@pytest.mark.parametrize("words", ['"', "a OR b", "NEAR(a b)", "text:", "*", "a-b", "'--"])
def test_nothing_in_the_words_is_an_operator(filled: Store, words: str) -> None:
    assert filled.search(words) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(words=st.text())
def test_any_words_can_be_looked_for(filled: Store, words: str) -> None:
    assert isinstance(filled.search(words), list)


def test_a_batch_is_found_by_each_of_its_facts(scribe: Scribe) -> None:
    requests = [{"prompt": "Rome is in", "target_new": "Spain"}, {"prompt": "Oslo is in"}]
    scribe.begin(scribe.session().id, "edit-one", requests=requests)
    assert [hit.kind for hit in scribe.store.search("oslo")] == ["fact"]
    assert [hit.kind for hit in scribe.store.search("spain")] == ["fact"]


def test_search_stops_at_the_limit(scribe: Scribe) -> None:
    session = scribe.session().id
    for i in range(5):
        scribe.store.add_message(session, "user", f"same words {i}")
    assert len(scribe.store.search("same words", limit=3)) == 3


def test_input_history_is_newest_first_each_once_over_all_sessions(scribe: Scribe) -> None:
    first, second = scribe.session().id, scribe.session().id
    for session, text in ((first, "one"), (second, "two"), (first, "three"), (second, "one")):
        scribe.store.add_message(session, "user", text)
        scribe.store.add_message(session, "assistant", "answer")
    assert scribe.store.input_history() == ["one", "three", "two"]
    assert scribe.store.input_history(limit=2) == ["one", "three"]


def test_events_come_back_in_order_and_as_they_were(scribe: Scribe) -> None:
    store, session = scribe.store, scribe.session().id
    node = scribe.begin(session, "edit-one")
    step = {"kind": "EditStep", "v": 1, "job": "2", "seq": 1, "t": 0.25}
    first = [{"kind": "Token", "v": 1, "job": "1", "seq": 0, "t": 0.1, "text": "Zürich"}]
    second = [{**step, "seq": 0}, {**step, "p_old": {"float": "nan"}}]
    store.add_events(session, None, "1", first)
    store.add_events(session, node.id, "2", second)
    store.add_events(session, None, "1", [])
    assert store.events(session) == first + second
    assert store.events(session, job="2") == second
    assert store.events(session, node=node.id) == second
    assert store.events(session, job="3") == []
    assert store.events(scribe.session().id) == []


def test_the_same_job_number_in_a_later_process_loses_nothing(scribe: Scribe) -> None:
    session = scribe.session().id
    event = {"kind": "Note", "seq": 0, "t": 0.0, "text": "x"}
    for _ in range(2):
        scribe.store.add_events(session, None, "1", [event])
    assert scribe.store.events(session, "1") == [event, event]


def test_a_batch_of_events_is_kept_whole_or_not_at_all(scribe: Scribe) -> None:
    session = scribe.session().id
    with pytest.raises(KeyError):
        scribe.store.add_events(
            session, None, "1", [{"kind": "Note", "seq": 0, "t": 0.0}, {"kind": "Note"}]
        )
    with pytest.raises(UnknownNode):
        scribe.store.add_events(session, "nothing", "1", [])
    assert scribe.store.events(session) == []
