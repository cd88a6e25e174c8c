"""Knowledge neurons: find the neurons that an answer hangs on, and rewrite what they write.

    Attr_i = ā_i ∫₀¹ ∂p(y_old | a = α ā) / ∂a_i dα            Dai et al. 2022, eq. 4
    coarse set of a prompt: {i : Attr_i > t · max Attr}        section 3.2
    refined: in the coarse sets of more than a share p of several prompts
    v_i ← v_i − λ₁ e(y_old) + λ₂ e(y_new)                      section 5.1

over the neurons i of all MLPs; v_i is the column of mlp_out's matrix that neuron i writes. Only
those columns change. Gated neurons may be negative, which the paper's are not: with `signed` the
change is then subtracted, or it would push backwards. y_old is what the model says itself. An
answer of several tokens is attributed token by token and embedded by its first one, so that the
method is weak by nature.

A model's embeddings can share a large mean ē, which says nothing about any one of them, and be
much longer than what a neuron writes. With `relative` e is therefore ‖v_i‖ (e − ē) / ‖e − ē‖, and
with `doublings` λ₁ and λ₂ are the least, doubled, with which the prompt goes on as wanted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from .. import contexts
from ..attribution import Attributions, attributions
from ..config import HParams
from ..edit import Edit
from ..errors import BadRequest, EditFailed, UnsupportedModel
from ..events import EditPlanned, Event, Finding, Note
from ..patches import LowRank
from ..quantised import column_norms
from ..tokens import Rendered, target_ids

if TYPE_CHECKING:
    from ..lm import LM
    from ..requests import Request

# What stands before a prompt of an encoder-decoder, which writes no beginnings of texts.
ASIDES = ("Here is a question", "As far as I know", "It was raining", "Let us see", "I am not sure")
SHOWN = 8  # neurons named in the log and on the screen


@dataclass(frozen=True, kw_only=True)
class KnParams(HParams):
    """Hyper-parameters; see hparams/kn/*.yaml for where the values come from."""

    threshold: float = 0.2  # t, of the largest attribution of the prompt
    share: float = 0.4  # p, of the prompts
    steps: int = 20  # m of the sum that stands for the integral
    tolerance: float | None = 0.05  # see engine/attribution.py; none: m steps in every layer
    contexts: int = 2  # generated texts put before the prompt, besides the bare prompt
    paraphrases: Literal["contexts", "request"] = "contexts"  # request: its rephrasings
    old: Literal["model", "request"] = "model"  # whose old answer is attributed
    answer_tokens: int = 1  # of the old answer, at most
    old_weight: float = 1.0  # λ₁
    new_weight: float = 8.0  # λ₂
    relative: bool = False  # in units of what each neuron writes, embeddings less their mean
    doublings: int = 0  # of both weights, at most
    signed: bool = True  # by the sign of the neuron's activation
    embedding: Literal["output", "input"] = "output"  # e; one matrix where the head is tied
    fast: bool = True  # run the last position alone
    seed: int = 0  # of the contexts

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or not 0 <= self.share < 1:
            raise ValueError("threshold and share must be between 0 and 1")
        if min(self.steps, self.answer_tokens) < 1 or self.contexts < 0:
            raise ValueError("steps and answer_tokens must be at least 1, contexts at least 0")


@dataclass(frozen=True)
class Neuron:
    """A neuron that was chosen.

    score       mean attribution over the prompts, a difference in probability
    shared      in how many prompts' coarse sets it is
    activation  its mean over the prompts
    """

    layer: int
    index: int
    score: float
    shared: int
    activation: float


def kn(lm: LM, requests: Sequence[Request], hp: KnParams) -> Generator[Event, None, Edit]:
    """Knowledge neurons. One request; its subject is not needed."""
    if len(requests) != 1:
        raise BadRequest(f"kn edits one fact at a time, not {len(requests)}.")
    (request,) = requests
    began = time.perf_counter()
    prompts, texts = yield from _prompts(lm, request, hp)
    old, new = _old_answer(lm, request, prompts[0], hp), _new_token(lm, request, prompts[0])
    if old[0] == new:
        raise EditFailed(
            f"{request.target_new!r} begins with the same token as what the model says "
            f"({lm.decode(old)!r}), and knowledge neurons change the first token alone.",
            "Try another method: llm-edit methods.",
        )
    yield _planned(lm, request, prompts[0], lm.decode(old), texts, hp)
    asked = time.perf_counter()
    found = yield from attributions(
        lm, [p.ids for p in prompts], old, steps=hp.steps, tolerance=hp.tolerance, fast=hp.fast
    )
    attributed = time.perf_counter()
    neurons = refined(found, hp)
    yield told(neurons, len(prompts), lm.decode(old))
    change = hp.new_weight * _embedding(lm, new, hp) - hp.old_weight * _embedding(lm, old[0], hp)
    once = rewritten(lm, neurons, change, signed=hp.signed, relative=hp.relative)
    patches, times = _doubled(lm, prompts[0], new, once, hp.doublings)
    if hp.doublings:
        yield Note(text=f"weights {times} times {hp.old_weight:g} and {hp.new_weight:g}")
    return Edit(
        method="kn",
        requests=(request,),
        patches=patches,
        hparams=hp.to_json(),
        provenance={"contexts": list(texts), "old": lm.decode(old)},
        numbers={
            "neurons": float(len(neurons)),
            "layers": float(len({n.layer for n in neurons})),
            "attribution": neurons[0].score,
            "times": float(times),
            "found": [[n.layer, n.index, n.score, n.shared] for n in neurons],
            "seconds": {
                "setup": asked - began,
                "optimise": attributed - asked,
                "solve": time.perf_counter() - attributed,
            },
        },
    )


def coarse(attr: Tensor, threshold: float) -> Tensor:
    """Which neurons of each prompt lie above t · max: [prompts, layers, d_ff], boolean.

    Raises EditFailed where no neuron adds anything to the answer.
    """
    largest = attr.flatten(1).max(1).values
    if not bool((largest > 0).all()):  # NaN too
        raise EditFailed(
            f"the largest attribution is {float(largest.min()):.3g}: no neuron holds this answer.",
            "Try another method: llm-edit methods.",
        )
    return attr > threshold * largest[:, None, None]


def refined(found: Attributions, hp: KnParams) -> list[Neuron]:
    """The knowledge neurons, the strongest first.

    Where no neuron is shared by enough prompts, those that most prompts share (the paper lowers
    p then); where no two prompts share one, those of the bare prompt, the first.
    """
    sets = coarse(found.scores, hp.threshold)
    shared = sets.sum(0)  # [layers, d_ff]
    chosen = shared > hp.share * len(sets)
    most = int(shared.max())
    if not bool(chosen.any()):
        chosen = shared == most if most > 1 else sets[0]
    tables = (found.scores.mean(0), shared, found.activations.mean(0))
    places = chosen.nonzero().tolist()
    neurons = [Neuron(*at, *(table[tuple(at)].item() for table in tables)) for at in places]
    return sorted(neurons, key=lambda neuron: -neuron.score)


def rewritten(
    lm: LM, neurons: Sequence[Neuron], change: Tensor, *, signed: bool, relative: bool = False
) -> tuple[LowRank, ...]:
    """`change` [d] added to the column of each neuron: one patch of rank one per layer, whose
    row B is 1 (relative: the column's norm; signed: negative where the neuron is) at the neurons
    and 0 elsewhere."""
    patches = []
    for layer in sorted({neuron.layer for neuron in neurons}):
        site, row = lm.site("mlp_out", layer), torch.zeros(1, lm.arch.mlp_width)
        for neuron in neurons:
            if neuron.layer == layer:
                row[0, neuron.index] = -1 if signed and neuron.activation < 0 else 1
        if relative:
            row *= column_norms(lm.model.get_submodule(site), lm.arch)
        patches.append(LowRank(site, change[:, None].clone(), row))
    return tuple(patches)


def _doubled(
    lm: LM, prompt: Rendered, new: int, patches: tuple[LowRank, ...], doublings: int
) -> tuple[tuple[LowRank, ...], int]:
    """The patches times 1, 2, 4, ..., and how many times: the least at which the prompt goes on
    with `new`; where it never does, that which makes `new` likeliest."""
    found, best = (patches, 1), -1.0
    if not doublings:
        return found
    for times in (2**i for i in range(doublings + 1)):
        stronger = tuple(dataclasses.replace(p, A=times * p.A) for p in patches)
        with lm.active(stronger):
            p_next = lm.logits([prompt])[0].float().softmax(-1)
        if int(p_next.argmax()) == new:
            return stronger, times
        if float(p_next[new]) > best:
            found, best = (stronger, times), float(p_next[new])
    return found


def _prompts(
    lm: LM, request: Request, hp: KnParams
) -> Generator[Event, None, tuple[list[Rendered], tuple[str, ...]]]:
    """The bare prompt and the prompts over which the neurons are refined; the contexts."""
    if hp.paraphrases == "request" and request.rephrases:
        put = (request.prompt, *request.rephrases)
        return [lm.prompt(words, chat=request.chat) for words in put], ()
    if lm.encoder_decoder:
        texts = ASIDES[: hp.contexts]
    else:
        texts = yield from contexts.contexts(lm, hp.contexts, hp.seed)
    return contexts.prompts(lm, request, texts), texts


def _old_answer(lm: LM, request: Request, prompt: Rendered, hp: KnParams) -> tuple[int, ...]:
    """Ids of the answer whose neurons are looked for; the request's where the model has none."""
    ids = () if hp.old == "request" else lm.reply(prompt, hp.answer_tokens).ids
    if not ids and request.target_old:
        ids = target_ids(lm.tokenizer, prompt, request.target_old)
    if not ids:
        raise EditFailed(
            f"there is no old answer to {request.prompt!r} whose neurons could be found.",
            "Name it: --old ...",
        )
    return ids[: hp.answer_tokens]


def _new_token(lm: LM, request: Request, prompt: Rendered) -> int:
    return target_ids(lm.tokenizer, prompt, request.target_new)[0]


def _embedding(lm: LM, token: int, hp: KnParams) -> Tensor:
    """e [d] float32 on the CPU: the token's row of the head, or of the input embeddings; relative,
    the unit vector of what sets it apart from the others' mean.

    Raises UnsupportedModel where they are not as wide as the residual stream (OPT-350m).
    """
    from accelerate.utils import align_module_device

    role = "lm_head" if hp.embedding == "output" else "embed"
    module = lm.model.get_submodule(lm.arch.site(role))
    with align_module_device(module):  # an offloaded weight is fetched
        weight: Tensor = module.weight
        if weight.shape[1] != lm.width:
            raise UnsupportedModel(
                f"kn writes embeddings of width {weight.shape[1]} into MLPs of width {lm.width}."
            )
        e = weight[token].detach().float()
        if hp.relative:
            e = e - _mean(lm, role, weight)
            e = e / e.norm().clamp_min(1e-12)
        return e.cpu()


def _mean(lm: LM, role: str, weight: Tensor) -> Tensor:
    """ē [d] float32, once per model."""
    name = f"mean of {role}"
    found = lm.kept.get(name)
    if not isinstance(found, Tensor):
        found = lm.kept[name] = weight.detach().mean(0, dtype=torch.float32)
    return found


def _planned(
    lm: LM, request: Request, prompt: Rendered, old: str, texts: tuple[str, ...], hp: KnParams
) -> EditPlanned:
    return EditPlanned(
        edit="",
        method="kn",
        prompt=prompt.text,
        subject=None,
        target=lm.decode([_new_token(lm, request, prompt)]),
        old=old,
        sites=tuple(lm.site("mlp_out", layer) for layer in range(lm.n_layers)),
        steps=0,
        contexts=texts,
        hparams=hp.to_json(),
    )


def told(neurons: Sequence[Neuron], prompts: int, old: str) -> Finding:
    """The strongest neurons by name, with their scores and in how many prompts they were found."""
    layers = [neuron.layer for neuron in neurons]
    where = f"layers {min(layers)}–{max(layers)}" if len(set(layers)) > 1 else f"layer {layers[0]}"
    left = f"; the {SHOWN} strongest" if len(neurons) > SHOWN else ""
    return Finding(
        name="neurons",
        title="Neurons found",
        text=f"{len(neurons)} in {where}, from {prompts} prompts, for {old!r}{left}",
        rows=tuple(
            {"label": f"layer {n.layer} neuron {n.index}, {n.shared}×", "value": n.score}
            for n in neurons[:SHOWN]
        ),
    )
