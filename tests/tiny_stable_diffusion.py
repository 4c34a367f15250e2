"""Sizes of the parts of a Stable Diffusion that is drawn at random."""

from __future__ import annotations

TEXT = {"vocab_size": 514, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 24, "bos_token_id": 512, "eos_token_id": 513}  # fmt: skip
VAE = {"block_out_channels": [8, 8], "down_block_types": ["DownEncoderBlock2D"] * 2, "norm_num_groups": 4,
       "up_block_types": ["UpDecoderBlock2D"] * 2, "latent_channels": 4, "sample_size": 16}  # fmt: skip
UNET = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [16, 16], "layers_per_block": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "norm_num_groups": 8, "attention_head_dim": 2,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 32}  # fmt: skip
