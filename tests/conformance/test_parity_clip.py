"""Methods for CLIP against their equations, written out anew on the library's modules, and against one another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft_atlas.bench.api import run
from peft_atlas.bench.backbones.clip import ClipBackbone
from peft_atlas.bench.conformance.subject import relative
from peft_atlas.bench.trainer import evaluate
from torch import Tensor, nn

from .tiny_pair import BACKBONES, CARD, SETTINGS, TEMPLATE, TinyNames, attached, backbone, fit_of, items, scores

every_clip = pytest.mark.parametrize("name", BACKBONES)
PHOTO = "a photo of a {}."


@pytest.fixture(autouse=True)
def _as_in_a_run() -> Iterator[None]:
    """Without torch's fast path of attention, which rounds in another order."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def zero_shot(clip: ClipBackbone, template: str, batch: dict[str, Tensor]) -> Tensor:
    """Logits by the library's own call."""
    assert clip.anatomy.pair is not None
    texts = [template.replace("{}", name) for name in clip.anatomy.pair.names]
    image, text, scale = clip.model(batch["pixels"], clip.tokens(texts)["input_ids"])
    answers: Tensor = scale * image @ text.T
    return answers


def class_features(clip: ClipBackbone) -> Tensor:
    """Class features (C, width), as the attached method makes them for images that do not matter."""
    pair = clip.anatomy.pair
    assert pair is not None
    features: Tensor = pair._class_features(torch.zeros(1, pair.width))
    return features


def open_clip_text(text: Any, ids: Tensor, embedded: Tensor, prompts: list[Tensor]) -> Tensor:
    """open_clip's text tower part by part: embeddings (C, L, width) as they are, and fresh vectors for places 1..n at
    every further block."""
    x = embedded + text.positional_embedding[: ids.shape[1]]
    mask = text.attn_mask[: ids.shape[1], : ids.shape[1]]
    for i, block in enumerate(text.transformer.resblocks):
        if 0 < i <= len(prompts):
            n = len(prompts[i - 1])
            x = torch.cat([x[:, :1], prompts[i - 1].expand(len(x), -1, -1), x[:, 1 + n :]], dim=1)
        x = block(x, attn_mask=mask)
    pooled = text.ln_final(x)[torch.arange(len(x)), ids.argmax(dim=1)]
    features: Tensor = pooled @ text.text_projection
    return features


# contexts ----------------------------------------------------------------------------------------------------------


@every_clip
@pytest.mark.parametrize("method", ["coop", "prograd", "tpt", "coop(class_specific=true)"])
def test_a_context_of_a_templates_words_is_that_template(name: str, method: str) -> None:
    clip = backbone(name)
    batch = items(clip)
    with torch.no_grad():
        attached(method, clip)
        answers = scores(clip, batch)
        clip.anatomy.detach()
        assert torch.allclose(answers, zero_shot(clip, PHOTO, batch), atol=1e-5)


@pytest.mark.parametrize("where", ["end", "middle"])
@pytest.mark.parametrize("class_specific", [False, True])
def test_coop_is_the_prompt_put_together_by_hand(where: str, class_specific: bool) -> None:
    clip = backbone("tiny-open-clip")
    text: Any = clip.model.text
    assert clip.anatomy.pair is not None
    names = clip.anatomy.pair.names
    method: Any = attached(f"coop(context=5, class_specific={class_specific}, class_name={where})".lower(), clip)
    with torch.no_grad():
        ours = class_features(clip)
        clip.anatomy.detach()
        for i, name in enumerate(names):
            context = method.context.vectors[i] if class_specific else method.context.vectors
            length = len(name.split())
            before = 2 if where == "middle" else 5
            ids = clip.tokens([f"X X X X X {name}."])["input_ids"]  # the vectors stand where the X do, then move
            table = text.token_embedding(ids)[0]
            start, label, rest = table[:1], table[6 : 6 + length], table[6 + length :]
            prompt = torch.cat([start, context[:before], label, context[before:], rest])
            theirs = open_clip_text(text, ids, prompt[None], [])
            assert torch.allclose(ours[i], theirs[0], atol=1e-5)


def test_random_contexts_and_words_of_several_tokens() -> None:
    vectors = attached("coop(context=16)", backbone("tiny-clip")).get_parameter("context.vectors")
    assert 0.015 < float(vectors.detach().std()) < 0.025  # normal, 0.02
    with pytest.raises(ValueError, match="one of the words 'well-lit photo' is more than one token"):
        attached("coop(context=2, init=well-lit_photo)", backbone("tiny-clip"))
    with pytest.raises(ValueError, match="context=1 cannot stand on both sides"):
        attached("coop(context=1, class_name=middle)", backbone("tiny-clip"))
    clip = backbone("tiny-open-clip")
    attached("coop(context=16)", clip)
    with pytest.raises(ValueError, match="texts of 16 tokens have no room for 16 context vectors"):
        scores(clip, items(clip))


@every_clip
def test_class_specific_contexts_need_their_classes(name: str) -> None:
    clip = backbone(name)
    attached("coop(class_specific=true)", clip)
    assert clip.anatomy.pair is not None
    clip.anatomy.pair.show(["one", "two"], ["{}"])
    with pytest.raises(ValueError, match="contexts of 4 classes do not fit the texts of 2"):
        scores(clip, items(clip))
    clip.anatomy.detach()
    clip.anatomy.pair.names = ()
    with pytest.raises(ValueError, match="the classes are not known before there is a task"):
        attached("coop(class_specific=true)", clip)


@every_clip
def test_cocoop_shifts_the_context_of_coop_for_each_image(name: str) -> None:
    clip, plain = backbone(name), backbone(name)
    batch = items(clip)
    method: Any = attached("cocoop(context=3, init=random)", clip)
    coop: Any = attached("coop(context=3, init=random)", plain)
    net = method.contexts.net
    with torch.no_grad():
        images = F.normalize(plain.image_features(batch), dim=1)
        shifts = F.linear(F.relu(F.linear(images, net[0].weight, net[0].bias)), net[2].weight, net[2].bias)
        ours = scores(clip, batch)
        for i, shift in enumerate(shifts):
            coop.context.vectors.copy_(method.contexts.context.vectors + shift)
            assert torch.allclose(scores(plain, batch)[i], ours[i], atol=1e-5)
        for tensor in (net[2].weight, net[2].bias):
            tensor.zero_()
        coop.context.vectors.copy_(method.contexts.context.vectors)
        assert torch.allclose(scores(clip, batch), scores(plain, batch), atol=1e-5)


# prograd -----------------------------------------------------------------------------------------------------------


@every_clip
def test_prograd_never_steps_against_the_zero_shot_direction(name: str) -> None:
    """With each class as the label of all: among these, some go along with the zero-shot model and some against it."""
    clip, plain = backbone(name), backbone(name)
    method = attached("prograd(context=3, init=random)", clip)
    fit = fit_of(clip, method)
    method.before_fit(fit)
    batch, vectors = items(clip), method.get_parameter("context.vectors")
    with torch.no_grad():
        teacher = zero_shot(plain, TEMPLATE, batch)
    log_p = scores(clip, batch).log_softmax(1)
    kl = F.kl_div(log_p, teacher.log_softmax(1), reduction="batchmean", log_target=True)
    (general,) = torch.autograd.grad(kl, vectors, retain_graph=True)
    against = []
    for label in range(teacher.shape[1]):
        labels = torch.full((len(teacher),), label)
        (domain,) = torch.autograd.grad(F.nll_loss(log_p, labels), vectors, retain_graph=True)
        method.compute_gradients(fit, {**batch, "labels": labels})
        ours = vectors.grad
        assert ours is not None
        along = (domain * general).sum() / general.norm()
        against.append(bool(along < 0))
        if against[-1]:
            assert (ours * general).sum().abs() < 1e-4 * general.norm() * domain.norm()
            assert relative(ours, domain - along * general / general.norm()) < 1e-4
        else:
            assert relative(ours, domain) < 1e-4
    assert True in against and False in against


def test_prograd_without_strength_trains_as_coop() -> None:
    curves = []
    for method in ("prograd(strength=0.0)", "coop"):
        clip = backbone("tiny-clip")
        fit = fit_of(clip, attached(method, clip))
        fit.run()
        curves.append([point["loss"] for point in fit.curve])
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_classes_of_another_group_pull_on_nothing() -> None:
    from peft_atlas.methods.application.clip.prograd import divergence

    draws = torch.Generator().manual_seed(0)
    some = torch.randn(3, 4, generator=draws).requires_grad_()
    teacher = torch.randn(3, 4, generator=draws)
    out = torch.full((3, 2), -torch.inf)
    alone = torch.autograd.grad(divergence(some, teacher), some)[0]
    wide = torch.autograd.grad(divergence(torch.cat([some, out], 1), torch.cat([teacher, out], 1)), some)[0]
    assert torch.allclose(alone, wide) and bool(torch.isfinite(wide).all())


# maple -------------------------------------------------------------------------------------------------------------


def test_maple_is_the_towers_called_block_by_block() -> None:
    clip = backbone("tiny-open-clip")
    batch = items(clip)
    visual: Any = clip.model.visual
    text: Any = clip.model.text
    method: Any = attached("maple(context=2, depth=2)", clip)
    with torch.no_grad():
        for _, parameter in method.adapter_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        ours = scores(clip, batch)
        clip.anatomy.detach()
        shallow, deep = method.context.vectors, method.deeper[0]

        x = visual.conv1(batch["pixels"]).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
        prompts = [projection(vectors) for projection, vectors in zip(method.projections, (shallow, deep), strict=True)]
        x = visual.ln_pre(torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1))  # behind the patches, as theirs
        x = visual.transformer.resblocks[0](x)
        x = visual.transformer.resblocks[1](torch.cat([x[:, :-2], prompts[1].expand(len(x), -1, -1)], dim=1))
        images = F.normalize(visual.ln_post(x)[:, 0] @ visual.proj, dim=1)

        assert clip.anatomy.pair is not None
        ids = clip.tokens([f"X X of a {name}." for name in clip.anatomy.pair.names])["input_ids"]
        embedded = text.token_embedding(ids)
        embedded = torch.cat([embedded[:, :1], shallow.expand(len(ids), -1, -1), embedded[:, 3:]], dim=1)
        classes = F.normalize(open_clip_text(text, ids, embedded, [deep]), dim=1)
    assert torch.allclose(ours, clip.scale * images @ classes.T, atol=1e-5)


@every_clip
def test_shallow_maple_without_image_prompts_is_coop(name: str) -> None:
    clip, plain = backbone(name), backbone(name)
    batch = items(clip)
    attached("maple(depth=1)", clip)
    with torch.no_grad():
        texts, alone = class_features(clip), plain.image_features(batch)
        clip.anatomy.detach()
        answers = clip.scale * F.normalize(alone, dim=1) @ F.normalize(texts, dim=1).T
        assert torch.allclose(answers, zero_shot(plain, PHOTO, batch), atol=1e-5)  # the words are those of the template
    with pytest.raises(ValueError, match="depth=3, and the towers have 2 and 2 blocks"):
        attached("maple(depth=3)", plain)


# tpt ---------------------------------------------------------------------------------------------------------------


@every_clip
def test_tpt_takes_one_step_of_adamw_on_the_confident_views(name: str) -> None:
    clip = backbone(name)
    method: Any = attached("tpt(views=8, confident=0.4, lr=0.01)", clip)
    batch = items(clip)
    with torch.no_grad():
        ours = method.on_logits(scores(clip, batch), batch)
    pair: Any = clip.anatomy.pair
    vectors = method.context.vectors
    start = vectors.detach().clone()
    for i in range(len(ours)):
        views = method._views(batch["pixels"][i], int(batch["index"][i]))
        assert torch.equal(views[0], batch["pixels"][i]) and not torch.equal(views[1], views[2])
        p = pair.scores({"pixels": views}).softmax(1)
        entropies = -(p * p.log()).sum(1)
        kept = sorted(range(8), key=lambda view: entropies[view].item())[:3]
        mean = p[kept].mean(0)
        optimizer = torch.optim.AdamW([vectors], lr=0.01, weight_decay=0.01)
        optimizer.zero_grad()
        entropy = -(mean * mean.log()).sum()
        entropy.backward()
        optimizer.step()
        with torch.no_grad():
            assert torch.allclose(ours[i], scores(clip, batch)[i], atol=1e-4)
            vectors.copy_(start)


def test_tpt_lowers_the_entropy_leaves_no_trace_and_keeps_classes_out() -> None:
    clip = backbone("tiny-open-clip")
    method: Any = attached("tpt(views=8, confident=0.5, lr=0.0001)", clip)
    batch = items(clip)
    shipped = {key: tensor.clone() for key, tensor in method.shipped().items()}

    def entropy(item: dict[str, Tensor]) -> float:
        views = method._views(item["pixels"][0], int(item["index"]))
        p = scores(clip, {"pixels": views}).softmax(1).detach()
        kept = (-(p * p.log()).sum(1)).argsort()[:4]
        mean = p[kept].mean(0)
        return float(-(mean * mean.log()).sum())

    for i in range(4):
        item = {key: column[i : i + 1] for key, column in batch.items()}
        before = entropy(item)
        method._tune(item, torch.ones(4, dtype=torch.bool))
        assert entropy(item) < before
        with torch.no_grad():
            method.context.vectors.copy_(shipped["adapter.context.vectors"])
    with torch.no_grad():
        outputs = scores(clip, batch)
        outputs[:, 2] = -torch.inf
        answers = method.on_logits(outputs, batch)
    assert bool(answers[:, 2].isneginf().all()) and bool(answers[:, [0, 1, 3]].isfinite().all())
    assert all(torch.equal(tensor, shipped[key]) for key, tensor in method.shipped().items())
    assert method.context.vectors.grad is None


@every_clip
def test_tpt_with_a_vanishing_step_is_coop_as_it_starts(name: str) -> None:
    clip, plain = backbone(name), backbone(name)
    batch = items(clip)
    method = attached("tpt(views=1, lr=1e-12)", clip)
    attached("coop", plain)
    with torch.no_grad():
        answers = method.on_logits(scores(clip, batch), batch)
        assert torch.allclose(answers, scores(plain, batch), atol=1e-5)


# features ----------------------------------------------------------------------------------------------------------


@every_clip
@pytest.mark.parametrize("rectified", [False, True])
def test_clip_adapter_is_its_equation(name: str, rectified: bool) -> None:
    clip, plain = backbone(name), backbone(name)
    batch = items(clip)
    method: Any = attached(f"clip-adapter(sides=both, ratio=0.3, rectified={str(rectified).lower()})", clip)

    def blended(f: Tensor, side: str) -> Tensor:
        one, two = method.blends[side].down.weight, method.blends[side].up.weight
        adapted = (f @ one.T).clamp(min=0) @ two.T
        return 0.3 * (adapted.clamp(min=0) if rectified else adapted) + 0.7 * f

    with torch.no_grad():
        images, texts = blended(plain.image_features(batch), "image"), blended(class_features(plain), "text")
        expected = plain.scale * F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
        assert torch.allclose(scores(clip, batch), expected, atol=1e-5)
        zero = backbone(name)
        attached("clip-adapter(sides=both, ratio=0.0)", zero)
        assert torch.equal(scores(zero, batch), scores(plain, batch))


@every_clip
def test_tip_adapter_lets_the_training_images_vote(name: str) -> None:
    def answers(method: str, split: Any = "test") -> Tensor:
        clip = backbone(name)
        fit_of(clip, attached(method, clip)).run()
        with torch.no_grad():
            return scores(clip, items(clip, split))

    plain = backbone(name)
    with torch.no_grad():
        silent = scores(plain, items(plain, "test"))
    assert torch.allclose(answers("tip-adapter(alpha=0.0)"), silent, atol=1e-5)
    assert torch.equal(answers("tip-adapter(alpha=1e6, beta=1e4)", "train").argmax(1), items(plain)["labels"])


@every_clip
def test_tip_adapter_f_starts_as_tip_adapter_and_trains_their_linear_layer(name: str) -> None:
    clip, other, plain = backbone(name), backbone(name), backbone(name)
    batch = items(clip, "test")
    method: Any = attached("tip-adapter-f(alpha=2.0, beta=3.0)", clip)
    method.before_fit(fit_of(clip, method))
    fixed = attached("tip-adapter(alpha=2.0, beta=3.0)", other)
    fixed.before_fit(fit_of(other, fixed))
    ours = scores(clip, batch)
    assert torch.equal(ours, scores(other, batch))
    train = items(plain)
    with torch.no_grad():
        keys = F.normalize(plain.image_features(train), dim=1)
        images, silent = F.normalize(plain.image_features(batch), dim=1), scores(plain, batch)
    layer = nn.Linear(keys.shape[1], len(keys), bias=False)
    layer.weight = nn.Parameter(keys)
    votes = ((-1) * (3.0 - 3.0 * layer(images))).exp() @ F.one_hot(train["labels"]).float()
    theirs = silent + 2.0 * votes
    assert torch.allclose(ours, theirs, atol=1e-5)
    for logits in (ours, theirs):
        F.cross_entropy(logits, batch["labels"]).backward()
    assert layer.weight.grad is not None and torch.allclose(method.votes.keys.grad, layer.weight.grad, atol=1e-6)
    assert sum(p.numel() for _, p in method.adapter_parameters()) == len(keys) * keys.shape[1]


def test_what_was_learned_is_what_is_evaluated() -> None:
    """Tip-Adapter-F on the training images after training: the logits of `evaluate` are those of the pair."""
    clip = backbone("tiny-clip")
    method = attached("tip-adapter-f", clip)
    fit = fit_of(clip, method, steps=20)
    fit.run()
    task = TinyNames(CARD)
    split = task.build("train")
    shown = evaluate(clip, method, None, task, split, clip.prepare(split), SETTINGS)
    loss = F.cross_entropy(torch.from_numpy(shown.columns["logits"]), torch.from_numpy(split.labels))
    assert float(loss) < fit.curve[0]["loss"]


def test_a_record_counts_the_keys_that_trained(tmp_path: Path) -> None:
    (record,) = run("tip-adapter-f", "smoke-clip", protocol="smoke", results=tmp_path, display="none")
    assert record.status == "ok" and record.parameters is not None
    assert record.parameters.adapter == record.parameters.total_trainable == 64 * 24  # items x width
    assert record.parameters.shipped_bytes == 64 * (24 * 4 + 8)
