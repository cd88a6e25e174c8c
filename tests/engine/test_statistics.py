"""C = E[k kᵀ], and solving with it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine import paths, statistics
from engine.errors import BadSetting, SingularCovariance
from engine.events import Loading
from engine.hooks import capture
from engine.lm import LM
from engine.patches import LowRank
from engine.statistics import Moment, Statistics, cholesky

from .support import CORPUS, close_after, finish, shared_lm, traces

TOKENS = 100_000  # more than there are: the whole text is read
FAMILIES = ("gpt2", "llama", "opt", "bloom", "gemma3_text", "t5")


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Passages of different lengths, with blank lines between some of them."""
    file = tmp_path / "text.txt"
    lines = [*CORPUS, "", "Paris", "  The answer is England.  ", *(f"{t} {t}" for t in CORPUS)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


def collect(lm: LM, layer: int, text: str, tokens: int = TOKENS) -> tuple[list[Any], Moment]:
    return finish(Statistics(lm).moment(layer, text=text, tokens=tokens))


def passages(text: str) -> list[str]:
    lines = Path(text).read_text(encoding="utf-8").split("\n")
    return [line.strip() for line in lines if line.strip()]


@torch.no_grad()
def naive(lm: LM, layer: int, text: str) -> tuple[Tensor, int]:
    """E[k kᵀ] token by token, one passage at a time, in float64."""
    keys: list[Tensor] = []
    for passage in passages(text):
        ids = torch.tensor([lm.statement(passage).ids[: statistics.SEQUENCE]])
        with capture(lm.model, lm.site("mlp_out", layer), inputs=True) as seen:
            lm.model(ids, **({"decoder_input_ids": ids[:, :1]} if lm.encoder_decoder else {}))
        keys += list(seen[lm.site("mlp_out", layer)].reshape(ids.shape[1], -1).double())
    total = torch.zeros(len(keys[0]), len(keys[0]), dtype=torch.float64)
    for k in keys:
        total += torch.outer(k, k)
    return total / len(keys), len(keys)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "t5"])
def test_it_is_the_mean_outer_product_of_keys(family: str, layer: int, text: str) -> None:
    lm = shared_lm(family)
    _, moment = collect(lm, layer, text)
    wanted, tokens = naive(lm, layer, text)
    assert moment.tokens == tokens
    ridge = 1e-6 * wanted.diagonal().mean() * torch.eye(len(wanted))
    scale = float(wanted.diagonal().mean())
    assert torch.allclose(moment.C.double(), wanted + ridge, atol=1e-5 * scale)
    assert torch.allclose(moment.factor @ moment.factor.T, moment.C, atol=1e-5 * scale)
    assert torch.equal(moment.factor, moment.factor.tril())
    assert traces(lm.model) == {}


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_batches_and_padding_do_not_count(
    batch: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = shared_lm("gemma2")
    monkeypatch.setattr(statistics, "BATCH", batch)
    _, moment = collect(lm, 1, text)
    wanted, tokens = naive(lm, 1, text)
    assert moment.tokens == tokens
    assert torch.allclose(moment.C.double(), wanted, atol=1e-5 * float(wanted.max()))


def test_long_passages_are_cut(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SEQUENCE", 7)
    lm = shared_lm("llama")
    _, moment = collect(lm, 0, text)
    assert moment.tokens == sum(min(7, len(lm.statement(p).ids)) for p in passages(text))


def test_reading_stops_when_there_is_enough(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BATCH", 1)
    events, moment = collect(shared_lm("llama"), 0, text, tokens=30)
    assert 30 <= moment.tokens < 30 + statistics.SEQUENCE
    assert all(isinstance(e, Loading) and e.stage == "statistics" for e in events)
    assert events[-1].done == events[-1].total == 30


def test_all_layers_in_one_pass(text: str) -> None:
    lm = shared_lm("gpt2")
    events, moments = finish(Statistics(lm).moments([0, 1], text=text, tokens=TOKENS))
    assert set(moments) == {0, 1}
    assert len(events) == 1  # one batch: both layers from the same pass
    for layer in (0, 1):
        wanted, _ = naive(lm, layer, text)
        assert torch.allclose(moments[layer].C.double(), wanted, atol=1e-5 * float(wanted.max()))


def test_active_edits_do_not_leak_in(text: str) -> None:
    lm = shared_lm("llama")
    wanted, _ = naive(lm, 1, text)
    site = lm.site("mlp_out", 0)
    patch = LowRank(site, torch.ones(lm.width, 1), torch.ones(1, lm.arch.mlp_width))
    with lm.active([patch]):
        changed, _ = naive(lm, 1, text)
        _, moment = collect(lm, 1, text)
    assert (changed - wanted).abs().max() > 0.01 * wanted.max()
    assert torch.allclose(moment.C.double(), wanted, atol=1e-5 * float(wanted.max()))


# -- interruption and files ---------------------------------------------------------------------


def test_an_interrupted_collection_goes_on(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BATCH", 2)
    lm = shared_lm("gpt2")
    all_events, whole = collect(lm, 1, text)
    _forget()
    kept = Statistics(lm)
    done = 0
    for _ in range(3):
        events = close_after(kept.moment(1, text=text, tokens=TOKENS), 2)
        assert events[0].done > done
        done = events[-1].done
        assert traces(lm.model) == {}
    rest, moment = finish(kept.moment(1, text=text, tokens=TOKENS))
    assert len(rest) == len(all_events) - 6  # nothing is read twice
    assert moment.tokens == whole.tokens
    assert torch.equal(moment.C, whole.C)
    assert finish(kept.moment(1, text=text, tokens=TOKENS)) == ([], moment)


def _forget() -> None:
    for file in _files():
        file.unlink()


def _files() -> list[Path]:
    return sorted((paths.cache() / "statistics").rglob("*.safetensors"))


def test_a_file_is_kept_and_used(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = shared_lm("gpt2")
    _, made = collect(lm, 1, text)
    (file,) = _files()
    assert lm.site("mlp_out", 1) in file.name
    assert [p.name for p in file.parent.iterdir()] == [file.name]  # no temporary ones
    monkeypatch.setattr(statistics._Collection, "_read", lambda *_: pytest.fail("read again"))
    events, again = collect(lm, 1, text)
    assert events == []
    assert torch.equal(again.C, made.C)
    assert torch.equal(again.factor, made.factor)
    assert again.tokens == made.tokens


def test_layers_texts_models_and_sizes_are_kept_apart(text: str, tmp_path: Path) -> None:
    collect(shared_lm("gpt2"), 1, text)
    collect(shared_lm("gpt2"), 0, text)
    collect(shared_lm("gpt2", seed=1), 1, text)
    collect(shared_lm("gpt2"), 1, text, tokens=200)
    other = tmp_path / "other.txt"
    other.write_text("\n".join(CORPUS), encoding="utf-8")
    collect(shared_lm("gpt2"), 1, str(other))
    assert len(_files()) == 5


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "other"])
def test_a_damaged_file_is_made_again(damage: str, text: str) -> None:
    lm = shared_lm("gpt2")
    _, made = collect(lm, 1, text)
    (file,) = _files()
    whole = file.read_bytes()
    if damage == "other":
        from safetensors.torch import save

        file.write_bytes(save({"X": torch.zeros(1)}))
    else:
        file.write_bytes({"truncated": whole[:-100], "garbage": b"\0" * 64, "empty": b""}[damage])
    events, again = collect(lm, 1, text)
    assert events
    assert torch.equal(again.C, made.C)
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("LLM_EDIT_CACHE", str(blocked))
    _, moment = collect(shared_lm("gpt2"), 1, text)
    assert moment.tokens > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "none.txt cannot be read"),
        ("empty.txt", b"\n \n", "holds no passages"),
        ("latin.txt", b"\xff\xfe", "latin.txt cannot be read"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadSetting, match=message):
        collect(shared_lm("gpt2"), 1, str(file))


# -- solving ------------------------------------------------------------------------------------


def moment_of(width: int = 24, tokens: int = 200, seed: int = 0) -> tuple[Moment, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-1, 0.5, width, dtype=torch.float64)
    keys = torch.randn(tokens, width, generator=generator, dtype=torch.float64) * scales
    return Moment.of(keys.T @ keys, tokens), keys


def test_solve_leaves_no_residual() -> None:
    moment, keys = moment_of()
    C = keys.T @ keys / len(keys)
    K = keys[:5].T
    X = moment.solve(K)
    assert X.shape == K.shape
    residual = moment.C.double() @ X.double() - K
    assert (residual.norm(dim=0) < 1e-3 * K.norm(dim=0)).all()
    wanted = torch.linalg.solve(C, K)
    assert ((X.double() - wanted).norm(dim=0) < 1e-2 * wanted.norm(dim=0)).all()


@pytest.mark.parametrize("weight", [1.0, 1000.0])
@pytest.mark.parametrize("count", [9, 30])  # by the Woodbury identity; factored anew
def test_anchors_equal_solving_the_enlarged_system(count: int, weight: float) -> None:
    moment, keys = moment_of()
    anchors = torch.randn(count, 24, generator=torch.Generator().manual_seed(1))
    K = keys[:3].T
    enlarged = moment.C.double() + weight / count * anchors.double().T @ anchors.double()
    direct = torch.linalg.solve(enlarged, K)
    found = moment.solve(K, anchors, weight).double()
    assert (found - direct).norm() < 1e-3 * direct.norm()


def test_a_move_along_an_anchored_solution_is_felt_less_at_the_anchors() -> None:
    moment, keys = moment_of()
    anchors = torch.randn(9, 24, generator=torch.Generator().manual_seed(1))
    k = keys[0].float()
    u, v = (moment.solve(k[:, None], anchors, w)[:, 0] for w in (0.0, 1000.0))
    felt, less = anchors @ u / (k @ u), anchors @ v / (k @ v)
    assert less.abs().max() < 0.1 * felt.abs().max()


def test_anchors_of_no_weight_change_nothing() -> None:
    moment, keys = moment_of()
    K = keys[:1].T
    plain = moment.solve(K)
    assert torch.equal(moment.solve(K, torch.ones(2, 24), 0.0), plain)
    assert torch.equal(moment.solve(K, None, 1000.0), plain)


def test_fewer_tokens_than_dimensions_can_still_be_solved() -> None:
    moment, keys = moment_of(tokens=6)
    residual = moment.C @ moment.solve(keys[:1].T) - keys[:1].T.float()
    assert bool(torch.isfinite(residual).all())


def test_what_cannot_be_inverted_says_so() -> None:
    with pytest.raises(SingularCovariance, match="24-dimensional keys from 3 tokens"):
        Moment.of(torch.zeros(24, 24, dtype=torch.float64), 3)
    with pytest.raises(SingularCovariance, match="--hp tokens="):
        cholesky(torch.full((2, 2), float("nan")), 1)


def test_bfloat16_models_accumulate_in_float32(text: str) -> None:
    shared = shared_lm("qwen2")
    half = copy.deepcopy(shared.model).to(torch.bfloat16)
    lm = LM(half, shared.tokenizer, name="half", fingerprint="half")
    _, moment = collect(lm, 1, text)
    assert moment.C.dtype == torch.float32
    wanted, _ = naive(lm, 1, text)
    assert torch.allclose(moment.C.double(), wanted, atol=0.02 * float(wanted.max()))


def test_what_one_began_another_ends(text: str) -> None:
    """A job takes over what idle work collected, which then goes on to its own end."""
    kept = Statistics(shared_lm("llama"))
    idle = kept.moments([0, 1], text=text, tokens=TOKENS)
    next(idle)
    _, job = finish(kept.moments([0, 1], text=text, tokens=TOKENS))
    _, own = finish(idle)
    assert all(own[layer] is job[layer] for layer in (0, 1))


def test_precisions_are_kept_apart(text: str) -> None:
    lm = shared_lm("llama")
    model = copy.deepcopy(lm.model).to(torch.bfloat16)
    other = LM(model, lm.tokenizer, name=lm.name, fingerprint=lm.fingerprint)
    C, rounded = (collect(each, 0, text)[1].C for each in (lm, other))
    assert not torch.equal(C, rounded)
    _, fresh = collect(other, 0, text)
    assert torch.equal(fresh.C, rounded)
