"""Opening a chat: its record, its model, and the edits that were made before."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from engine import catalog, methods
from engine.errors import BadInput, MissingResource, UnknownName
from engine.events import Event, Loaded, Note
from sessions.rows import EditRow, Session

from .narrate import count
from .options import DEFAULT_METHOD, DEFAULT_MODEL
from .recorder import Recorder
from .timeline import Turn, turns_at

if TYPE_CHECKING:
    from engine.edit import Edit
    from engine.ledger import Ledger
    from engine.lm import LM
    from sessions.store import Store

    from .options import Options

log = logging.getLogger(__name__)


class Opening:
    """The steps from options to a chat: `record`, then `load`. The engine's thread only."""

    recorder: Recorder
    lm: LM
    ledger: Ledger

    def __init__(self, options: Options) -> None:
        self.options = options
        self.turns: list[Turn] = []
        self.model = ""
        self.method = ""
        self.dtype = ""
        self.load_in = ""
        self.device_map = ""
        self._session: Session | None = None

    def record(self) -> Generator[Event, None, None]:
        """Open the store, name what was interrupted, read the session to go on with.

        Nothing slow happens here: an unknown session or method is said, and what was said
        before is there, before a model is loaded. Raises SessionError, UnknownName, BadInput.
        """
        options = self.options
        if options.method:
            methods.get(options.method)
        named = model_name(options.model) if options.model else ""
        self.recorder = Recorder(options.home)
        store = self.recorder.store
        if store is not None:
            for edit in store.interrupted():
                yield Note(text=interruption(edit, store))
            self._session = self._chosen(store, named or DEFAULT_MODEL)
            if self._session is not None and not options.reuse:
                self.recorder.resume(self._session)  # `load` finds out whether it fits the model
                self.turns = turns_at(store, self._session.id)
        self._placed()
        row = self._session.model if self._session else None
        self.model = named or (where(row.name, row.source) if row else DEFAULT_MODEL)
        self.method = options.method or (self._session.method if self._session else DEFAULT_METHOD)

    def _chosen(self, store: Store, model: str) -> Session | None:
        options = self.options
        if options.session is not None:
            return store.session(options.session)
        if options.resume_last:
            found = store.latest_session(model_name(options.model) if options.model else None)
            if found is None:
                raise BadInput("there is no session to continue.", "Leave out --continue.")
            return found
        return store.latest_session(model) if options.reuse else None

    def _placed(self) -> None:
        """How the weights are held: as is asked for, else as they were in the session.

        Raises BadInput for a session that was made with weights held otherwise.
        """
        options = self.options
        self.dtype = options.dtype
        self.load_in = options.load_in.replace("none", "")
        self.device_map = options.device_map
        if self._session is None:
            return
        info = self._session.model.info
        recorded = str(info.get("load_in", ""))
        if options.load_in and self.load_in != recorded:
            if options.reuse and options.session is None:
                self._session = None  # another model than that session's: begin anew
                return
            name = self._session.title or self._session.short
            raise BadInput(
                f"session {name} was made with --load-in {recorded or 'none'}: its edits do not "
                "fit the same model held otherwise.",
                "Leave out --load-in, or begin a new session.",
            )
        self.load_in = recorded
        if options.dtype == "auto":  # which another machine may take for another one
            self.dtype = self._session.model.dtype
        if options.device == "auto" and not options.device_map:
            self.device_map = str(info.get("device_map", ""))

    def load(self) -> Generator[Event, None, Loaded]:
        """Load the model and apply the session's edits; the tip's fingerprint must come out.

        Raises what `LM.load` raises, BadInput (another model), CorruptTensors.
        """
        from engine.ledger import Ledger
        from engine.lm import LM

        loaded: Loaded | None = None
        loading = LM.load(
            self.model,
            dtype=self.dtype,
            device=self.options.device,
            device_map=self.device_map,
            load_in=self.load_in,
        )
        while True:
            try:
                event = next(loading)
            except StopIteration as stop:
                self.lm = stop.value
                break
            loaded = event if isinstance(event, Loaded) else loaded
            yield event
        assert loaded is not None, "loading ends with Loaded"
        self.ledger = Ledger()
        session = self._session
        if session is not None and self._fits(session):
            yield from self._resume(session)
        else:
            self.recorder.begin(self._create)
        return loaded

    def _fits(self, session: Session) -> bool:
        """Whether the session was made with the model that is loaded now."""
        if session.model.fingerprint == self.lm.fingerprint:
            return True
        if self.options.reuse and self.options.session is None:
            return False  # the files behind this name have changed: begin anew
        raise BadInput(
            f"session {session.title or session.short} was made with another model "
            f"({session.model.name}, {session.model.source}).",
            "Its edits do not fit this one: leave out --model, or begin a new session.",
        )

    def _resume(self, session: Session) -> Generator[Event, None, None]:
        self.recorder.resume(session)
        store, _ = self.recorder.required()
        self.ledger = ledger_at(store, session)
        self.turns = turns_at(store, session.id)
        name = session.title or session.short
        turns, edits = count(len(self.turns), "turn"), count(len(self.ledger.acting), "edit")
        yield Note(text=f"session {name}: {turns}, {edits} applied")

    def _create(self, store: Store) -> Session:
        lm = self.lm
        model = store.add_model(
            lm.name,
            lm.source,
            lm.fingerprint,
            str(lm.dtype).removeprefix("torch."),
            lm.arch.model_type,
            {
                "layers": lm.n_layers,
                "width": lm.width,
                "chat": lm.chat,
                "load_in": lm.load_in,
                "device_map": self.device_map,
            },
        )
        return store.create_session(model, method=self.method)


def model_name(name: str) -> str:
    """A name that means the same in any working directory: a local path becomes absolute.

    Raises UnknownName, ModelUnavailable.
    """
    source = catalog.resolve_model(name)
    local = source.kind in ("folder", "gguf") and name not in catalog.aliases()
    return source.place if local else name


def where(name: str, source: str) -> str:
    """What to load for a recorded model: its name, or its source if the alias is gone."""
    try:
        catalog.resolve_model(name)
    except UnknownName:
        return source
    return name


def interruption(edit: EditRow, store: Store) -> str:
    """One sentence about an edit whose process ended before it did."""
    subject = edit.request.get("subject") or edit.request.get("prompt", "")
    target = edit.request.get("target_new", "")
    session = store.session(edit.session)
    return (
        f"An edit of {subject!r} -> {target!r} was interrupted (process killed) in session "
        f"{session.title or session.short}; nothing of it is applied. "
        "Make it again if it is wanted."
    )


def ledger_at(
    store: Store, session: Session, node: str | None = None, known: Iterable[Edit] = ()
) -> Ledger:
    """The edits in force at a node (default: the tip), and those that can be redone there.

    known  edits that are in memory already
    Raises SessionError, CorruptTensors; MissingResource when they are not what was recorded.
    """
    from engine.ledger import Ledger

    have = {edit.id: edit for edit in known}

    def loaded(row: EditRow) -> Edit:
        from engine.edit import Edit

        return have.get(row.id) or Edit.load(row.body, store.tensors(row))

    ledger = Ledger(
        [loaded(row) for row in store.active_edits(session.id, node)],
        [loaded(row) for row in store.undone_edits(session.id, node)],
    )
    path = store.path(session.id, node)
    if path and path[-1].ledger_hash != ledger.fingerprint():
        raise MissingResource(
            f"session {session.title or session.short} does not come out as it was left.",
            "Its record was changed from outside; restore a copy of the folder.",
        )
    return ledger
