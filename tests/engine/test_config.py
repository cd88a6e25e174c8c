"""Hyper-parameters: order of the sources, coercion, and errors that say where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from engine import config, paths
from engine.config import HParams, Layer, Source, build, coerce, read_yaml, resolve_hparams
from engine.errors import BadFile, BadSetting
from engine.methods import METHODS


@dataclass(frozen=True, kw_only=True)
class Params(HParams):
    layer: Layer
    rate: float = 0.5
    steps: int = 20
    fast: bool = True
    norm: Literal["clamp", "none"] = "clamp"
    layers: tuple[Layer, ...] = ()
    stop: float | None = None
    text: str = "wiki"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


def made(**values: object) -> Params:
    return build(Params, [Source("a.yaml", {"layer": 1, **values})], n_layers=30)[0]


def test_later_sources_win_and_are_named() -> None:
    sources = [
        Source("default.yaml", {"layer": 3, "steps": 5}),
        Source("mine.yaml", {"steps": 6}),
        Source("command line", {"rate": "1e-2"}),
    ]
    value, origin = build(Params, sources, n_layers=30)
    assert (value.layer, value.steps, value.rate) == (3, 6, 0.01)
    assert origin["layer"] == "default.yaml"
    assert origin["steps"] == "mine.yaml"
    assert origin["rate"] == "command line"
    assert origin["fast"] == "default"


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("rate", "5e-1", 0.5),  # what PyYAML makes of 5e-1
        ("rate", 1, 1.0),
        ("steps", "7", 7),
        ("fast", "no", False),
        ("layer", "20%", 6),
        ("layer", "100%", 29),
        ("layers", [1, "50%"], (1, 15)),
        ("layers", "4, 5", (4, 5)),
        ("stop", None, None),
        ("stop", "none", None),
        ("stop", "0.1", 0.1),
        ("norm", "none", "none"),
    ],
)
def test_values_are_coerced_by_the_declared_type(key: str, given: object, expected: object) -> None:
    found = getattr(made(**{key: given}), key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        ("rate", "fast", "a number"),
        ("rate", True, "a number"),
        ("steps", 1.5, "a whole number"),
        ("steps", True, "a whole number"),
        ("fast", 1, "true or false"),
        ("text", 3, "text"),
        ("norm", "clip", "one of 'clamp', 'none'"),
        ("layers", 3, "a list"),
        ("layer", 30, "from 0 to 29"),
        ("layer", "120%", "between 0% and 100%"),
        ("stop", "soon", "a number or none"),
    ],
)
def test_a_mistyped_key_names_file_key_and_type(key: str, given: object, said: str) -> None:
    with pytest.raises(BadSetting) as caught:
        made(**{key: given})
    for part in ("a.yaml", repr(key), said, repr(given)):
        assert part in str(caught.value)


def test_an_unknown_key_names_the_file_and_what_exists() -> None:
    with pytest.raises(BadSetting, match=r"a\.yaml: unknown key 'stepz'.*steps"):
        made(stepz=3)


def test_a_missing_key_names_the_file_and_the_type() -> None:
    with pytest.raises(BadSetting, match=r"default\.yaml: missing key 'layer' \(a layer\)"):
        build(Params, [Source("default.yaml", {})])


def test_a_value_that_the_method_refuses_names_the_source() -> None:
    with pytest.raises(BadSetting, match=r"a\.yaml: steps must be at least 1"):
        made(steps=0)


def test_broken_yaml_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("steps: 3\nrate: [1, 2\nfast: yes\n")
    with pytest.raises(BadFile, match=r"broken\.yaml:3: is not YAML"):
        read_yaml(file)


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "just words\n", "1: 2\n"])
def test_yaml_that_is_no_mapping_of_names(tmp_path: Path, content: str) -> None:
    file = tmp_path / "list.yaml"
    file.write_text(content)
    with pytest.raises(BadFile, match=r"list\.yaml:1"):
        read_yaml(file)


def test_unreadable_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A method `m` with a default and a preset, and a home of one's own."""
    folder = tmp_path / "hparams" / "m"
    folder.mkdir(parents=True)
    (folder / "default.yaml").write_text("layer: 20%\nsteps: 10\n")
    (folder / "tiny.yaml").write_text(
        "match: {model_type: gpt2, n_layers: 2, width: 16}\nlayer: 1\nrate: 5e-2\n"
    )
    monkeypatch.setattr(paths, "packaged", lambda name: tmp_path / "hparams" / name)
    monkeypatch.setenv("LLM_EDIT_HOME", str(tmp_path / "home"))
    return tmp_path


def resolved(
    name: str = "org/tiny", width: int = 16, mlp_width: int = 64, **overrides: str
) -> tuple[Params, dict]:
    return resolve_hparams(
        "m",
        Params,
        model_type="gpt2",
        n_layers=2,
        width=width,
        mlp_width=mlp_width,
        name=name,
        overrides=overrides,
    )


def test_a_preset_holds_for_the_model_it_matches_only(packaged: Path) -> None:
    value, origin = resolved()
    assert (value.layer, value.rate, value.steps) == (1, 0.05, 10)
    assert origin["layer"].endswith("tiny.yaml")
    assert resolved(width=32)[0].layer == 0


def test_a_preset_of_a_family_comes_before_that_of_a_model(packaged: Path) -> None:
    family = packaged / "hparams" / "m" / "zz.yaml"  # whatever it is called
    family.write_text("match: {model_type: gpt2}\nrate: 0.75\nsteps: 9\n")
    value, origin = resolved()
    assert (value.layer, value.rate, value.steps) == (1, 0.05, 9)
    assert origin["steps"] == str(family)
    other = resolved(width=32)[0]
    assert (other.layer, other.rate) == (0, 0.75)


def test_models_of_one_depth_and_width_are_told_apart_by_their_mlps(packaged: Path) -> None:
    wide = packaged / "hparams" / "m" / "a.yaml"  # before the other by its name
    wide.write_text(
        "match: {model_type: gpt2, n_layers: 2, width: 16, mlp_width: 256}\nrate: 0.75\n"
    )
    value, origin = resolved(mlp_width=256)
    assert (value.layer, value.rate) == (1, 0.75)
    assert origin["rate"] == str(wide)
    assert resolved()[0].rate == 0.05


def test_the_users_file_and_the_command_line_come_last(packaged: Path) -> None:
    own = packaged / "home" / "hparams" / "m"
    own.mkdir(parents=True)
    (own / "org--tiny.yaml").write_text("rate: 0.25\nsteps: 3\n")
    value, origin = resolved(steps="4")
    assert (value.layer, value.rate, value.steps) == (1, 0.25, 4)
    assert origin["rate"].endswith("org--tiny.yaml")
    assert origin["steps"] == config.COMMAND_LINE
    assert resolved(name="/models/other")[0].rate == 0.05


def test_a_preset_that_is_named_comes_before_the_other_overrides(packaged: Path) -> None:
    folder = packaged / "hparams" / "m" / "named"
    folder.mkdir()
    (folder / "reference.yaml").write_text("rate: 0.125\nsteps: 7\n")
    value, origin = resolved(preset="reference", steps="4")
    assert (value.layer, value.rate, value.steps) == (1, 0.125, 4)
    assert origin["rate"].endswith("reference.yaml")
    assert "preset" not in origin
    with pytest.raises(BadSetting, match=r"m has no preset 'other'.*Known: reference\."):
        resolved(preset="other")


def test_a_preset_that_is_named_may_say_more_of_a_model(packaged: Path) -> None:
    folder = packaged / "hparams" / "m" / "named"
    (folder / "reference").mkdir(parents=True)
    (folder / "reference.yaml").write_text("layer: 0\nrate: 0.125\nsteps: 7\n")
    (folder / "reference" / "tiny.yaml").write_text(
        "match: {model_type: gpt2, n_layers: 2, width: 16}\nlayer: 1\nsteps: 8\n"
    )
    value, origin = resolved(preset="reference", rate="0.5")
    assert (value.layer, value.rate, value.steps) == (1, 0.5, 8)
    assert origin["steps"].endswith("reference/tiny.yaml")
    other = resolved(width=32, preset="reference")[0]
    assert (other.layer, other.rate, other.steps) == (0, 0.125, 7)
    with pytest.raises(BadSetting, match=r"Known: reference\."):
        resolved(preset="tiny")


def test_an_override_that_is_unknown_names_the_command_line(packaged: Path) -> None:
    with pytest.raises(BadSetting, match="command line: unknown key 'stepz'"):
        resolved(stepz="4")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "match: {n_layers: 2}\n",
        "match: {model_type: 2}\n",
        "match: {model_type: gpt2, mlp_width: 64}\n",
        "match: {model_type: gpt2, n_layers: 2, width: 16, mlp_width: wide}\n",
    ],
)
def test_a_preset_must_say_what_it_is_for(said: str, packaged: Path) -> None:
    (packaged / "hparams" / "m" / "lost.yaml").write_text(f"{said}layer: 1\n")
    with pytest.raises(BadSetting, match=r"lost\.yaml: 'match'"):
        resolved()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_packaged_file_fits_its_method(method: str) -> None:
    cls = METHODS[method].params_class()
    default = Source("default", config.settings(paths.packaged(f"{method}/default.yaml")))
    build(cls, [default], n_layers=12)
    named = sorted(paths.packaged(f"{method}/named").glob("*.yaml"))
    of_models = {p: {} for p in config.presets(method)} | {
        p: {config.PRESET: file.stem} for file in named for p in file.with_suffix("").glob("*.yaml")
    }
    for preset, overrides in of_models.items():
        shape = {"n_layers": 24, "width": 1024, "mlp_width": 4096} | read_yaml(preset)["match"]
        own = Source(str(preset), config.settings(preset))
        build(cls, [default, own], n_layers=shape["n_layers"])
        _, origin = resolve_hparams(method, cls, name="any", overrides=overrides, **shape)
        assert str(preset) in origin.values()
    for file in named:
        build(cls, [default, Source(str(file), config.settings(file))], n_layers=12)


GPT_J = {"model_type": "gptj", "n_layers": 28, "width": 4096, "mlp_width": 16384}
LLAMA_2_7B = {"model_type": "llama", "n_layers": 32, "width": 4096, "mlp_width": 11008}
MISTRAL_7B = {"model_type": "mistral", "n_layers": 32, "width": 4096, "mlp_width": 14336}
T5_3B = {"model_type": "t5", "n_layers": 24, "width": 1024, "mlp_width": 16384}


@pytest.mark.parametrize(
    ("model", "layers", "steps", "scored"),
    [
        (GPT_J, (21,), 25, "last"),
        (LLAMA_2_7B, (21,), 25, "last"),
        (MISTRAL_7B, (21,), 25, "last"),
        (T5_3B, (0, 21), 50, "own"),
        (GPT_J | {"n_layers": 12, "width": 768}, (9,), 25, "last"),  # no model of theirs
    ],
)
def test_ft_l_of_the_comparison_edits_where_it_did(
    model: dict[str, Any], layers: tuple[int, ...], steps: int, scored: str
) -> None:
    """Yao et al. 2023 (arXiv:2305.13172): where, how long, unconstrained, and on which loss."""
    cls = METHODS["ft-l"].params_class()
    given = {"preset": "reference"}
    hp, _ = resolve_hparams("ft-l", cls, name="any", overrides=given, **model)
    assert (hp.layers, hp.steps, hp.scored) == (layers, steps, scored)
    assert (hp.epsilon, hp.lr, hp.stop_loss, hp.contexts) == (None, 5e-4, 0.01, 0)


@pytest.mark.parametrize("method", ["ft-l", "ft-m", "kn"])
def test_t5_large_is_not_taken_for_t5_3b(method: str) -> None:
    preset = str(paths.packaged(f"{method}/t5-3b.yaml"))
    for mlp_width, held in ((16384, True), (4096, False)):
        _, origin = resolve_hparams(
            method,
            METHODS[method].params_class(),
            name="any",
            overrides={},
            **T5_3B | {"mlp_width": mlp_width},
        )
        assert (preset in origin.values()) == held


def test_numbers_do_not_pass_for_truth_values() -> None:
    for number in (0, 1, 0.0):
        with pytest.raises(ValueError):  # noqa: PT011  the caller says which key and type
            coerce(number, bool)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("steps=0", "'steps' must be above 0"),
        ("together=0", "'together' must be above 0"),
        ("contexts=-1", "'contexts' must not be below 0"),
        ("weight=0", "'weight' must be above 0"),
        ("relative_lr=-1", "'relative_lr' must be above 0"),
    ],
)
def test_values_that_no_method_can_work_with_are_refused(setting: str, said: str) -> None:
    from engine.methods.memit import MemitParams

    key, value = setting.split("=")
    given = [Source("command line", {"first": "0", "last": "1", key: value})]
    with pytest.raises(BadSetting, match=said):
        build(MemitParams, given, n_layers=4)
