"""Customising a generator: from a few views of a subject to the subject in scenes that prompts ask for.

Every method trains with the same objective: the denoising loss on the views and, as in DreamBooth (Ruiz et al. 2023,
arXiv:2208.12242, equation 2), a weighted one on images of the class that the untouched generator draws. Prior
preservation belongs to the task and not to methods: it says what a customised model is to keep, and a method that had
it for itself would be compared by its objective and not by what it trains. Full fine-tuning is then DreamBooth, and
Custom Diffusion's regularisation (arXiv:2212.04488, section 3.2; with real images there) is the same term. Textual
Inversion (arXiv:2208.01618) has none; prompts of the class do not hold its word, so that the term moves nothing in it.
All methods read the same prompts, with the noun of the class, which Textual Inversion's own leave out.

Metrics are DreamBooth's (sections 4.1 and 4.3), with the scorers that the card names:

- `dino`, `clip_i`: mean cosine of features of generated images with those of the real views, over all pairs.
- `clip_t`: mean cosine of image and prompt; the prompt speaks of the class, without placeholder.
- `pres`: mean cosine (`dino`'s scorer) of views with images of the class alone, which the customised model draws for
  some of the prompts; lower is better, since anything of the class should not become the subject.
- `div`: one minus the mean cosine (`dino`'s scorer) between images of one prompt. It stands in for the paper's LPIPS,
  whose weights no package carries.

With two subjects in one image each similarity is the mean of those with either's views (as CustomConcept101 has it).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..contract import Predictions, Split, SplitName, Task
from .class_images import class_images
from .prompts import PLACEHOLDERS, check_placeholder, introduce, plain, readable
from .scorers import image_features, mean_similarity, text_features
from .sheet import contact_sheet

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ...bench.backbones.contract import Backbone

SIMILARITIES = ("dino", "clip_i", "clip_t")


@dataclass(frozen=True)
class Subject:
    """What a placeholder is to mean."""

    noun: str  # its class: "fruit"
    prompt: str  # that the views are trained with: "a <new1> fruit"
    views: np.ndarray  # uint8 (V, H, W, 3)


class Customisation(Task):
    """Subclasses give subjects and prompts.

    The card's options: `samples` of each prompt, `compared` (how many of them are drawn of the class alone too),
    `steps` and `guidance` of sampling, `prior` (`images` of each class, `weight` of their loss; 0 images for none) and
    `scorers` (`image`, and `pair` or null), see `scorers`.
    """

    shown: ClassVar[tuple[str, ...]] = ("images", "class_images")

    @abstractmethod
    def read_subjects(self) -> list[Subject]:
        """The subjects, in the order of the placeholders."""

    @abstractmethod
    def read_prompts(self) -> list[str]:
        """What is asked for, each prompt with all placeholders."""

    # data ------------------------------------------------------------------------------------------------------

    @cached_property
    def subjects(self) -> list[Subject]:
        """`read_subjects`, once."""
        return self.read_subjects()

    @cached_property
    def prompts(self) -> list[str]:
        """The prompts of the test split, then those of training. AssetError for one without its placeholders."""
        asked, trained = self.read_prompts(), [subject.prompt for subject in self.subjects]
        for placeholder, own in zip(PLACEHOLDERS, trained, strict=False):
            for prompt in (own, *asked):
                check_placeholder(prompt, placeholder, self.card.id)
        return asked + trained

    def build(self, split: SplitName) -> Split:
        """Columns "text", "prompt" (its place among `prompts`), "seed" (of the image to draw) and "compared"; and in
        training, whose items are the views, "image" and "weight"."""
        return self._views() if split == "train" else self._questions()

    def _views(self) -> Split:
        first = len(self.prompts) - len(self.subjects)
        counts = [len(subject.views) for subject in self.subjects]
        owners = np.repeat(np.arange(len(counts)), counts)
        items = [f"{self.card.id}/subject-{owner}/view-{i}" for i, owner in enumerate(owners)]
        columns = {
            "image": np.concatenate([subject.views for subject in self.subjects]),
            "weight": np.ones(len(items), dtype=np.float32),
            **self._asked(first + owners, np.arange(len(items)), np.zeros(len(items), dtype=bool)),
        }
        return Split(columns, None, tuple(items))

    def _questions(self) -> Split:
        count, samples = len(self.prompts) - len(self.subjects), int(self.card.options["samples"])
        prompts, seeds = np.repeat(np.arange(count), samples), np.tile(np.arange(samples), count)
        items = tuple(f"{self.card.id}/prompt-{p}/sample-{s}" for p, s in zip(prompts, seeds, strict=True))
        return Split(self._asked(prompts, seeds, seeds < int(self.card.options["compared"])), None, items)

    def _asked(self, prompts: np.ndarray, seeds: np.ndarray, compared: np.ndarray) -> dict[str, Any]:
        texts = [self.prompts[prompt] for prompt in prompts]
        numbers = {"prompt": prompts, "seed": seeds, "compared": compared}
        return {"text": texts, **{name: column.astype(np.int64) for name, column in numbers.items()}}

    def complete(self, train: Split, backbone: Backbone) -> Split:
        """The views, as often as it takes to be half of the items, and images of the class; weights make the mean loss
        the views' plus `weight` times the class's."""
        generator: Any = backbone
        introduce(generator, [subject.noun for subject in self.subjects])
        prior = self.card.options["prior"]
        if not prior["images"]:
            return train
        prompts = [plain(subject.prompt) for subject in self.subjects for _ in range(prior["images"])]
        images = class_images(generator, prompts, *self._sampling)
        rounds = -(-len(images) // len(train))
        views = train.take(np.tile(np.arange(len(train)), rounds))
        share = len(views) / (len(views) + len(images))
        weights = np.repeat([1 / share, prior["weight"] / (1 - share)], [len(views), len(images)])
        both = {
            "image": np.concatenate([_sized(views.inputs["image"], images.shape[1]), images]),
            "text": [*views.inputs["text"], *prompts],
            "weight": weights.astype(np.float32),
        }
        names = [f"{item}/{i // len(train)}" for i, item in enumerate(views.items)]
        return Split(both, None, (*names, *(f"{self.card.id}/class/{i}" for i in range(len(images)))))

    # training --------------------------------------------------------------------------------------------------

    def make_head(self, width: int) -> None:
        """No head: the images are the output."""

    def forward(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B,) squared errors of the denoiser, at time steps and with noise from torch's generator."""
        generator: Any = backbone
        errors: torch.Tensor = generator.noise_loss(readable(generator, batch))
        return errors

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted mean."""
        return (outputs * batch["weight"]).mean()

    # evaluation ------------------------------------------------------------------------------------------------

    @property
    def _sampling(self) -> tuple[int, float]:
        return int(self.card.options["steps"]), float(self.card.options["guidance"])

    def respond(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """uint8 (B, 2, H, W, 3): an image for each prompt and, where it is compared, one of the class from the same
        noise; zeros where it is not."""
        import torch

        generator: Any = backbone
        drawn = generator.sample(readable(generator, batch), batch["seed"], *self._sampling)
        chosen = batch["compared"].bool().cpu()
        of_class = torch.zeros_like(drawn)
        if chosen.any():
            texts = [plain(self.prompts[prompt]) for prompt in batch["prompt"].cpu()[chosen].tolist()]
            seeds = batch["seed"].cpu()[chosen]
            of_class[chosen] = generator.sample(generator.tokens(texts), seeds, *self._sampling)
        return torch.stack([drawn, of_class], dim=1)

    def predict(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """`dino`, and with a pair of towers `clip_i` and `clip_t`: float32 (B,); `pres`, not a number where nothing is
        compared; `features`, those that `dino` compares (B, width); and the images, which no file stores."""
        images, of_class = outputs[:, 0].cpu().numpy(), outputs[:, 1].cpu().numpy()
        scorers, compared = self.card.options["scorers"], batch["compared"].cpu().numpy().astype(bool)
        features = image_features(scorers["image"], images)
        pres = np.full(len(images), np.nan, dtype=np.float32)
        if compared.any():
            pres[compared] = self._closeness("image", image_features(scorers["image"], of_class[compared]), {})
        columns = {"dino": self._closeness("image", features, batch), "pres": pres, "features": features}
        if scorers.get("pair") is not None:
            paired = image_features(scorers["pair"], images)
            texts = text_features(scorers["pair"], [plain(self.prompts[i]) for i in batch["prompt"].tolist()])
            columns["clip_i"] = self._closeness("pair", paired, batch)
            columns["clip_t"] = (paired * texts).sum(axis=1)
        return {**columns, "images": images, "class_images": of_class}

    def _closeness(self, scorer: str, features: np.ndarray, batch: dict[str, torch.Tensor]) -> np.ndarray:
        """(B,) mean cosines with the views; of items that are views themselves, held out of training, with these."""
        if "pixels" in batch:
            held_out = ((batch["pixels"] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            cosines: np.ndarray = (features * image_features(self.card.options["scorers"][scorer], held_out)).sum(
                axis=1
            )
            return cosines
        mean: np.ndarray = np.mean([mean_similarity(features, views) for views in self._view_features[scorer]], axis=0)
        return mean

    @cached_property
    def _view_features(self) -> dict[str, list[np.ndarray]]:
        """By scorer, the features of each subject's views."""
        scorers = {name: scorer for name, scorer in self.card.options["scorers"].items() if scorer is not None}
        return {name: [image_features(scorer, s.views) for s in self.subjects] for name, scorer in scorers.items()}

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """The metrics above, those that the scorers and the split allow."""
        _check_items(predictions, split)
        columns = predictions.columns
        found = {name: float(columns[name].mean()) for name in SIMILARITIES if name in columns}
        compared = columns["pres"][~np.isnan(columns["pres"])]
        if len(compared):
            found["pres"] = float(compared.mean())
        prompts = np.asarray(split.inputs["prompt"])
        apart = [_spread(columns["features"][prompts == p]) for p in np.unique(prompts) if (prompts == p).sum() > 1]
        if apart:
            found["div"] = float(np.mean(apart))
        return found

    def per_item(self, predictions: Predictions, split: Split) -> np.ndarray:
        """float64 (N,): each image's `dino`."""
        _check_items(predictions, split)
        return predictions.columns["dino"].astype(np.float64)

    def sheet(self, predictions: Predictions, split: Split) -> bytes:
        """PNG: the views, then each prompt with its images and, at the end of a row, those of the class alone."""
        images, of_class = predictions.columns["images"], predictions.columns["class_images"]
        prompts, compared = np.asarray(split.inputs["prompt"]), np.asarray(split.inputs["compared"]).astype(bool)
        rows = [(subject.prompt, subject.views) for subject in self.subjects]
        for prompt in np.unique(prompts):
            here = prompts == prompt
            rows.append((self.prompts[prompt], np.concatenate([images[here], of_class[here & compared]])))
        return contact_sheet(rows)


def _sized(images: np.ndarray, size: int) -> np.ndarray:
    from ...bench.backbones.vision import resized

    return images if images.shape[1] == size else resized(images, size)


def _spread(features: np.ndarray) -> float:
    """One minus the mean cosine over all pairs of (N, width) features of length one."""
    cosines = features.astype(np.float64) @ features.T.astype(np.float64)
    return float(1 - cosines[np.triu_indices(len(features), k=1)].mean())


def _check_items(predictions: Predictions, split: Split) -> None:
    if predictions.items != split.items:
        raise ValueError("predictions and split name different items")
