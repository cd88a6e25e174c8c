"""Hyper-parameters: where they come from, and what they may be. Imports no torch.

A method declares a frozen dataclass; files and the command line fill it. Later wins:

    hparams/<method>/default.yaml        for any model: layers as shares of the depth ("20%")
    hparams/<method>/<preset>.yaml       packaged; `match: {model_type, n_layers, width}`, with
                                         mlp_width where models of a family share the others,
                                         or `match: {model_type}` for a whole family
    <home>/hparams/<method>/<model>.yaml the user's own
    hparams/<method>/named/<name>.yaml   where the command line says `preset=<name>`, and of
                                         named/<name>/ those that match
    key=value                            the command line

The packaged files of a method that another package adds are in that package: see
`MethodInfo.hparams`. It may have none, where the class has a default for every field.

A key that is unknown, missing or of the wrong type is an error that names file, key and type.
Values are coerced by the declared type, because YAML reads `5e-1` as text.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from . import methods, paths
from .errors import BadFile, BadInput, BadSetting, meant, unreadable

LAYER = "layer"

Layer = Annotated[int, LAYER]
"""A 0-based layer. In a file it may be a share of the depth: "20%" of 30 layers is layer 6."""

COMMAND_LINE = "command line"
_DEEP = 1_000_000  # layers: more than any model has
PRESET = "preset"  # not a hyper-parameter: names a packaged file of them

P = TypeVar("P")


@dataclass(frozen=True, kw_only=True)
class HParams:
    """Base of the hyper-parameters of every method.

    Fields may be bool, int, float, str, `Layer`, a Literal, `X | None` and `tuple[X, ...]`.
    A ValueError from `__post_init__` is reported as a bad setting.
    """

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


H = TypeVar("H", bound=HParams)


def above_zero(hp: HParams, *names: str) -> None:
    """Raises ValueError for one of these that is not above 0; what is absent, or None, passes."""
    for name in names:
        value = getattr(hp, name, None)
        if value is not None and not value > 0:
            raise ValueError(f"{name!r} must be above 0, not {value!r}.")


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Hyper-parameters as the command line would give them."""
    return {name: _as_text(value) for name, value in values.items()}


def _as_text(value: Any) -> str:
    return ",".join(map(_as_text, value)) if isinstance(value, (list, tuple)) else str(value)


@dataclass(frozen=True)
class Source:
    """Some settings and where they stand: the path of a file, or "command line"."""

    name: str
    values: Mapping[str, Any]


def resolve_hparams(
    method: str,
    cls: type[H],
    *,
    model_type: str,
    n_layers: int,
    width: int,
    mlp_width: int,
    name: str,
    overrides: Mapping[str, str],
) -> tuple[H, dict[str, str]]:
    """The hyper-parameters of `method` for a model, and per key where each came from.

    name  the model's name, for the user's own file
    Raises BadSetting, BadFile.
    """
    shape = {
        "model_type": model_type, "n_layers": n_layers, "width": width, "mlp_width": mlp_width,
    }  # fmt: skip
    files = defaults(method)
    files += _fitting(presets(method), shape)
    own = own_file(method, name)
    files += [own] if own.exists() else []
    if PRESET in overrides:
        asked = _named(method, overrides[PRESET])
        files += [asked, *_fitting(sorted(asked.with_suffix("").glob("*.yaml")), shape)]
    sources = [Source(str(file), settings(file)) for file in files]
    given = {key: value for key, value in overrides.items() if key != PRESET}
    sources.append(Source(COMMAND_LINE, given))
    return build(cls, sources, n_layers=n_layers)


def folder(method: str) -> Path:
    """Where the packaged files of a method are: ours, or those of the package that adds it."""
    packaged = paths.packaged(method)
    if packaged.is_dir():
        return packaged
    info = methods.methods().get(method)
    return info.hparams() if info else packaged


def defaults(method: str) -> list[Path]:
    """Its `default.yaml`: one file, or none for a method of another package that has none."""
    file = folder(method) / "default.yaml"
    return [file] if file.is_file() or method in methods.METHODS else []


def own_file(method: str, model: str) -> Path:
    """Where the user's own settings of a method for a model are, if there are any."""
    return paths.home() / "hparams" / method / f"{file_name(model)}.yaml"


def presets(method: str) -> list[Path]:
    """The packaged files of a method for particular models and families."""
    folder_ = folder(method)
    return sorted(p for p in folder_.glob("*.yaml") if p.name != "default.yaml")


def _named(method: str, name: str) -> Path:
    """A packaged file that is asked for by name. Raises BadSetting."""
    found = {p.stem: p for p in sorted((folder(method) / "named").glob("*.yaml"))}
    if name not in found:
        known = f"Known: {', '.join(found)}." if found else ""
        raise BadSetting(f"{COMMAND_LINE}: {method} has no preset {name!r}.", known)
    return found[name]


def _fitting(files: Sequence[Path], shape: Mapping[str, Any]) -> list[Path]:
    """Those that match a model: of its family, then of the model. Raises BadSetting, BadFile."""
    found = {file: _match(file) for file in files}
    fitting = [file for file in files if found[file].items() <= shape.items()]
    return sorted(fitting, key=lambda file: len(found[file]))


def is_general(source: str, method: str) -> bool:
    """Whether a value from there holds for everyone: packaged, and not asked for by name."""
    return source in {"default", *map(str, defaults(method)), *map(str, presets(method))}


def _match(path: Path) -> dict[str, Any]:
    """What a preset is for. Raises BadSetting when it does not say, or says it otherwise."""
    found = read_yaml(path).get("match")
    types_ = {"model_type": str, "n_layers": int, "width": int, "mlp_width": int}
    if (
        not isinstance(found, dict)
        or set(found) not in ({"model_type"}, {*types_} - {"mlp_width"}, {*types_})
        or not all(_is(value, types_[key]) for key, value in found.items())
    ):
        raise BadSetting(
            f"{path}: 'match' must be {{model_type: text, n_layers: whole number, "
            f"width: whole number}}, with mlp_width: whole number or without it, or "
            f"{{model_type: text}}, not {found!r}."
        )
    return found


def file_name(model: str) -> str:
    """The name of a model as a file's name: `org/name` is `org--name`, a folder its last part."""
    path = Path(model)
    if path.is_absolute() or model.startswith((".", "~")):
        return path.name
    return model.replace("/", "--")


def settings(path: Path) -> dict[str, Any]:
    """The keys of a preset, without what it matches."""
    return {key: value for key, value in read_yaml(path).items() if key != "match"}


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file is an empty one.

    Raises BadFile naming the file and, for a syntax error, the line.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, None, unreadable(error)) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise BadFile(path, line, f"is not YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise BadFile(path, None, f"is not YAML: {error}.") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadFile(path, 1, "must hold `key: value` lines.")
    return found


def build(
    cls: type[P], sources: Sequence[Source], *, n_layers: int = 0
) -> tuple[P, dict[str, str]]:
    """A dataclass filled from `sources`, later ones first in force; per key its source.

    Keys that no source names keep the default of the class ("default").
    Raises BadSetting.
    """
    values, origin = _values(cls, sources, n_layers)
    hints = typing.get_type_hints(cls, include_extras=True)
    for key, field in _fields(cls).items():
        absent = field.default is field.default_factory is dataclasses.MISSING
        if key not in values and absent:
            place = sources[0].name if sources else cls.__name__
            raise BadSetting(f"{place}: missing key {key!r} ({describe(hints[key])}).")
    try:
        return cls(**values), origin
    except ValueError as error:
        raise BadSetting(f"{sources[-1].name if sources else cls.__name__}: {error}") from error


def check(method: str, overrides: Mapping[str, str]) -> None:
    """What can be said of settings before a model is there: names, types, presets and ranges.

    Refused is what no model takes, however deep it is and whichever preset fits it. Imports the
    method where there is something to check. Raises UnknownName, BadSetting.
    """
    info = methods.get(method)
    if not overrides:
        return
    cls = info.params_class()
    given = Source(COMMAND_LINE, {key: v for key, v in overrides.items() if key != PRESET})
    _values(cls, [given], 0)
    refused = ""
    for files in _for_some_model(method, overrides.get(PRESET)):
        for n_layers in (0, _DEEP):
            try:
                sources = [Source(str(file), settings(file)) for file in files]
                cls(**_values(cls, [*sources, given], n_layers)[0])
                return
            except TypeError:  # a key is missing that only a model's own files have
                return
            except BadInput:  # a file for another model, perhaps: loading tells
                continue
            except ValueError as error:
                refused = refused or str(error)
    if refused:
        raise BadSetting(f"{COMMAND_LINE}: {refused}")


def _for_some_model(method: str, name: str | None) -> Iterator[list[Path]]:
    """The files of settings that some model may have, first those that any has.

    name  of a preset that is asked for. Raises BadSetting.
    """
    general, asked = defaults(method), [_named(method, name)] if name is not None else []
    yield [*general, *asked]
    own = own_file(method, "any").parent.glob("*.yaml")
    yield from ([*general, file, *asked] for file in [*presets(method), *sorted(own)])
    for preset in asked:
        special = sorted(preset.with_suffix("").glob("*.yaml"))
        yield from ([*general, preset, file] for file in special)


def _fields(cls: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(cls) if f.init}


def _values(
    cls: type[Any], sources: Sequence[Source], n_layers: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that the sources give, and where each field's comes from. Raises BadSetting."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = _fields(cls)
    values: dict[str, Any] = {}
    origin = dict.fromkeys(fields, "default")
    for source in sources:
        for key, value in source.values.items():
            if key not in fields:
                remedy = f"{meant(key, fields)} Known: {', '.join(sorted(fields))}.".strip()
                raise BadSetting(f"{source.name}: unknown key {key!r}.", remedy)
            values[key] = _checked(source, key, value, hints[key], n_layers)
            origin[key] = source.name
    return values, origin


def _checked(source: Source, key: str, value: Any, declared: Any, n_layers: int) -> Any:
    try:
        return coerce(value, declared, n_layers)
    except ValueError as error:
        reason = str(error) or f"must be {describe(declared)}"
        raise BadSetting(f"{source.name}: {key!r} {reason}, not {value!r}.") from None


def coerce(value: Any, declared: Any, n_layers: int = 0) -> Any:
    """`value` as the declared type. Text is read where a file or the command line may hold it.

    Raises ValueError, with a message where the type alone would not explain it.
    """
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin is Annotated:
        return _layer(value, n_layers) if LAYER in arguments else coerce(value, arguments[0])
    if origin in (Union, types.UnionType):
        return _optional(value, arguments, n_layers)
    if origin is Literal:
        if value not in arguments:
            raise ValueError
        return value
    if origin is tuple:
        items = [i.strip() for i in value.split(",") if i.strip()] if _is(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise ValueError
        return tuple(coerce(item, arguments[0], n_layers) for item in items)
    return _plain(value, declared)


def _plain(value: Any, declared: Any) -> Any:
    if declared is bool:
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if _is(value, str) and value.lower() in words:
            return words[value.lower()]
    elif declared is float and (_is(value, int) or _is(value, str)):
        return _number(float, value)
    elif declared is int and _is(value, str):
        return _number(int, value)
    if not _is(value, declared):
        raise ValueError
    return value


def _number(kind: type[P], value: Any) -> P:
    try:
        return kind(value)  # type: ignore[call-arg]
    except ValueError:
        raise ValueError from None  # the caller says what was expected


def _is(value: Any, kind: type) -> bool:
    """isinstance, where True is no number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _optional(value: Any, members: tuple[Any, ...], n_layers: int) -> Any:
    if type(None) in members and (value is None or (_is(value, str) and value.lower() == "none")):
        return None
    for member in members:
        if member is not type(None):
            try:
                return coerce(value, member, n_layers)
            except ValueError:
                continue
    raise ValueError


def _layer(value: Any, n_layers: int) -> int:
    """A layer given as an index or as a share of the depth."""
    if _is(value, str) and value.endswith("%"):
        share = _number(float, value[:-1])
        if not 0 <= share <= 100:
            raise ValueError("must be between 0% and 100%")
        return min(int(n_layers * share / 100), max(n_layers - 1, 0))
    layer = int(_plain(value, int))
    if layer < 0 or (n_layers and layer >= n_layers):
        raise ValueError(f"must be a layer from 0 {f'to {n_layers - 1}' if n_layers else 'up'}")
    return layer


def describe(declared: Any) -> str:
    """A declared type in words: "a whole number", "a list of texts" ..."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin is Annotated:
        return "a layer" if LAYER in arguments else describe(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member) for member in arguments)
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin is tuple:
        return f"a list ({describe(arguments[0])} each)"
    words = {
        bool: "true or false", int: "a whole number", float: "a number", str: "text",
        type(None): "none",
    }  # fmt: skip
    return words.get(declared, str(declared))
