"""Entities as runs of BIO tags, and their scores as conlleval defines them (Tjong Kim Sang & De Meulder 2003)."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["entities", "entity_f1", "is_bio"]

_TAG = re.compile(r"O|[BI]-.+")


def is_bio(names: Sequence[str]) -> bool:
    """Are these the tags O, B-x and I-x, with an entity among them?"""
    return any(name != "O" for name in names) and all(_TAG.fullmatch(name) for name in names)


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """(first word, word after the last, type) of each entity.

    A B- begins an entity; so does an I- after O, after the begin of the text or after another type.
    """
    found, begin, inside = set(), 0, ""
    for at, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if inside and (prefix != "I" or name != inside):
            found.add((begin, at, inside))
            inside = ""
        if prefix != "O" and not inside:
            begin, inside = at, name
    return found


def entity_f1(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """F1, in per cent, over all texts: an entity counts where both its ends and its type are right."""
    right = total = 0
    for one, other in zip(expected, predicted, strict=True):
        a, b = entities(one), entities(other)
        right, total = right + len(a & b), total + len(a) + len(b)
    return 200.0 * right / max(total, 1)
