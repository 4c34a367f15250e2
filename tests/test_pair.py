"""The pair of towers: its verbs, and that features which are kept are those that would be computed anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.anatomy import Unmergeable, anatomy_of
from peft_atlas.bench.anatomy.pair import Pair
from peft_atlas.bench.backbones.contract import Card
from peft_atlas.bench.errors import AtlasError, UsageError
from peft_atlas.bench.names import parse_one
from peft_atlas.bench.recipes import configure, resolve
from peft_atlas.bench.registry import registry
from peft_atlas.bench.sources import Source
from peft_atlas.methods.contract import Method
from peft_atlas.tasks.contract import Split
from torch import Tensor
from torch.nn.functional import normalize

INPUTS = {"image_size": 28, "normalisation": "half", "max_tokens": 16}
NAMES = ("cat", "dog", "a red lamp", "road")
TEMPLATES = ("a photo of a {}.", "{}")
TINY = ("tiny-clip", "tiny-open-clip")

pytestmark = pytest.mark.usefixtures("slow_path")


@pytest.fixture
def slow_path():
    """Without torch's fast path of attention, which rounds in another order."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(before)


def make(name: str, **inputs: Any) -> Any:
    backbone = registry("backbones").load(name)(registry("backbones").card(name), {**INPUTS, **inputs})
    backbone.anatomy.pair.show(NAMES, TEMPLATES)
    return backbone


def six_items(backbone: Any, seed: int = 0) -> dict[str, Tensor]:
    images = np.random.RandomState(seed).randint(0, 256, size=(6, 28, 28, 3)).astype(np.uint8)
    split = Split({"image": images, "group": np.arange(6) % 2}, np.arange(6) % 4, tuple(map(str, range(6))))
    return backbone.batch(backbone.prepare(split), torch.arange(6))


def counted(backbone: Any, tower: str) -> list[int]:
    """Sizes of the batches that enter a tower from now on."""
    sizes: list[int] = []
    getattr(backbone.model, tower).register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes


def attached(backbone: Any, text: str) -> Method:
    name = parse_one(text)
    config = configure(name.id, resolve(name.id, name.arguments, "clip", backbone.card.id, ""))
    method: Method = registry("methods").load(name.id)(config)
    torch.manual_seed(1)
    method.attach(backbone.anatomy)
    with torch.no_grad():
        for _, parameter in method.adapter_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return method


@pytest.mark.parametrize("name", TINY)
def test_both_towers_are_found_and_their_places_named(name: str) -> None:
    backbone = make(name)
    places = list(backbone.anatomy.linears("q"))
    assert places == [f"{tower}.blocks.{i}.attention.q" for tower in ("vision", "text") for i in range(2)]
    assert backbone.anatomy.missing(("pair",)) is None
    alone = anatomy_of(registry("backbones").load("tiny-vit")(registry("backbones").card("tiny-vit"), {}).model)
    assert alone.missing(("pair",)) == "it does not bring images and texts together"


@pytest.mark.parametrize("name", TINY)
def test_scores_are_those_of_the_librarys_own_forward(name: str) -> None:
    backbone = make(name)
    batch, pair = six_items(backbone), backbone.anatomy.pair
    pair.show(NAMES, ("a {}.",))
    with torch.no_grad():
        image, text, scale = backbone.model(batch["pixels"], pair.class_tokens()["input_ids"])
        assert torch.allclose(pair.scores(batch), scale * image @ text.T, atol=1e-5)
        pair.show(NAMES, TEMPLATES)
        two = [backbone.model(None, pair.class_tokens(template)["input_ids"])[1] for template in TEMPLATES]
        assert torch.allclose(pair.scores(batch), scale * image @ normalize(sum(two), dim=1).T, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("method", [None, "lora(targets=q+v)", "bitfit", "full"])
def test_kept_features_are_those_computed_anew(name: str, method: str | None) -> None:
    backbone = make(name)
    pair: Pair = backbone.anatomy.pair
    batch, other = six_items(backbone), six_items(backbone, seed=1)

    def both(pixels: dict[str, Tensor]) -> Tensor:
        pair.keeps = True
        kept = torch.cat([pair.scores(pixels), pair.scores(pixels)])
        pair.keeps = False
        fresh = pair.scores(pixels)
        assert torch.allclose(kept, torch.cat([fresh, fresh]), atol=1e-5)
        return kept[:6]

    before = both(batch)
    if method is not None:
        attached(backbone, method)
        during = both(batch)
        assert not torch.allclose(during, before, atol=1e-3)
        backbone.anatomy.detach()
    assert torch.equal(both(batch), before)
    assert not torch.allclose(both(other), before, atol=1e-3)
    part = {name: column[2:4] for name, column in batch.items()}
    pair.keeps = True
    assert torch.allclose(pair.scores(part), before[2:4], atol=1e-5)


def test_an_untouched_tower_sees_each_item_and_each_text_once() -> None:
    backbone = make("tiny-clip")
    pair, batch = backbone.anatomy.pair, six_items(backbone)
    images, texts = counted(backbone, "visual"), counted(backbone, "text")
    for _ in range(3):
        pair.scores(batch)
    assert (images, texts) == ([6], [4, 4])  # two templates
    pair.show((*NAMES, "fish"), TEMPLATES)
    pair.scores(batch)
    assert (images, texts) == ([6], [4, 4, 1, 1])
    del batch["item"]  # as a method does that changes pixels
    pair.scores(batch)
    assert images == [6, 6]


@pytest.mark.parametrize("place", ["vision.blocks.0.attention.q", "text.blocks.0.attention.q"])
def test_what_touches_one_tower_leaves_the_other_kept(place: str) -> None:
    backbone = make("tiny-clip")
    pair, batch = backbone.anatomy.pair, six_items(backbone)
    pair.scores(batch)
    shift = torch.nn.Parameter(torch.full((32,), 0.3))
    backbone.anatomy.linears("q")[place].affine(shift=shift)
    pair.scores(batch)  # an edit empties what is kept
    images, texts = counted(backbone, "visual"), counted(backbone, "text")
    pair.scores(batch).sum().backward()
    assert shift.grad is not None and shift.grad.abs().sum() > 0
    assert (images, texts) == (([6], []) if place.startswith("vision") else ([], [4, 4]))


def test_verbs_do_what_they_say_and_leave_no_trace() -> None:
    backbone = make("tiny-clip")
    pair, batch = backbone.anatomy.pair, six_items(backbone)
    with torch.no_grad():
        plain, image = pair.scores(batch), backbone.image_features(batch)
        pair.rewrite(lambda template: f"X X {template}")
        assert pair.rewritten() == ("X X a photo of a {}.", "X X {}") and pair.template == TEMPLATES[0]
        pair.rewrite(lambda template: "the {}")
        assert pair.rewritten() == ("the {}",)
        wanted = normalize(backbone.text_features(backbone.tokens([f"the {name}" for name in NAMES])), dim=1)
        pair.images.after(lambda images: images + 1)
        moved = normalize(image + 1, dim=1)
        seen: list[Tensor] = []

        def of_each_image(next: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
            seen.append(images)
            return torch.stack([next(images[i : i + 1]) + images[i] for i in range(len(images))])

        pair.classes.around(of_each_image)
        raw = backbone.text_features(pair.class_tokens())
        classes = normalize(raw[None] + moved[:, None], dim=2)
        assert torch.allclose(pair.scores(batch), backbone.scale * (moved[:, None] * classes).sum(2), atol=1e-5)
        assert torch.allclose(seen[0], moved, atol=1e-6) and classes.shape == (6, 4, 24)
        pair.logits.after(
            lambda logits, images, classes: logits * 0 + images.norm(dim=1)[:, None] * classes.norm(dim=2)
        )
        assert torch.allclose(pair.scores(batch), torch.ones(6, 4), atol=1e-5)
        assert wanted.shape == (4, 24) and torch.allclose(normalize(raw, dim=1), wanted, atol=1e-6)
        with pytest.raises(Unmergeable, match="another template"):
            backbone.anatomy.merge()
        backbone.anatomy.detach()
        assert torch.equal(pair.scores(batch), plain)


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (("cat", "dog", "cat"), TEMPLATES, "two classes are called 'cat'"),
        (NAMES, ("a photo",), "one {} for the class's name, not 'a photo'"),
        (NAMES, (), "at least one template"),
    ],
)
def test_classes_that_cannot_be_are_refused(names: Any, templates: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("tiny-clip").anatomy.pair.show(names, templates)


def test_numbers_beside_the_pictures_travel_with_them() -> None:
    backbone = make("tiny-clip")
    first, second = six_items(backbone), six_items(backbone)
    assert first["group"].tolist() == [0, 1, 0, 1, 0, 1]
    assert first["item"].tolist() == list(range(6)) and second["item"].tolist() == list(range(6, 12))


def library_card(**options: Any) -> Card:
    card = registry("backbones").card("tiny-open-clip")
    return Card(**{**vars(card), "options": {"kind": "open_clip", "random": 0, **options}})


def test_the_librarys_vit_b_32_counts_as_published_and_answers() -> None:
    """151,277,313 parameters: open_clip's own table for ViT-B-32 (docs/model_profile.csv, 151.28 million)."""
    card = library_card(model="ViT-B-32", image_size=224)
    backbone: Any = registry("backbones").load("tiny-open-clip")(card, {"image_size": 64, "normalisation": "openai"})
    positions = 1 + (224 // 32) ** 2 - (1 + (64 // 32) ** 2)
    assert sum(p.numel() for p in backbone.model.parameters()) == 151_277_313 - positions * 768
    assert backbone.tokens(["a photo of a cat."])["input_ids"][0, :8].tolist() == [
        *(49406, 320, 1125, 539, 320, 2368, 269, 49407)  # as OpenAI's tokenizer has it
    ]
    pair = backbone.anatomy.pair
    pair.show(NAMES, TEMPLATES)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = pair.scores({"pixels": pixels})
        for place in backbone.anatomy.linears("v").values():
            place.affine(scale=torch.full((place.d_out,), 2.0))
        assert plain.shape == (2, 4) and not torch.allclose(pair.scores({"pixels": pixels}), plain, atol=1e-2)
        backbone.anatomy.detach()
        assert torch.equal(pair.scores({"pixels": pixels}), plain)


def test_weights_of_the_librarys_other_class_are_read_from_a_folder(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's and LAION's files hold a `CLIP`, whose text tower is no module of its own, some in half precision."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    config = registry("backbones").card("tiny-open-clip").options["config"]
    torch.manual_seed(3)
    model: Any = CLIP(**config).half().float().eval()
    (tmp_path / "own" / "clip").mkdir(parents=True)
    file = tmp_path / "own" / "clip" / "open_clip_model.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}, file)
    monkeypatch.setenv("PEFT_ATLAS_DATA_ROOT", str(tmp_path))
    source = Source("own/clip", (file.name,), hub="model")
    card = Card(**{**vars(library_card(config=config, image_size=28)), "sources": (source,)})
    del card.options["random"]  # type: ignore[attr-defined]
    build = registry("backbones").load("tiny-open-clip")
    backbone, pixels = build(card, INPUTS), torch.randn(2, 3, 28, 28)
    tokens = backbone.tokens(NAMES)
    with torch.no_grad():
        assert torch.allclose(backbone.image_features({"pixels": pixels}), model.encode_image(pixels), atol=1e-5)
        assert torch.allclose(backbone.text_features(tokens), model.encode_text(tokens["input_ids"]), atol=1e-5)
    larger = build(card, {**INPUTS, "image_size": 56})
    assert larger.model.visual.positional_embedding.shape == (1 + 16, 32)
    file.unlink()
    with pytest.raises(AtlasError, match=r"own/clip holds no open_clip_model\.safetensors"):
        build(card, INPUTS)


def test_cards_that_cannot_be_built_are_refused() -> None:
    build = registry("backbones").load("tiny-open-clip")
    with pytest.raises(UsageError, match="open_clip has no model 'ViT-Q'"):
        build(library_card(model="ViT-Q"), INPUTS)
    with pytest.raises(UsageError, match="would come from a hub"):
        build(library_card(model="xlm-roberta-base-ViT-B-32"), INPUTS)
    with pytest.raises(UsageError, match="kind must be pair or open_clip, not 'clap'"):
        build(library_card(kind="clap"), INPUTS)


def test_trained_tensors_take_the_towers_place(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    card = registry("backbones").card("tiny-clip")
    backbone = make("tiny-clip")
    state = backbone.model.state_dict()
    own = {name: tensor for name, tensor in state.items() if not name.startswith(("visual.trunk", "text.transformer"))}
    block = "visual.trunk.blocks.1.mlp.fc2.weight"
    tensors = {name: torch.full_like(tensor, 0.5) for name, tensor in {**own, block: state[block]}.items()}
    save_file(tensors, tmp_path / "trained.safetensors")
    monkeypatch.setattr(type(registry("backbones")), "folder", lambda self, card_id: tmp_path)
    with_file = Card(**{**vars(card), "options": {**card.options, "trained": "trained.safetensors"}})
    trained = type(backbone)(with_file, INPUTS).model.state_dict()
    assert all(torch.equal(trained[name], tensors.get(name, state[name])) for name in state)
    save_file({**tensors, "visual.nose": torch.zeros(1)}, tmp_path / "trained.safetensors")
    with pytest.raises(AtlasError, match=r"does not fit the towers at visual\.nose"):
        type(backbone)(with_file, INPUTS)
    save_file({block: state[block]}, tmp_path / "trained.safetensors")
    with pytest.raises(AtlasError, match="does not fit the towers at logit_scale"):
        type(backbone)(with_file, INPUTS)
