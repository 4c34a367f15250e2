"""What the server that cells are forked from imports. It only imports: no tensor operation may run here.

A child that is forked after a parallel region of torch hangs in its own first one.
"""

from __future__ import annotations

import os
from importlib import import_module

# no thread pool may start at import: a fork would lose its threads. Cells set torch's own number by the protocol.
os.environ.update({"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"})

LIBRARIES = (
    "torch",
    "torch.nn.functional",
    "torch.optim",
    "torch._dynamo",  # an optimiser imports it when it is made
    "timm",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "tokenizers",
    "evaluate",
    "sklearn.linear_model",
    "safetensors.torch",
    "PIL.Image",
    "pandas",
    "pyarrow.parquet",
    "sklearn.linear_model",
    "evaluate",
)
for library in LIBRARIES:
    import_module(library)
for module in ("..tasks.metrics", ".child", ".cell", ".plan", ".trainer", ".anatomy", ".support"):
    import_module(module, __package__)
