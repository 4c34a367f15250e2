"""Tiny random models of every architecture that the anatomy knows: width 32, two blocks, weights of order one.

The libraries initialise so near zero that mistakes vanish in rounding; here every tensor is drawn anew. All inputs
come in two forms: with padding in the second row, and without a mask.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .tiny_images import MODELS
from .tiny_sizes import BLOCKS, END, LENGTH, VOCABULARY, WIDTH

TEXT = ("bert", "roberta", "llama", "gpt2", "t5", "clip-text", "bloom", "deberta", "opt", "gemma2")
NAMES = ("vit", "vit-layerscale", "clip-vision", *MODELS, *TEXT)
FAMILIES = {
    "vision": ("vit", "vit-layerscale", "clip-vision", "hf-vit"),
    "video": ("videomae", "timesformer", "vit-frames"),
    "clip": ("open-clip",),
    "diffusion": ("unet", "text-to-image"),
    "lm": ("llama", "gpt2", "bloom", "opt", "gemma2"),
}  # the others are of the family text


@dataclass
class Tiny:
    """A model in evaluation mode, and inputs for it."""

    name: str
    model: nn.Module
    inputs: dict[str, Any]

    def outputs(self) -> Tensor:
        """Everything the model returns, flattened."""
        return outputs(self.model, self.inputs)


def outputs(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """All floating outputs (hidden states, pooled vector, logits, encoder states, denoised sample) as one vector."""
    result: Any = model(**inputs)
    if isinstance(result, Tensor):
        return result.flatten()
    if "image_features" in result:  # of length one each: the similarities are what changes
        image, text = result["image_features"], result["text_features"]
        return torch.cat([image.flatten(), text.flatten(), (result["logit_scale"] * image @ text.t()).flatten()])
    names = ("last_hidden_state", "pooler_output", "logits", "encoder_last_hidden_state", "sample")
    found = [getattr(result, name, None) for name in names]
    return torch.cat([value.flatten() for value in found if value is not None])


def family_of(name: str) -> str:
    """The layer of recipes that fits the model called `name`."""
    return next((family for family, names in FAMILIES.items() if name in names), "text")


def tiny(name: str, *, padded: bool = True, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tiny:
    """The model called `name` and its inputs; the same seed gives the same bits."""
    model, inputs = copy.deepcopy(_drawn(name, padded, seed))
    return Tiny(name, model.to(dtype), {key: _cast(value, dtype) for key, value in inputs.items()})


def tiny_on_meta(name: str) -> nn.Module:
    """The same architecture without values."""
    with torch.device("meta"):
        return _model(name)


@cache
def _drawn(name: str, padded: bool, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _model(name)
            redraw(model)
            # frozen, because torch chooses another attention kernel where T5's position bias wants a gradient
            return model.eval().requires_grad_(False), _inputs(name, padded)
    finally:
        torch.set_default_dtype(default)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


@torch.no_grad()
def redraw(model: nn.Module) -> None:
    """New values of order one for all parameters."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.25)
        elif name.endswith("bias"):
            parameter.normal_(std=0.1)
        else:  # norm weights and layer scales
            parameter.normal_(mean=1.0, std=0.1)


def _model(name: str) -> nn.Module:
    if name in MODELS:
        return MODELS[name][0]()
    if name.startswith("vit"):
        from timm.models.vision_transformer import VisionTransformer

        scale = 0.1 if name == "vit-layerscale" else None
        return VisionTransformer(
            img_size=28, patch_size=14, embed_dim=WIDTH, depth=BLOCKS, num_heads=2, num_classes=0, init_values=scale
        )
    import transformers as hf

    common: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": BLOCKS,
        "intermediate_size": 64,
    }
    plain: dict[str, Any] = {**common, "num_attention_heads": 2}
    no_dropout: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if name == "bert":
        return hf.BertModel(hf.BertConfig(**plain, **no_dropout, max_position_embeddings=64))
    if name == "roberta":
        return hf.RobertaModel(hf.RobertaConfig(**plain, **no_dropout, max_position_embeddings=64))
    if name == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**common, num_attention_heads=4, num_key_value_heads=2))
    if name == "gpt2":
        zero: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = hf.GPT2Config(
            vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=BLOCKS, n_head=2, n_positions=64,
            bos_token_id=1, eos_token_id=2, **zero,
        )  # fmt: skip
        return hf.GPT2LMHeadModel(config)
    if name == "t5":
        sizes: dict[str, Any] = {"d_model": WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": BLOCKS, "num_heads": 2}
        rest: dict[str, Any] = {"vocab_size": VOCABULARY, "dropout_rate": 0.0, "decoder_start_token_id": 0}
        return hf.T5ForConditionalGeneration(hf.T5Config(**sizes, **rest))
    if name == "clip-vision":
        sizes = {key: value for key, value in plain.items() if key != "vocab_size"}
        return hf.CLIPVisionModel(hf.CLIPVisionConfig(**sizes, image_size=28, patch_size=14))
    if name == "clip-text":
        return hf.CLIPTextModel(hf.CLIPTextConfig(**plain, max_position_embeddings=32, eos_token_id=END))
    if name == "bloom":
        sizes = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": BLOCKS, "n_head": 2}
        return hf.BloomForCausalLM(hf.BloomConfig(**sizes, hidden_dropout=0.0, attention_dropout=0.0))
    if name == "deberta":  # as v3 is
        positions: dict[str, Any] = {"relative_attention": True, "position_buckets": 4, "max_position_embeddings": 16}
        shared: dict[str, Any] = {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "norm_rel_ebd": "layer_norm"}
        return hf.DebertaV2Model(
            hf.DebertaV2Config(**plain, **no_dropout, **positions, **shared, position_biased_input=False)
        )
    if name == "opt":
        sizes = {key: value for key, value in plain.items() if key != "intermediate_size"}
        return hf.OPTForCausalLM(
            hf.OPTConfig(**sizes, ffn_dim=64, word_embed_proj_dim=WIDTH, max_position_embeddings=64, dropout=0.0)
        )
    if name == "gemma2":  # a window shorter than the text, scores near their bound
        heads: dict[str, Any] = {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
        }
        return hf.Gemma2ForCausalLM(
            hf.Gemma2Config(**common, **heads, sliding_window=4, attn_logit_softcapping=2.0, max_position_embeddings=64)
        )
    raise ValueError(name)


def _inputs(name: str, padded: bool) -> dict[str, Any]:
    if name in MODELS:
        return MODELS[name][1]()
    images = torch.randn(2, 3, 28, 28)
    ids = torch.randint(5, VOCABULARY - 2, (2, LENGTH))
    if name.startswith("vit"):
        return {"x": images}
    if name == "clip-vision":
        return {"pixel_values": images}
    text: dict[str, Any] = {"input_ids": ids}
    ids[:, -1] = END
    if padded:
        mask = torch.ones_like(ids)
        mask[1, 5:] = 0
        ids[1, 4:] = torch.tensor([END, 1, 1])
        text["attention_mask"] = mask
    if name == "t5":
        text["decoder_input_ids"] = ids[:, :4].clone()
    if name in ("llama", "gpt2", "t5", "bloom", "opt", "gemma2"):
        text["use_cache"] = False
    return text
