"""Run in a process of its own with HF_ENDPOINT set: the client libraries' own ways to a hub, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any


def main(glue: str, tiny: str) -> dict[str, Any]:
    """What the libraries read at these commits."""
    import datasets
    import open_clip
    import timm
    import transformers

    model: Any = transformers.AutoModelForMaskedLM.from_pretrained("double/tiny-roberta", revision=tiny)
    tokenizer = transformers.AutoTokenizer.from_pretrained("double/tiny-roberta", revision=tiny)
    rows = datasets.load_dataset("nyu-mll/glue", "rte", revision=glue)
    vit = timm.create_model("hf-hub:double/tiny-vit", pretrained=True)
    clip = open_clip.create_model_from_pretrained("hf-hub:double/tiny-clip", return_transform=False)
    return {
        "embedding": float(model.roberta.embeddings.word_embeddings.weight.sum()),
        "ids": tokenizer("the good dog", "a film")["input_ids"],
        "rows": {split: len(part) for split, part in rows.items()},
        "first": rows["validation"][0],
        "patches": float(vit.patch_embed.proj.weight.sum()),
        "classes": vit.num_classes,
        "projection": float(clip.text_projection.detach().sum()),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
