"""Ids, owners, JSON: the parts without a database."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions import codec, ids, owner


def test_ids_sort_by_the_order_they_were_made() -> None:
    made = [ids.new_ulid() for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == 5000
    assert {len(i) for i in made} == {26}
    assert set("".join(made)) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def test_an_id_begins_with_the_time() -> None:
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    value = 0
    for letter in ids.new_ulid()[:10]:
        value = value * 32 + digits.index(letter)
    assert abs(value / 1000 - time.time()) < 60


def test_ids_rise_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_ulid()
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert ids.new_ulid() > first


def test_ids_from_many_threads_differ() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(ids.new_ulid() for _ in range(500)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4000


def test_a_forked_child_does_not_continue_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5e9)
    parent = ids.new_ulid()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    child = ids.new_ulid()
    monkeypatch.undo()
    monkeypatch.setattr(ids, "_last", (0, 0))  # the clock above was in the future
    assert parent[:10] == child[:10]
    assert parent[10:20] != child[10:20]


def test_this_process_is_alive() -> None:
    assert owner.is_alive(owner.current())


def test_a_later_process_with_the_same_number_is_another() -> None:
    pid, _, start = owner.current().partition("@")
    assert not owner.is_alive(f"{pid}@{float(start) - 60}")


def test_an_ended_process_is_not_alive_even_before_it_is_waited_for() -> None:
    code = "import sessions.owner as o; print(o.current(), flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    with process:
        assert process.stdout is not None
        told = process.stdout.readline().strip()
        assert owner.is_alive(told)
        process.kill()
        deadline = time.monotonic() + 10
        while owner.is_alive(told) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not owner.is_alive(told)  # a zombie until the block ends
    assert not owner.is_alive(told)


@pytest.mark.parametrize("nonsense", ["", "x@y", "12", "12@None", "-5@1", "999999999@1.0"])
def test_an_owner_that_makes_no_sense_is_not_alive(nonsense: str) -> None:
    assert not owner.is_alive(nonsense)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text().filter(lambda k: k != "float"), inner)
    ),
    max_leaves=10,
)


@given(_VALUES)
def test_json_round_trip(value: object) -> None:
    text = codec.dumps(value)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert repr(codec.loads(text)) == repr(value)  # repr: NaN equals itself


def test_numbers_that_are_not_finite_are_encoded_as_in_events() -> None:
    assert json.loads(codec.dumps({"loss": math.nan})) == {"loss": {"float": "nan"}}
    assert codec.loads('{"p": {"float": "-inf"}}') == {"p": -math.inf}
    assert codec.loads('{"float": "soft"}') == {"float": "soft"}


def test_lone_surrogates_are_replaced() -> None:
    assert codec.clean("caf\udce9") == "caf?"
    assert codec.dumps("caf\udce9") == '"caf?"'
