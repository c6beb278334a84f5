"""Translates docstrings of mmiln for mkdocstrings: Sphinx roles become links, doctests code blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(class|meth|func|data|attr|mod):`~?([\w.]+)`")
TOGETHER = re.compile(r"^ +(?:\w+, )+\w+:", re.MULTILINE)  # several arguments described in one line
DOCTEST = re.compile(r"(?:^>>> .*\n?)(?:^(?!\s*$).*\n?)*", re.MULTILINE)


def markdown(docstring: str, within: str = "") -> str:
    """A docstring as Markdown. In a class, a method without a dot is one of the class, inherited or not.

    mkdocstrings resolves the links; a strict build fails on dead ones. Attributes are documented within their
    class and can't be linked to.
    """

    def link(role: re.Match[str]) -> str:
        kind, name = role.groups()
        if kind == "attr":
            return f"`{name}`"
        own = kind == "meth" and "." not in name
        return f"[`{name}`][{within + name if own else name}]"

    # griffe takes a word after a space for a type.
    docstring = TOGETHER.sub(lambda names: names[0].replace(", ", ",\N{NO-BREAK SPACE}"), docstring)
    return DOCTEST.sub(lambda block: f"```pycon\n{block[0].rstrip()}\n```\n", ROLE.sub(link, docstring))


class Docstrings(griffe.Extension):
    """Rewrites each docstring once, when the sources are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value, f"{obj.path}." if obj.is_class else "")
