"""What a method says before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config import HParams
from ..events import EditPlanned
from ..tokens import Rendered, last_token, target_ids

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request


def planned(
    lm: LM,
    requests: Sequence[Request],
    prompts: Sequence[Sequence[Rendered]],
    texts: tuple[str, ...],
    sites: tuple[str, ...],
    hp: HParams,
    name: str,
) -> EditPlanned:
    """The plan of an edit; of several facts the first is shown.

    prompts  per fact the bare one, then one per context
    texts    the contexts
    """
    request, bare = requests[0], prompts[0][0]
    at = last_token(bare, request.subject) if request.subject else len(bare.ids) - 1
    return EditPlanned(
        edit="",
        method=name,
        prompt=bare.text,
        subject=request.subject,
        target=lm.tokenizer.decode(target_ids(lm.tokenizer, bare, request.target_new)),
        old=request.target_old,
        sites=sites,
        steps=getattr(hp, "steps", 0),
        subject_token=lm.tokenizer.decode([bare.ids[at]]),
        subject_position=at,
        contexts=texts,
        hparams=hp.to_json(),
    )
