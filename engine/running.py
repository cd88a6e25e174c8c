"""Mean and deviation of rows that come a few at a time, and where they begin.

Welford's sums, merged pairwise (Chan et al. 1979), with the population's variance: a single row
has one too. What they begin with is measured once on ordinary text and kept on disk.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import hooks, measured
from .above import Above, Example, nll, placed
from .descent import p_old
from .events import Event, Loading
from .statistics import kept_at, text_of

if TYPE_CHECKING:
    from .lm import LM

_READ = 24  # tokens of a passage that are read ...
_TARGET = 3  # ... and the ones behind them that are predicted, as an answer would be
_BATCH = 16  # passages at a time


@dataclass(frozen=True, eq=False)
class Running:
    """Of `count` rows [w].

    mean    [w]
    spread  [w] Σ (x − mean)²: the variance is spread / count
    """

    count: int
    mean: Tensor
    spread: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Running:
        """Of rows [n, w]."""
        mean = rows.mean(0)
        return cls(len(rows), mean, (rows - mean).square().sum(0))

    def with_(self, other: Running) -> Running:
        """Of the rows of both."""
        count = self.count + other.count
        if other.count == 0:
            return self
        other = other.to(self.mean.device)
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = apart.square() * (self.count * other.count / count)
        return Running(count, mean, self.spread + other.spread + between)

    def normalised(self, rows: Tensor) -> Tensor:
        """(x − mean) / deviation; a column that never varied gives 0."""
        deviation = (self.spread / max(self.count, 1)).sqrt()
        flat = deviation <= 1e-12
        found: Tensor = (rows - self.mean) / deviation.masked_fill(flat, 1.0)
        return found.masked_fill(flat, 0.0)

    def to(self, device: torch.device) -> Running:
        return Running(self.count, self.mean.to(device), self.spread.to(device))


def of_text(
    lm: LM, sites: Sequence[str], lowest: int, *, text: str, passages: int
) -> Generator[Event, None, dict[str, Running]]:
    """Per site the statistics of [input; gradient of the loss at the output] where the tokens of
    ordinary passages are predicted, by the model without patches.

    lowest    the lowest layer of the sites
    text      a text asset or the path of a text file, a passage a line
    passages  how many of them; 0: nothing is returned
    Yields Loading(stage="statistics"). Raises AssetUnavailable, BadSetting.
    """
    found: dict[str, Running] = {}
    if passages:
        drawn = yield from text_of(text)
        name = f"{drawn.digest}-{passages}"
        files = {site: kept_at(lm, f"running-{site}-{name}") for site in sites}
        found = {site: kept for site, file in files.items() if (kept := _load(file)) is not None}
        missing = [site for site in sites if site not in found]
        if missing:
            found |= yield from _measured(lm, missing, lowest, drawn.passages, passages)
            for site in missing:
                _save(files[site], found[site])
        found = {site: kept.to(lm.device) for site, kept in found.items()}
    return found


def _measured(
    lm: LM, sites: Sequence[str], lowest: int, lines: Sequence[str], count: int
) -> Generator[Event, None, dict[str, Running]]:
    chosen = list(lines)
    random.Random(0).shuffle(chosen)
    found: dict[str, Running] = {}
    for start in range(0, min(count, len(chosen)), _BATCH):
        some = chosen[start : min(start + _BATCH, count)]
        with lm.bare():
            examples = [_example(lm, line) for line in some]
            _, seen, _ = felt(lm, Above(lm, examples, lowest), sites)
        for site, (H, G) in seen.items():
            own = Running.of(torch.cat([H, G], dim=1))
            found[site] = found[site].with_(own) if site in found else own
        yield Loading(stage="statistics", done=start + len(some), total=count, unit="passages")
    return found


def _example(lm: LM, line: str) -> Example:
    ids = lm.statement(line).ids
    if lm.encoder_decoder:
        ids = ids[:-1]  # its end-of-sequence token
    ids = ids[: _READ + _TARGET]
    cut = max(1, len(ids) - _TARGET)
    prompt = (*ids[:cut], lm.tokenizer.eos_token_id) if lm.encoder_decoder else ids[:cut]
    return placed(lm, prompt, ids[cut:] or ids[-1:])


def felt(
    lm: LM, above: Above, sites: Sequence[str]
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]], float]:
    """One pass: losses [n], per site inputs H [m, in] and gradients G [m, out] at the positions
    that predict targets, and the old answers' mean probability.

    An example's loss is the mean over its target's tokens, and does not depend on the others.
    """
    inputs: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}

    def probed(site: str) -> hooks.Change:
        def change(x: Tensor, y: Tensor) -> Tensor:
            inputs[site] = x.detach()
            probes[site] = torch.zeros_like(y, requires_grad=True)
            return y + probes[site]

        return change

    with ExitStack() as stack:
        stack.enter_context(hooks.patched(lm.model, {site: probed(site) for site in sites}))
        log_p = above.log_p()
    losses = nll(log_p, above.examples)
    gradients = torch.autograd.grad(losses.sum(), [probes[site] for site in sites])
    seen = {
        site: (_at(inputs[site], above.examples), _at(gradient, above.examples))
        for site, gradient in zip(sites, gradients, strict=True)
    }
    return losses.detach(), seen, p_old(above.examples, log_p)


def _at(x: Tensor, examples: Sequence[Example]) -> Tensor:
    """Rows [m, ...] at the positions where the examples' targets are predicted, float32."""
    x = x.reshape(len(examples), -1, x.shape[-1])
    places = [(i, at) for i, each in enumerate(examples) for at in each.wanted]
    rows, columns = torch.tensor(places, device=x.device).T
    return x[rows, columns].float()


def _save(file: Path, found: Running) -> None:
    tensors = {"count": torch.tensor(found.count), "mean": found.mean, "spread": found.spread}
    measured.save(file, {name: tensor.cpu() for name, tensor in tensors.items()})


def _load(file: Path) -> Running | None:
    """What `_save` wrote; None for a file that is not there or was damaged since."""
    found = measured.load(file, "count", "mean", "spread")
    return None if found is None else Running(int(found["count"]), found["mean"], found["spread"])
