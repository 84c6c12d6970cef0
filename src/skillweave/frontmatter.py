"""The head of a SKILL.md: read what people really write, write what every reader understands.

Between two lines `---` stands YAML, and the instructions follow. Four habits of readers lose or change what people wrote, so
this one differs: the fence is a line (`before --- after` is text), every scalar is text (`version: 1.10` does not become 1.1,
and `no` stays `no`), aliases are refused, and a value with a bare colon (`description: Use when: asked`) is read as meant.
"""

import json
import math
import re
from collections.abc import Iterator

import yaml

from .errors import BadSkill

LONGEST = 64 * 1024
"""Characters of frontmatter that are read at most; real ones have a few hundred."""
DEEPEST = 32
"""Levels of nesting that are read at most; real ones have four."""

_Loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_FENCE = re.compile(r"---[ \t]*")
_PAIR = re.compile(r"( *)([\w.-]+):[ \t]+(\S.*)")
_COMPLETE = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|\[.*\]|\{.*\})\s*(#.*)?""")


def parse(text: str, where: str, strict: bool = False) -> tuple[dict, str]:
    """Fields and body of a SKILL.md; values are text, lists and dicts of text. `where` names the file in messages.

    With `strict`, nothing is repaired and a key may stand only once. Raises BadSkill with file and line.
    """
    head, body = _split(_lines(text), where)
    try:
        fields = _tree(head, where, strict)
    except yaml.YAMLError as error:
        fields = None if strict else _second_try(head, where)
        if fields is None:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
            line = mark.line + 2 if mark else 2
            raise BadSkill(f"{where}:{line}: broken frontmatter: {problem}.", "put the value in quotes") from error
    if not isinstance(fields, dict):
        raise BadSkill(f"{where}:2: the frontmatter is not made of `key: value` lines.", _FORM)
    return fields, body.strip()


def render(fields: dict, body: str) -> str:
    """A SKILL.md with these fields (text, or dicts of text), readable with any YAML reader, and this body."""
    head = yaml.dump(fields, Dumper=_Writer, allow_unicode=True, sort_keys=False, width=math.inf)
    return f"---\n{head}---\n\n{body.strip()}\n"


def renamed(text: str, name: str) -> str:
    """The same SKILL.md under another name; nothing else is touched but a byte order mark and line ends."""
    head, body = _split(_lines(text), "SKILL.md")
    rest = re.sub(r"^name[ \t]*:.*\n?(?:[ \t]+\S.*\n?)*", "", head, count=1, flags=re.M).strip("\n")
    return f"---\nname: {name}\n{rest}\n---\n{body}"


def flat(fields: dict, prefix: str = "") -> dict[str, str]:
    """Nested metadata as text by text: `{"a": {"b": ["x", "y"]}}` becomes `{"a.b": "x, y"}`."""
    out = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
            out[prefix + key] = json.dumps(value, ensure_ascii=False)
        else:
            out[prefix + key] = value if isinstance(value, str) else ", ".join(value)
    return out


_FORM = "begin the file with `---`, `name: ...`, `description: ...`, `---`, each on its own line"


def _lines(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _split(text: str, where: str) -> tuple[str, str]:
    lines = text.split("\n")
    if not _FENCE.fullmatch(lines[0]):
        raise BadSkill(f"{where}:1: does not begin with a line `---`.", _FORM)
    end = next((i for i, line in enumerate(lines[1:], 1) if _FENCE.fullmatch(line)), None)
    if end is None:
        raise BadSkill(f"{where}:1: the frontmatter never ends: there is no second line `---`.", _FORM)
    head = "\n".join(lines[1:end])
    if len(head) > LONGEST:
        raise BadSkill(f"{where}:1: the frontmatter is longer than {LONGEST:,} characters.", "move text to the body")
    return head, "\n".join(lines[end + 1 :])


def _second_try(head: str, where: str):
    try:
        return _tree(_repair(head), where, strict=False)
    except yaml.YAMLError:
        return None


def _tree(head: str, where: str, strict: bool):
    """The YAML as text, lists and dicts, built from its events: nesting costs no recursion, and an alias is seen."""
    root: list = []
    unfinished: list[_Node] = [_Node(root)]
    for event in yaml.parse(head, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or len(unfinished) > DEEPEST:
            what = "nested too deeply" if len(unfinished) > DEEPEST else "written with a YAML alias"
            raise BadSkill(f"{where}:{event.start_mark.line + 2}: the frontmatter is {what}.", "write plain `key: value` lines")
        if isinstance(event, yaml.ScalarEvent):
            unfinished[-1].put(event.value, f"{where}:{event.start_mark.line + 2}", strict)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            inner: dict | list = {} if isinstance(event, yaml.MappingStartEvent) else []
            unfinished[-1].put(inner, f"{where}:{event.start_mark.line + 2}", strict)
            unfinished.append(_Node(inner))
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            unfinished.pop()
    return root[0] if len(root) == 1 else None


class _Node:
    """A list or dict that is being filled."""

    def __init__(self, value: list | dict):
        self.value = value
        self.key: str | None = None

    def put(self, item, where: str, strict: bool) -> None:
        if isinstance(self.value, list):
            self.value.append(item)
        elif self.key is not None:
            self.value[self.key], self.key = item, None
        elif not isinstance(item, str):
            raise BadSkill(f"{where}: a key of the frontmatter is not text.", _FORM)
        elif strict and item in self.value:
            raise BadSkill(f"{where}: `{item}` stands twice in the frontmatter.", "keep one of them")
        else:
            self.key = item


def _repair(head: str) -> str:
    """Quote every value that is neither quoted, nor a list or dict, nor a block: a bare colon is then only text."""
    return "\n".join(_quoted(head.split("\n")))


def _quoted(lines: list[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        pair = _PAIR.fullmatch(line)
        if pair is None or _COMPLETE.fullmatch(pair[3]):
            yield line
            continue
        indent, key, value = pair.groups()
        start = at
        while at < len(lines) and lines[at].startswith(indent + " "):
            at += 1
        if value[0] in "|>":
            yield from [line, *lines[start:at]]
        else:
            words = " ".join([value, *map(str.strip, lines[start:at])]).replace("'", "''")
            yield f"{indent}{key}: '{words}'"


class _Writer(yaml.SafeDumper):
    """Quotes text that another reader could take for a number, a date or a truth value; one line a value."""

    def ignore_aliases(self, data):
        return True


def _write_text(writer: _Writer, text: str):
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Writer.add_representer(str, _write_text)
