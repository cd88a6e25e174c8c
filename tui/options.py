"""How a chat is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from engine import paths

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_METHOD = "r-rome"


@dataclass(frozen=True)
class Options:
    """How a chat is set up.

    model        alias, hub id or folder; "" is that of the session, else the default model
    method       name of an editing method; "" is that of the session, else the default method
    device_map   "auto": spread over GPUs and CPU; "" is as with the session
    load_in      "4bit", "8bit" or "none"; "" is that of the session, else none
    session      id, unique beginning of one, or title of the session to go on with
    resume_last  go on with the latest session (of `model`, where one is named)
    reuse        go on with the latest session of the model, or begin one (`ask`, `edit`)
    hp           hyper-parameters that replace the method's own, as texts
    prepare      compute what the first correction needs while nothing else is asked
    """

    model: str = ""
    method: str = ""
    dtype: str = "auto"
    device: str = "auto"
    device_map: str = ""
    load_in: str = ""
    seed: int = 0
    session: str | None = None
    resume_last: bool = False
    reuse: bool = False
    home: Path = field(default_factory=paths.home)
    max_tokens: int = 256
    temperature: float = 0.0
    hp: dict[str, str] = field(default_factory=dict)
    prepare: bool = True
