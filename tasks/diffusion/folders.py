"""Subjects in folders that a user has: DreamBooth's data set and CustomConcept101.

A folder without pictures, a file that is no picture and a prompt without its placeholder are AssetErrors that name it,
before anything is trained.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ...bench.errors import AssetError
from ...bench.sources import folder
from ..image_files import read_images
from .customisation import Customisation, Subject
from .prompts import PLACEHOLDERS

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
LIVE = {"cat", "dog"}  # classes of DreamBooth's live subjects, which have prompts of their own


class FolderSubjects(Customisation):
    """Pictures are brought to the card's `size` at their shorter side, and the square is cut from their middle."""

    @property
    def root(self) -> Path:
        """The folder with the data set."""
        return folder(self.card.sources[0])

    def subject(self, noun: str, prompt: str, pictures: Path) -> Subject:
        """A subject whose views are all pictures of a folder, by name."""
        files = sorted(file for file in pictures.glob("*") if file.suffix.lower() in PICTURES)
        if not files:
            raise AssetError(f"{self.card.id}: the folder {pictures} holds no picture")
        size = int(self.card.options["size"])
        return Subject(noun, prompt, read_images(files, size, shorter=size))


class DreamBoothFolder(FolderSubjects):
    """One subject of github.com/google/dreambooth: `dataset/<subject>/*.jpg`, classes and 25 prompts in
    `dataset/prompts_and_classes.txt`. The card's option `subject` names the folder."""

    def read_subjects(self) -> list[Subject]:
        name = self.card.options["subject"]
        pictures = self.root / "dataset" / name
        return [self.subject(self._noun, f"a {PLACEHOLDERS[0]} {self._noun}", pictures)]

    def read_prompts(self) -> list[str]:
        heading = "Live Subject Prompts" if self._noun in LIVE else "Object Prompts"
        lines = re.findall(r"'(.+)'\.format", self._text.partition(f"\n{heading}")[2].partition("]")[0])
        if not lines:
            raise AssetError(f"{self._file}: no prompts under {heading!r}")
        return [line.replace("{0}", PLACEHOLDERS[0]).replace("{1}", self._noun) for line in lines]

    @property
    def _file(self) -> Path:
        return self.root / "dataset" / "prompts_and_classes.txt"

    @property
    def _text(self) -> str:
        return self._file.read_text(encoding="utf-8")

    @property
    def _noun(self) -> str:
        name = self.card.options["subject"]
        found = re.search(rf"^{re.escape(name)},(.+)$", self._text, re.MULTILINE)
        if found is None:
            raise AssetError(f"{self._file}: no class of the subject {name!r}")
        return found[1].strip()


class CustomConceptFolder(FolderSubjects):
    """Concepts of github.com/adobe-research/custom-diffusion, `customconcept101`: `dataset.json` (of one concept) or
    `dataset_multiconcept.json`, prompts in `prompts`, pictures in `benchmark_dataset`.

    The card's option `concepts` names folders of pictures, one or two. Regularisation is by images that the generator
    draws, as in the authors' published comparison.
    """

    def read_subjects(self) -> list[Subject]:
        found = []
        for placeholder, entry in zip(PLACEHOLDERS, self._entries(), strict=False):
            pictures = self.root / entry["instance_data_dir"]
            found.append(self.subject(entry["class_prompt"], _spaced(entry["instance_prompt"], placeholder), pictures))
        return found

    def read_prompts(self) -> list[str]:
        names = [f"{PLACEHOLDERS[i]} {entry['class_prompt']}" for i, entry in enumerate(self._entries())]
        file = self.root / self._prompt_file()
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        for number, line in enumerate(lines, 1):
            if line.count("{") < len(names):
                raise AssetError(f"{file}:{number}: the prompt {line!r} has no place for the concept")
        return [_spaced(line.format(*names), *PLACEHOLDERS) for line in lines]

    def _entries(self) -> list[dict[str, Any]]:
        return [entry for entry in self._listed() if "instance_data_dir" in entry]

    def _prompt_file(self) -> str:
        entries = self._listed()
        return str(entries[-1].get("prompt_filename_compose") or entries[0]["prompt_filename"])

    def _listed(self) -> list[dict[str, Any]]:
        """The concepts that the card names, in the order of the list that holds them."""
        wanted = list(self.card.options["concepts"])
        file = self.root / ("dataset.json" if len(wanted) == 1 else "dataset_multiconcept.json")
        for entry in json.loads(file.read_text(encoding="utf-8")):
            together: list[dict[str, Any]] = [entry] if isinstance(entry, dict) else entry
            if [Path(one["instance_data_dir"]).name for one in together if "instance_data_dir" in one] == wanted:
                return together
        raise AssetError(f"{file}: no entry for {' and '.join(wanted)}")


def _spaced(prompt: str, *placeholders: str) -> str:
    """The prompt with spaces around placeholders, so that a comma behind one is no part of it."""
    for placeholder in placeholders:
        prompt = prompt.replace(placeholder, f" {placeholder} ")
    return " ".join(prompt.split())
