"""GLUE from the hub's double: data, encoders, scores, protocols, and whole runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench import api
from peft_atlas.bench.backbones.tokens import ConvertedTokenizer
from peft_atlas.bench.errors import AssetError
from peft_atlas.bench.plan import settings_hash
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.registry import Registry, registry, use_plugins
from peft_atlas.bench.sources import DATA_ROOT
from peft_atlas.tasks.contract import Predictions, Split
from peft_atlas.tasks.correlation import contributions
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

sys.path.insert(0, str(Path(__file__).parent))
from hub_double import TOKEN, HubDouble, connected  # type: ignore[import-not-found]
from hub_repositories import (  # type: ignore[import-not-found]
    GLUE,
    MARKS,
    TINY,
    WORDS,
    glue_files,
    roberta_files,
    timm_files,
)

PLUGIN = Path(__file__).parent / "hub_plugin"
RTE, STSB = {"train": 2490, "validation": 277}, {"train": 5749, "validation": 1500}


@pytest.fixture
def data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of local copies; no hub."""
    root = tmp_path / "data"
    monkeypatch.setenv(DATA_ROOT, str(root))
    return root


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cards of the double's tiny models and protocol."""
    monkeypatch.setenv("PEFT_ATLAS_PLUGINS", "")
    use_plugins([PLUGIN])


def put(root: Path, repository: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def task(name: str, **changes: Any) -> Any:
    card = registry("tasks").card(name)
    return registry("tasks").load(name)(replace(card, **changes))


# data --------------------------------------------------------------------------------------------------------------


def test_glue_splits_are_those_of_the_card_in_an_order_drawn_by_hash(data_root: Path) -> None:
    put(data_root, "nyu-mll/glue", glue_files("rte", RTE, 2))
    rte = task("glue-rte")
    train, test = rte.build("train"), rte.build("test")
    assert (len(train), len(test)) == (2490, 277) and train.labels.dtype == np.int64
    assert test.items[:2] == ("rte/validation/0", "rte/validation/1")
    numbers = [int(item.split("/")[2]) for item in train.items]
    assert sorted(numbers) == list(range(2490)) and abs(np.corrcoef(numbers, np.arange(2490))[0, 1]) < 0.1
    for split in (train, test):
        for column in ("text", "pair"):
            assert [MARKS.index(text.split()[0]) for text in split.inputs[column]] == split.labels.tolist()
    assert train.inputs["text"] != train.inputs["pair"]
    assert rte.build("train").fingerprint() == train.fingerprint()
    with pytest.raises(AssetError, match="train has 2490 items, its card says 12"):
        task("glue-rte", sizes={"train": 12, "test": 277}).build("train")


def test_mnli_is_tested_on_both_its_sets_and_each_is_scored(data_root: Path) -> None:
    sizes = {"train": 30, "validation_matched": 20, "validation_mismatched": 10}
    put(data_root, "nyu-mll/glue", glue_files("mnli", sizes, 3))
    mnli = task("glue-mnli", sizes={"train": 30, "test": 30})
    test = mnli.build("test")
    logits = np.eye(3, dtype=np.float32)[test.labels]
    logits[:5] = logits[:5, [1, 2, 0]]  # five mistakes among the matched
    scores = mnli.score(Predictions(test.items, {"logits": logits}), test)
    assert (scores["accuracy_matched"], scores["accuracy_mismatched"]) == (0.75, 1.0)
    assert scores["accuracy"] == pytest.approx(25 / 30)


def test_similarity_has_numbers_for_labels_and_their_fractions_count(data_root: Path) -> None:
    put(data_root, "nyu-mll/glue", glue_files("stsb", STSB, 0))
    split = task("glue-stsb").build("test")
    assert split.labels.dtype == np.float64 and 0 <= split.labels.min() < split.labels.max() <= 5
    other = Split(split.inputs, split.labels + 1e-9, split.items)
    assert other.fingerprint() != split.fingerprint()


# scores ------------------------------------------------------------------------------------------------------------


def test_contributions_add_up_to_the_correlation_and_spread_as_its_error_does() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    b = 0.6 * a + 0.8 * rng.normal(size=400)
    found = contributions(a, b)
    assert found.mean() == pytest.approx(pearsonr(a, b).statistic, abs=1e-12)
    left_out = [pearsonr(np.delete(a, i), np.delete(b, i)).statistic for i in range(400)]
    jackknife = np.sqrt(399 * np.var(left_out))
    assert found.std() / 20 == pytest.approx(jackknife, rel=0.05)
    assert not contributions(np.ones(5), np.arange(5.0)).any()


def test_glue_scores_are_those_of_other_libraries() -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 2, 60), rng.normal(size=(60, 2)).astype(np.float32)
    items = tuple(f"x/validation/{i}" for i in range(60))
    split, stored = Split({"text": [""] * 60}, labels, items), Predictions(items, {"logits": logits})
    cola, mrpc, stsb = task("glue-cola"), task("glue-mrpc"), task("glue-stsb")
    chosen = logits.argmax(1)
    assert cola.score(stored, split)["matthews"] == pytest.approx(matthews_corrcoef(labels, chosen))
    assert cola.per_item(stored, split).mean() == pytest.approx(matthews_corrcoef(labels, chosen), abs=1e-12)
    assert mrpc.score(stored, split)["f1"] == pytest.approx(f1_score(labels, chosen))
    assert mrpc.per_item(stored, split).mean() == pytest.approx(mrpc.score(stored, split)["accuracy"])
    numbers = torch.tensor(logits[:, 0])
    real = Split(split.inputs, rng.uniform(0, 5, 60).round(1), items)
    predicted = Predictions(items, stsb.predict(numbers, {}))
    scores = stsb.score(predicted, real)
    assert scores["pearson"] == pytest.approx(pearsonr(logits[:, 0], real.labels).statistic)
    assert scores["spearman"] == pytest.approx(spearmanr(logits[:, 0], real.labels).statistic)
    assert stsb.per_item(predicted, real).mean() == pytest.approx(scores["pearson"], abs=1e-9)
    batch = {"labels": torch.from_numpy(np.asarray(real.labels))}
    assert stsb.loss(numbers, batch).item() == pytest.approx(np.mean((logits[:, 0] - real.labels) ** 2), rel=1e-6)
    constant = Predictions(items, {"number": np.ones(60, dtype=np.float32)})
    assert stsb.score(constant, real) == {"pearson": 0.0, "spearman": 0.0}
    with pytest.raises(ValueError, match="different items"):
        cola.per_item(Predictions(items[::-1], stored.columns), split)


# backbones ---------------------------------------------------------------------------------------------------------


def test_a_hub_encoder_computes_what_transformers_computes(data_root: Path, plugin: None, tmp_path: Path) -> None:
    """Pairs are joined, cut and read out as by the library's own tokenizer and model; padding changes nothing."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModel, AutoTokenizer

    put(data_root, "double/tiny-roberta", roberta_files(tmp_path))
    backbone = backbone_of("tiny-hub-roberta", {"max_tokens": 12})
    texts, pairs = ["the good dog", "a film " * 9], ["it is old", "not very bad"]
    split = Split({"text": texts, "pair": pairs}, None, ("0", "1"))
    library: Any = AutoModel.from_pretrained(data_root / "double/tiny-roberta", add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(data_root / "double/tiny-roberta")
    encoded = tokenizer(texts, pairs, truncation=True, max_length=12, padding=True, return_tensors="pt")
    prepared = backbone.prepare(split)
    assert torch.equal(prepared["input_ids"], encoded["input_ids"])
    with torch.no_grad():
        expected = library(encoded["input_ids"], encoded["attention_mask"]).last_hidden_state[:, 0]
        assert torch.allclose(backbone.encode(backbone.batch(prepared, torch.arange(2))), expected, atol=1e-6)
        alone = backbone.encode(backbone.batch(prepared, torch.tensor([0])))
    assert torch.allclose(alone, expected[:1], atol=1e-6)
    lacking = load_file(data_root / "double/tiny-roberta/model.safetensors")
    del lacking["roberta.encoder.layer.1.output.dense.bias"]
    save_file(lacking, data_root / "double/tiny-roberta/model.safetensors", {"format": "pt"})
    with pytest.raises(AssetError, match=r"lack encoder.layer.1.output.dense.bias \(and 0 more\)"):
        backbone_of("tiny-hub-roberta", {"max_tokens": 12})
    assert sum(p.numel() for p in backbone.model.parameters()) == backbone.card.parameters


def test_a_sentencepiece_model_splits_as_that_library_does(tmp_path: Path) -> None:
    """As in DeBERTaV3's repository: `spm.model` and a config, no `tokenizer.json`."""
    library = pytest.importorskip("sentencepiece")
    lines, model = tmp_path / "lines.txt", tmp_path / "spm"
    lines.write_text("\n".join(f"{a} {b} is not {c}." for a in WORDS for b in MARKS for c in WORDS[:4]))
    names = {"pad_piece": "[PAD]", "unk_piece": "[UNK]", "bos_piece": "[CLS]", "eos_piece": "[SEP]"}
    library.SentencePieceTrainer.train(
        input=str(lines),
        model_prefix=str(model),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        **names,
    )
    (tmp_path / "config.json").write_text('{"model_type": "deberta-v2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    reference = library.SentencePieceProcessor(model_file=f"{model}.model")
    text, pair = "The old house is not good.", "two films"
    (alone, _), (both, _) = (
        ConvertedTokenizer(tmp_path).encode([text], 64, special=True, pairs=pairs)[0] for pairs in (None, [pair])
    )
    assert alone == [1, *reference.encode(text), 2]
    assert both == [1, *reference.encode(text), 2, *reference.encode(pair), 2]


def test_a_hub_vit_computes_what_timm_computes(data_root: Path, plugin: None, tmp_path: Path) -> None:
    import timm
    from safetensors.torch import load_file

    put(data_root, "double/tiny-vit", timm_files(tmp_path))
    backbone = backbone_of("tiny-hub-vit", {"image_size": 32, "normalisation": "half"})
    library = timm.create_model(
        "vit_tiny_patch16_224", num_classes=5, img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2
    ).eval()
    library.load_state_dict(load_file(data_root / "double/tiny-vit/model.safetensors"))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    batch = backbone.batch(backbone.prepare(Split({"image": images}, None, ("0", "1", "2"))), torch.arange(3))
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected = library.forward_head(library.forward_features(pixels), pre_logits=True)
        assert torch.allclose(backbone.encode(batch), expected, atol=1e-5)
    assert sum(p.numel() for p in backbone.model.parameters()) == backbone.card.parameters


def backbone_of(name: str, inputs: dict[str, Any]) -> Any:
    known: Registry[Any] = registry("backbones")
    return known.load(name)(known.card(name), inputs)


# protocols ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "epochs"),
    [
        ("glue", {"mnli": 30, "sst2": 60, "mrpc": 30, "cola": 80, "qnli": 25, "qqp": 25, "rte": 80, "stsb": 40}),
        ("glue-deberta", {"mnli": 7, "sst2": 24, "mrpc": 30, "cola": 25, "qnli": 5, "qqp": 5, "rte": 50, "stsb": 25}),
    ],
)
def test_glue_protocols_train_for_the_published_epochs(protocol: str, epochs: dict[str, int]) -> None:
    rules = load_protocol(protocol)
    assert {f"glue-{name}" for name in epochs} == set(rules.suites["glue"].tasks) == set(rules.tasks)
    for name, number in epochs.items():
        card = registry("tasks").card(f"glue-{name}")
        settings = rules.family(card)
        assert settings.steps == number * -(-card.sizes["train"] // settings.batch)


def test_exceptions_of_a_task_change_its_cells_alone() -> None:
    rules = load_protocol("glue")
    rte, mrpc = (registry("tasks").card(name) for name in ("glue-rte", "glue-mrpc"))
    longer = rules.model_copy(update={"tasks": {**rules.tasks, "glue-rte": rules.tasks["glue-mrpc"]}})
    assert longer.family(rte).steps == rules.family(mrpc).steps != rules.family(rte).steps
    assert settings_hash(longer, rte, False) != settings_hash(rules, rte, False)
    assert settings_hash(longer, mrpc, False) == settings_hash(rules, mrpc, False)
    assert longer.hash != rules.hash


def test_a_linear_schedule_falls_evenly_to_zero(plugin: None) -> None:
    from peft_atlas.bench.trainer import Fit

    fit = Fit.__new__(Fit)
    fit.optimizer_settings = load_protocol("glue-double").optimizer
    factors = [fit._schedule(step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10:] == pytest.approx(1 - np.arange(90) / 90)


# runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with connected(tmp_path / "hf", monkeypatch) as double:
        yield double


def test_planning_asks_no_hub(tmp_path: Path, hub: HubDouble) -> None:
    planned = api.plan("lora,linear,bitfit", "glue", protocol="glue", seeds=[0], results=tmp_path)
    assert len(planned.run) == 16 and len(planned.unsupported) == 8 and hub.asked == []
    assert {cell.method.id for cell, _ in planned.unsupported} == {"linear"}
    assert "head of several layers" in planned.unsupported[0][1]


def test_glue_runs_from_the_hub_and_what_is_gated_waits_while_the_rest_runs(
    tmp_path: Path, hub: HubDouble, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add("model", "double/tiny-roberta", TINY, roberta_files(tmp_path))
    files = {**glue_files("rte", RTE, 2), **glue_files("stsb", STSB, 0)}
    hub.add("dataset", "nyu-mll/glue", GLUE, files, gated=True)

    def run() -> api.RunOutcome:
        tasks = "glue-rte,glue-stsb,smoke-text"
        return pa.run(
            "lora(lr=0.03)", tasks, protocol="glue-double", results=tmp_path / "r", plugins=[PLUGIN], display="plain"
        )

    monkeypatch.setenv("PEFT_ATLAS_PLUGINS", "")
    first = run()
    shown = capsys.readouterr()
    assert first.exit_code == 1
    assert [(record.cell.task.id, record.status) for record in first] == [("smoke-text", "ok")]
    assert {cell.task.id for cell, _ in first.blocked} == {"glue-rte", "glue-stsb"}
    (line,) = [line for line in shown.err.splitlines() if line.startswith("bench: ")]
    assert "nyu-mll/glue is gated: accept its terms at" in line

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    by_task = {record.cell.task.id: record for record in run()}
    rte, stsb = by_task["glue-rte"], by_task["glue-stsb"]
    assert {record.status for record in by_task.values()} == {"ok"}
    assert set(rte.metrics) == {"accuracy", "macro_f1", "nll", "ece"} and rte.metrics["accuracy"] > 0.9
    assert set(stsb.metrics) == {"pearson", "spearman"} and stsb.primary is not None and stsb.primary.name == "pearson"
    assert (len(rte.curve), len(stsb.curve)) == (30, 3)
    assert rte.data is not None and rte.data.matches_card is None
    assert rte.cell.backbone.weights == TINY[:16]
    assert rte.parameters is not None and rte.parameters.head == 32 * 32 + 32 + 2 * 32 + 2
    assert "data are not those" not in capsys.readouterr().out
