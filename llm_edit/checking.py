"""Settings, checked before the minute that loading a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .common import stored

if TYPE_CHECKING:
    from engine.requests import Fact
    from sessions.rows import Session
    from sessions.store import Store
    from tui.options import Options


def check(wanted: Options, facts: Iterable[Fact] = ()) -> None:
    """The device is there, and the method takes the hyper-parameters; of `facts`, theirs do.

    Raises BadSetting, UnknownName, UnknownSession.
    """
    from engine.placing import check_device

    check_device(wanted.device)
    check_hp(wanted, facts)


def check_hp(wanted: Options, facts: Iterable[Fact] = ()) -> None:
    """See `check`. Imports torch only where there is something to check."""
    from tui.batch import settings

    named = [(fact.method, {**wanted.hp, **settings(fact)}) for fact in facts]
    check_each(wanted, named or [(None, wanted.hp)])


def check_each(wanted: Options, rows: Iterable[tuple[str | None, Mapping[str, str]]]) -> None:
    """Methods (None: that of `wanted`), each with its hyper-parameters."""
    from engine import config

    seen = []
    for method, hp in rows:
        if hp and (method, hp) not in seen:
            seen.append((method, hp))
            name = method or _method(wanted)
            if name is not None:
                config.check(name, hp)


def session_of(wanted: Options, store: Store) -> Session | None:
    """The session that `wanted` goes on with, if there is one. Raises UnknownSession."""
    from tui.opening import model_name

    if wanted.session is not None:
        return store.session(wanted.session)
    return store.latest_session(model_name(wanted.model) if wanted.model else None)


def check_resolve(wanted: Options, overrides: Mapping[str, str]) -> None:
    """The device is there, and so are settings and edits for `resolve`, as far as records tell.

    Raises BadSetting, BadRequest, UnknownName, UnknownSession.
    """
    from engine import methods
    from engine.config import COMMAND_LINE, Source, build
    from engine.placing import check_device

    with stored() as store:
        session = session_of(wanted, store)
        standing = store.active_edits(session.id) if session else []
        replaced = store.superseded(session.id) if session else {}
    check_device(wanted.device)
    from engine.resolve import ResolveParams, require

    hp, _ = build(ResolveParams, [Source(COMMAND_LINE, overrides)])
    if hp.again:
        methods.get(hp.method)
    require(len(standing) - len(replaced), hp)


def _method(wanted: Options) -> str | None:
    """The method of the command line, else of the session; None where that cannot be read."""
    from sessions.errors import StoreReadOnly
    from tui.options import DEFAULT_METHOD

    if wanted.method:
        return wanted.method
    try:
        with stored() as store:
            found = session_of(wanted, store)
    except StoreReadOnly:
        return None  # chat goes on, and says that it is not recorded
    return found.method if found else DEFAULT_METHOD
