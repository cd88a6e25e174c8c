"""The editing methods, by name. Importing this imports no method and no torch."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import paths
from ..errors import BadSetting, UnknownName

if TYPE_CHECKING:
    from ..arch import Arch

log = logging.getLogger(__name__)

ENTRY_POINTS = "llm_edit.methods"

DECODERS = (
    "gpt2", "gptj", "gpt_neox", "gpt_neo", "opt", "bloom", "phi", "llama", "mistral",
    "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gemma3_text", "falcon",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MethodInfo:
    """What is known of a method without importing it.

    target         "module:function"; the function is a generator
                   `method(lm, requests, hp) -> yields Event, returns Edit`
    params         "module:class" of its hyper-parameters
    needs_subject  the request must name its subject; layers are those of the stack that reads it
    batch          edits several facts in one go
    training       needs a trained editor first
    dense          needs the dense matrix that it changes: no quantised model
    families       model types it can edit (see engine/arch.py)
    experimental   those of them on which there is no published result to go by
    """

    name: str
    target: str
    params: str
    summary: str
    paper: str
    needs_subject: bool = True
    batch: bool = False
    training: bool = False
    dense: bool = False
    families: tuple[str, ...] = DECODERS
    experimental: tuple[str, ...] = ()

    def run(self) -> Callable[..., Any]:
        """The method itself (imports it)."""
        method: Callable[..., Any] = _load(self.target)
        return method

    def params_class(self) -> Any:
        """Its hyper-parameter dataclass (imports it)."""
        return _load(self.params)

    def stack(self, arch: Arch) -> Arch:
        """The stack of a model whose layers this method counts."""
        return arch.reader if self.needs_subject else arch

    def hparams(self) -> Path:
        """The folder of its files of hyper-parameters, which need not be there.

        Ours are packaged; those of another package are in `hparams/<name>` inside it.
        """
        package = self.target.partition(":")[0].partition(".")[0]
        if package == __name__.partition(".")[0]:
            return paths.packaged(self.name)
        spec = find_spec(package)
        places = spec.submodule_search_locations if spec else None
        return Path(next(iter(places), ".") if places else ".") / "hparams" / self.name


_BUILT_IN = (
    MethodInfo(
        name="r-rome",
        target="engine.methods.rome:r_rome",
        params="engine.methods.rome:RomeParams",
        summary="rank-one edit of one MLP, the same averaged key throughout",
        paper="Gupta et al. 2024, arXiv:2403.07175",
        families=(*DECODERS, "t5"),
        experimental=("t5",),
    ),
    MethodInfo(
        name="rome",
        target="engine.methods.rome:rome",
        params="engine.methods.rome:RomeParams",
        summary="rank-one edit of one MLP, as published",
        paper="Meng et al. 2022, arXiv:2202.05262",
        families=(*DECODERS, "t5"),
        experimental=("t5",),
    ),
    MethodInfo(
        name="memit",
        target="engine.methods.memit:memit",
        params="engine.methods.memit:MemitParams",
        summary="many facts at once, spread over a range of layers",
        paper="Meng et al. 2023, arXiv:2210.07229",
        batch=True,
    ),
    MethodInfo(
        name="alphaedit",
        target="engine.methods.alphaedit:alphaedit",
        params="engine.methods.alphaedit:AlphaEditParams",
        summary="MEMIT in the directions that ordinary keys hardly use",
        paper="Fang et al. 2025, arXiv:2410.02355",
        batch=True,
    ),
    MethodInfo(
        name="pmet",
        target="engine.methods.pmet:pmet",
        params="engine.methods.pmet:PmetParams",
        summary="MEMIT on the MLP's own part of a block's change",
        paper="Li et al. 2024, arXiv:2308.08742",
        batch=True,
        experimental=("gemma2", "gemma3", "gemma3_text"),  # norms behind each MLP: see spreading
    ),
    MethodInfo(
        name="emmet",
        target="engine.methods.emmet:emmet",
        params="engine.methods.emmet:EmmetParams",
        summary="ROME for many facts: one MLP, every value met exactly",
        paper="Gupta et al. 2024, arXiv:2403.14236",
        batch=True,
    ),
    MethodInfo(
        name="ft-m",
        target="engine.methods.ft:ft_m",
        params="engine.methods.ft:FtParams",
        summary="fine-tuning of one MLP matrix on the target's tokens",
        paper="Zhang et al. 2024, arXiv:2401.01286",
        needs_subject=False,
        batch=True,
        dense=True,
        families=(*DECODERS, "t5"),
    ),
    MethodInfo(
        name="ft-l",
        target="engine.methods.ft:ft_l",
        params="engine.methods.ft:FtParams",
        summary="fine-tuning of one MLP matrix, every target token scored at the prompt's end",
        paper="Meng et al. 2022, arXiv:2202.05262",
        needs_subject=False,
        batch=True,
        dense=True,
        families=(*DECODERS, "t5"),
    ),
    MethodInfo(
        name="locft-bf",
        target="engine.methods.locft:locft_bf",
        params="engine.methods.locft:LocFtParams",
        summary="fine-tuning of one MLP matrix on all facts edited so far, breadth first",
        paper="Yang et al. 2026, arXiv:2509.22072",
        needs_subject=False,
        batch=True,
        dense=True,
        families=(*DECODERS, "t5"),
    ),
    MethodInfo(
        name="lora",
        target="engine.methods.lora:lora",
        params="engine.methods.lora:LoraParams",
        summary="low-rank adapters trained on the target's tokens",
        paper="Hu et al. 2021, arXiv:2106.09685",
        needs_subject=False,
        batch=True,
        families=(*DECODERS, "t5"),
    ),
    MethodInfo(
        name="ultraedit",
        target="engine.methods.ultraedit:ultraedit",
        params="engine.methods.ultraedit:UltraEditParams",
        summary="one backward pass, normalised by all edits so far, and least squares",
        paper="Gu et al. 2026, arXiv:2505.14679",
        needs_subject=False,
        batch=True,
        families=(*DECODERS, "t5"),
    ),
    MethodInfo(
        name="kn",
        target="engine.methods.kn:kn",
        params="engine.methods.kn:KnParams",
        summary="rewrites what the neurons write that the old answer hangs on",
        paper="Dai et al. 2022, arXiv:2104.08696",
        needs_subject=False,
        families=(*DECODERS, "t5"),
    ),
)
METHODS: dict[str, MethodInfo] = {info.name: info for info in _BUILT_IN}


def methods() -> dict[str, MethodInfo]:
    """All methods: ours, and those that installed packages register.

    An entry point of the group `llm_edit.methods` names a MethodInfo; ours cannot be replaced.
    """
    return plugins()[0]


def plugins() -> tuple[dict[str, MethodInfo], dict[str, str]]:
    """All methods; and what installed packages register that cannot be used, with the reason."""
    from importlib.metadata import entry_points

    found, broken = dict(METHODS), {}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            info = point.load()
        except Exception as error:  # whatever another package's import may raise
            broken[point.name] = f"{point.value} cannot be imported ({_told(error)})"
            log.info("method %s: %s", point.name, broken[point.name], exc_info=True)
            continue
        if not isinstance(info, MethodInfo):
            broken[point.name] = f"{point.value} is no MethodInfo"
        elif info.name in found:
            broken[point.name] = f"{point.value}: there is a method {info.name!r} already"
        else:
            found[info.name] = info
    return found, broken


def get(name: str) -> MethodInfo:
    """Raises UnknownName; BadSetting for a method whose package is broken."""
    if name in METHODS:
        return METHODS[name]
    known, broken = plugins()
    if name not in known and name in broken:
        raise BadSetting(f"method {name!r} cannot be used: {broken[name]}.")
    if name not in known:
        raise UnknownName("method", name, known)
    return known[name]


def _told(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
