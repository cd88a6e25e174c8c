"""C = E[k kᵀ]: what the keys of a layer look like on ordinary text.

Computed once per model and kept on disk. The pass stops at the deepest layer asked for and
feeds all of them; it yields often, so that it can run in idle moments, and an interrupted
collection goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import measured
from .assets import text_corpus
from .errors import BadSetting, SingularCovariance
from .events import Event, Loading
from .hooks import capture
from .paths import cache

if TYPE_CHECKING:
    from .lm import LM

SEQUENCE = 128  # tokens of a text that are read: editing prompts are short too
BATCH = 16  # texts at a time: short enough a slice for a waiting job
HELD_OUT = 40  # last passages of a text, for benchmarks to measure perplexity on


@dataclass(frozen=True, eq=False)
class Moment:
    """Second moment of the keys at one site.

    C       [d_ff, d_ff] float32, symmetric positive definite (a ridge of 1e-6 of its mean
            diagonal is added, which only matters for fewer tokens than d_ff)
    factor  [d_ff, d_ff] float32, lower Cholesky factor of C
    tokens  number of keys averaged
    """

    C: Tensor
    factor: Tensor
    tokens: int
    file: Path | None = None  # where it is kept
    _eigen: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, total: Tensor, tokens: int) -> Moment:
        """From the sum of kkᵀ in float64. Raises SingularCovariance."""
        C = total / max(tokens, 1)
        C.diagonal().add_(1e-6 * C.diagonal().mean())
        return cls(C.float(), cholesky(C, tokens).float(), tokens)

    def solve(self, K: Tensor, anchors: Tensor | None = None, weight: float = 0.0) -> Tensor:
        """C⁻¹K for K [d_ff, n]; with anchor keys A [m, d_ff], (C + (weight/m) AᵀA)⁻¹K.

        The factor of C is kept, and few anchors (m < d_ff/2) enter by the Woodbury identity,
        so that no d_ff × d_ff matrix is factored:
        Y − Z (m/weight I + AZ)⁻¹ AY  with  Y = C⁻¹K, Z = C⁻¹Aᵀ. For more of them, factoring
        the sum is less work and less memory.
        """
        if anchors is None or weight == 0:
            Y: Tensor = torch.cholesky_solve(K.to(self.factor), self.factor)
            return Y
        A = anchors.to(self.factor)
        if 2 * len(A) >= len(self.C):
            held = self.C.double() + (A.T @ A).mul_(weight / len(A))
            factor = cholesky(held, self.tokens).float()
            return torch.cholesky_solve(K.to(factor), factor)
        Y = torch.cholesky_solve(K.to(self.factor), self.factor)
        Z = torch.cholesky_solve(A.T.contiguous(), self.factor)  # [d_ff, m]
        inner = (A @ Z).double()  # A C⁻¹ Aᵀ
        inner.diagonal().add_(len(A) / weight)
        felt: Tensor = torch.linalg.solve(inner, (A @ Y).double())
        return Y - Z @ felt.to(Y)

    def least(self, share: float) -> tuple[Tensor, Tensor]:
        """Where ordinary keys hardly reach: eigenvectors Q [d_ff, r] of the r = share · d_ff
        smallest eigenvalues of C, and these [r], ascending.

        The decomposition costs d_ff³ once, and is kept beside C.
        """
        if not self._eigen:
            self._eigen.append(self._decomposed())
        values, vectors = self._eigen[0]
        r = max(1, round(share * len(values)))
        return vectors[:, :r], values[:r]

    def _decomposed(self) -> tuple[Tensor, Tensor]:
        kept = self.file.with_suffix(".eigen.safetensors") if self.file else None
        found = measured.load(kept, "values", "vectors") if kept else None
        if found is None:
            values, vectors = torch.linalg.eigh(self.C)
            found = {"values": values, "vectors": vectors.contiguous()}
            if kept:
                measured.save(kept, found)
        return found["values"].to(self.C), found["vectors"].to(self.C)

    def to(self, device: torch.device) -> Moment:
        return Moment(self.C.to(device), self.factor.to(device), self.tokens, self.file)


def cholesky(C: Tensor, tokens: int) -> Tensor:
    """Lower factor of C [d, d]. Raises SingularCovariance naming the sample count and d."""
    factor: Tensor
    factor, info = torch.linalg.cholesky_ex(C)
    if int(info) != 0 or not bool(torch.isfinite(factor).all()):
        raise SingularCovariance(
            f"the second moment of {C.shape[0]}-dimensional keys from {tokens} tokens "
            "cannot be inverted.",
            "Collect more tokens: --hp tokens=...",
        )
    return factor


class Statistics:
    """The moments of one model, in memory and on disk."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._ready: dict[Path, Moment] = {}
        self._open: dict[tuple[str, ...], _Collection] = {}

    def moment(self, layer: int, *, text: str, tokens: int) -> Generator[Event, None, Moment]:
        """C of the keys of one layer: see `moments`."""
        found = yield from self.moments([layer], text=text, tokens=tokens)
        return found[layer]

    def moments(
        self, layers: Sequence[int], *, text: str, tokens: int
    ) -> Generator[Event, None, dict[int, Moment]]:
        """C of the keys of each layer, on the model without patches.

        layers  of the stack that reads the subject: see `LM.subject_site`
        text    a text asset ("wikipedia-vital") or the path of a text file, a passage a line
        tokens  how many keys to average
        Yields Loading(stage="statistics"). Raises AssetUnavailable, BadSetting,
        SingularCovariance.
        """
        found = yield from text_of(text)
        files = {layer: self._file(layer, found.digest, tokens) for layer in layers}
        for file in files.values():
            kept = None if file in self._ready else _load(file)
            if kept is not None:
                self._ready[file] = kept.to(self._lm.device)
        missing = [layer for layer in layers if files[layer] not in self._ready]
        if missing:
            key = (found.digest, str(tokens), *map(str, missing))
            if key not in self._open:
                self._open[key] = _Collection(self._lm, missing, found.passages, tokens)
            running = self._open[key]
            yield from running.run()
            # Who began this collection and was suspended may find it ended by another.
            for layer in missing if key in self._open else ():
                moment = Moment.of(running.sums[layer], running.seen)
                moment = dataclasses.replace(moment, file=files[layer])
                _save(files[layer], moment)
                self._ready[files[layer]] = moment.to(self._lm.device)
            self._open.pop(key, None)
        return {layer: self._ready[files[layer]] for layer in layers}

    def release(self) -> None:
        """Out of memory; what is on disk is read again when it is asked for."""
        self._ready.clear()
        self._open.clear()

    def _file(self, layer: int, text_digest: str, tokens: int) -> Path:
        site = self._lm.subject_site("mlp_out", layer)
        return kept_at(self._lm, f"{site}-{text_digest}-{tokens}")


class _Collection:
    """A pass over the text that can stop and go on."""

    def __init__(self, lm: LM, layers: Sequence[int], passages: Sequence[str], tokens: int) -> None:
        width = lm.arch.reader.mlp_width
        self.sums = {layer: torch.zeros(width, width, dtype=torch.float64) for layer in layers}
        self.seen = 0
        self._lm = lm
        self._sites = {lm.subject_site("mlp_out", layer): layer for layer in layers}
        self._wanted = tokens
        self._left = list(passages)
        random.Random(0).shuffle(self._left)

    def run(self) -> Generator[Event, None, None]:
        while self._left and self.seen < self._wanted:
            batch, self._left = self._left[:BATCH], self._left[BATCH:]
            self._read(batch)
            yield Loading(
                stage="statistics",
                done=min(self.seen, self._wanted),
                total=self._wanted,
                unit="tokens",
            )

    @torch.no_grad()
    def _read(self, texts: Sequence[str]) -> None:
        lm = self._lm
        rows = [lm.statement(text).ids[:SEQUENCE] for text in texts]
        ids, mask = lm.pack(rows)
        deepest = list(self._sites)
        with lm.bare(), capture(lm.model, *deepest, inputs=True, stop=True) as keys:
            lm.body(ids, mask)
        real = mask.bool().flatten()
        for site, layer in self._sites.items():
            k = keys[site].reshape(real.numel(), -1)[real].float()  # [tokens, d_ff]
            self.sums[layer] += (k.T @ k).cpu().double()
        self.seen += int(real.sum())


def kept_at(lm: LM, name: str) -> Path:
    """The file of something measured on a model as it is loaded, in its dtype."""
    return cache() / "statistics" / folder_of(lm) / f"{name}.safetensors"


def folder_of(lm: LM) -> str:
    """The folder, in those of the cache, of what is measured on a model or made by it."""
    return f"{lm.fingerprint[:16] or 'unnamed'}-{str(lm.dtype).removeprefix('torch.')}"


def digest(texts: Sequence[str]) -> str:
    """12 hex digits that name a text, or other strings."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Text:
    """Passages, and the digits that name them: see `digest`."""

    passages: tuple[str, ...]
    digest: str


_READ: dict[tuple[str, int], Text] = {}  # by name, and by when a file was written


def text_of(text: str) -> Generator[Event, None, Text]:
    """A text asset, or the lines of a file; read once in a process as long as it stays the same.

    Raises AssetUnavailable; BadSetting where there is nothing to read.
    """
    path, found = Path(text).expanduser(), list[str]()
    is_file = bool(path.suffix) or path.is_absolute()
    try:
        key = (text, path.stat().st_mtime_ns if is_file else 0)
        if key in _READ:
            return _READ[key]
        if is_file:
            lines = path.read_text(encoding="utf-8").splitlines()
            found = [line.strip() for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"text: {path} cannot be read ({error}).") from error
    if not is_file:
        found = [record.extract for record in (yield from text_corpus(text))]
    if not found:
        raise BadSetting(f"text: {text!r} holds no passages.")
    _READ[key] = Text(tuple(found), digest(found))
    return _READ[key]


def _save(file: Path, moment: Moment) -> None:
    tensors = {
        "C": moment.C,
        "factor": moment.factor.contiguous(),
        "tokens": torch.tensor(moment.tokens),
    }
    measured.save(file, tensors)


def _load(file: Path) -> Moment | None:
    """What `_save` wrote; None for a file that is not there or was damaged since."""
    found = measured.load(file, "C", "factor", "tokens")
    if found is None:
        return None
    return Moment(found["C"], found["factor"], int(found["tokens"]), file)
