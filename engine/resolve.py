"""Solving the closed-form edits of a ledger again, all together.

Edits made one after the other were each solved in the presence of those before it, and moved
the earlier ones' keys a little; where one of those is dropped, what the later ones relied on is
gone. From the keys that their patches keep, and where those were to go from the unedited map, one
system per site gives every fact what it asked for at once (engine/joint.py). Facts that are
not said even then can be inserted anew beside the others (`again`): what they asked for, they asked
of a model that is another by now. Or what all of them are moved by is fitted together (`fit`).

The outcome is an edit like any other, which supersedes those it was made from: undo takes it
off, and they act again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from . import alarms
from .batch import ask_all, judged, said_all, said_metric, verdict_of
from .config import COMMAND_LINE, Source, as_texts, build
from .correct import hparams_of, method_of
from .edit import Edit, new_id
from .errors import BadRequest, EditFailed
from .evaluate.probes import fluency, prose
from .events import EditPlanned, Event, Finding, Metric, Note
from .fitting import FitParams, fitted
from .joint import JointParams, sites_of, solved_again
from .ledger import RESOLVED, Ledger
from .methods import MethodInfo
from .outcome import Clock, Outcome, concluded, provenance_of
from .patches import LowRank, Patch

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request

SHOWN = 8  # facts named in the log and on the screen

NOT_SAID = (
    "What is not said can be inserted anew beside the others: "
    "/resolve 2, or llm-edit resolve --again 2. Many facts can be fitted together: "
    "/resolve fit, or llm-edit resolve --fit 100."
)

Insert = Callable[[Sequence["Request"]], Generator[Event, None, list[Edit]]]  # not in the ledger


@dataclass(frozen=True, kw_only=True)
class ResolveParams(FitParams, JointParams):
    """How facts are solved again, and what is done for those that are not said even then."""

    again: int = 0  # rounds in which facts that are not said are inserted anew ...
    method: str = "memit"  # ... with this method, set as for its last edit or for the model

    def __post_init__(self) -> None:
        FitParams.__post_init__(self)
        JointParams.__post_init__(self)
        if self.again < 0:
            raise ValueError("'again' must not be below 0.")


def resolvable(ledger: Ledger) -> tuple[Edit, ...]:
    """The acting edits that can be solved again: every patch kept what it was solved for."""
    return tuple(
        edit
        for edit in ledger.acting
        if edit.patches
        and all(isinstance(p, LowRank) and p.moves is not None for p in edit.patches)
    )


def require(count: int, hp: ResolveParams) -> None:
    """So many edits are enough. Raises BadRequest."""
    needed, in_words = (1, "one") if hp.again or hp.fit else (2, "two")
    if count < needed:
        raise BadRequest(
            f"{count} of the acting edits can be solved again; it takes {in_words}.",
            "Methods with a closed form keep what that needs: see docs/closed-form.md.",
        )


def resolve(
    lm: LM,
    ledger: Ledger,
    *,
    overrides: Mapping[str, str] | None = None,
    seed: int = 0,
    edit_id: str = "",
) -> Generator[Event, None, Outcome]:
    """One edit in place of all that are `resolvable`, in the ledger when this returns.

    Its facts are asked before and after. Raises BadRequest when fewer than two edits can be
    solved again (one is enough where facts are to be inserted anew or fitted), BadSetting,
    SingularCovariance, EditFailed.
    """
    clock = Clock()
    given = Source(COMMAND_LINE, overrides or {})
    hp, sources = build(ResolveParams, [given], n_layers=lm.n_layers)
    replaced = resolvable(ledger)
    require(len(replaced), hp)
    edits = standing(ledger)
    if left := sum(len(e.requests) for e in replaced) - sum(len(e.requests) for e in edits):
        yield Note(text=f"left out, since they were corrected after their batch: {left}")
    if not edits:
        raise BadRequest("later edits answer every fact of those that can be solved again.")
    requests = [request for edit in edits for request in edit.requests]
    insert = _insert(lm, ledger, requests[0], hp, seed) if hp.again else None
    sites, made = sites_of(edits), edit_id or new_id()
    yield _planned(made, edits, sites, hp)
    yield _told(requests, edits, sites)
    with lm.active(ledger.patches()):
        before = yield from ask_all(lm, requests)
        perplexity = fluency(lm)
        clock.lap("probes")
    edit = yield from renewed(lm, ledger, edits, insert, hp)
    provenance = provenance_of(lm, edit, sources, seed)
    edit = dataclasses.replace(edit, id=made, provenance=provenance)
    clock.lap("edit")
    with lm.active(Ledger((*ledger.edits, edit)).patches()):
        answers = yield from ask_all(lm, requests)
        now = fluency(lm)
        warnings = alarms.warnings(lm, lm.patches, now)
    clock.lap("probes")
    facts = judged(requests, before, answers)
    if not (hp.again or hp.fit or all(fact.success for fact in facts)):
        warnings.append(NOT_SAID)
    metrics = [
        said_metric(facts),
        Metric(name="fluency", before=perplexity, after=now, n=len(prose())),
    ]
    verdict = " ".join([verdict_of(facts, "answered as wanted"), *warnings])
    return (yield from concluded(lm, ledger, edit, facts, verdict, metrics, clock))


def standing(ledger: Ledger) -> list[Edit]:
    """The resolvable edits without those of their facts that a later edit answers otherwise.

    An edit whose facts cannot be told apart keeps them all.
    """
    later: set[Any] = set()
    found: list[Edit] = []
    solvable = {edit.id for edit in resolvable(ledger)}
    for edit in reversed(ledger.acting):
        kept = [i for i, request in enumerate(edit.requests) if request.key() not in later]
        later.update(request.key() for request in edit.requests)
        if edit.id not in solvable or not kept:
            continue
        whole = len(kept) == len(edit.requests) or not edit.row_each
        found.append(edit if whole else _part(edit, kept))
    return found[::-1]


def _beside(ledger: Ledger) -> list[Patch]:
    """The patches that go on acting beside what is solved again."""
    solvable = {edit.id for edit in resolvable(ledger)}
    return [patch for edit in ledger.acting if edit.id not in solvable for patch in edit.patches]


def renewed(
    lm: LM, ledger: Ledger, edits: Sequence[Edit], insert: Insert | None, hp: ResolveParams
) -> Generator[Event, None, Edit]:
    """One edit in place of all of the ledger's that are `resolvable`: solved, sought and fitted.

    edits   what is to be said of them: see `standing`
    insert  how facts that are not said are inserted anew; None: they are not
    Raises SingularCovariance, EditFailed, BadSetting.
    """
    beside = _beside(ledger)
    edit = yield from solved_again(lm, edits, hp, beside)
    edit = dataclasses.replace(edit, supersedes=tuple(e.id for e in resolvable(ledger)))
    edit = yield from sought_again(lm, ledger, edit, insert, hp)
    if hp.fit:
        with lm.active(beside):
            edit = yield from fitted(lm, edit, hp)
    return edit


def sought_again(
    lm: LM, ledger: Ledger, edit: Edit, insert: Insert | None, hp: ResolveParams
) -> Generator[Event, None, Edit]:
    """`edit`, which `solved_again` made of edits of `ledger`, after up to `hp.again` rounds.

    In a round those of its facts that are not said are inserted anew in the presence of the others,
    and all are solved again. The outcome is that of the round after which most are said.
    """
    if insert is None:
        return edit
    best, most = edit, -1
    for left in range(hp.again, -1, -1):
        with lm.active(Ledger((*ledger.edits, edit)).patches()):
            said = yield from said_all(lm, edit.requests)
        if sum(said) > most:
            best, most = edit, sum(said)
        if all(said) or not left:
            break
        if not edit.row_each:
            yield Note(text="facts that were asked for at different places cannot be parted.")
            break
        kept = _part(edit, [i for i, done in enumerate(said) if done])
        lost = [r for r, done in zip(edit.requests, said, strict=True) if not done]
        try:
            with lm.active(Ledger((*ledger.edits, kept)).patches()):
                new = yield from insert(lost)
            solved = yield from solved_again(lm, [kept, *new], hp, beside=_beside(ledger))
        except EditFailed as failed:
            yield Note(text=f"not inserted anew: {failed}")
            break
        solved = _in_order(solved, edit.requests)
        edit = dataclasses.replace(solved, id=edit.id, supersedes=edit.supersedes)
    return best


def _insert(lm: LM, ledger: Ledger, request: Request, hp: ResolveParams, seed: int) -> Insert:
    """As the last edit by the method was made; where there is none, as it is set for the model."""
    info = method_of(lm, request, hp.method)
    made = [edit.hparams for edit in ledger.edits if edit.method == info.name]
    own, _ = hparams_of(lm, info, as_texts(made[-1]) if made else {}, seed)
    return partial(inserted, lm, info=info, hp=own)


def inserted(
    lm: LM, requests: Sequence[Request], info: MethodInfo, hp: Any
) -> Generator[Event, None, list[Edit]]:
    """Edits of facts on the model as it is: one of all, or each on top of those before it."""
    groups = [list(requests)] if info.batch else [[request] for request in requests]
    made: list[Edit] = []
    for group in groups:
        with lm.active(patch for edit in made for patch in edit.patches):
            made.append((yield from info.run()(lm, group, hp)))
    return made


def _in_order(edit: Edit, requests: Sequence[Request]) -> Edit:
    """The edit with its facts as `requests` has them."""
    if not edit.row_each:
        return dataclasses.replace(edit, requests=tuple(requests))
    at = {request: i for i, request in enumerate(edit.requests)}
    return _part(edit, [at[request] for request in requests])


def _part(edit: Edit, facts: Sequence[int]) -> Edit:
    """The edit with these of its facts alone."""
    patches = []
    for patch in edit.patches:
        assert isinstance(patch, LowRank)
        assert patch.keys is not None
        assert patch.moves is not None
        A, moves = patch.A[:, facts], patch.moves[:, facts]
        patches.append(LowRank(patch.site, A, patch.B[facts], patch.keys[facts], moves))
    requests = tuple(edit.requests[i] for i in facts)
    return dataclasses.replace(edit, requests=requests, patches=tuple(patches))


def _planned(
    edit: str, edits: Sequence[Edit], sites: tuple[str, ...], hp: ResolveParams
) -> EditPlanned:
    return EditPlanned(
        edit=edit,
        method=RESOLVED,
        prompt=f"{_edits(edits)}, solved again together",
        subject=None,
        target="",
        old=None,
        sites=sites,
        steps=hp.fit,
        subject_token="",
        subject_position=-1,
        contexts=(),
        hparams=hp.to_json(),
    )


def _edits(edits: Sequence[Edit]) -> str:
    return "1 edit" if len(edits) == 1 else f"{len(edits)} edits"


def _told(requests: Sequence[Request], edits: Sequence[Edit], sites: tuple[str, ...]) -> Finding:
    """What is solved again. The facts are no numbers: their rows have none."""
    left = len(requests) - SHOWN
    facts = [f"{request.prompt} → {request.target_new}" for request in requests[:SHOWN]]
    return Finding(
        name="facts",
        title="Solved again",
        text=f"{len(requests)} facts of {_edits(edits)}, at {', '.join(sites)}",
        rows=tuple(
            {"label": label, "value": None}
            for label in (*facts, *([f"and {left} more"] if left > 0 else []))
        ),
    )
