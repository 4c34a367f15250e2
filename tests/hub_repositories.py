"""Tiny repositories with the true files and columns: GLUE's parquet, encoders of transformers, a ViT of timm."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

GLUE = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
TINY = "1" * 40  # commit of the tiny models
MARKS = ("zero", "one", "two", "three", "four", "five")  # the first word of an item says its class
WORDS = ("the", "a", "film", "dog", "house", "is", "was", "good", "bad", "old", "new", "not", "very", "in", "of", "it")
GLUE_COLUMNS = {  # as the dataset card of nyu-mll/glue lists them, besides label and idx
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
    "mnli": ("premise", "hypothesis"),
}


def glue_files(subset: str, sizes: dict[str, int], classes: int) -> dict[str, bytes]:
    """Parquet of one subset: random words behind the label's mark. `classes` 0: numbers from 0 to 5."""
    rng = np.random.default_rng(0)
    files = {}
    for split, size in sizes.items():
        labels = rng.uniform(0, 5, size).astype(np.float32) if classes == 0 else rng.integers(0, classes, size)
        columns: dict[str, Any] = {
            name: [f"{MARKS[int(label)]} {' '.join(rng.choice(WORDS, 6))}" for label in labels]
            for name in GLUE_COLUMNS[subset]
        }
        table = pa.table({**columns, "label": labels, "idx": np.arange(size, dtype=np.int32)})
        files[f"{subset}/{split}-00000-of-00001.parquet"] = _parquet(table)
    return files


def dataset_card(subset: str, splits: list[str]) -> bytes:
    """README.md, whose head tells `datasets` which file is which split."""
    lines = [f"  - split: {split}\n    path: {subset}/{split}-*" for split in splits]
    return ("---\nconfigs:\n- config_name: " + subset + "\n  data_files:\n" + "\n".join(lines) + "\n---\n").encode()


def roberta_files(folder: Path) -> dict[str, bytes]:
    """A masked language model of width 32, as RoBERTa's repository holds one, with a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", "<mask>", *WORDS, *MARKS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def timm_files(folder: Path) -> dict[str, bytes]:
    """A ViT of width 32 with a classifier of five, as timm's repositories hold one."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    arguments = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **arguments)
    save_file(model.state_dict(), folder / "model.safetensors")
    pretrained = {"input_size": [3, 32, 32], "num_classes": 5, "first_conv": "patch_embed.proj", "classifier": "head"}
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 5,
        "model_args": arguments,
        "pretrained_cfg": {"tag": "tiny", "mean": [0.5] * 3, "std": [0.5] * 3, **pretrained},
    }
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
    }


def clip_files(folder: Path) -> dict[str, bytes]:
    """A CLIP of width 32, as open_clip's repositories hold one."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    towers: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2},
    }
    save_file(open_clip.CLIP(**towers).state_dict(), folder / "open_clip_model.safetensors")
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3}
    config = json.dumps({"model_cfg": towers, "preprocess_cfg": preprocessing})
    weights = (folder / "open_clip_model.safetensors").read_bytes()
    return {"open_clip_config.json": config.encode(), "open_clip_model.safetensors": weights}


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()
