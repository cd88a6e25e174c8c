"""Which edits had a part in an answer: which patches fire on it, and what each is worth to it.

Two measurements of every edit that acts, with the prompt and the answer as they stand:

    fires     max over the positions read of ‖Bx‖ / ‖Bk*‖, where x is what the edited matrix
              reads at that position and k* what it reads on the edit's own question
    moves     log P(answer | all edits) − log P(answer | all but this one), in nats

The first says whether the patch takes notice of the text, the second whether that matters.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import hooks
from .errors import SubjectAmbiguous, SubjectNotFound
from .evaluate.metrics import scores
from .events import Event, Loading
from .patches import LowRank
from .tokens import Rendered, last_token

if TYPE_CHECKING:
    from .edit import Edit
    from .lm import LM
    from .requests import Request


@dataclass(frozen=True)
class Influence:
    """One edit's part in one answer.

    edit       its id
    firing     per position of prompt and answer: ‖Bx‖ relative to the edit's own key, the
               largest over its patches; empty for patches without keys. Of an encoder-decoder
               per position of the prompt, which is what its encoder reads
    position   where it is largest, -1 where there is none
    token      the text of the token there
    with_it    log P(answer) with every edit, in nats, summed over the answer's `tokens`
    without    the same with every edit but this one
    """

    edit: str
    firing: tuple[float, ...]
    position: int
    token: str
    with_it: float
    without: float
    tokens: int

    @property
    def fires(self) -> float:
        """The largest of `firing`; NaN where the patches have no keys."""
        return max(self.firing, default=math.nan)

    @property
    def moves(self) -> float:
        """Nats by which the edit makes the whole answer likelier (less likely: negative)."""
        return self.with_it - self.without


def influences(
    lm: LM, edits: Sequence[Edit], prompt: Rendered, answer: Sequence[int]
) -> Generator[Event, None, tuple[Influence, ...]]:
    """The part of each of these edits in an answer, in their order.

    edits   those that act on the model when it is asked
    answer  ids of the answer, its ending included where it ended by itself
    Yields Loading before each edit: a job can be stopped there. Leaves nothing in the model.
    """
    total = len(edits)
    if not edits:
        return ()
    yield Loading(stage="influence", done=0, total=total, unit="edits")
    every = [patch for edit in edits for patch in edit.patches]
    # The last token is predicted, never read.
    row = prompt.ids if lm.encoder_decoder else (*prompt.ids, *answer[:-1])
    with lm.active(every):
        read = _inputs(lm, row, [patch.site for patch in every])
        with_it = _log_p(lm, prompt, answer)
    found = []
    for done, edit in enumerate(edits, start=1):
        others = [patch for other in edits if other is not edit for patch in other.patches]
        with lm.active(others):
            without = _log_p(lm, prompt, answer)
        with lm.active(every):
            firing = _firing(lm, edit, read)
        at = max(range(len(firing)), key=firing.__getitem__, default=-1)
        token = str(lm.tokenizer.decode([row[at]])) if at >= 0 else ""
        found.append(Influence(edit.id, firing, at, token, with_it, without, len(answer)))
        yield Loading(stage="influence", done=done, total=total, unit="edits")
    return tuple(found)


def _log_p(lm: LM, prompt: Rendered, answer: Sequence[int]) -> float:
    """log P(answer | prompt) in nats, one sequence in a batch so that numbers compare."""
    (score,) = scores(lm, [(prompt.ids, answer)])
    return -score.nll * len(answer)


@torch.no_grad()
def _inputs(lm: LM, row: Sequence[int], sites: Sequence[str]) -> dict[str, Tensor]:
    """What each site reads, [t, in] float32; nothing for those of an encoder-decoder's decoder,
    whose rows are others."""
    names = tuple(dict.fromkeys(sites))
    if lm.encoder_decoder:
        names = tuple(name for name in names if name.startswith(f"{lm.arch.reader.blocks}."))
    if not names:
        return {}
    with hooks.capture(lm.model, *names, inputs=True, stop=True) as seen:
        lm.body(*lm.pack([row]))
    return {name: x.reshape(len(row), -1).float() for name, x in seen.items()}


def _firing(lm: LM, edit: Edit, read: dict[str, Tensor]) -> tuple[float, ...]:
    """‖Bx‖ / ‖Bk*‖ per position, the largest over the edit's patches."""
    keyed = [p for p in edit.patches if isinstance(p, LowRank) and p.site in read]
    if not keyed:
        return ()
    own = _own(lm, edit, keyed)
    rows = [
        (read[p.site] @ p.B.to(read[p.site]).T).norm(dim=1) / own[p.site].clamp_min(1e-12)
        for p in keyed
    ]
    return tuple(torch.stack(rows).amax(0).tolist())


def _own(lm: LM, edit: Edit, keyed: Sequence[LowRank]) -> dict[str, Tensor]:
    """Per site ‖Bk*‖, scalars: the largest over the edit's own questions."""
    found: dict[str, Tensor] = {}
    for request in edit.requests:
        prompt = lm.prompt(request.prompt, chat=request.chat)
        read = _inputs(lm, prompt.ids, [p.site for p in keyed])
        at = _lookup(prompt, request)
        for p in keyed:
            fired = (read[p.site] @ p.B.to(read[p.site]).T).norm(dim=1)  # [t]
            own = fired[at] if at is not None else fired.max()
            found[p.site] = torch.maximum(found.get(p.site, own), own)
    return found


def _lookup(prompt: Rendered, request: Request) -> int | None:
    """Where the edit's key was read: the last token of its subject, if it has one."""
    if request.subject is None:
        return None
    try:
        return last_token(prompt, request.subject)
    except (SubjectNotFound, SubjectAmbiguous):  # rendered otherwise than it was then
        return None
