"""Whether callers of an endpoint are broken by a change of it.

A change breaks callers when a request that was taken would be refused, or when its reply would be
of another kind. What else changes for them, such as a default, is a note.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..graph.words import show

Schema = Mapping[str, Any]

# A value of the first type is one of the second too.
_WIDER: Final = frozenset(
    (
        ("integer", "number"),
        ("integer", "seed"),
        ("seed", "integer"),
        ("seed", "number"),
        ("model", "string"),
    )
)
_LIMITS: Final = {
    "max_body_bytes": "largest body in bytes",
    "max_media_pixels": "most pixels of media",
    "max_text_characters": "most characters of a text in a caller's graph",
    "max_output_pixels": "most pixels that are made",
    "max_jobs": "most jobs at a time",
    "max_jobs_per_key": "most jobs of a key at a time",
    "max_requests_per_minute": "most requests of a key in a minute",
    "max_listeners_per_key": "most requests of a key that listen to jobs",
}
_BOUNDS: Final = {
    "minimum": "minimum",
    "minLength": "shortest length",
    "maximum": "maximum",
    "maxLength": "longest length",
}
_LOWER_BOUNDS: Final = ("minimum", "minLength")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, in words, and whether it breaks callers."""

    text: str
    breaking: bool = False


def request_changes(old: Schema, new: Schema) -> list[Change]:
    """Return what differs between the schemas of two requests, as `request_schema` makes them."""
    before: Mapping[str, Schema] = old["properties"]
    after: Mapping[str, Schema] = new["properties"]
    was_required, is_required = set(old["required"]), set(new["required"])
    changes = [
        Change(f"param {show(name)} is gone", breaking=True) for name in before if name not in after
    ]
    for name, about in after.items():
        if name not in before:
            needed = name in is_required
            word = "a required" if needed else "an optional"
            changes.append(Change(f"{word} param {show(name)} is new", breaking=needed))
            continue
        if name in is_required - was_required:
            changes.append(Change(f"param {show(name)} is required now", breaking=True))
        elif name in was_required - is_required:
            changes.append(Change(f"param {show(name)} is optional now"))
        changes += _param_changes(f"param {show(name)}", before[name], about)
    return changes + list(_group_changes(old, new))


def route_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return what differs between two entries of `routes` in manifest.json.

    Nothing that happens to an endpoint that was off breaks anybody.
    """
    changes: list[Change] = []
    if old["enabled"] != new["enabled"]:
        word = "on" if new["enabled"] else "off"
        changes.append(Change(f"it is switched {word}", breaking=not new["enabled"]))
    changes += request_changes(old["request_schema"], new["request_schema"])
    changes += _reply_changes(old, new)
    words = {
        "gpu": "GPU profile",
        "group": "group",
        "timeout": "longest run in seconds",
        "models": "models",
        "packs": "packs",
    }
    for key, word in words.items():
        if old[key] != new[key]:
            changes.append(Change(f"{word}: {_shown(old[key])} → {_shown(new[key])}"))
    if old["graph"] != new["graph"]:
        changes.append(Change("its graph differs: the same request may give another result"))
    if old["enabled"]:
        return changes
    return [Change(change.text) for change in changes]


def app_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return what differs for callers of any endpoint: between `gateway` of two manifests."""
    changes: list[Change] = []
    if old["auth"] != new["auth"]:
        text = f"auth: {old['auth']} → {new['auth']}"
        changes.append(Change(text, breaking=new["auth"] != "none"))
    for origin in sorted({*old["cors_origins"]} - {*new["cors_origins"]}):
        changes.append(Change(f"pages of {origin} may not ask any more", breaking=True))
    for origin in sorted({*new["cors_origins"]} - {*old["cors_origins"]}):
        changes.append(Change(f"pages of {origin} may ask"))
    for key, word in _LIMITS.items():
        # An older generator knew fewer of them; 0 is no limit.
        before, after = old.get(key, 0), new[key]
        if before != after:
            text = f"{word}: {_limit(before)} → {_limit(after)}"
            is_lower = bool(after) and (not before or after < before)
            changes.append(Change(text, breaking=is_lower and key in old))
    if old["deadline"] != new["deadline"]:
        text = f"seconds until a request gets a job: {old['deadline']} → {new['deadline']}"
        changes.append(Change(text))
    return changes


def _limit(number: int) -> str:
    return f"{number:,}" if number else "none"


def _param_changes(what: str, old: Schema, new: Schema) -> Iterator[Change]:
    before, after = _type(old), _type(new)
    if before != after:
        widened = (before, after) in _WIDER
        yield Change(f"{what}: type {before} → {after}", breaking=not widened)
        if not widened:
            return
    if _may_be_null(old) != _may_be_null(new):
        word = "may be" if _may_be_null(new) else "must not be"
        yield Change(f"{what} {word} null", breaking=not _may_be_null(new))
    if before == after and old.get("x-folder") != new.get("x-folder"):
        text = f"{what}: model folder {old.get('x-folder')} → {new.get('x-folder')}"
        yield Change(text, breaking=True)
    if old.get("default") != new.get("default"):
        text = f"{what}: default {_shown(old.get('default'))} → {_shown(new.get('default'))}"
        yield Change(text)
    yield from _value_changes(what, old, new)


def _value_changes(what: str, old: Schema, new: Schema) -> Iterator[Change]:
    """Say how the values differ that a param takes."""
    if "enum" in old:
        gone = [value for value in old["enum"] if not _takes(new, value)]
        for value in gone:
            yield Change(f"{what} does not take {_shown(value)} any more", breaking=True)
        if "enum" not in new:
            yield Change(f"{what} takes more than its options")
        for value in new.get("enum", ()):
            if value not in old["enum"]:
                yield Change(f"{what} takes {_shown(value)} too")
        return
    if "enum" in new:
        yield Change(f"{what} takes {_shown(new['enum'])} alone", breaking=True)
        return
    for key, word in _BOUNDS.items():
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        raised = before is None or (after is not None and after > before)
        lowered = before is None or (after is not None and after < before)
        narrower = after is not None and (raised if key in _LOWER_BOUNDS else lowered)
        yield Change(f"{what}: {word} {_shown(before)} → {_shown(after)}", breaking=narrower)
    yield from _step_changes(what, old, new)
    if old.get("pattern") != new.get("pattern"):
        text = f"{what}: pattern {_shown(old.get('pattern'))} → {_shown(new.get('pattern'))}"
        yield Change(text, breaking="pattern" in new)


def _step_changes(what: str, old: Schema, new: Schema) -> Iterator[Change]:
    before, after = _steps(old), _steps(new)
    if before == after:
        return
    (old_start, old_step), (start, step) = before, after
    kept = old_step % step == 0 and (old_start - start) % step == 0
    text = f"{what}: steps of {old_step} from {old_start} → of {step} from {start}"
    yield Change(text, breaking=not kept)


def _steps(schema: Schema) -> tuple[int, int]:
    """Return start and step of the values; every integer is a step of 1."""
    multiple = schema.get("multipleOf", 1)
    start, step = schema.get("x-step", (0, multiple))
    return start % step, step


def _takes(schema: Schema, value: Any) -> bool:
    """Say whether a value that was an option is taken."""
    if "enum" in schema:
        return value in schema["enum"]
    if isinstance(value, str):
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength", len(value))
        return bool(shortest <= len(value) <= longest and "pattern" not in schema)
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    start, step = _steps(schema)
    return bool(low <= value <= high and (step == 1 or (value - start) % step == 0))


def _group_changes(old: Schema, new: Schema) -> Iterator[Change]:
    """Say how the groups differ of which exactly one is given."""
    before, after = _groups(old), _groups(new)
    for group in after:
        if group in before:
            continue
        # What is new in a group that was there before, nobody has sent yet.
        grown = any(
            set(other) <= set(group) and not {*group} - {*other} & {*old["properties"]}
            for other in before
        )
        yield Change(f"exactly one of {', '.join(group)} must be given", breaking=not grown)
    for group in before:
        if group not in after and all(name in new["properties"] for name in group):
            yield Change(f"not exactly one of {', '.join(group)} must be given any more")


def _groups(schema: Schema) -> list[tuple[str, ...]]:
    return [
        tuple(name for choice in part["oneOf"] for name in choice["required"])
        for part in schema.get("allOf", ())
    ]


def _reply_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    if old["reply"] != new["reply"]:
        yield Change(f"it replies with {new['reply']}, not {old['reply']}", breaking=True)
    for media_type in old["media_types"]:
        if media_type not in new["media_types"] and media_type != old["reply"]:
            yield Change(f"no reply is {media_type} any more", breaking=True)
    for media_type in new["media_types"]:
        if media_type not in old["media_types"] and media_type != new["reply"]:
            yield Change(f"a reply may be {media_type}")


def _type(schema: Schema) -> str:
    kind = schema["type"]
    return str(schema.get("x-type") or (kind[0] if isinstance(kind, list) else kind))


def _may_be_null(schema: Schema) -> bool:
    return isinstance(schema["type"], list)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value) or "none"
    return "none" if value is None else show(value) if isinstance(value, str) else str(value)
