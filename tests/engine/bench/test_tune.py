"""Tuning: what is tried, how it is halved, what is kept, and the preset that comes of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.arch import ARCHES
from engine.bench import preset, runner, tune
from engine.bench.results import Results, environment
from engine.bench.tune import Plan, Tried, axes, judged, rounds
from engine.config import own_file, read_yaml
from engine.errors import BadInput, BadSetting, UnsupportedModel
from engine.evaluate import datasets
from engine.evaluate.metrics import judge, measure
from engine.events import Event, Loading, Note
from engine.lm import LM
from tests.engine.evaluate.test_datasets import ROME
from tests.engine.support import finish, state, traces

NAMES = ("Ada Low", "Jane", "Emma Stone", "Bo Lund", "Cy Dahl", "Eve Poe")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rewrite = ROME["requested_rewrite"]
    rows = [
        {**ROME, "case_id": i, "requested_rewrite": {**rewrite, "subject": name}}
        for i, name in enumerate(NAMES)
    ]
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def begun(lm: LM, data: Path, plan: Plan, path: Path) -> Results:
    told = plan.base.to_json(lm, datasets.load(data)) | {"protocol": "tune"}
    return Results.open(path, "tune", told, environment("llm-edit tune"))


def tuned(
    lm: LM, data: Path, plan: Plan, path: Path, n: int | None = None
) -> tuple[list[Event], list[Tried], Results]:
    results = begun(lm, data, plan, path)
    events, found = finish(tune.run(lm, datasets.load(data, n).records, plan, results))
    return events, found, results


def plan_of(method: str, overrides: Mapping[str, str], **more: Any) -> Plan:
    own = {k: v for k, v in overrides.items() if k != "layer"}
    return Plan(base=runner.Settings(method=method, overrides=own), **more)


# -- what is tried --------------------------------------------------------------------------------


def test_only_the_best_see_every_record() -> None:
    assert rounds(9, 50) == [(9, 7), (5, 13), (3, 25), (2, 50)]
    assert rounds(3, 50) == [(3, 25), (2, 50)]
    assert rounds(2, 50) == [(2, 50)]
    assert rounds(9, 10) == [(9, 5), (2, 10)]  # fewer than five tell nothing
    assert rounds(9, 3) == [(9, 3)]


class Deep:
    """As much of a model as planning looks at: thirty layers of a family without presets."""

    n_layers, width, name = 30, 100, "deep"
    arch = dataclasses.replace(ARCHES["llama"], n_layers=30, width=100, mlp_width=1536)


@pytest.mark.parametrize(
    ("method", "first", "last"),
    [
        ("r-rome", {"layer": "0"}, {"layer": "12"}),  # in force: 2
        ("memit", {"first": "2", "last": "7"}, {"first": "12", "last": "17"}),  # 0 to 5
        ("ft-m", {"layers": "0"}, {"layers": "29"}),  # anywhere
    ],
)
def test_layers_are_moved_over_the_depth(
    method: str, first: dict[str, str], last: dict[str, str]
) -> None:
    (kind, layers), (rate, rates) = axes(Deep(), plan_of(method, {}))  # type: ignore[arg-type]
    assert kind == "layers"
    assert (layers[0], layers[-1]) == (first, last)
    assert 6 <= len(layers) <= tune.POSITIONS
    assert rate == ("lr" if method == "ft-m" else "relative_lr")
    assert [len(r) for r in rates] == [1, 1]
    hp = plan_of(method, {}).base.hparams(Deep())  # type: ignore[arg-type]
    assert [float(r[rate]) / getattr(hp, rate) for r in rates] == pytest.approx([0.5, 2])


def test_what_is_fixed_is_not_tried() -> None:
    deep: Any = Deep()
    assert [key for key, _ in axes(deep, plan_of("memit", {"last": "7"}))] == ["relative_lr"]
    assert [key for key, _ in axes(deep, plan_of("memit", {"lr": "0.1"}))] == ["layers"]
    with pytest.raises(BadInput, match="fixed, or it has none"):
        axes(deep, plan_of("memit", {"last": "7"}, layers=(3,)))
    with pytest.raises(BadInput, match="no layers and no rate"):
        axes(deep, plan_of("kn", {}))


def test_what_is_named_is_tried_alone() -> None:
    deep: Any = Deep()
    assert axes(deep, plan_of("kn", {}, values={"threshold": ("0.1", "0.3")})) == [
        ("threshold", [{"threshold": "0.1"}, {"threshold": "0.3"}])
    ]
    ((key, found), _) = axes(deep, plan_of("memit", {}, layers=(4, 1)))
    assert (key, found) == ("layers", [{"first": "1", "last": "6"}, {"first": "4", "last": "9"}])
    with pytest.raises(BadInput, match="from 0 to 24 here"):
        axes(deep, plan_of("memit", {}, layers=(25,)))


# -- scores ---------------------------------------------------------------------------------------


def row(said: float, rephrased: float, ns: tuple[float, float] | None) -> dict[str, Any]:
    metrics = {"said": {"after": said}, "rephrased": {"after": rephrased}, "loc": {"after": 0.5}}
    if ns is not None:
        metrics["NS"] = {"before": ns[0], "after": ns[1]}
    return {"error": "", "seconds": {"total": 2.0}, "metrics": metrics}


def test_the_score_is_the_harmonic_mean_of_the_three() -> None:
    found = judged({}, [row(1, 1, (1, 0.5)), row(1, 0, (0.6, 0.3))])
    assert (found.said, found.rephrased, found.kept) == pytest.approx((1, 0.5, 0.5))
    assert found.score == pytest.approx(3 / (1 + 2 + 2))
    assert (found.n, found.seconds, found.failed) == (2, 2.0, 0)
    assert judged({}, [row(1, 1, (0.5, 0.9))]).kept == 1  # more than before is no more than all
    assert judged({}, [row(1, 1, None)]).kept == 0.5  # questions that compete with nothing


def test_scores_of_zero_are_told_apart() -> None:
    better, worse = judged({}, [row(1, 0, (1, 1))]), judged({}, [row(0, 0, (1, 1))])
    assert better.score == worse.score == 0
    assert better.rank > worse.rank


# -- on a model -----------------------------------------------------------------------------------


def test_settings_are_tried_and_the_model_is_as_it_was(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    before = state(lm.model)
    plan = plan_of("r-rome", {**overrides, "steps": "4"}, values={"clamp": ("0.001", "60")})
    events, found, results = tuned(lm, data, plan, tmp_path / "t.jsonl")
    assert state(lm.model) == before
    assert traces(lm.model) == {}
    assert len(found) == 3
    assert {t.n for t in found if not t.setting} == {6}  # what was in force, to the end
    assert found[0].n == 6
    assert found[0].rank == max(t.rank for t in found if t.n == 6)
    assert [e.text for e in events if isinstance(e, Note)] == [
        "clamp: 3 settings on 5 records each",
        "clamp: 2 settings on 6 records each",
    ]
    progress = [e for e in events if isinstance(e, Loading) and e.stage == "tune"]
    assert [e.done for e in progress] == list(range(1, 18))
    assert {e.total for e in progress} == {17.0}
    # A row is what the benchmark measures of the same edit.
    record = datasets.load(data).records[0]
    unedited = measure(lm, record)
    row = results.rows["clamp=0.001 | 0"]
    assert row["setting"] == {"clamp": "0.001"}
    assert row["metrics"]["NM"]["before"] == judge(record, unedited, unedited)["NM"]["before"]
    changes = {
        key: abs(results.rows[key]["metrics"]["EM"]["after"] - row["metrics"]["EM"]["before"])
        for key in ("clamp=0.001 | 0", "clamp=60 | 0")
    }
    assert changes["clamp=0.001 | 0"] < 0.1 * changes["clamp=60 | 0"]


def test_layers_first_then_the_rate_at_the_best_of_them(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    plan = plan_of("ft-m", {"steps": "3", "layers": "0"})
    with_layers = Plan(base=plan.base)
    _, found, _ = tuned(lm, data, with_layers, tmp_path / "fixed.jsonl", 2)
    assert {tuple(t.setting) for t in found} == {(), ("lr",)}
    plan = plan_of("ft-m", {"steps": "3"})
    events, found, _ = tuned(lm, data, plan, tmp_path / "t.jsonl", 2)
    assert [e.text for e in events if isinstance(e, Note)] == [
        "layers: 2 settings on 2 records each",
        "lr: 3 settings on 2 records each",
    ]
    assert len(found) == 4


def test_a_run_goes_on_where_it_stopped(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    plan = plan_of("r-rome", {**overrides, "steps": "4"}, values={"clamp": ("0.001", "60")})
    path = tmp_path / "cut.jsonl"
    results = begun(lm, data, plan, path)
    job = tune.run(lm, datasets.load(data).records, plan, results)
    while len(results.rows) < 7:
        next(job)
    job.close()
    assert traces(lm.model) == {}
    kept = dict(results.rows)
    events, found, stored = tuned(lm, data, plan, path)
    made = [e for e in events if isinstance(e, Loading) and e.stage == "tune"]
    assert len(made) == 17 - 7
    assert made[-1].done == made[-1].total == len(stored.rows) == 17
    assert {key: stored.rows[key] for key in kept} == kept
    events, again, _ = tuned(lm, data, plan, path)
    assert not [e for e in events if isinstance(e, Loading)]
    assert [(t.setting, t.n, t.score) for t in again] == [(t.setting, t.n, t.score) for t in found]


def test_what_cannot_be_tried(
    lm: LM, data: Path, tmp_path: Path, overrides: dict[str, str]
) -> None:
    with pytest.raises(BadInput, match="no records"):
        tuned(lm, data, plan_of("r-rome", overrides), tmp_path / "a.jsonl", 0)
    with pytest.raises(BadSetting, match="unknown key 'clmp'"):
        tuned(lm, data, plan_of("r-rome", overrides, values={"clmp": ("1",)}), tmp_path / "b.jsonl")
    same = plan_of("r-rome", overrides, values={"clamp": ("40", "40.0")})
    with pytest.raises(BadInput, match="the one in force"):
        tuned(lm, data, same, tmp_path / "c.jsonl")
    odd: Any = SimpleNamespace(arch=SimpleNamespace(model_type="odd"))
    with pytest.raises(UnsupportedModel):
        finish(tune.run(odd, datasets.load(data).records, same, None))  # type: ignore[arg-type]


# -- the preset -----------------------------------------------------------------------------------


def test_the_preset_holds_what_is_not_packaged(lm: LM, data: Path) -> None:
    own = own_file("memit", lm.name)
    own.parent.mkdir(parents=True)
    own.write_text("decay: 0.25\nclamp: 7\n")
    given = {"steps": "12", "layers": "", "clamp": "8"}
    plan = Plan(
        base=runner.Settings(method="memit", overrides={k: given[k] for k in given if given[k]})
    )
    best = judged({"first": "1", "last": "1"}, [row(1, 1, (1, 0.5))])
    before = judged({}, [row(0, 1, (1, 0.5))])
    found = datasets.load(data)
    text = preset.text(lm, plan, found, best, before, "llm-edit tune memit\n--n 2")
    preset.write(own, text)
    assert read_yaml(own) == {"first": 1, "last": 1, "steps": 12, "clamp": 8.0, "decay": 0.25}
    again = runner.Settings(method="memit").hparams(lm)
    assert again == plan.settings(best.setting).hparams(lm)
    assert "#     llm-edit tune memit --n 2\n" in text
    text = text.replace("\n# ", " ")
    assert "n = 1, 2.00 s an edit" in text
    assert "seed 0" in text
    assert "score 75.0" in text
    assert "In force before: score 0.0 (" in text
    assert not list(own.parent.glob(".*"))
