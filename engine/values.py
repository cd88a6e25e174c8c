"""v*: outputs that make the model say the targets (Meng et al. 2022, section 3.1, eq. 4).

For every fact by itself

    L(δ) = (1/N) Σ_j NLL(target | x_j, prompt; h_j + δ)
           + κ KL(p₀ ‖ p_δ)  on "{subject} is a", read at the subject's last token
           + ω ‖δ‖ / ‖h₀‖²
           − (η/N) Σ_j log P(a word ends | x_j, prompt, target; h_j + δ)

minimised by Adam from δ = 0, each step projected to ‖δ‖ ≤ c ‖h₀‖; with `grow` c becomes larger for
a fact that is not said after so many steps. h_j is the output of a module
at the subject's last token under context x_j: of the edited layer's mlp_out for ROME, of the last
edited block for MEMIT (Meng et al. 2023, eq. 16), of several modules one behind the other where
`place` names several; in an encoder-decoder the encoder's, and the KL is read where the decoder
begins. The papers take the bare prompt's norm for ‖h₀‖; here it is the mean over the contexts,
because a subject at the very beginning of a text can have an output much smaller than anywhere
else. The last term is ours: "Nottingham" is not said where the model goes on to
"Nottinghamshire".

With `fisher` the step is taken in u, δ = u P, and ‖u‖ takes the place of ‖δ‖: see engine/fisher.py.
Without it, over several layers, whose outputs differ in length, δ_l = u_l ‖h_l‖ / rms_l ‖h_l‖.

Facts are optimised together, some at a time; each has its own clamp and its own end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import fisher
from .config import HParams, above_zero
from .descent import FAR
from .errors import DivergedLoss
from .events import EditStep, Event
from .rerun import Full, Place, Suffix, rerun
from .tokens import Rendered, end_of_text, first_of_old, target_ids
from .value_rows import essence, parted, row_of, turns

if TYPE_CHECKING:
    from .lm import LM
    from .requests import Request


@dataclass(frozen=True, kw_only=True)
class ValueParams(HParams):
    """Hyper-parameters of v*, and of the statistics beside it."""

    contexts: int = 10  # generated texts put before the prompt, besides the bare prompt
    steps: int = 20
    lr: float | None = None  # Adam's rate; None: relative_lr
    relative_lr: float = 0.5  # lr · √d as a multiple of ‖h₀‖
    clamp: float = 4.0  # c
    grow: int = 0  # a fact that is said after so many steps is done; for others c then grows in
    # proportion to the steps (0: never)
    kl: float = 0.0625  # κ
    decay: float = 0.5  # ω
    stop_loss: float = 0.05  # stop below this loss
    stop_probability: float = 1.0  # or when the target is likelier than this, in the mean over
    # the contexts and at the bare prompt (1: never)
    stop_argmax: int = 0  # or when it has been the likeliest under every context at so many steps
    # running (Gupta et al. 2025, arXiv:2502.01636: 2; 0: never)
    turns: int = 1  # a step sees every `turns`-th context, and the bare prompt
    extend: float = 1.0  # then δ is made this many times as long, within the clamp
    end: bool = False  # statements too: the target is to end the text
    norm_anchor: bool = False  # v* as long as on the unedited model: see engine/norm_anchor.py
    fisher: bool = False  # δ where ordinary text feels it least
    whole: float = 0.0  # η; of targets that end in a letter or a digit, where no end is asked for
    together: int = 8  # facts optimised at a time
    text: str = "wikipedia-vital"  # what C is measured on: a text asset or a file
    tokens: int = 60_000  # how much of it
    fast: bool = True  # recompute only what δ can reach
    seed: int = 0  # of the contexts

    def __post_init__(self) -> None:
        above_zero(self, "steps", "together", "turns", "tokens", "relative_lr")
        above_zero(self, "weight", "relative_weight")  # λ, of methods that have one
        for name in ("contexts", "clamp", "grow", "kl", "decay", "whole", "lr", "stop_argmax"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name!r} must not be below 0: {getattr(self, name)!r}.")

    def place(self, lm: LM) -> Place:
        """Where δ goes in; of p modules it has as many parts, and is [p d]."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Value:
    """The outcome for one fact.

    keys     [n, d_ff] key of the bare prompt, then one per context
    outputs  [n, D]    output of the modules that δ is added to, in the same order; D is d for
             one module
    delta    [D]       v* − output
    norm0    ‖h₀‖: mean norm of the outputs over the contexts
    losses   per step
    p_new    probability of the target after the last step
    """

    keys: Tensor
    outputs: Tensor
    delta: Tensor
    norm0: float
    losses: tuple[float, ...]
    p_new: float

    @property
    def output(self) -> Tensor:
        """[D] mean over the prompts: W k̄ (+ bias) where the module is mlp_out."""
        return self.outputs.mean(0)

    def asked(self, *, both: bool) -> Tensor:
        """Keys [c, d_ff] at which δ is asked for: the mean over the prompts; `both`: the bare
        prompt's and the mean over the contexts, where there are any."""
        if both and len(self.keys) > 1:
            return torch.stack([self.keys[0], self.keys[1:].mean(0)])
        return self.keys.mean(0, keepdim=True)


Prompts = Sequence[Rendered]  # the bare prompt first, then one per context
Shape = Callable[[Tensor], Tensor]  # u → δ


def optimise_values(
    lm: LM,
    requests: Sequence[Request],
    prompts: Sequence[Prompts],
    hp: ValueParams,
) -> Generator[Event, None, list[Value]]:
    """Find δ at `hp.place` for every fact, `hp.together` of them at a time, those of alike lengths
    together.

    Yields an EditStep per step: means over the facts of the group. Raises SubjectNotFound,
    SubjectAmbiguous, DivergedLoss; with `fisher` also what `fisher.preconditioner` does.
    """
    place, P = hp.place(lm), None
    if hp.fisher:
        P = yield from fisher.preconditioner(lm, place, text=hp.text)
    facts = [_Fact(lm, *each, hp) for each in zip(requests, prompts, strict=True)]
    order = sorted(range(len(facts)), key=lambda i: facts[i].length)
    found: dict[int, Value] = {}
    for start in range(0, len(facts), hp.together):
        group = order[start : start + hp.together]
        together = [facts[i] for i in group]
        values = yield from _optimise(lm, together, place, hp, P, of=(start, len(facts)))
        found.update(zip(group, values, strict=True))
    return [found[i] for i in range(len(facts))]


def _optimise(
    lm: LM,
    facts: Sequence[_Fact],
    place: Place,
    hp: ValueParams,
    P: Tensor | None,
    *,
    of: tuple[int, int],
) -> Generator[Event, None, list[Value]]:
    run = rerun(lm, [row for fact in facts for row in fact.rows], place, fast=hp.fast)
    start = 0
    for fact in facts:
        fact.place(run, start)
        start += len(fact.rows)
    norms = torch.tensor([fact.norm0 for fact in facts], device=lm.device)
    width = run.outputs.shape[1]
    shaped = _shape([run.outputs[fact.own] for fact in facts], len(place.layers), P)
    deltas = torch.zeros(len(facts), width, device=lm.device, requires_grad=True)
    # Adam is elementwise, so that one optimiser is one for each fact. `scale` makes their rates
    # differ where the rate is relative to a fact's own norm.
    relative = hp.relative_lr * norms / math.sqrt(width)
    scale = torch.ones_like(norms) if hp.lr is not None else relative
    optimiser = torch.optim.Adam([deltas], lr=hp.lr if hp.lr is not None else 1.0)
    for step in range(1, hp.steps + 1):
        open_ = [i for i, fact in enumerate(facts) if not fact.done]
        total = _step(run, facts, open_, deltas, shaped, step, hp)
        yield _told(facts, shaped(deltas.detach()), step, hp, of)
        if step == hp.steps or all(fact.done for fact in facts):
            break
        optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        before = deltas.detach().clone()
        optimiser.step()
        with torch.no_grad():
            still = torch.tensor([not fact.done for fact in facts], device=lm.device)
            moved = before + scale[:, None] * (deltas - before)
            longest = _clamp(step, hp) * norms
            deltas.copy_(torch.where(still[:, None], _projected(moved, longest), before))
    with torch.no_grad():
        longer = shaped(_projected(deltas * hp.extend, _clamp(step, hp) * norms))
    return [fact.value(run, delta, hp) for fact, delta in zip(facts, longer, strict=True)]


def _step(
    run: Full | Suffix,
    facts: Sequence[_Fact],
    open_: Sequence[int],
    deltas: Tensor,
    shaped: Shape,
    step: int,
    hp: ValueParams,
) -> Tensor:
    """Σ L over the facts that are not done, each under the contexts whose turn it is."""
    chosen = [(i, facts[i].turn(step)) for i in open_]
    rows = [row for _, own in chosen for row in own]
    owner = [i for i, own in chosen for _ in own]
    log_p = run.logits(shaped(deltas)[owner], rows).log_softmax(-1)  # [wanted, vocab]
    counts = [(len(own) - 1) * facts[i].wanted + 1 for i, own in chosen]
    # split, not slices: the gradient of each slice is as large as all of log_p
    parts = zip(open_, torch.split(log_p, counts), strict=True)
    return torch.stack([facts[i].loss(part, deltas[i], step, hp) for i, part in parts]).sum()


def _told(
    facts: Sequence[_Fact], deltas: Tensor, step: int, hp: ValueParams, of: tuple[int, int]
) -> EditStep:
    """Means over the facts; those that are done count with what they ended with."""
    start, count = of
    groups, group = -(-count // hp.together), start // hp.together
    expected = hp.grow if step <= hp.grow < hp.steps else hp.steps  # few facts need more
    names = dict.fromkeys(name for fact in facts for name in fact.parts)
    return EditStep(
        step=group * hp.steps + step,
        of=(groups - 1) * hp.steps + expected,
        loss=_mean([fact.losses[-1] for fact in facts]),
        parts={name: _mean([f.parts.get(name, 0.0) for f in facts]) for name in names},
        p_new=_mean([fact.p_new for fact in facts]),
        p_old=_mean([fact.p_old for fact in facts if not math.isnan(fact.p_old)]),
        delta_norm=float(deltas.norm(dim=1).mean()),
    )


def _diverged(what: str, hp: ValueParams) -> DivergedLoss:
    rate = "lr" if hp.lr is not None else "relative_lr"
    remedy = f"Lower the rate (--hp {rate}=...) or the clamp (--hp clamp=...)."
    return DivergedLoss(f"{what}; the model is as it was.", remedy)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _shape(outputs: Sequence[Tensor], layers: int, P: Tensor | None) -> Shape:
    """Rows δ [n, D] of rows u.

    outputs  [prompts, D] of each fact
    """
    if P is not None:
        return lambda u: u @ P
    if layers == 1:
        return lambda u: u
    parts = torch.stack([own.view(len(own), layers, -1).norm(dim=2).mean(0) for own in outputs])
    relative = parts / parts.square().mean(1, keepdim=True).sqrt()  # [n, layers]
    each = relative.repeat_interleave(outputs[0].shape[1] // layers, dim=1)
    return lambda u: u * each


def _clamp(step: int, hp: ValueParams) -> float:
    """c at a step: that of `hp`, and more of it for facts that go on after `hp.grow`."""
    return hp.clamp * max(1.0, step / hp.grow) if hp.grow else hp.clamp


def _projected(deltas: Tensor, longest: Tensor) -> Tensor:
    """Rows δ [n, d] shortened to ‖δ‖ ≤ longest [n]."""
    lengths = deltas.norm(dim=1).clamp_min(1e-12)
    shortened: Tensor = deltas * (longest / lengths).clamp_max(1)[:, None]
    return shortened


class _Fact:
    """One fact while its δ is sought: the rows it is read on, and how far it has come.

    rows  one per prompt, then the essence prompt
    """

    def __init__(self, lm: LM, request: Request, prompts: Prompts, hp: ValueParams) -> None:
        assert request.subject is not None
        ending = end_of_text(lm.tokenizer, prompts[0]) if hp.end else ()
        self.target = (*target_ids(lm.tokenizer, prompts[0], request.target_new), *ending)
        asked = hp.whole > 0 and not (ending or prompts[0].ending)
        self._parting = parted(lm, request.target_new) if asked else None
        read = self.target if self._parting is None else (*self.target, self.target[-1])
        self.wanted = len(read)  # positions of a prompt's row whose logits are read
        self.rows = [row_of(lm, prompt, request.subject, read) for prompt in prompts]
        self.rows.append(essence(lm, request))
        self.length = max(len(row.ids) - row.lookup for row in self.rows)  # tokens that a step runs
        self.done = False
        self.losses: list[float] = []
        self.parts: dict[str, float] = {}
        self.p_new, self.p_old, self.norm0 = 0.0, math.nan, 0.0
        new, old = request.target_new, request.target_old
        self._old = first_of_old(lm.tokenizer, prompts[0], new, old)
        self._turns = turns(len(prompts), hp.turns)
        self._sure = [0.0] * len(self._turns)
        self._said_in = [False] * len(self._turns)
        self._held = 0  # steps running at which every turn, when it was last seen, said the target
        self._before: Tensor | None = None  # log p₀
        self._nll = math.nan  # at δ = 0
        self._first = 0

    def place(self, run: Full | Suffix, first: int) -> None:
        """Tell that its rows are those of `run` from `first` on."""
        self._first = first
        self.own = slice(first, first + len(self.rows) - 1)
        self.norm0 = float(run.outputs[self.own].norm(dim=1).mean())

    def turn(self, step: int) -> list[int]:
        """The rows of the run that this step sees, the essence prompt last."""
        prompts = self._turns[(step - 1) % len(self._turns)]
        return [self._first + i for i in (*prompts, len(self.rows) - 1)]

    def loss(self, log_p: Tensor, delta: Tensor, step: int, hp: ValueParams) -> Tensor:
        """L(δ) from log-probabilities [prompts · wanted + 1, vocab]; keeps its parts and notes
        whether this fact is done. Raises DivergedLoss.

        The first step is at δ = 0, and the KL is measured from there.
        """
        if self._before is None:
            self._before = log_p[-1].detach().clone()  # not a view that keeps the others
        rows = log_p[:-1].view(-1, self.wanted, log_p.shape[-1])
        said, ended = self._said(rows), self._ended(rows)
        parts = {
            "nll": -said.mean(),
            "kl": hp.kl * (self._before.exp() * (self._before - log_p[-1])).sum(),
            "decay": hp.decay * delta.norm() / self.norm0**2,
        }
        if self._parting is not None:
            parts["word"] = -hp.whole * ended.mean()
        total = torch.stack(list(parts.values())).sum()
        self.parts = {name: float(part.detach()) for name, part in parts.items()}
        self.losses.append(float(total.detach()))
        if len(self.losses) == 1:
            self._nll = self.parts["nll"]
        if not math.isfinite(self.losses[-1]):
            raise _diverged(f"the loss became {self.losses[-1]} at step {step}", hp)
        if self._old >= 0:
            self.p_old = float(rows[:, 0, self._old].detach().exp().mean())
        self._judge(said.detach().exp(), ended.detach().exp(), step, hp)
        if hp.stop_argmax:
            self._said_in[(step - 1) % len(self._turns)] = self._greedy(rows.detach())
            self._held = self._held + 1 if all(self._said_in) else 0
            self.done |= self._held >= hp.stop_argmax
        if step == hp.grow and self._greedy(rows[:1].detach()):
            self.done = True
        return total

    def _said(self, rows: Tensor) -> Tensor:
        """[prompts] log p of the target, the mean over its tokens."""
        size = len(self.target)
        return rows[:, list(range(size)), list(self.target)].mean(1)

    def _ended(self, rows: Tensor) -> Tensor:
        """[prompts] log P(a word ends); 0 where that is not asked for."""
        if self._parting is None:
            return torch.zeros(len(rows), device=rows.device)
        return (rows[:, -1] + self._parting).logsumexp(-1)

    def _greedy(self, rows: Tensor) -> bool:
        """Whether each of some prompts goes on with the target, and its word ends.

        rows  [prompts, wanted, vocab] log-probabilities
        """
        size = len(self.target)
        said = rows[:, :size].argmax(-1) == torch.tensor(self.target, device=rows.device)
        return bool(said.all()) and bool((self._ended(rows) > math.log(0.5)).all())

    def _judge(self, said: Tensor, ended: Tensor, step: int, hp: ValueParams) -> None:
        """Done where the loss is low, or every turn was sure when it was last seen."""
        self.p_new = float(said.mean())
        least = min(float(x) for p in (said, ended) for x in (p.mean(), p[0]))
        self._sure[(step - 1) % len(self._turns)] = least
        self.done = min(self._sure) > hp.stop_probability or self.losses[-1] < hp.stop_loss

    def value(self, run: Full | Suffix, delta: Tensor, hp: ValueParams) -> Value:
        """What was found. Raises DivergedLoss where it makes the target far less likely; on the
        way there, at a high rate, a loss can rise a good deal and come back."""
        now = self.parts["nll"]
        if now > self._nll + FAR:
            raise _diverged(f"the target's loss rose from {self._nll:.3g} to {now:.3g}", hp)
        return Value(
            run.keys[self.own],
            run.outputs[self.own],
            delta.detach().clone(),
            self.norm0,
            tuple(self.losses),
            self.p_new,
        )
