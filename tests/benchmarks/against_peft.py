"""Methods that HF PEFT has too, ours and theirs on the same random backbone, ready to train step by step.

The hyper-parameters agree, dropout is off, backbone and adapters are single precision. BOFT has one factor, since HF
PEFT takes one wherever its CUDA extension is missing. `lora-fa` is left out: HF PEFT has it as an optimiser that also
corrects the gradient of B.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from peft_atlas.bench.attachment import attach
from peft_atlas.bench.ledger import SavedTensors, pinned_attention, tensors_of
from torch import Tensor, nn

LR = 1e-4
STEPS = 1000  # of the schedule that AdaLoRA is told; its budget does not fall within what is measured
ATTENTION = {"bert": ["query", "value"], "llama": ["q_proj", "v_proj"]}


@dataclass(frozen=True)
class Shape:
    """A random backbone and a batch for it."""

    build: Callable[[], nn.Module]
    batch: int
    tokens: int
    vocabulary: int

    def inputs(self) -> dict[str, Tensor]:
        """Ids and a full mask, (batch, tokens)."""
        ids = torch.randint(5, self.vocabulary, (self.batch, self.tokens))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def minilm() -> nn.Module:
    """BERT of MiniLM-L6's shape."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    return BertModel(BertConfig(**sizes, vocab_size=8192))


def smollm() -> nn.Module:
    """LLaMA of SmolLM2-135M's width, with 6 of its 30 blocks and a small vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 576, "num_hidden_layers": 6, "num_attention_heads": 9, "num_key_value_heads": 3}
    return LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=1536, vocab_size=8192))


SHAPES = {"bert": Shape(minilm, 16, 64, 8192), "llama": Shape(smollm, 8, 64, 8192)}


@dataclass(frozen=True)
class Shared:
    """One method: its name here, HF PEFT's configuration class and values, and the backbone."""

    ours: str
    config: str
    values: dict[str, Any] = field(default_factory=dict)
    backbone: str = "bert"

    @property
    def id(self) -> str:
        """The method's id here."""
        return self.ours.partition("(")[0]


def low_rank(ours: str, **values: Any) -> Shared:
    """A variant of LoRA of rank 8 on queries and values."""
    return Shared(f"{ours}(r=8, alpha=16, targets=q+v)", "LoraConfig", {"r": 8, "lora_alpha": 16, **values})


def prompted(ours: str, config: str, **values: Any) -> Shared:
    """Twenty virtual tokens of a language model."""
    return Shared(ours, config, {"task_type": "CAUSAL_LM", "num_virtual_tokens": 20, **values}, "llama")


SHARED = [
    low_rank("lora"),
    low_rank("rslora", use_rslora=True),
    low_rank("lora-plus"),
    low_rank("dora", use_dora=True),
    low_rank("pissa", init_lora_weights="pissa_niter_4"),
    Shared(
        "adalora(init_r=12, target_r=8, alpha=24, targets=q+v, orthogonality=0.5, initial=0.4, final=0.2, interval=10)",
        "AdaLoraConfig",
        {
            "task_type": "CAUSAL_LM",  # without which HF PEFT leaves out the penalty
            "init_r": 12,
            "target_r": 8,
            "lora_alpha": 24,
            "tinit": 400,
            "tfinal": 200,
            "deltaT": 10,
            "total_step": STEPS,
        },
        "llama",
    ),
    Shared(
        "ia3(targets=k+v+down)",
        "IA3Config",
        {
            "target_modules": r".*(key|value|\d\.output\.dense)",
            "feedforward_modules": r".*\d\.output\.dense",
        },
    ),
    Shared("vera(r=64, targets=q+v)", "VeraConfig", {"r": 64}),
    Shared("loha(r=8, alpha=8, targets=q+v)", "LoHaConfig", {"r": 8, "alpha": 8}),
    Shared("lokr(r=8, alpha=8, factor=-1, targets=q+v)", "LoKrConfig", {"r": 8, "alpha": 8}),
    Shared(
        "oft(block=32, terms=5, targets=q+v)",
        "OFTConfig",
        {"oft_block_size": 32, "use_cayley_neumann": True, "num_cayley_neumann_terms": 5},
    ),
    Shared("boft(block=8, factors=1, targets=q+v)", "BOFTConfig", {"boft_block_size": 8, "boft_n_butterfly_factor": 1}),
    Shared("ln-tuning", "LNTuningConfig", {"target_modules": ["attention.output.LayerNorm", "output.LayerNorm"]}),
    prompted("prefix(tokens=20, projection=false, shift_positions=true)", "PrefixTuningConfig"),
    prompted("prompt-tuning(tokens=20)", "PromptTuningConfig"),
    prompted(
        "p-tuning(tokens=20, encoder=mlp, hidden=128)",
        "PromptEncoderConfig",
        encoder_reparameterization_type="MLP",
        encoder_hidden_size=128,
    ),
    Shared(
        "llama-adapter(tokens=20, upper=1.0)",
        "AdaptionPromptConfig",
        {"task_type": "CAUSAL_LM", "adapter_len": 20, "adapter_layers": 6},
        "llama",
    ),
]
PLACED_BY_THEMSELVES = {"PrefixTuningConfig", "PromptTuningConfig", "PromptEncoderConfig", "AdaptionPromptConfig"}


@dataclass
class Side:
    """One implementation on its own copy of the backbone."""

    model: Any
    trained: list[nn.Parameter]
    tensors: list[Tensor]  # weights and buffers: no activations
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer
    after_step: Callable[[int], object]
    steps: int = 0

    def step(self) -> None:
        """One step of training."""
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()
        self.after_step(self.steps)
        self.steps += 1

    def saved(self) -> int:
        """Bytes that autograd keeps for the backward pass of one step, by the canonical ledger."""
        with pinned_attention(), SavedTensors(self.tensors) as saved:
            self.loss().backward()
        self.optimizer.zero_grad(set_to_none=True)
        return saved.peak

    @property
    def trainable(self) -> int:
        """Numbers that train."""
        return sum(parameter.numel() for parameter in self.trained)


def pair(shared: Shared) -> tuple[Side, Side]:
    """(ours, HF PEFT's) of one method, on two copies of a backbone and the same batch."""
    torch.manual_seed(0)
    shape = SHAPES[shared.backbone]
    model, inputs = shape.build().eval(), shape.inputs()
    return _ours(shared, copy.deepcopy(model), inputs), _theirs(shared, model, inputs)


def _loss(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Of a language model its own, of an encoder one of the mean hidden state."""
    if "CausalLM" in type(model).__name__ or hasattr(getattr(model, "base_model", model), "lm_head"):
        loss: Tensor = model(**inputs, labels=inputs["input_ids"], use_cache=False).loss
        return loss
    return model(**inputs).last_hidden_state.mean(1).pow(2).sum()


def _ours(shared: Shared, model: nn.Module, inputs: dict[str, Tensor]) -> Side:
    method = attach(model, shared.ours).method
    fit: Any = SimpleNamespace(steps=STEPS)
    method.before_fit(fit)

    def loss() -> Tensor:
        extra = method.extra_loss()
        return _loss(model, inputs) if extra is None else _loss(model, inputs) + extra

    groups = [{"lr": LR, **group} for group in method.parameter_groups()]
    trained = [parameter for _, parameter in method.adapter_parameters()]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    return Side(model, trained, list(tensors_of((model, method))), loss, optimizer, method.after_step)


def _theirs(shared: Shared, model: nn.Module, inputs: dict[str, Tensor]) -> Side:
    import peft

    values = dict(shared.values)
    if shared.config not in PLACED_BY_THEMSELVES:
        values.setdefault("target_modules", ATTENTION[shared.backbone])
    wrapped = peft.get_peft_model(model, getattr(peft, shared.config)(**values)).eval()
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained, lr=LR, weight_decay=0.0)
    if shared.id == "lora-plus":
        from peft.optimizers import create_loraplus_optimizer

        optimizer = create_loraplus_optimizer(wrapped, torch.optim.AdamW, lr=LR, loraplus_lr_ratio=16)
    allocate = wrapped.base_model.update_and_allocate if shared.id == "adalora" else _nothing
    tensors = list(tensors_of((wrapped,)))
    return Side(wrapped, trained, tensors, lambda: _loss(wrapped, inputs), optimizer, allocate)


def _nothing(step: int) -> None:
    """What most methods do after a step."""
