"""What the server that cells are forked from imports. It only imports: no tensor operation may run here.

A child that is forked after a parallel region of torch hangs in its own first one.
"""

from __future__ import annotations

import os
from importlib import import_module

# thread pools that start at import would be lost in a fork
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LIBRARIES = (
    "torch",
    "torch.nn.functional",
    "torch.optim",
    "timm",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "tokenizers",
    "safetensors.torch",
    "PIL.Image",
)
for library in LIBRARIES:
    import_module(library)
for module in ("child", "cell", "plan", "trainer", "anatomy", "support"):
    import_module(f"{__package__}.{module}")
