"""Norm anchors: values as long as on the unedited model (Liu et al. 2026, arXiv:2602.02543).

Edits one after the other lengthen what an MLP puts out, a value is sought as a change of that, and
inserted it lengthens the MLP's matrix in turn. So every value, what the edited MLP (of several the
last) is to put out at the subject under the bare prompt, is rescaled:

    v* = m + δ,     v* ← v̄ v* / ‖v*‖

v̄ is the mean ‖v*‖ of sample facts, sought with the same settings on the model without edits, once;
the longest twentieth of them does not count. A fact with ‖v*‖ > 2 v̄ is not written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import contexts, measured
from .errors import BadSetting, EditFailed
from .events import Event, Loading, Note
from .paths import packaged
from .requests import Request
from .statistics import digest, kept_at
from .values import Value, ValueParams, optimise_values

if TYPE_CHECKING:
    from .lm import LM

SAMPLES = 20
LONGEST = 0.05  # of the samples, left out of the mean
TOO_LONG = 2.0  # times v̄


def anchored(
    lm: LM,
    requests: Sequence[Request],
    texts: tuple[str, ...],
    values: Sequence[Value],
    hp: ValueParams,
) -> Generator[Event, None, list[Value]]:
    """The values with their δ rescaled; with δ = 0 for facts that are not to be written.

    texts  the contexts that they were sought with
    Raises BadSetting for a model whose MLPs are followed by a norm; EditFailed where none of the
    facts is to be written.
    """
    if lm.arch.reader.post_mlp_norm is not None:
        raise BadSetting(
            "norm_anchor: a norm follows this model's MLPs, so that the length of a value says "
            "nothing.",
            "Leave it out.",
        )
    found = []
    for request, value in zip(requests, values, strict=True):
        norm = yield from reference(lm, texts, hp, chat=request.chat)
        m, v = _value(lm, value, hp)
        length = float(v.norm())
        delta = torch.zeros_like(value.delta)
        if length <= TOO_LONG * norm:
            delta = torch.cat([value.delta[: -len(m)], v * (norm / length) - m])
        else:
            yield Note(
                text=f"{request.prompt!r} is not written: ‖v*‖ is {length:.2f}, more than "
                f"{TOO_LONG:g} times what it is on the unedited model ({norm:.2f})"
            )
        found.append(dataclasses.replace(value, delta=delta))
    if not any(bool(value.delta.any()) for value in found):
        raise EditFailed(
            "no value is within twice the length that values have on the unedited model.",
            "It asks for more than others do, or edits before it have gone far: leave out "
            "norm_anchor, or undo some.",
        )
    return found


def reference(
    lm: LM, texts: tuple[str, ...], hp: ValueParams, *, chat: bool
) -> Generator[Event, None, float]:
    """v̄ of `hp` on the model without edits; measured once, and kept on disk.

    Yields Loading(stage="statistics").
    """
    settings = json.dumps(hp.to_json(), sort_keys=True)
    sites = hp.place(lm).sites(lm)  # which two methods with the same settings may differ in
    name = f"norm-{digest([settings, *sites, *texts, str(chat)])}"
    kept = lm.kept.get(name)
    if not isinstance(kept, float):
        work = _measured(lm, texts, hp, chat=chat)
        norms = yield from measured.once(kept_at(lm, name), "norms", work)
        kept = lm.kept[name] = trimmed(norms)
    return kept


def trimmed(norms: Tensor) -> float:
    """The mean of norms [n] without the longest."""
    return float(norms.sort().values[: len(norms) - int(LONGEST * len(norms))].mean())


def samples(chat: bool) -> list[Request]:
    """Facts to measure v̄ by: questions of several kinds, answered wrongly."""
    lines = packaged("chat_corrections.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [
        Request(
            prompt=row["question"], subject=row["subject"], target_new=row["target"], chat=chat
        ).check()
        for row in rows[:: len(rows) // SAMPLES]
    ]


def _measured(
    lm: LM, texts: tuple[str, ...], hp: ValueParams, *, chat: bool
) -> Generator[Event, None, Tensor]:
    """‖v*‖ of each sample fact: [n]."""
    facts, found = samples(chat), list[float]()
    yield Loading(stage="statistics", done=0, total=len(facts), unit="facts")
    for start in range(0, len(facts), hp.together):
        some = facts[start : start + hp.together]
        prompts = [contexts.prompts(lm, fact, texts) for fact in some]
        values = yield from _bare(lm, optimise_values(lm, some, prompts, hp), start, len(facts))
        with lm.bare():
            found += [float(_value(lm, value, hp)[1].norm()) for value in values]
    return torch.tensor(found)


def _bare(
    lm: LM, work: Generator[Event, None, list[Value]], done: int, total: int
) -> Generator[Event, None, list[Value]]:
    """`work` on the model without patches, which no event is told from within."""
    while True:
        try:
            with lm.bare():
                next(work)
        except StopIteration as stop:
            values: list[Value] = stop.value
            return values
        yield Loading(stage="statistics", done=done, total=total, unit="facts")


@torch.no_grad()
def _value(lm: LM, value: Value, hp: ValueParams) -> tuple[Tensor, Tensor]:
    """m and v* = m + δ, [d] each, in the model as it is.

    Of δ's parts (PMET) the last is the MLP's.
    """
    mlp = lm.model.get_submodule(lm.subject_site("mlp_out", hp.place(lm).layers[-1]))
    m: Tensor = mlp(value.keys[:1].to(lm.model.dtype))[0].float()
    return m, m + value.delta[-len(m) :]
