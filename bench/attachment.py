"""Attach a method to a model of one's own, without the harness: `peft_atlas.attach(model, "lora(r=8)")`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn

from .anatomy import Handle, anatomy_of
from .errors import UnsupportedError, UsageError
from .names import parse
from .recipes import configure, resolve
from .registry import registry
from .weight_sample import WeightSample, sample_weights

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ..methods.contract import Method
    from .trainer import Fit

Batch = dict[str, Tensor]  # the first dimension of each tensor counts the items
LOOP_HOOKS = ("before_step", "extra_loss", "compute_gradients", "after_backward", "after_step")


class GivenData:
    """What `before_fit` of a method may use of a user's own training, in place of `trainer.Fit`."""

    def __init__(self, batches: Iterable[Batch], loss: Callable[[Batch], Tensor], steps: int | None) -> None:
        self.loss, self._left, self._steps = loss, iter(batches), steps
        self.given = 0

    def batches(self, steps: int) -> Iterator[Batch]:
        """At most `steps` batches, as many as were given."""
        for batch in islice(self._left, steps):
            self.given += 1
            yield batch
        if not self.given:
            raise UsageError("prepare needs at least one batch")

    @property
    def steps(self) -> int:
        """Steps of the training to come."""
        if self._steps is None:
            raise UsageError("the method's schedule needs the number of training steps: prepare(..., steps=1000)")
        return self._steps


class Attachment:
    """A method on a model. The model trains as usual: optimise `parameters()`, call the model as before."""

    def __init__(self, model: nn.Module, method: Method, name: str, backbone: WeightSample | None) -> None:
        self.model, self.method, self.name, self.backbone = model, method, name, backbone
        self.is_prepared = False

    @property
    def trainable(self) -> int:
        """Trainable parameters of the method (a head of the model's own is not counted)."""
        return sum(parameter.numel() for _, parameter in self.method.adapter_parameters())

    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser should get: the method's parameters, and a head of the model's own if it has one.

        Warns where optimising them by a plain loop would not train the method as published.
        """
        assert self.method.anatomy is not None
        for reason in self._missed_by_a_plain_loop():
            warnings.warn(f"{self.name} {reason}", stacklevel=2)
        head = [parameter for parameter in self.method.anatomy.head_parameters() if parameter.requires_grad]
        return [*(parameter for _, parameter in self.method.adapter_parameters()), *head]

    def prepare(self, batches: Iterable[Batch], loss: Callable[[Batch], Tensor], steps: int | None = None) -> None:
        """Do what the method does once before training: FISH Mask, Child-Tuning and SPT choose what trains here.

        Call it before `parameters` go to an optimiser. `batches` are training data, of which the method takes as many
        as its recipe says (fewer where there are fewer); `loss` gives the mean loss of a batch by the model, which runs
        in the mode that it is in. `steps`, the length of the training, is needed by methods with a schedule of their
        own. Raises `UsageError` without data.
        """
        self.method.before_fit(cast("Fit", GivenData(batches, loss, steps)))
        self.is_prepared = True

    def _missed_by_a_plain_loop(self) -> Iterator[str]:
        """What a loop that only optimises `parameters()` leaves out."""
        from ..methods.contract import Method

        if registry("methods").card(parse(self.name)[0].id).compute != "equal-steps":
            yield "trains by a procedure of its own, which gradient descent on its parameters does not replace"
        kind = type(self.method)
        if kind.before_fit is not Method.before_fit and not self.is_prepared:
            yield "is not prepared: call prepare(batches, loss) before training"
        hooks = [hook for hook in LOOP_HOOKS if getattr(kind, hook) is not getattr(Method, hook)]
        if hooks:
            yield f"acts during training: call {', '.join(hooks)} of `handle.method` in the loop"

    def merge(self) -> Handle:
        """Fold the method into the model's weights; the handle undoes it. Raises `Unmergeable` where impossible."""
        return self.method.merge()

    def save(self, path: str | Path, format: Literal["atlas", "peft", "diffusers"] = "atlas") -> None:
        """Write what a user would publish: one safetensors file, or a folder that HF PEFT loads (with the head) or a
        pipeline of diffusers; a `UsageError` where these lack the method. The file's metadata name the method and
        identify the backbone."""
        from safetensors.torch import save_file

        if format == "peft":
            from .peft_format import write

            write(self, path)
            return
        if format == "diffusers":
            from .diffusers_format import write as write_for_diffusers

            write_for_diffusers(self, path)
            return
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.method.shipped().items()}
        metadata = {"method": self.name, "format": "peft-atlas"}
        if self.backbone is not None:
            metadata["backbone"] = self.backbone.to_json()
        save_file(tensors, str(path), metadata=metadata)

    def load(self, path: str | Path, *, any_backbone: bool = False) -> None:
        """Read a file that `save` wrote for the same method and backbone; anything else is a `UsageError`.

        With `any_backbone`, whose tensors fit is loaded, whatever weights it was trained beside. Warns of a file that
        does not say which backbone is its own.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(str(path))
            if not any_backbone:
                self._check_backbone(path)
            self.method.load_shipped(tensors)
        except SafetensorError as error:
            raise UsageError(f"{path} is no file of tensors: {error}") from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from None

    def _check_backbone(self, path: str | Path) -> None:
        """A ValueError where the file was saved on another backbone."""
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            stated = (file.metadata() or {}).get("backbone")
        if stated is None or self.backbone is None:
            warnings.warn(f"{path}: nothing tells whether it belongs to this backbone", stacklevel=3)
            return
        difference = self.backbone.difference(WeightSample.from_json(stated))
        if difference is not None:
            raise ValueError(f"saved on another backbone ({difference}); any_backbone=True loads it nevertheless")

    def detach(self) -> None:
        """Take the method off; the model computes what it did before, bit for bit."""
        assert self.method.anatomy is not None
        self.method.anatomy.detach()


def attach(model: nn.Module | DiffusionPipeline, method: str) -> Attachment:
    """Freeze `model`, put `method` (``"lora(r=8, targets=q+v)"``) on it and return the attachment.

    A pipeline of diffusers stands for its UNet and its text encoders; what it draws then has the method on it.
    Raises `UsageError` for an unknown method, argument or architecture, and `UnsupportedError` naming the missing
    place where the method does not fit the model.
    """
    names = parse(method)
    if len(names) != 1:
        raise UsageError(f"attach takes one method, not {len(names)}: {method!r}")
    name = names[0]
    kind: type[Method] = registry("methods").load(name.id)
    if not isinstance(model, nn.Module):
        model = _parts_of(model)
    anatomy = anatomy_of(model)
    family = "vision" if "vision" in anatomy.towers else "text"
    if any(tower.frames is not None for tower in anatomy.towers.values()):
        family = "video"
    if anatomy.missing(("condition",)) is None:
        family = "diffusion"
    resolved = resolve(name.id, name.arguments, family, type(model).__name__, "")
    config = configure(name.id, resolved)
    reason = anatomy.missing(tuple(place for place in kind.requires(config) if place != "head"))
    if reason is not None:
        raise UnsupportedError(f"{name} does not fit {type(model).__name__}: {reason}")
    backbone = sample_weights(anatomy)
    built = kind(config)
    try:
        built.attach(anatomy)
    except ValueError as error:
        anatomy.detach()
        raise UsageError(f"{name}: {error}") from None
    return Attachment(model, built, str(name), backbone)


def _parts_of(pipeline: Any) -> nn.Module:
    """UNet and text encoders of a pipeline, as one model. UsageError for anything else."""
    from .backbones.diffusion import DiffusionModel

    found = {name: getattr(pipeline, name, None) for name in ("unet", "text_encoder", "text_encoder_2")}
    parts = {name: part for name, part in found.items() if isinstance(part, nn.Module)}
    if "unet" not in parts:
        raise UsageError(f"{type(pipeline).__name__} is neither a model of torch nor a pipeline with a UNet")
    return DiffusionModel(parts)


def load(model: nn.Module, folder: str | Path) -> Attachment:
    """Attach an adapter that HF PEFT saved, or `Attachment.save` with format "peft". Raises `UsageError`."""
    from .peft_format import read

    return read(model, folder)
