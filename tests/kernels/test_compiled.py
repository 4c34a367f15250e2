"""Compiled models keep one graph, with an op in it and with plain torch; methods keep no more memory with ops."""

from __future__ import annotations

from collections.abc import Iterator

import peft_atlas as pa
import pytest
import timm
import torch
from peft_atlas.bench.ledger import SavedTensors
from peft_atlas.kernels import accuracy, catalog
from peft_atlas.kernels.dispatch import forced
from torch import nn

pytestmark = pytest.mark.kernels
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("kernels", [True, None], ids=["op", "measured"])
@pytest.mark.parametrize("name", catalog.names())
def test_one_graph(name: str, kernels: bool | None) -> None:
    """`fullgraph` makes a break an error; without a GPU the op's body is compiled as plain torch."""
    case = catalog.cases(name).make(catalog.cases(name).EDGES[-1], torch.float32, DEVICE)
    compiled = torch.compile(case.fused, fullgraph=True, backend="inductor" if DEVICE == "cuda" else "aot_eager")
    with forced(kernels):
        for comparison in accuracy.compare(case, compiled):
            assert comparison.holds, comparison


METHODS = {
    "lora": "lora(r=4)",
    "dora": "dora(r=4)",
    "ia3": "ia3",
    "ssf": "ssf",
    "adapters": "adapter-serial(bottleneck=8)",
    "oft": "oft(block=32)",
    "krona": "krona",
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_computes_the_same_and_keeps_no_more_with_kernels(method: str) -> None:
    kept, outputs, gradients = {}, {}, {}
    for kernels in (False, True):
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=4).to(DEVICE).eval()
        handle = pa.attach(model, METHODS[method])
        perturb(handle.parameters())
        with forced(kernels), SavedTensors([*model.parameters(), *handle.parameters()]) as saved:
            output = model(torch.randn(2, 3, 32, 32, device=DEVICE))
            output.square().sum().backward()
        kept[kernels], outputs[kernels] = saved.peak, output.detach()
        gradients[kernels] = torch.cat([p.grad.flatten() for p in handle.parameters() if p.grad is not None])
    assert kept[True] <= kept[False]
    assert accuracy.relative_error(outputs[True], outputs[False].double()) < 1e-5
    assert accuracy.relative_error(gradients[True], gradients[False].double()) < 1e-4


def perturb(parameters: Iterator[nn.Parameter] | list[nn.Parameter]) -> None:
    """Off the start, where zeros would hide what is computed."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.05 * torch.randn_like(parameter))
