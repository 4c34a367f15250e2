"""The probe of forgetting, and the laws of linear CKA."""

from __future__ import annotations

import pytest
import torch
from peft_atlas.bench.drift import Probe, linear_cka, probe_items
from peft_atlas.bench.protocol import load_protocol
from peft_atlas.bench.registry import registry


@pytest.fixture(params=["vision", "video", "text", "lm"])
def backbone(request):
    settings = load_protocol("smoke").families[request.param]
    card = registry("backbones").card(settings.backbone)
    return registry("backbones").load(settings.backbone)(card, settings.inputs)


def test_an_untouched_backbone_has_not_drifted(backbone):
    assert Probe(backbone).drift().value == pytest.approx(0, abs=1e-12)


def test_drift_grows_with_the_change(backbone):
    probe = Probe(backbone)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    found = []
    for size in (0.01, 0.3):
        torch.manual_seed(0)
        with torch.no_grad():
            for name, tensor in backbone.model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(before[name] + size * torch.randn_like(tensor))
        found.append(abs(probe.drift().value))
    assert 0 < found[0] < found[1]


def test_linear_cka_ignores_rotation_and_scale_and_nothing_else():
    torch.manual_seed(0)
    features = torch.randn(20, 6).double()
    rotation, _ = torch.linalg.qr(torch.randn(6, 6).double())
    assert linear_cka(features, 3 * features @ rotation + 1) == pytest.approx(1)
    assert linear_cka(features, features * torch.tensor([5.0, 1, 1, 1, 1, 1]).double()) < 0.9
    x, y = features - features.mean(0), torch.randn(20, 9).double()
    y = y - y.mean(0)
    by_definition = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(x, y) == pytest.approx(float(by_definition))
    assert linear_cka(torch.ones(4, 2), torch.ones(4, 2)) == 1
    assert linear_cka(torch.ones(4, 2), features[:4]) == 0


def test_the_probes_are_what_the_definition_says():
    photographs, sentences = probe_items("vision"), probe_items("text")
    assert photographs.inputs["image"].shape == (64, 112, 112, 3)
    assert photographs.inputs["image"].std() > 40, "photographs, not blank crops"
    assert len(set(sentences.inputs["text"])) == 48
    clips = probe_items("video").inputs["clip"]  # each frame is the one before, some pixels further to the right
    assert clips.shape == (64, 8, 80, 80, 3)
    assert (clips[:, 1:, :, :-4] == clips[:, :-1, :, 4:]).all()
    assert probe_items("lm").fingerprint() == sentences.fingerprint()
