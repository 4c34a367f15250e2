"""P-tuning: virtual tokens made by a small network (Liu et al. 2021, arXiv 2103.10385, section 3.2).

The tokens before the text are f(e) for a table e, with f a bidirectional LSTM of two layers and a ReLU network of two
(`encoder` lstm, equation 6 of the paper), or a ReLU network of three (mlp, as HF PEFT recommends). Only their values
are kept after training. The anchor tokens inside templates are left out: the tasks here have no template.

Trainable parameters, with t tokens, width d and hidden h: mlp t*d + (d*h + h) + (h*h + h) + (h*d + d); lstm
t*d + 8*(d*h + h*h + 2*h) + 8*(2*h*h + h*h + 2*h) + (4*h*h + 2*h) + (2*h*d + d); for each tower that takes a prompt.
Shipped: t*d.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class PTuningConfig(GradientConfig):
    """Length of the prompt and the network that makes it; the network is nearly all that trains."""

    size: ClassVar[str | None] = "hidden"

    tokens: int = Field(gt=0, description="virtual tokens")
    encoder: Literal["lstm", "mlp"]
    hidden: int = Field(gt=0, description="width of that network (of each direction, for the LSTM)")


class EncodedPrompt(nn.Module):
    """A source of prompt tokens, (B, L, width) -> (tokens, width); the argument is not read.

    `hidden` are the widths of the two layers of the MLP, or of the LSTM's second network and of the LSTM.
    """

    def __init__(self, like: Tensor, width: int, config: PTuningConfig, hidden: tuple[int, int]) -> None:
        super().__init__()
        device = like.device
        self.table = nn.Parameter(torch.empty(config.tokens, width, device=device))
        nn.init.normal_(self.table)
        self.lstm: nn.LSTM | None = None
        sizes = [width, *hidden, width]
        if config.encoder == "lstm":
            behind, recurrent = hidden
            self.lstm = nn.LSTM(width, recurrent, num_layers=2, bidirectional=True, batch_first=True, device=device)
            sizes = [2 * recurrent, 2 * behind, width]
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise(sizes):
            layers += [nn.Linear(d_in, d_out, device=device), nn.ReLU()]
        self.mlp: nn.Module | None = nn.Sequential(*layers[:-1])

    def forward(self, hidden: Tensor | None = None) -> Tensor:
        tokens: Tensor = self.table
        if self.lstm is not None:
            tokens = self.lstm(tokens.unsqueeze(0))[0].squeeze(0)
        return tokens if self.mlp is None else self.mlp(tokens)

    @torch.no_grad()
    def drop_encoder(self) -> None:
        """Keep the values and forget the network that made them."""
        values = self.forward().detach().clone()
        self.lstm = self.mlp = None
        self.table = nn.Parameter(values)


class PTuning(Method):
    """One encoded prompt for each tower that takes one."""

    Config = PTuningConfig
    config: PTuningConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("prompt", "embedding")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.prompts = nn.ModuleDict()
        first, second = (self.config.hidden for _ in self.sized(range(2)))
        for tower in anatomy.towers.values():
            if tower.takes_prompt and tower.embedding is not None:
                prompt = EncodedPrompt(
                    tower.embedding.weight.value(), tower.embedding.width, self.config, (first, second)
                )
                self.prompts[tower.name] = prompt
                tower.prompt(prompt, self.config.tokens)

    def fit(self, fit: Fit) -> None:
        fit.gradient_descent()
        self._drop_encoders()

    def shipped(self) -> dict[str, Tensor]:
        """The values alone, also while a network still makes them."""
        return {f"adapter.prompts.{name}.table": prompt().detach() for name, prompt in self.prompts.items()}

    def load_shipped(self, tensors: dict[str, Tensor]) -> None:
        self._drop_encoders()
        super().load_shipped(tensors)

    def _drop_encoders(self) -> None:
        for prompt in self.prompts.values():
            assert isinstance(prompt, EncodedPrompt)
            prompt.drop_encoder()
