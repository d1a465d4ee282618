"""The reference in docs/api.md, written from the public docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["reference"]

_WIDTH = 100
_SECTIONS = "Args|Attributes|Returns|Raises|Warns"

_HEAD = """# Reference

Written from the docstrings by `python -m mvp_lite api`. Everything here is a name in `mvp_lite`, imported as
`import mvp_lite as mvp`. The [guide](guide.md) says how the settings work together.
"""


def reference() -> str:
    """Signature and docstring of every public name, as Markdown; modules with the functions and classes they name."""
    package = import_module("mvp_lite")
    public = {name: getattr(package, name) for name in sorted(package.__all__, key=str.lower)}
    parts = [_HEAD]
    parts += [_entry(f"mvp.{name}", value, 2) for name, value in public.items() if not isinstance(value, ModuleType)]
    for module_name, module in public.items():
        if isinstance(module, ModuleType):
            parts.append(f"## Module `mvp.{module_name}`\n\n{_markdown(inspect.getdoc(module) or '')}")
            names = [name for name in module.__all__ if callable(getattr(module, name)) and _is_own(module, name)]
            parts += [_entry(f"mvp.{module_name}.{name}", getattr(module, name), 3) for name in names]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _is_own(module: ModuleType, name: str) -> bool:
    return getattr(getattr(module, name), "__module__", None) == module.__name__


def _entry(name: str, value: Any, level: int) -> str:
    parts = [f"{'#' * level} `{name}`", _signature(name, value), _markdown(_own_doc(value))]
    if inspect.isclass(value):
        for member, attribute in vars(value).items():
            if member.startswith("_") or not (inspect.isfunction(attribute) or isinstance(attribute, property)):
                continue
            if doc := inspect.getdoc(attribute):
                shown = member if isinstance(attribute, property) else _call(member, attribute)
                parts.append(f"**`{shown}`**\n\n{_markdown(doc)}")
    return "\n\n".join(filter(None, parts))


def _own_doc(value: Any) -> str:
    doc = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    return "" if not doc or doc.startswith(f"{getattr(value, '__name__', '')}(") else inspect.cleandoc(doc)


def _signature(name: str, value: Any) -> str:
    return f"```text\n{_call(name, value)}\n```"


def _call(name: str, value: Any) -> str:
    """The call with defaults and without types, which the text gives; one line if it fits, else as few as possible."""
    try:
        parameters = [p for p in inspect.signature(value).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        return name
    found: list[str] = []
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and "*" not in found and not any(text.startswith("*") for text in found):
            found.append("*")
        stars = "*" if p.kind is p.VAR_POSITIONAL else "**" if p.kind is p.VAR_KEYWORD else ""
        found.append(f"{stars}{p.name}" + ("" if p.default is p.empty else f"={_default(p.default)}"))
    line = f"{name}({', '.join(found)})"
    if len(line) <= _WIDTH or not name.startswith("mvp."):
        return line
    return f"{name}(\n{textwrap.fill(', '.join(found), _WIDTH, initial_indent='    ', subsequent_indent='    ')}\n)"


def _default(value: Any) -> str:
    return "…" if type(value) is object or "factory" in repr(value) else repr(value)


def _markdown(doc: str) -> str:
    """A docstring with its sections as lists."""
    lines, out, section = doc.splitlines(), [], False
    for line in lines:
        if title := re.fullmatch(rf"({_SECTIONS}):", line):
            out += [f"{title[1]}:", ""]
            section = True
        elif section and line and not line.startswith(" "):
            section = False
            out.append(line)
        elif section and (entry := re.match(r"    (?=\S)", line)):
            names, colon, rest = line[entry.end() :].partition(": ")
            plain = colon and re.fullmatch(r"\*{0,2}\w+(, \*{0,2}\w+)*", names)
            out.append(f"* `{names}`: {rest}" if plain else f"* {line.strip()}")
        elif section and line:
            out.append(f"  {line.strip()}")
        else:
            out.append(line)
    text = "\n".join(out)
    return re.sub(r"(?m)^(Args|Attributes|Returns|Raises|Warns):$", r"*\1*", text)
