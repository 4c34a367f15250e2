"""The pair: where images meet the texts of classes, in a model of two towers that project into one space.

    logits = scale * normalised(images) . normalised(classes)

A class's text is a template ("a photo of a {}.") with its name. Features of classes and images are kept while nothing
touches the tower they come from, so that a method pays for the tower that it changes and for no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .chain import Handle
from .edits import Edits
from .kept import Kept

Images = Callable[[Tensor], Tensor]  # f(features (B, width)) -> (B, width)
Classes = Callable[[Tensor], Tensor]  # next(images (B, width)) -> (C, width) or (B, C, width)
Logits = Callable[[Tensor, Tensor, Tensor], Tensor]  # f(logits (B, C), images, classes) -> (B, C)
Batch = dict[str, Tensor]


class TwoTowers(Protocol):
    """What the pair calls: `bench.backbones.clip.ClipBackbone`."""

    model: Any  # its image tower is `visual`, its text tower `text`

    @property
    def width(self) -> int: ...
    @property
    def scale(self) -> Tensor: ...
    def image_features(self, batch: Batch) -> Tensor: ...
    def tokens(self, texts: Sequence[str]) -> Batch: ...
    def text_features(self, tokens: Batch) -> Tensor: ...


class ImagePlace:
    """The projected features of images, before they are normalised."""

    def __init__(self, edits: Edits) -> None:
        self.edits = edits
        self.functions: list[Images] = []

    def after(self, f: Images) -> Handle:
        """Replace the features (B, width) by f(features)."""
        return _added(self.edits, self.functions, f, "a function of image features")


class ClassPlace:
    """The features of all classes."""

    def __init__(self, edits: Edits) -> None:
        self.edits = edits
        self.ops: list[Callable[[Classes, Tensor], Tensor]] = []

    def around(self, op: Callable[[Classes, Tensor], Tensor]) -> Handle:
        """Wrap what makes class features in `op(next, images)`.

        `images` (B, width) are normalised. `next(images)`, which may be called often or never, gives (C, width), or
        (B, C, width) where an op further in makes them depend on the image; so may the op.
        """
        return _added(self.edits, self.ops, op, "an op around class features")


class LogitPlace:
    """The logits of images and classes."""

    def __init__(self, edits: Edits) -> None:
        self.edits = edits
        self.functions: list[Logits] = []

    def after(self, f: Logits) -> Handle:
        """Replace the logits (B, C) by f(logits, images (B, width), classes (C, width) or (B, C, width)), the features
        normalised."""
        return _added(self.edits, self.functions, f, "a function of logits")


class Pair:
    """The verbs on two towers, and the classes at hand. `keeps` turns the keeping of features off."""

    def __init__(self, edits: Edits, towers: TwoTowers) -> None:
        self.edits, self.towers = edits, towers
        self.names: tuple[str, ...] = ()
        self.templates: tuple[str, ...] = ("{}",)
        self.groups: tuple[int, ...] = ()
        self.images, self.classes, self.logits = ImagePlace(edits), ClassPlace(edits), LogitPlace(edits)
        self.rewritings: list[Callable[[str], str]] = []
        self.ensembles: list[tuple[str, ...]] = []
        self.keeps = True
        self._tokens: dict[str, Batch] = {}  # by template, of the names at hand
        self._kept_images, self._kept_classes = Kept(edits), Kept(edits)

    # what methods and tasks read and say -----------------------------------------------------------------------

    def show(self, names: Sequence[str], templates: Sequence[str], groups: Sequence[int] = ()) -> None:
        """Say what the classes are called, and of which group each is, where items compete within a group only.

        Raises ValueError for a name twice, and unless each template has one {}.
        """
        if twice := sorted({name for name in names if list(names).count(name) > 1}):
            raise ValueError(f"two classes are called {twice[0]!r}")
        _check(templates)
        if not names or not templates:
            raise ValueError("classes need names and at least one template")
        self.names, self.templates, self.groups = tuple(names), tuple(templates), tuple(groups)
        self._tokens.clear()

    @property
    def template(self) -> str:
        """The first template, as the task states it."""
        return self.templates[0]

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return self.towers.width

    def rewritten(self) -> tuple[str, ...]:
        """The templates that texts are made from, each once."""
        templates = self.ensembles[-1] if self.ensembles else self.templates
        return tuple(dict.fromkeys(map(self._rewritten, templates)))

    def class_tokens(self, template: str | None = None) -> Batch:
        """Tokens of the texts of all classes (see `ClipBackbone.tokens`), by default with the first template."""
        template = self.rewritten()[0] if template is None else template
        if template not in self._tokens:
            self._tokens[template] = self.towers.tokens([template.replace("{}", name) for name in self.names])
        return self._tokens[template]

    def scores(self, batch: Batch) -> Tensor:
        """Logits (B, C) of a batch of the backbone's."""
        images = self._image_features(batch)
        for function in self.images.functions:
            images = function(images)
        images = normalize(images, dim=-1)
        classes = normalize(self._class_features(images), dim=-1)
        logits = self.towers.scale * torch.einsum("bd,bcd->bc" if classes.dim() == 3 else "bd,cd->bc", images, classes)
        for change in self.logits.functions:
            logits = change(logits, images, classes)
        return logits

    def competing(self, batch: Batch) -> Tensor | None:
        """(B, C), whether an item may be of a class: where the batch has the column "group", of its own group."""
        if "group" not in batch or not self.groups:
            return None
        return batch["group"][:, None] == torch.tensor(self.groups, device=batch["group"].device)

    # verbs -----------------------------------------------------------------------------------------------------

    def rewrite(self, f: Callable[[str], str]) -> Handle:
        """Replace each template by f(template) before texts are tokenised."""
        return _added(self.edits, self.rewritings, f, "another template")

    def ensemble(self, templates: Sequence[str]) -> Handle:
        """Make texts from these templates instead of the task's; a class's feature is their mean."""
        _check(templates)
        return _added(self.edits, self.ensembles, tuple(templates), "an ensemble of templates")

    # how features come about -----------------------------------------------------------------------------------

    def _rewritten(self, template: str) -> str:
        for function in self.rewritings:
            template = function(template)
        return template

    def _image_features(self, batch: Batch) -> Tensor:
        items = batch.get("item")
        if items is None or not self.keeps or self.edits.touches(self.towers.model.visual):
            return self.towers.image_features(batch)
        return self._kept_images.rows(items.tolist(), partial(self._images_at, batch))

    def _images_at(self, batch: Batch, positions: list[int]) -> Tensor:
        return self.towers.image_features({name: column[positions] for name, column in batch.items()})

    def _class_features(self, images: Tensor) -> Tensor:
        call: Classes = self._from_texts
        for op in self.classes.ops:
            call = partial(op, call)
        return call(images)

    def _from_texts(self, images: Tensor) -> Tensor:
        """(C, width): of the only template, or the mean of several templates' normalised features."""
        templates = self.rewritten()
        features = [self._features_of(template) for template in templates]
        return features[0] if len(features) == 1 else torch.stack([normalize(f, dim=-1) for f in features]).mean(0)

    def _features_of(self, template: str) -> Tensor:
        if not self.keeps or self.edits.touches(self.towers.model.text):
            return self.towers.text_features(self.class_tokens(template))
        texts = [template.replace("{}", name) for name in self.names]
        return self._kept_classes.rows(texts, lambda missing: self._texts_at(template, missing))

    def _texts_at(self, template: str, positions: list[int]) -> Tensor:
        tokens = self.class_tokens(template)
        return self.towers.text_features({name: column[positions] for name, column in tokens.items()})


def _check(templates: Sequence[str]) -> None:
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"a template has one {{}} for the class's name, not {template!r}")


def _added(edits: Edits, functions: list[Any], function: Any, what: str) -> Handle:
    """Add a function to a place, outside those already there."""
    functions.append(function)
    return edits.add(Handle(partial(_remove, functions, function)), unmergeable=what)


def _remove(functions: list[Any], function: Any) -> None:
    functions[:] = [other for other in functions if other is not function]
