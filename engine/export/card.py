"""The README.md beside exported weights: what they belong to, and what was changed. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..requests import Fact
from .facts import FILE

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that was edited.

    name         as it was loaded: an alias, a hub id or a folder
    source       where that came from
    fingerprint  sha256 over its configuration and weights
    hub          its id on the hub; "" for a model that is not there
    revision     branch, tag or commit on the hub, where one was asked for
    load_in      "4bit" or "8bit" where its weights were quantised as they were loaded
    """

    name: str
    source: str
    fingerprint: str
    model_type: str
    hub: str = ""
    revision: str | None = None
    load_in: str = ""

    @property
    def place(self) -> str:
        """What a library loads it by, where there is such a name; else what llm-edit does."""
        return self.hub or self.name


def checkpoint_card(base: Base, facts: Sequence[Fact], dtype: str) -> str:
    """Of a merged checkpoint."""
    return _card(
        base,
        facts,
        {"library_name": "transformers"},
        title=f"{_last(base.place)}, corrected",
        what=f"A copy of the base model below with {_counted(facts)} in its weights ({dtype}).",
        use=(
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("THIS FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")',
        ),
    )


def adapter_card(base: Base, facts: Sequence[Fact], sites: dict[str, int]) -> str:
    """Of a LoRA adapter; `sites` is the rank by module."""
    ranks = ", ".join(f"{site} (rank {rank})" for site, rank in sites.items())
    return _card(
        base,
        facts,
        {"library_name": "peft"},
        title=f"Corrections of {_last(base.place)}",
        what=f"A LoRA adapter that adds {_counted(facts)} to the base model below, at {ranks}. "
        "It says what it should on that very model only; with another fingerprint, make the "
        f"corrections again from {FILE}.",
        use=(
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM",
            "",
            'base = AutoModelForCausalLM.from_pretrained("BASE")',
            'model = PeftModel.from_pretrained(base, "THIS FOLDER")',
        ),
    )


def _card(
    base: Base,
    facts: Sequence[Fact],
    head: dict[str, str],
    *,
    title: str,
    what: str,
    use: Sequence[str],
) -> str:
    if base.hub:
        head = {"base_model": base.hub, **head}
    told = {"base": base.name, "source": base.source, "type": base.model_type}
    told["fingerprint"] = base.fingerprint
    parts = [
        "---",
        *(f"{key}: {value}" for key, value in head.items()),
        "tags:\n- knowledge-editing",
        "---",
        f"\n# {title}\n\n{what}\n",
        _code(f"{key}: {value}" for key, value in told.items()),
        *([] if base.hub else [_WHERE, _code([f"llm-edit models fetch {base.name}"])]),
        f"\nThe facts, also in {FILE} (for `llm-edit edit --file`):\n",
        _code(f"{fact.request.prompt} → {fact.request.target_new}" for fact in facts),
        "\nUse:\n",
        _code(use),
    ]
    return "\n".join(parts) + "\n"


_WHERE = "\nThe base is found by llm-edit, which prints its folder:\n"


def _code(lines: Iterable[str]) -> str:
    """An indented block, in which nothing that people typed is taken for markup."""
    return "\n".join(f"    {' '.join(line.split())}".rstrip() for line in lines)


def _counted(facts: Sequence[Fact]) -> str:
    return f"{len(facts)} corrected fact" + ("" if len(facts) == 1 else "s")


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
