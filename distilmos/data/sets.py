"""The sets of a recipe: their names and the directories of their audio.

A set is written SET if the recipe itself prepares it, CORPUS/SET if the recipe CORPUS next to it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distilmos.errors import InputError

_SET = re.compile(r"(?:([^/\s]+)/)?([^/\s]+)")


@dataclass(frozen=True)
class RecipeSet:
    """A set, or the join of several.

    Attributes:
        corpus: the recipe that prepares it.
        name: its name in the recipe that uses it, unique there; directories of tokens and results have this name.
        raw: its data directory after stage 1.
    """

    corpus: str
    name: str
    raw: Path

    @property
    def source(self) -> str:
        """CORPUS=RAW, the notation of `distilmos combine-data`."""
        return f"{self.corpus}={self.raw}"


class RecipeSets:
    """Finds the sets that a recipe uses."""

    def __init__(self, corpus: str, dumpdir: Path, other_dumpdirs: Mapping[str, Path]) -> None:
        """Create a finder for the recipe in the working directory.

        Args:
            corpus: name of the recipe.
            dumpdir: its directory for audio.
            other_dumpdirs: other recipe -> its dumpdir, if not ../RECIPE/dump.
        """
        self._corpus, self._dumpdir, self._others = corpus, dumpdir, other_dumpdirs
        self._found: dict[str, str] = {}  # name -> CORPUS/SET

    def find(self, word: str) -> RecipeSet:
        """Return the set written SET or CORPUS/SET.

        The name of a set of another recipe is CORPUS_SET, or SET if that starts with the corpus' name already
        (nisqa/nisqa_for is nisqa_for, hablamos/hablamos is hablamos).

        Raises:
            InputError: if the other recipe does not exist, or another set has the same name already.
        """
        match = _SET.fullmatch(word)
        if match is None:
            raise InputError(f"{word!r}: expected SET or CORPUS/SET")
        corpus, directory = match[1] or self._corpus, match[2]
        if corpus == self._corpus:
            name, dumpdir = directory, self._dumpdir
        else:
            name = directory if f"{directory}_".startswith(f"{corpus}_") else f"{corpus}_{directory}"
            dumpdir = self._other_dumpdir(corpus, word)
        full = f"{corpus}/{directory}"
        first = self._found.setdefault(name, full)
        if first != full:
            raise InputError(f"{first} and {full} would both be called {name}: rename one of them")
        return RecipeSet(corpus, name, dumpdir / "raw" / directory)

    def join(self, sets: Sequence[RecipeSet]) -> RecipeSet:
        """Return a single set unchanged; several have a directory of this recipe, called SET+SET."""
        if len(sets) == 1:
            return sets[0]
        name = "+".join(each.name for each in sets)
        return RecipeSet(self._corpus, name, self._dumpdir / "raw" / name)

    def own(self, sets: Iterable[RecipeSet]) -> list[str]:
        """Return the names of the sets that this recipe prepares, each once."""
        return list(dict.fromkeys(each.name for each in sets if each.corpus == self._corpus))

    def _other_dumpdir(self, corpus: str, word: str) -> Path:
        if corpus in self._others:
            return self._others[corpus]
        recipe = Path("..", corpus)
        if not (recipe / "run.sh").exists():
            raise InputError(f"{word}: no recipe {recipe}")
        return recipe / "dump"
