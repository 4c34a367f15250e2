"""Counts on the meta device, against numbers that others published."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from peft_atlas.bench import architectures
from peft_atlas.bench.errors import UnsupportedError, UsageError
from peft_atlas.bench.params import ParamCount, command, count
from peft_atlas.bench.recipes import FAMILIES
from peft_atlas.bench.registry import registry

# Totals that the checkpoints' own metadata, or users who loaded them, state. BERT and RoBERTa with pooler.
PUBLISHED_TOTALS = {
    "bert-base-cased": 108_310_272,
    "bert-base-uncased": 109_482_240,
    "bert-large-cased": 333_579_264,
    "bert-large-uncased": 335_141_888,
    "bloomz-1b1": 1_065_314_304,
    "bloomz-560m": 559_214_592,
    "bloomz-7b1": 7_069_016_064,
    "clip-vit-b-16": 149_620_737,
    "clip-vit-b-32": 151_277_313,
    "clip-vit-l-14": 427_616_513,
    "deberta-v3-base": 183_831_552,
    "deberta-v3-large": 434_012_160,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2b": 2_506_172_416,
    "gemma-3-1b": 999_885_952,
    "gemma-7b": 8_537_680_896,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "llama-13b": 13_015_864_320,
    "llama-2-13b": 13_015_864_320,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-7b": 6_738_415_616,
    "mistral-7b": 7_241_732_096,
    "mt0-base": 582_401_280 - 250_112 * 768,  # transformers 5 ties the output embedding
    "mt0-large": 1_229_581_312 - 250_112 * 1024,
    "open-clip-vit-b-16": 149_620_737,
    "open-clip-vit-b-32": 151_277_313,
    "opt-1.3b": 1_315_758_080,
    "opt-125m": 125_239_296,
    "opt-350m": 331_196_416,
    "opt-6.7b": 6_658_473_984,
    "phi-3-mini": 3_821_079_552,
    "pythia-1.4b": 1_414_647_808,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "sd-1.5-unet": 859_520_964,
    "sdxl-unet": 2_567_463_684,
    "stable-diffusion-v1-4": 859_520_964 + 123_060_480,
    "t5-3b": 2_851_598_336,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-small": 60_506_624,
    "timesformer-base": 121_258_752,
    "tinyllama-1.1b": 1_100_048_384,
    "videomae-base": 86_227_200,
    "vit-base-patch14-dinov2": 86_580_480 - 768,  # timm drops the mask token, one vector
    "vit-base-patch16-224": 85_798_656,
    "vit-base-patch16-224-in21k": 85_798_656,
    "vit-base-patch32-224": 87_455_232,
    "vit-giant-patch14-dinov2": 1_136_480_768 - 1536,
    "vit-huge-patch14-224-in21k": 630_764_800,
    "vit-large-patch14-dinov2": 304_368_640 - 1024,
    "vit-large-patch16-224": 303_301_632,
    "vit-large-patch16-224-in21k": 303_301_632,
    "vit-small-patch14-dinov2": 22_056_576 - 384,
    "vit-small-patch16-224": 21_665_664,
}
# LoRA of rank 1 on q and k: blocks * (d_in + d_out of q + d_in + d_out of k), from the published shapes. It sees the
# heads of keys, which several totals do not.
RANK_ONE = {
    "bloomz-560m": 24 * 4 * 1024,
    "bloomz-7b1": 30 * 4 * 4096,
    "clip-vit-b-32": 12 * 4 * (768 + 512),
    "clip-vit-l-14": 4 * (24 * 1024 + 12 * 768),
    "deberta-v3-large": 24 * 4 * 1024,
    "gemma-2-2b": 26 * (2 * 2304 + 2048 + 1024),
    "gemma-2-9b": 42 * (2 * 3584 + 4096 + 2048),
    "gemma-2b": 18 * (2 * 2048 + 2048 + 256),
    "gemma-3-1b": 26 * (2 * 1152 + 1024 + 256),
    "gemma-7b": 28 * (2 * 3072 + 2 * 4096),
    "gpt2-xl": 48 * 4 * 1600,
    "llama-13b": 40 * 4 * 5120,
    "llama-2-7b": 32 * 4 * 4096,
    "llama-3.1-8b": 32 * (3 * 4096 + 1024),
    "llama-3.2-1b": 16 * (3 * 2048 + 512),
    "mistral-7b": 32 * (3 * 4096 + 1024),
    "mt0-large": 72 * 4 * 1024,
    "open-clip-vit-b-32": 12 * 4 * (768 + 512),
    "opt-350m": 24 * 4 * 1024,
    "opt-6.7b": 32 * 4 * 4096,
    "phi-3-mini": 32 * 4 * 3072,
    "pythia-1.4b": 24 * 4 * 2048,
    "qwen2.5-0.5b": 24 * (3 * 896 + 128),
    "qwen2.5-1.5b": 28 * (3 * 1536 + 256),
    "qwen2.5-14b": 48 * (3 * 5120 + 1024),
    "qwen2.5-3b": 36 * (3 * 2048 + 256),
    "qwen2.5-7b": 28 * (3 * 3584 + 512),
    "qwen3-0.6b": 28 * (2 * 1024 + 2048 + 1024),
    "qwen3-8b": 36 * (3 * 4096 + 1024),
    "sd-1.5-unet": 7 * (5 * 320 + 5 * 640 + 6 * 1280) + 16 * 768,
    "sdxl-unet": 7 * (10 * 640 + 60 * 1280) + 70 * 2048,
    "t5-3b": 72 * 2 * (1024 + 4096),
    "t5-large": 72 * 4 * 1024,
    "timesformer-base": 2 * 12 * 4 * 768,
    "tinyllama-1.1b": 22 * (3 * 2048 + 256),
    "videomae-base": 12 * 4 * 768,
    "vit-giant-patch14-dinov2": 40 * 4 * 1536,
    "vit-large-patch16-224": 24 * 4 * 1024,
}
# Methods of the published table that the registry lacks so far. Take one out when it comes: its rows are then checked.
NOT_YET: set[str] = set()

with (Path(__file__).parent / "published/trainable_counts.csv").open(encoding="utf-8", newline="") as stream:
    PUBLISHED = list(csv.DictReader(stream))


def method_id(row: dict[str, str]) -> str:
    return row["method"].partition("(")[0]


def counted(row: dict[str, str]) -> ParamCount:
    return count(row["method"], row["backbone"], int(row["head_classes"]) or None)


@pytest.mark.parametrize(
    "row",
    [row for row in PUBLISHED if method_id(row) not in NOT_YET],
    ids=lambda row: f"{row['method']}-{row['backbone']}",
)
def test_published_counts_are_reproduced(row):
    assert counted(row).trainable == int(row["trainable"])


def test_no_published_count_waits_for_a_method_that_is_there():
    present = NOT_YET & set(registry("methods").ids())
    assert not present, "take these out of NOT_YET"
    assert {method_id(row) for row in PUBLISHED} >= NOT_YET


def test_every_architecture_has_a_published_total():
    assert architectures.names() == sorted(PUBLISHED_TOTALS)


@pytest.mark.parametrize("name", architectures.names())
def test_architecture_has_the_published_number_of_parameters(name):
    counts = count("lora(r=1, targets=q+k)", name)
    assert counts.backbone_parameters == PUBLISHED_TOTALS[name]
    assert counts.total == counts.backbone_parameters + counts.adapter
    if name in RANK_ONE:
        assert counts.trainable == RANK_ONE[name]


def test_architectures_name_their_family_and_source_and_hide_no_backbone():
    for name in architectures.names():
        architecture = architectures.read(name)
        assert architecture.family in FAMILIES
        assert architecture.source
    assert not set(architectures.names()) & set(registry("backbones").ids())


@pytest.mark.parametrize("backbone", registry("backbones").ids())
def test_backbones_of_the_registry_count_as_their_card_states(backbone):
    assert count("full", backbone).backbone_parameters == registry("backbones").card(backbone).parameters


def test_head_is_counted_with_its_bias_and_named():
    without, with_head = (count("lora(r=8)", "bert-base-uncased", classes) for classes in (None, 3))
    assert (without.head, with_head.head) == (0, 768 * 3 + 3)
    assert with_head.trainable == without.trainable + with_head.head == with_head.adapter + with_head.head
    assert with_head.total == without.total + with_head.head
    assert [tensor.name for tensor in with_head.tensors[-2:]] == ["head.weight", "head.bias"]


def test_a_probe_trains_the_head_alone():
    assert count("linear", "vit-small-patch16-224").trainable == 0
    assert count("linear", "vit-small-patch16-224", 10).trainable == 10 * 384 + 10


def test_frozen_backbone_tensors_that_a_method_trains_are_not_added_twice():
    counts = count("full", "t5-small")
    assert counts.trainable == counts.total == PUBLISHED_TOTALS["t5-small"]
    assert counts.share_percent == 100


def test_tensors_add_up_and_carry_shapes():
    counts = count("lora(r=4, targets=q)", "llama-3.2-1b")
    assert sum(tensor.numel for tensor in counts.tensors) == counts.trainable
    assert sorted({tensor.shape for tensor in counts.tensors}) == [(4, 2048), (2048, 4)]
    assert len(counts.tensors) == 2 * 16


def test_json_is_one_object():
    content = json.loads(command("bitfit", "vit-small-patch16-224", 10, as_json=True))
    assert content["trainable"] == content["adapter"] + content["head"]
    assert content["total"] == PUBLISHED_TOTALS["vit-small-patch16-224"] + content["head"]
    assert content["method"] == "bitfit" and content["backbone"] == "vit-small-patch16-224"
    assert "tensors" not in content
    verbose = json.loads(command("bitfit", "vit-small-patch16-224", 10, as_json=True, verbose=True))
    assert sum(tensor["numel"] for tensor in verbose["tensors"]) == content["trainable"]


def test_text_shows_each_number_and_tensors_on_request():
    text = command("lora(targets=q+v, r=16)", "vit-base-patch16-224-in21k", 101, as_json=False)
    for number in ("667,493", "589,824", "77,669", "85,798,656", "86,466,149"):
        assert number in text
    assert "lora(r=16, targets=q+v)" in text and "head.weight" not in text
    verbose = command("lora(r=16, targets=q+v)", "vit-base-patch16-224-in21k", 101, as_json=False, verbose=True)
    assert "head.weight" in verbose and "101 x 768" in verbose


@pytest.mark.parametrize(
    ("method", "backbone", "classes", "error", "message"),
    [
        ("lora", "bert-base-casd", None, UsageError, "unknown backbone 'bert-base-casd'. Did you mean bert-base-cased"),
        ("lora", "zzzz", None, UsageError, "Known: "),
        ("lorra", "gpt2", None, UsageError, "Did you mean lora"),
        ("lora(rank=8)", "gpt2", None, UsageError, "has no argument 'rank'"),
        ("lora(r=-1)", "gpt2", None, UsageError, "r must be greater than 0"),
        ("lora(r=769)", "gpt2", None, UsageError, "is above the rank of text.blocks.0.attention.q, 768"),
        ("lora(targets=gate)", "gpt2", None, UnsupportedError, "have no gate"),
        ("lora,full", "gpt2", None, UsageError, "one name was expected"),
        ("lora", "gpt2", 0, UsageError, "classes must be at least 1"),
        (f"prefix(projection=false, tokens={10**15})", "gpt2", None, UsageError, "cannot be made"),
        (f"prefix(projection=false, tokens={10**30})", "gpt2", None, UsageError, "cannot be made"),
        ("bitfit", "llama-3.2-1b", None, UnsupportedError, "does not fit llama-3.2-1b: it has no biases"),
        ("prefix", "bloomz-560m", None, UnsupportedError, "no place for keys and values"),
        ("prompt-tuning", "vit-small-patch16-224", None, UnsupportedError, "no input embeddings"),
    ],
)
def test_impossible_requests_are_one_line(method, backbone, classes, error, message):
    with pytest.raises(error) as caught:
        count(method, backbone, classes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
