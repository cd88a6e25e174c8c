"""Other things of the same kind: what a question can be asked about instead. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import zip_longest

from ..paths import packaged
from .normalise import normalise

# Words of a prompt that tell what its subject is, most telling first.
_CUES = (
    ("element", r"chemical (symbol|element)|atomic (number|weight)|periodic"),
    ("planet or moon", r"\bplanet|\bmoons?\b|\borbits?\b"),
    ("animal", r"\banimals?\b|\bspecies\b|\bmammal"),
    ("painting", r"\bpaint(ed|ing|er of)"),
    ("film", r"\bdirect(ed|or)\b|\bmovie|\bfilm\b|\bstar(red|s) in"),
    ("music", r"\bcompos(ed|er)"),
    ("work", r"\bwr(ote|itten)\b(?!.*\bin\b)|\bauthor\b|\bnovel\b|\bbook\b|\bcharacter"),
    ("river or mountain", r"\briver\b|\bmountain\b|\bflows?\b|\bpeak\b|\bhigh is\b"),
    ("person", r"\bborn\b|\bdied?\b|profession|occupation|nationality|mother tongue|"
               r"instrument|\bmarried|citizen|\bposition played|\breligion of\b|native to|"
               r"\bsport\b|\bplay(ed|s)?\b"),
    ("company", r"headquarter|\bfounded\b|\bfounder|\bCEO\b|\bindustry\b|\bcompany\b"),
    ("product", r"\bmakes\b|\bproduct|\bdeveloped\b|\bmanufactur"),
    ("country", r"\bcapital\b|\bcurrency\b|\bpresident\b|\bprime minister\b|\blanguage\b|"
                r"\bcontinent\b|\bpopulation\b|\bcountry\b|\bborders?\b"),
    ("landmark", r"\blocated\b|\bwhere is\b|\bwhich city\b"),
)  # fmt: skip
# Where nothing tells the kind: names of several, so that some question will make sense.
_MIXED = ("person", "country", "company", "city", "work")


@cache
def known() -> dict[str, tuple[str, ...]]:
    """Kind -> names, from hparams/entities.json."""
    found = json.loads(packaged("entities.json").read_text(encoding="utf-8"))
    return {kind: tuple(names) for kind, names in found.items()}


def kind_of(subject: str, prompt: str) -> str:
    """What the subject is: by name, else by the words around it, else by its form; else ""."""
    wanted = normalise(subject)
    named = [kind for kind, names in known().items() if wanted in map(normalise, names)]
    around = prompt.replace(subject, " ")
    cued = [kind for kind, cue in _CUES if re.search(cue, around, re.IGNORECASE)]
    for kind in named:  # a name of two kinds (Mercury) is what the prompt says
        if kind in cued or len(named) == 1:
            return kind
    if named or cued:
        return (named or cued)[0]
    if re.fullmatch(r"(\w[\w.'’-]*\s+){1,3}\w[\w.'’-]*", subject) and subject.istitle():
        return "person"
    return ""


def others(subject: str, prompt: str, count: int) -> list[str]:
    """`count` other names of the subject's kind, always the same for the same prompt.

    Fewer when the kind has fewer; names that share a word with the subject are left out.
    """
    kind = kind_of(subject, prompt)
    pools = [known()[kind]] if kind else [known()[k] for k in _MIXED]
    taken = set(normalise(subject).split())
    ranked = [sorted(_free(pool, taken), key=lambda n: _draw(prompt, n)) for pool in pools]
    turns = [name for names in zip(*ranked, strict=False) for name in names]
    return turns[:count]


def alike(subject: str, prompt: str) -> Iterator[str]:
    """All other names: the subject's kind first, then the other kinds in turns."""
    kind = kind_of(subject, prompt)
    taken = set(normalise(subject).split())
    own = [known()[kind]] if kind else []
    rest = [pool for k, pool in known().items() if k != kind]
    yield from (name for pool in own for name in _free(pool, taken))
    for turn in zip_longest(*(_free(pool, taken) for pool in rest)):
        yield from (name for name in turn if name)


def _free(names: Iterable[str], taken: set[str]) -> list[str]:
    return [name for name in names if not taken & set(normalise(name).split())]


def _draw(prompt: str, name: str) -> str:
    return hashlib.sha256(f"{prompt}\n{name}".encode()).hexdigest()
