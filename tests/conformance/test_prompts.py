"""Prompts in front of a text: what they are in a model's own words, and where they stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import anatomy_of
from peft_atlas.bench.anatomy.tower import Embedding, Tower
from torch import Tensor

from .tiny import LACKS, TEXT, Tiny, tiny

N = 3
DOUBLE = torch.float64
PROMPTED = [name for name in TEXT if "prompt" not in LACKS[name]]


@pytest.fixture(autouse=True)
def _same_kernels(_deterministic: None) -> None:
    """The same operations give the same bits."""


def close(a: Tensor, b: Tensor) -> bool:
    # Gemma's embedding keeps its factor in single precision
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-5)


def front(t: Tiny) -> tuple[Tower, Embedding]:
    tower = next(tower for tower in anatomy_of(t.model).towers.values() if tower.takes_prompt)
    assert tower.embedding is not None
    return tower, tower.embedding


def hidden(tower: Tower, ids: Tensor, **more: Any) -> Tensor:
    if type(tower.module).__name__.startswith(("Bert", "Roberta", "Deberta", "T5")):
        more.pop("use_cache", None)
    return tower.module(input_ids=ids, **more).last_hidden_state


@pytest.mark.parametrize("name", PROMPTED)
def test_a_prompt_of_words_is_those_words(name: str) -> None:
    """Rows of the table in front of a text do what the words of those rows do."""
    t = tiny(name, padded=False, dtype=DOUBLE)
    tower, embedding = front(t)
    ids, words = t.inputs["input_ids"], torch.tensor([5, 9, 7])
    spoken = hidden(tower, torch.cat([words.expand(len(ids), -1), ids], 1), use_cache=False)[:, N:]
    silent = hidden(tower, ids, use_cache=False)
    tower.prompt(embedding.weight.value()[words].detach(), N)
    prompted = hidden(tower, ids, use_cache=False)
    assert close(prompted, spoken)
    assert not close(prompted, silent)


@pytest.mark.parametrize("name", ["bert", "gemma2"])
def test_new_rows_that_copy_words_are_those_words(name: str) -> None:
    t = tiny(name, dtype=DOUBLE)
    _, embedding = front(t)
    words = torch.tensor([[5, 9]])
    spoken = embedding.module(words)
    rows = embedding.rows(2)
    with torch.no_grad():
        rows.copy_(embedding.weight.value()[words[0]])
    assert close(embedding.module(embedding.vocabulary + torch.tensor([[0, 1]])), spoken)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bloom"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_padding_on_the_left_does_not_move_the_text(name: str, use_cache: bool) -> None:
    """A text beside a longer one, padded on the left as for generation, goes on as it does alone."""
    t = tiny(name, dtype=DOUBLE)
    tower, _ = front(t)
    torch.manual_seed(3)
    tower.prompt(torch.randn(N, tower.width, dtype=DOUBLE), N)
    ids = torch.randint(5, 60, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, "use_cache": use_cache}
    steps: dict[str, Any] = {"output_logits": True, "return_dict_in_generate": True}
    both = t.model.generate(ids, attention_mask=mask, **options, **steps)
    alone = t.model.generate(ids[1:, 4:], attention_mask=mask[1:, 4:], **options, **steps)
    assert close(torch.stack(both.logits)[:, 1], torch.stack(alone.logits)[:, 0])


@pytest.mark.parametrize(("name", "first"), [("roberta", 2), ("bert", 0), ("llama", 0)])
def test_given_positions_are_the_text_s(name: str, first: int) -> None:
    """Positions that say what the library would count anyway change nothing."""
    t = tiny(name, padded=False, dtype=DOUBLE)
    tower, embedding = front(t)
    tower.prompt(embedding.weight.value()[[5, 9, 7]].detach(), N)
    ids = t.inputs["input_ids"]
    positions = torch.arange(first, first + ids.shape[1]).expand(len(ids), -1)
    counted = hidden(tower, ids, use_cache=False)
    assert close(hidden(tower, ids, position_ids=positions, use_cache=False), counted)
    assert not close(hidden(tower, ids, position_ids=positions.flip(1), use_cache=False), counted)
