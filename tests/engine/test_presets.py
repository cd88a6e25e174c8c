"""What the packaged presets claim, and what they take over from the defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine import config, paths
from engine.config import PRESET, read_yaml, resolve_hparams
from engine.methods import METHODS

CLAIM = re.compile(r"et al\.|EasyEdit|published")  # in a comment: values are somebody's
DISCLAIMER = "the rest ours"  # the head names what is taken over, and claims no more

#: What the loss is made of, where it is read, and how far and how long it is descended. Not in it:
#: where an edit goes and what of (layers; rank, tokens, past, both, anchors), which each file
#: says or default.yaml says for all models.
LOSS = (
    "contexts", "steps", "rounds", "batch", "lr", "relative_lr", "clamp", "grow", "epsilon",
    "scored", "kl", "decay", "whole", "end", "extend", "turns", "fisher", "norm_anchor", "ridge",
    "stop_loss", "stop_probability", "stop_argmax", "relative_weight",
    "threshold", "share", "tolerance", "relative", "signed", "old_weight", "new_weight",
    "doublings", "answer_tokens", "embedding",
)  # fmt: skip

#: Models that the project names: (model type, layers, width, MLP width); of T5 the decoder.
MODELS = {
    "gpt2-xl": ("gpt2", 48, 1600, 6400),
    "gpt-j": ("gptj", 28, 4096, 16384),
    "gpt-neox-20b": ("gpt_neox", 44, 6144, 24576),
    "llama-2-7b": ("llama", 32, 4096, 11008),
    "llama-3-8b": ("llama", 32, 4096, 14336),
    "mistral-7b": ("mistral", 32, 4096, 14336),
    "qwen2.5-7b": ("qwen2", 28, 3584, 18944),
    "t5-3b": ("t5", 24, 1024, 16384),
}
#: Where default.yaml holds as it is: nothing else is published, or known to be better.
BY_RULE = {
    "kn": {"gpt-neox-20b", "llama-2-7b", "llama-3-8b", "mistral-7b", "qwen2.5-7b"},  # as EasyEdit
    "lora": {"gpt2-xl", "gpt-j", "gpt-neox-20b", "qwen2.5-7b"},  # their three quarters are FT-M's
}


def of_published_values() -> list[Path]:
    """Presets of models with somebody's values, those apart that say that the rest is ours."""
    found = []
    for method in sorted(METHODS):
        for preset in config.presets(method):
            said = "\n".join(re.findall("#.*", preset.read_text(encoding="utf-8")))
            if CLAIM.search(said) and DISCLAIMER not in said:
                found.append(preset)
    return found


def is_ours(method: str, key: str) -> bool:
    """Whether default.yaml marks its value as ours."""
    text = paths.packaged(f"{method}/default.yaml").read_text(encoding="utf-8")
    said = re.search(rf"^{key}:.*#(.*)", text, re.MULTILINE)
    return bool(said and "ours" in said[1])


def inherited(method: str, preset: Path, named: str | None = None) -> list[str]:
    """Of the keys above those that a model takes from default.yaml, where they are ours."""
    shape = {"n_layers": 24, "width": 1024, "mlp_width": 4096} | read_yaml(preset)["match"]
    overrides = {PRESET: named} if named else {}
    hp, origin = resolve_hparams(
        method, METHODS[method].params_class(), name="any", overrides=overrides, **shape
    )
    assert str(preset) in origin.values()
    unused = {  # where an absolute one is given
        f"relative_{name}" for name in ("lr", "weight") if getattr(hp, name, None) is not None
    }
    default = str(paths.packaged(f"{method}/default.yaml"))
    keys = [key for key in LOSS if origin.get(key) == default and key not in unused]
    return [key for key in keys if is_ours(method, key)]


def test_the_search_sees_claims_and_marks() -> None:
    found = {f"{preset.parent.name}/{preset.stem}" for preset in of_published_values()}
    assert {"memit/gpt-j", "alphaedit/gpt2-xl", "pmet/gpt-j", "rome/qwen2.5-7b"} <= found
    assert {"locft-bf/mistral-7b", "ultraedit/llama-7b-8b", "ft-l/t5-3b"} <= found
    assert not {"r-rome/gpt-j", "memit/smollm2-135m", "rome/t5"} & found
    marks = {"whole": True, "relative_lr": True, "contexts": False, "stop_loss": False}
    assert {key: is_ours("memit", key) for key in marks} == marks
    assert inherited("r-rome", paths.packaged("r-rome/gpt-j.yaml"))  # says so at its head


@pytest.mark.parametrize("preset", of_published_values(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_published_presets_run_no_term_of_ours_unsaid(preset: Path) -> None:
    assert inherited(preset.parent.name, preset) == []


@pytest.mark.parametrize("model", ["gpt-j", "gpt2-xl", "llama-2-7b"])
def test_r_rome_as_published_can_be_asked_for(model: str) -> None:
    preset = paths.packaged(f"r-rome/{model}.yaml")
    assert inherited("r-rome", preset, "reference") == []
    cls = METHODS["r-rome"].params_class()
    shape = read_yaml(preset)["match"] | {"mlp_width": 0}
    values = [
        resolve_hparams(method, cls, name="any", overrides=overrides, **shape)[0].to_json()
        for method, overrides in (("r-rome", {PRESET: "reference"}), ("rome", {}))
    ]
    differ = {key for key in values[0] if values[0][key] != values[1][key]}
    # lr stands in for relative_lr; EasyEdit takes 25 steps for LLaMA-2, of ROME
    assert differ <= {"relative_lr", "steps"}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_model_of_the_list_has_a_preset_or_is_meant_to_have_none(method: str) -> None:
    info = METHODS[method]
    general = {"default", str(paths.packaged(f"{method}/default.yaml"))}
    without = set()
    for name, (model_type, n_layers, width, mlp_width) in MODELS.items():
        if model_type in info.families:
            _, origin = resolve_hparams(
                method,
                info.params_class(),
                model_type=model_type,
                n_layers=n_layers,
                width=width,
                mlp_width=mlp_width,
                name=name,
                overrides={},
            )
            without |= {name} if set(origin.values()) <= general else set()
    assert without == BY_RULE.get(method, set())
