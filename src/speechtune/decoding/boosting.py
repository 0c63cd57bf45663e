"""Contextual biasing: terms get a bonus token by token, taken back when they turn out not to be said.

The prefix tree with fall-back of icefall's and WeNet's context graphs (after Aho & Corasick 1975): a hypothesis
carries the bonus of the longest beginning of a term that it ends with; a finished term keeps it. So at every step
the bonus is that of the finished terms and of the term under way, and a text with none pays and gets nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor


class TermTree:
    """Token sequences with bonuses. Nodes are numbers, 0 the root.

    Args:
        terms: token sequence to its bonus for each token.
        sizes: how many times a token gets it; without them, once.
    """

    def __init__(self, terms: Mapping[tuple[int, ...], float], sizes: Mapping[int, float] | None = None) -> None:
        self._sizes = sizes or {}
        self._children: list[dict[int, int]] = [{}]
        self._bonus = [0.0]  # of the whole path to the node, finished or not
        self._kept = [0.0]  # of the longest term that ends on the path
        self._fallback = [0]  # the longest other beginning of a term that the path ends with
        for sequence, bonus in sorted(terms.items(), key=lambda item: len(item[0])):
            self._add(sequence, bonus)
        self._link()

    def _add(self, sequence: Sequence[int], bonus: float) -> None:
        node = 0
        for token in sequence:
            if token not in self._children[node]:
                self._children[node][token] = len(self._children)
                self._children.append({})
                self._bonus.append(self._bonus[node] + bonus * self._sizes.get(token, 1.0))
                self._kept.append(self._kept[node])
                self._fallback.append(0)
            node = self._children[node][token]
        self._kept[node] = self._bonus[node]

    def _link(self) -> None:
        waiting = deque(self._children[0].values())
        while waiting:
            node = waiting.popleft()
            for token, child in self._children[node].items():
                waiting.append(child)
                back = self._fallback[node]
                while back and token not in self._children[back]:
                    back = self._fallback[back]
                self._fallback[child] = self._children[back].get(token, 0)

    def step(self, node: int, token: int) -> tuple[int, float]:
        """The node behind ``token``, and the change of the bonus.

        A path that fails gives back what was not yet of a finished term; tokens of a finished term cannot begin
        another one.
        """
        child = self._children[node].get(token)
        if child is not None:
            return child, self._bonus[child] - self._bonus[node]
        change = self._kept[node] - self._bonus[node]
        at = 0 if self._kept[node] else self._fallback[node]
        while at and token not in self._children[at]:
            change += self._kept[at]
            at = 0 if self._kept[at] else self._fallback[at]
        reached = self._children[at].get(token, 0)
        return reached, change + self._bonus[reached]

    def fail(self, node: int) -> float:
        """The change of the bonus when the text ends at ``node``, or goes on with a token of no term."""
        return self.step(node, -1)[1]

    def continuing(self, node: int) -> set[int]:
        """The tokens that a term under way, or a new one, can go on with."""
        tokens = set(self._children[0])
        while node:
            tokens.update(self._children[node])
            node = self._fallback[node]
        return tokens


def term_variants(term: str) -> list[str]:
    """How a term may be written: as given, lower case, capitalised; each also as the first word of a text."""
    forms = dict.fromkeys([term, term.lower(), term.capitalize(), term.title()])
    return [space + form for form in forms for space in (" ", "")]


def build_tree(tokenizer: Any, terms: Mapping[str, float]) -> TermTree:
    """The tree of all variants of terms with their bonus for each token."""
    sequences: dict[tuple[int, ...], float] = {}
    for term, bonus in terms.items():
        for form in term_variants(term.strip()):
            sequences[tuple(tokenizer.encode(form, add_special_tokens=False))] = bonus
    return TermTree(sequences)


class TermBoost(LogitsProcessor):
    """Adds the tree's change of bonus to the score of every next token.

    Args:
        tree: the terms.
        begin: how many tokens come before the text.
        end: the end-of-text token.

    A finished term keeps its bonus where the word goes on ("cat" in "catalogue"): the tree does not look ahead.
    """

    def __init__(self, tree: TermTree, begin: int, end: int) -> None:
        self.tree, self.begin, self.end = tree, begin, end
        self._nodes: dict[tuple[int, ...], int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores with the change of bonus of each continuation."""
        result = scores.clone()
        for number, row in enumerate(input_ids[:, self.begin :].tolist()):
            if self.end in row:
                continue
            node = self._node(tuple(row))
            result[number] += self.tree.fail(node)
            for token in self.tree.continuing(node):
                result[number, token] = scores[number, token] + self.tree.step(node, token)[1]
        return result

    def _node(self, tokens: tuple[int, ...]) -> int:
        if not tokens:
            return 0
        found = self._nodes.get(tokens)
        if found is None:
            found = self.tree.step(self._node(tokens[:-1]), tokens[-1])[0]
            if len(self._nodes) > 100_000:
                self._nodes.clear()
            self._nodes[tokens] = found
        return found
