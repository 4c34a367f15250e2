"""What a protocol may change in how a step is computed: nothing but rounding, memory and time."""

from __future__ import annotations

import copy
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft_atlas as pa
import pytest
import torch
from peft_atlas.bench import api
from peft_atlas.bench.computation import checkpoint_blocks, parts
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.plan import settings_hash
from peft_atlas.bench.protocol import FamilySettings, load_protocol
from peft_atlas.bench.recipes import configure, resolve
from peft_atlas.bench.records import Computation
from peft_atlas.bench.registry import PLUGINS, registry
from peft_atlas.bench.trainer import Fit
from torch import Tensor, nn

SMOKE = load_protocol("smoke")
TASKS = ("smoke-vision", "smoke-text", "smoke-lm")


@dataclass
class Rig:
    """LoRA on the smoke protocol's backbone of a task, in double precision where asked."""

    task: Any
    backbone: Any
    method: Any
    head: nn.Module | None
    settings: FamilySettings

    def fit(self, dtype: str = "float32", **changes: Any) -> Fit:
        """A training run; `changes` of the family's settings."""
        settings = self.settings.model_copy(update=changes)
        prepared = self.backbone.prepare(self.task.build("train"))
        return Fit(
            *(self.backbone, self.method, self.head, self.task, prepared, settings, SMOKE.optimizer, 0), dtype=dtype
        )

    def trained(self) -> dict[str, Tensor]:
        """Copies of all that trains."""
        head = {} if self.head is None else dict(self.head.named_parameters())
        return {name: p.detach().clone() for name, p in {**dict(self.method.adapter_parameters()), **head}.items()}

    def gradients(self, dtype: str = "float32") -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and gradients of the first batch."""
        fit = self.fit(dtype)
        fit.train_mode(True)
        loss = fit.loss(next(fit.batches(1)))
        loss.backward()
        return loss.detach(), {name: p.grad for name, p in self.method.adapter_parameters() if p.grad is not None}


def rig(task_id: str, dtype: torch.dtype = torch.float32) -> Rig:
    card = registry("tasks").card(task_id)
    settings = SMOKE.family(card)
    task = registry("tasks").load(task_id)(card)
    kind = registry("backbones").load(settings.backbone)
    backbone = kind(registry("backbones").card(settings.backbone), settings.inputs)
    torch.manual_seed(0)
    resolved = resolve("lora", {"targets": "all"}, card.family, settings.backbone, task_id)
    method = registry("methods").load("lora")(configure("lora", resolved))
    method.attach(backbone.anatomy)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.1)  # LoRA starts where half of its gradients are zero
    for module in backbone.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # what is drawn in a pass differs between passes
    head = task.make_head(backbone.width)
    for module in filter(None, (backbone.model, method, head)):
        module.to(dtype)
    if hasattr(backbone, "mean"):
        backbone.mean, backbone.std = backbone.mean.to(dtype), backbone.std.to(dtype)
    return Rig(task, backbone, method, head, settings)


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys() and one
    a, b = (torch.cat([tensors[name].flatten().double() for name in one]) for tensors in (one, other))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("task_id", TASKS)
@pytest.mark.parametrize("count", [5, 16])
def test_a_batch_in_parts_gives_the_update_of_the_whole(task_id: str, count: int) -> None:
    """Batches of 16: five parts are not of one size."""
    whole, divided = rig(task_id, torch.float64), rig(task_id, torch.float64)
    start = whole.trained()
    fits = whole.fit(steps=2), divided.fit(steps=2, accumulate=count)
    for fit in fits:
        fit.run()
    assert difference(whole.trained(), start) > 1e-3, "it should have moved"
    assert difference(divided.trained(), whole.trained()) < 1e-6
    losses = [[point["loss"] for point in fit.curve] for fit in fits]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@torch.no_grad()
def test_parts_of_texts_weigh_as_many_tokens_as_they_predict() -> None:
    one = rig("smoke-lm", torch.float64)
    fit = one.fit()
    batch = next(fit.batches(1))
    batch["attention_mask"][:4, 4:] = 0
    batch["attention_mask"][4:8, 1:] = 0  # these four predict nothing
    loss, pieces = float(fit.loss(batch)), list(parts(batch, 4, one.task))
    assert len(pieces) == 3 and sum(len(part["index"]) for part, _ in pieces) == 12
    assert sum(share * float(fit.loss(part)) for part, share in pieces) == pytest.approx(loss, rel=1e-12)
    assert sum(float(fit.loss(part)) for part, _ in pieces) / 3 != pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("task_id", TASKS)
def test_checkpointing_gives_the_same_gradients_and_computes_blocks_twice(task_id: str) -> None:
    plain, lean = rig(task_id), rig(task_id)
    checkpoint_blocks(lean.backbone.model)
    calls = {"plain": 0, "lean": 0}

    def counting(name: str) -> Any:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    for name, one in (("plain", plain), ("lean", lean)):
        one.backbone.anatomy.blocks[-1].attention.o.module.register_forward_pre_hook(counting(name))
    losses, gradients = zip(plain.gradients(), lean.gradients(), strict=True)
    assert torch.equal(*losses) and difference(gradients[1], gradients[0]) < 1e-6
    assert calls == {"plain": 1, "lean": 2}


@pytest.mark.parametrize("task_id", ["smoke-text", "smoke-lm"])
def test_checkpointing_leaves_frozen_embeddings_without_gradients(task_id: str) -> None:
    one = rig(task_id)
    checkpoint_blocks(one.backbone.model)
    seen: list[bool] = []
    embedding = one.backbone.model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    one.gradients()
    assert seen == [False]


@pytest.mark.parametrize("task_id", TASKS)
def test_bfloat16_is_for_products_alone(task_id: str) -> None:
    full, half = rig(task_id), rig(task_id)
    seen: list[torch.dtype] = []
    half.backbone.anatomy.blocks[0].attention.o.module.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    (loss, exact), (rounded_loss, rounded) = full.gradients(), half.gradients("bfloat16")
    assert seen == [torch.bfloat16]
    assert {gradient.dtype for gradient in rounded.values()} == {torch.float32} == {rounded_loss.dtype}
    assert {parameter.dtype for parameter in half.backbone.model.parameters()} == {torch.float32}
    assert 0 < abs(float(rounded_loss - loss)) < 0.02 * float(loss)
    assert 1e-5 < difference(rounded, exact) < 0.1


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_backbone_gives_the_same_loss_and_gradients() -> None:
    plain, compiled = rig("smoke-vision"), rig("smoke-vision")
    compiled.backbone.model.compile()
    frames = torch._dynamo.utils.counters["frames"]
    before = frames["ok"]
    losses, gradients = zip(plain.gradients(), compiled.gradients(), strict=True)
    assert frames["ok"] > before, "nothing was compiled"
    assert float(losses[1]) == pytest.approx(float(losses[0]), rel=1e-4)
    assert difference(gradients[1], gradients[0]) < 1e-4


# protocols and records ---------------------------------------------------------------------------------------------

LEAN = {"accumulate": 2, "checkpointing": True}
PUBLISHED = {"smoke-vision": "8765bf5fd569bf14", "smoke-text": "b4d8c311e0e1a9ca", "smoke-lm": "54e01edd42292e6a"}


def test_protocols_that_set_nothing_new_keep_their_cells() -> None:
    """Keys of published cells depend on these hashes."""
    cards = {task: registry("tasks").card(task) for task in TASKS}
    assert {task: settings_hash(SMOKE, card, False) for task, card in cards.items()} == PUBLISHED
    for field, value in {**LEAN, "compile": True}.items():
        families = {name: family.model_copy(update={field: value}) for name, family in SMOKE.families.items()}
        changed = SMOKE.model_copy(update={"families": families})
        assert settings_hash(changed, cards["smoke-lm"], False) != PUBLISHED["smoke-lm"]
        assert changed.hash != SMOKE.hash
        assert FamilySettings.model_validate(families["lm"].model_dump()) == families["lm"]
    half = SMOKE.model_copy(update={"dtype": "bfloat16"})
    assert settings_hash(half, cards["smoke-lm"], False) != PUBLISHED["smoke-lm"]


@pytest.fixture
def lean_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plug-in with the smoke protocol in bfloat16, in parts and with checkpointing."""
    monkeypatch.setenv(PLUGINS, "")
    content = copy.deepcopy(dict(registry("protocols").entry("smoke").data))
    families = {name: {**family, **LEAN} for name, family in content["families"].items()}
    folder = tmp_path / "plugin"
    folder.mkdir()
    file = folder / "lean.yaml"
    file.write_text(json.dumps({**content, "id": "lean", "dtype": "bfloat16", "families": families}))  # JSON is YAML
    return file


def test_a_record_says_how_it_was_computed(lean_protocol: Path, tmp_path: Path) -> None:
    outcome = pa.run(
        "lora", "smoke-lm", protocol="lean", results=tmp_path / "r", plugins=[lean_protocol.parent], display="none"
    )
    (record,) = outcome
    assert record.status == "ok"
    assert record.computation == Computation(dtype="bfloat16", accumulate=2, checkpointing=True, compile=False)


def test_more_parts_than_items_are_refused_by_file_and_key(lean_protocol: Path) -> None:
    lean_protocol.write_text(lean_protocol.read_text().replace('"accumulate": 2', '"accumulate": 99'))
    with pytest.raises(UsageError, match=r"lean\.yaml.*a batch of 16 has no 99 parts"):
        api.plan("lora", "smoke-lm", protocol="lean", plugins=[lean_protocol.parent])
