"""`/why`: which edits had a part in an answer, in numbers and in words."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import BadInput
from engine.events import Event

from .opening import ledger_at
from .prompts import fitting
from .texts import clip, visible
from .timeline import history
from .views import EditView, TurnView
from .wording import named

if TYPE_CHECKING:
    from engine.influence import Influence
    from engine.ledger import Ledger
    from engine.tokens import Rendered

    from .conversation import Conversation

FIRES = 0.25  # of the edit's own key: below it the patch hardly takes notice of the text
MOVES = 0.05  # nats: by less than this, an edit has no part in an answer
LINE = 60  # cells of a question or an answer in a sentence


@dataclass(frozen=True, kw_only=True)
class InfluenceView:
    """An edit's part in an answer.

    fires        how strongly its patch fires on the text, relative to its own question: 1 is as
                 strongly; NaN where the method's patches have no keys
    token        the text of the token at which it fires most
    where        where that stands: "earlier" (before the question), "question", "answer", or ""
    p_with       probability of the answer with every edit that acted, and
    p_without    with all of them but this one; of the whole answer
    moves        nats by which it makes the whole answer likelier; negative: less likely
    """

    edit: EditView
    fires: float
    token: str
    where: str
    p_with: float
    p_without: float
    moves: float

    @property
    def has_part(self) -> bool:
        return abs(self.moves) >= MOVES


@dataclass(frozen=True, kw_only=True)
class WhyView:
    """The end of a `why` job. influences: of the edits that acted, the largest part first."""

    number: int
    turn: TurnView
    influences: tuple[InfluenceView, ...]


class Explaining:
    """Why the answers of a conversation are as they are. The engine's thread only."""

    def __init__(self, conversation: Conversation) -> None:
        self._of = conversation

    def why(self, number: int | None) -> Generator[Event, None, WhyView]:
        """The edits' parts in answer `number`, counted from 1; in the last one by default.

        Measured in the state in which the answer was given, behind the conversation as it
        stands. Raises BadInput, SessionError.
        """
        from engine.influence import influences
        from engine.tokens import continuation, target_ids

        of = self._of
        lm, _ = of.ready()
        answered = [i for i, turn in enumerate(of.turns) if turn.answer]
        if not answered:
            raise BadInput("there is no answer yet.", "Ask something first.")
        number = len(answered) if number is None else number
        if not 1 <= number <= len(answered):
            raise BadInput(f"there is no answer {number}: they count from 1 to {len(answered)}.")
        place = answered[number - 1]
        turn = of.turns[place]
        before = () if turn.fresh or turn.statement else history(of.turns[:place])
        prompt = fitting(lm, turn, before, of.options.max_tokens).prompt
        if turn.stopped:
            ids = continuation(lm.tokenizer, prompt.glue + turn.answer)
        else:
            ids = target_ids(lm.tokenizer, prompt, turn.answer)
        edits = self._then(turn.node).acting
        found = yield from influences(lm, edits, prompt, ids)
        views = {view.id: view for view in of.edits()}
        parts = [_view(each, views[each.edit], _where(each.position, prompt)) for each in found]
        parts.sort(key=lambda part: -abs(part.moves))
        return WhyView(number=number, turn=of.turn_view(place), influences=tuple(parts))

    def _then(self, node: str) -> Ledger:
        """The edits in the state in which a node was made; now, for one that is not recorded."""
        _, ledger = self._of.ready()
        if not node:
            return ledger
        store, id = self._of.recorder.required()
        return ledger_at(store, store.session(id), node, (*ledger.edits, *ledger.undone))


def _where(position: int, prompt: Rendered) -> str:
    from engine.tokens import tokens_of

    if position < 0:
        return ""
    if position >= len(prompt.ids):
        return "answer"
    return "earlier" if position < tokens_of(prompt, prompt.question).start else "question"


def _view(found: Influence, edit: EditView, where: str) -> InfluenceView:
    return InfluenceView(
        edit=edit,
        fires=found.fires,
        token=found.token,
        where=where,
        p_with=math.exp(found.with_it),
        p_without=math.exp(found.without),
        moves=found.moves,
    )


# -- in words ----------------------------------------------------------------------------------


def told(view: WhyView) -> list[str]:
    """The answer and each edit's part in it, a sentence or two a line."""
    question, answer = clip(view.turn.question, LINE), clip(view.turn.answer, LINE)
    head = f"Answer {view.number}, “{answer}” to “{question}”: "
    if not view.influences:
        return [f"{head}no edit was in force. It is the model's own."]
    parts = sum(part.has_part for part in view.influences)
    if not parts:
        head += "no edit had a part in it."
    elif parts == 1:
        head += "one edit had a part in it."
    else:
        head += f"{parts} edits had a part in it, the largest first."
    return [head, *(_sentence(part) for part in view.influences)]


def _sentence(part: InfluenceView) -> str:
    name = named(part.edit)
    name = (
        name[:1].upper()
        + name[1:]
        + ("" if part.edit.state == "applied" else ", not in force now,")
    )
    values = f"P(answer) {_p(part.p_with)} with it, {_p(part.p_without)} without"
    if not part.has_part:
        does = f"has no part in it: {values}"
    elif part.moves > 0:
        does = f"makes it {_times(part.moves)} likelier: {values}"
    else:
        does = f"makes it {_times(-part.moves)} less likely: {values}"
    return f"{name} {does}. {_fired(part)}".rstrip()


def _fired(part: InfluenceView) -> str:
    if math.isnan(part.fires):
        return ""
    share = f"{100 * part.fires:.0f} % as strongly as on its own question, at {_quoted(part.token)}"
    share += {"earlier": " in what was said before", "answer": " in the answer"}.get(part.where, "")
    if part.fires >= FIRES:
        return f"Its patch fires: {share}."
    return f"Its patch does not fire: at most {share}."


def _quoted(token: str) -> str:
    return f"“{visible(token.strip())}”" if token.strip() else repr(token)


def _p(value: float) -> str:
    if not value:
        return "less than 1e-300"  # a long answer's: too small for a float
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _times(nats: float) -> str:
    """A factor in words: "3.1 times", or its power of ten."""
    if nats < math.log(1000):
        return f"{math.exp(nats):.3g} times"
    ten = nats / math.log(10)
    return f"{round(math.exp(nats), -1):,.0f} times" if ten < 6 else f"10^{ten:.0f} times"
