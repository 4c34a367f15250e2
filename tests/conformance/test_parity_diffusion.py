"""Methods for generators: against a text encoder whose vocabulary is really extended, and what their papers prove."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft_atlas.bench.anatomy import Anatomy, anatomy_of
from peft_atlas.bench.anatomy.embedding import Concept
from peft_atlas.bench.recipes import configure, resolve
from peft_atlas.bench.registry import registry
from peft_atlas.methods.application.diffusion.joining import join, joined_matrix
from peft_atlas.methods.contract import Method
from torch import Tensor, nn

from .tiny import VOCABULARY, WIDTH, Tiny, tiny

METHODS = ("textual-inversion", "custom-diffusion")
CONCEPTS = (Concept(noun=(7, 9), rare=5), Concept(noun=(11,), rare=6))


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def attached(method_id: str, anatomy: Anatomy, **arguments: Any) -> Any:
    kind = registry("methods").load(method_id)
    method: Method = kind(configure(method_id, resolve(method_id, arguments, "diffusion", "tiny", "tiny")))
    method.attach(anatomy)
    return method.double()


def extended(t: Tiny, rows: Tensor) -> nn.Module:
    """The model with so many more rows in its text encoder's own embedding, as the authors' scripts make them."""
    model: Any = copy.deepcopy(t.model)
    old = model.text_encoder.get_input_embeddings()
    new = nn.Embedding(VOCABULARY + len(rows), WIDTH)
    new.weight.data = torch.cat([old.weight.data, rows.detach()])
    model.text_encoder.set_input_embeddings(new)
    return model  # type: ignore[no-any-return]


def test_words_and_matrices_train_as_with_an_extended_vocabulary() -> None:
    for method_id in METHODS:
        t = tiny("text-to-image", dtype=torch.float64)
        anatomy = anatomy_of(t.model)
        anatomy.concepts = CONCEPTS
        t.inputs["input_ids"][1, 4] = VOCABULARY + 1
        method = attached(method_id, anatomy)
        rows = method.words.rows[0]
        reference: Any = extended(t, rows)
        reference.requires_grad_(True)
        here, there = t.outputs(), reference(**t.inputs).flatten()
        assert torch.allclose(here, there, rtol=1e-10, atol=1e-12)
        weights = torch.randn_like(here)
        (here * weights).sum().backward()
        (there * weights).sum().backward()
        theirs = dict(reference.named_parameters())
        table = next(p for name, p in theirs.items() if name.endswith("token_embedding.weight"))
        assert rows.grad.abs().amax(1).min() > 0
        assert torch.allclose(rows.grad, table.grad[VOCABULARY:], rtol=1e-10, atol=1e-12)
        for name, parameter in method.trained_tensors().items():
            assert torch.allclose(parameter.grad, theirs[name].grad, rtol=1e-10, atol=1e-12)
        trained = {name for name in theirs if ".attn2.to_k." in name or ".attn2.to_v." in name}
        assert method.trained_tensors().keys() == (trained if method_id == "custom-diffusion" else set())


def test_new_words_start_as_the_papers_say() -> None:
    for method_id, expected in zip(METHODS, (lambda e: (e[7] + e[9]) / 2, lambda e: e[5]), strict=True):
        t: Any = tiny("text-to-image", dtype=torch.float64)
        anatomy = anatomy_of(t.model)
        anatomy.concepts = CONCEPTS
        rows = attached(method_id, anatomy).words.rows[0]
        table = t.model.text_encoder.get_input_embeddings().weight
        assert torch.allclose(rows[0], expected(table), rtol=1e-12) and rows.shape == (2, WIDTH)


def test_a_text_encoder_set_aside_is_frozen_and_still_gets_words() -> None:
    t = tiny("text-to-image", dtype=torch.float64)
    anatomy = anatomy_of(t.model)
    anatomy.set_aside("text")
    full = attached("full", anatomy)
    assert full.trained_tensors().keys() == {n for n, _ in t.model.named_parameters() if n.startswith("unet.")}
    assert not [p for p in anatomy.head_parameters() if p.requires_grad]
    assert all(name.startswith("unet") for name in anatomy.linears("all"))
    anatomy.detach()
    assert anatomy.missing(("condition", "cross-attention")) is None and anatomy.missing(("embedding",)) is not None
    before = t.outputs()
    assert attached("textual-inversion", anatomy).words.rows[0].shape == (1, WIDTH)
    assert anatomy.vocabularies[0].added == 1 and not torch.equal(t.outputs(), before)
    anatomy.detach()
    assert anatomy.vocabularies[0].added == 0 and torch.equal(t.outputs(), before)


def test_joined_concepts_keep_their_keys_and_change_others_least() -> None:
    torch.manual_seed(0)
    w0, trained = torch.randn(6, 10), [torch.randn(6, 10) for _ in range(2)]
    words, other = [torch.randn(2, 10), torch.randn(3, 10)], torch.randn(40, 10)
    words[1][1] = words[1][0]  # a word twice in one concept's texts
    w = joined_matrix(w0, trained, words, other)
    for own, features in zip(trained, words, strict=True):
        assert torch.allclose(features @ w.T, features @ own.T, atol=1e-9)
    free = torch.eye(10) - torch.linalg.pinv(torch.cat(words)) @ torch.cat(words)  # changes that keep the constraint
    slope = (w - w0) @ other.T @ other @ free  # of the objective along them
    assert slope.abs().max() < 1e-8 and (w - w0).abs().max() > 0.1
    with pytest.raises(ValueError, match="span 5 of 10"):
        joined_matrix(w0, trained, words, other[:5])


def test_concepts_trained_apart_are_loaded_as_one_method() -> None:
    torch.manual_seed(0)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    t = tiny("text-to-image", dtype=torch.float64)
    pretrained = {n: p.detach().clone() for n, p in t.model.named_parameters()}
    shipped, words = [], [torch.randn(2, WIDTH) for _ in range(2)]
    for seed in range(2):
        own = tiny("text-to-image", dtype=torch.float64)
        method = attached("custom-diffusion", anatomy_of(own.model))
        torch.manual_seed(seed)
        for _, parameter in method.adapter_parameters():
            parameter.data.add_(torch.randn_like(parameter))
        shipped.append({key: value.clone() for key, value in method.shipped().items()})
    both = attached("custom-diffusion", anatomy_of(t.model), tokens=2)
    both.load_shipped(join(shipped, pretrained, words, torch.randn(80, WIDTH)))
    assert torch.equal(both.words.rows[0][1], shipped[1]["adapter.words.rows.0"][0])
    for features, one in zip(words, shipped, strict=True):
        matrix = both.trained_tensors()[name]
        assert torch.allclose(features @ matrix.T, features @ one[f"backbone.{name}"].T, atol=1e-8)
    with pytest.raises(ValueError, match="same matrices"):
        join([shipped[0], {}], pretrained, words, torch.randn(80, WIDTH))
