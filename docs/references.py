"""Make the reference pages of the docs: `python -m docs.references`.

docs/reference/workflow.md, models.md and gpu.md say what the JSON Schemas of the YAML files say,
http.md what the OpenAPI document of the shipped endpoints says, commands.md what --help says.
"""

import inspect
import json
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

import typer
from typer.core import TyperGroup

from generator.cli import COMMANDS, app
from generator.cli import main as generator
from generator.schema import schema

Name = Literal["workflow", "models", "gpu"]

PAGES: Final = Path(__file__).parent / "reference"
_FILES: Final[Mapping[Name, str]] = {
    "workflow": "workflows/NAME.yaml",
    "models": "models.yaml",
    "gpu": "gpu.yaml",
}
_MADE: Final = "<!-- Made by `make golden`: change what it is made from. -->"
# Keywords that bound a value, and how a reader writes them.
_BOUNDS: Final = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
    "minLength": "length ≥ {}",
    "maxLength": "length ≤ {}",
    "minItems": "items ≥ {}",
    "maxItems": "items ≤ {}",
    "pattern": "`{}`",
    "format": "{}",
}
_LONGEST_DEFAULT: Final = 60
# Rows of problems that are shown wherever they apply.
_MOST_REPEATED: Final = 5

Schema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Return the text of each page by its name; `build` must hold the shipped endpoints."""
    return {
        **{f"{name}.md": _schema_page(name) for name in _FILES},
        "http.md": _http_page(_api()),
        "commands.md": _commands_page(),
    }


def main() -> int:
    """Write the pages."""
    if status := generator(["build", "--quiet"]):
        return status
    PAGES.mkdir(exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")
    return 0


# The YAML files


def _schema_page(name: Name) -> str:
    document = schema(name)
    lines = [_MADE, f"# {_FILES[name]}", "", _words(document), ""]
    for path, part in _objects(document, ""):
        if path:
            lines += [f"## `{path}`", "", _words(part), ""]
        lines += [*_table(_keys(part, document), part.get("required", ())), ""]
    return "\n".join(lines).rstrip() + "\n"


def _objects(part: Schema, path: str, root: Schema | None = None) -> Iterator[tuple[str, Schema]]:
    """Yield what has keys of its own, by its path, each before what it holds."""
    root = root or part
    if part.get("properties") or path.endswith("NAME"):
        yield path, part
    for key, value in _keys(part, root):
        yield from _objects(value, f"{path}.{key}" if path else key, root)


def _keys(part: Schema, root: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the keys of an object; NAME stands for those that a user chooses."""
    yield from part.get("properties", {}).items()
    other = part.get("additionalProperties")
    if isinstance(other, dict) and (reference := other.get("$ref")):
        yield "NAME", root["definitions"][reference.rpartition("/")[2]]


# The API


def _api() -> dict[str, Any]:
    """Return the OpenAPI document of what is in build/, as it is with keys."""
    import build.api
    from build.gateway.access import access_of

    app = build.api.create_api(cast("Any", None), access_of("api-key", {"API_KEYS": "ann:key"}))
    return _with_options(app.openapi())


def _with_options(api: dict[str, Any]) -> dict[str, Any]:
    """Return the document with lists of options where they are used, not as schemas of their own."""
    options = {
        f"#/components/schemas/{name}": part
        for name, part in api["components"]["schemas"].items()
        if "enum" in part
    }

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(one) for one in value]
        if isinstance(value, dict):
            if value.get("$ref") in options:
                return options[value["$ref"]]
            return {key: resolved(one) for key, one in value.items()}
        return value

    return cast("dict[str, Any]", resolved(api))


def _http_page(api: Mapping[str, Any]) -> str:
    lines = [
        _MADE,
        "# The routes",
        "",
        "What `/openapi.json` of the endpoints that come with the project says; yours says it of "
        "yours, and `/docs` there shows it. [The API](../api.md) tells how they work together.",
        "",
    ]
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    first: dict[str, str] = {}
    made = [one for one in operations if "endpoints" in one[1].get("tags", ())]
    for title, group in (
        ("Endpoints", made),
        ("The rest", [one for one in operations if one not in made]),
    ):
        lines += [f"## {title}", ""]
        for name, operation in group:
            lines += _operation(name, operation, api, first)
    lines += ["## Documents", ""]
    requests = {_named(_body(operation)) for _, operation in made}
    for name, part in api["components"]["schemas"].items():
        if name not in requests and part.get("properties"):
            lines += [
                f"### {name}",
                "",
                _words(part),
                "",
                *_table(part["properties"].items(), part.get("required", ())),
                "",
            ]
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _operation(
    title: str, operation: Mapping[str, Any], api: Mapping[str, Any], first: dict[str, str]
) -> list[str]:
    lines = [f"### {title}", "", _words(operation, "summary"), ""]
    lines += [_words(operation), ""]
    body = _named(_body(operation))
    if body:
        part = api["components"]["schemas"][body]
        lines += [*_table(part["properties"].items(), part.get("required", ())), ""]
    if asked := operation.get("parameters", []):
        lines += ["| parameter | in | type | meaning |", "|---|---|---|---|"]
        for one in asked:
            meaning = _words(one)
            lines.append(_row([f"`{one['name']}`", one["in"], _type(one["schema"]), meaning]))
        lines.append("")
    return [*lines, *_answers(operation["responses"], title, first), ""]


def _answers(responses: Mapping[str, Any], title: str, first: dict[str, str]) -> list[str]:
    """Return the table of answers; of problems that another operation has too, where they stand."""
    rows = {
        str(status): _row(
            [
                str(status),
                answer["description"],
                ", ".join(f"`{kind}`" for kind in answer.get("content", {})),
            ]
        )
        for status, answer in sorted(responses.items())
    }
    problems = [row for status, row in rows.items() if status >= "400"]
    lines = ["| status | answer | body |", "|---|---|---|"]
    lines += [row for status, row in rows.items() if status < "400"]
    known = first.setdefault("\n".join(problems), title)
    if known == title or len(problems) < _MOST_REPEATED:
        return [*lines, *problems]
    slug = re.sub(r"[^a-z0-9 -]", "", known.lower()).replace(" ", "-")
    return [*lines, "", f"Problems: those of [{known}](#{slug})."]


def _body(operation: Mapping[str, Any]) -> Schema:
    content = operation.get("requestBody", {}).get("content", {})
    found: Schema = content.get("application/json", {}).get("schema", {})
    return found


# The command line


def _commands_page() -> str:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    lines = [
        _MADE,
        "# The commands",
        "",
        "`.venv/bin/python -m generator COMMAND`, which `--help` explains too. Most are targets of "
        "`make` as well, which sets up what they need; `make help` lists those.",
        "",
    ]
    for title, names in COMMANDS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += _command(name, group.commands[name])
    return "\n".join(lines).rstrip() + "\n"


def _command(name: str, command: Any) -> list[str]:
    """Return a section: what a command does, and what it takes."""
    context = typer.Context(command, info_name=name)
    text = inspect.cleandoc(command.help).replace("<", "&lt;")
    lines = [f"### {name}", "", text, "", "| argument or option | meaning |", "|---|---|"]
    for one in command.params:
        spelt, meaning = one.get_help_record(context)
        lines.append(_row([f"`{spelt}`", meaning.replace("<", "&lt;")]))
    return [*lines, ""]


# All


def _table(keys: Iterable[tuple[str, Schema]], required: Collection[str]) -> list[str]:
    rows = ["| key | type | values | default | meaning |", "|---|---|---|---|---|"]
    for key, value in keys:
        default = "**required**" if key in required else _default(value)
        meaning = _words(value)
        rows.append(_row([f"`{key}`", _type(value), _values(value), default, meaning]))
    return rows


def _named(value: Schema) -> str:
    return str(value.get("$ref", "")).rpartition("/")[2]


def _type(value: Schema) -> str:
    if name := _named(value):
        return f"[{name}](#{name.lower()})"
    if choices := value.get("anyOf") or value.get("oneOf"):
        kinds = [_type(choice) for choice in choices]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    kind = value.get("type", "")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {_type(value.get('items', {})) or 'anything'}"
    return str(kind or ("string" if "enum" in value else ""))


def _values(value: Schema) -> str:
    """Return what bounds the values: options, limits, a pattern."""
    parts = [value, *value.get("anyOf", ())]
    options = [f"`{option}`" for part in parts for option in part.get("enum", ())]
    limits = [
        text.format(part[key]) for part in parts for key, text in _BOUNDS.items() if key in part
    ]
    return ", ".join([*options, *limits])


def _default(value: Schema) -> str:
    if "default" not in value:
        return ""
    text = json.dumps(value["default"], ensure_ascii=False)
    return f"`{text}`" if len(text) <= _LONGEST_DEFAULT else "see the schema"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def _words(value: Mapping[str, Any], key: str = "description") -> str:
    """Return a text of a schema, in which nothing is HTML."""
    return str(value.get(key, "")).replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
