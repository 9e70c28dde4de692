"""Objects of Istio's kinds with every field of their resource definitions, or some, at random.

Fields that exclude each other are spread over several values: over the items of the list, or the
entries of the map, that they are in, or else over several objects.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from .apiserver import objects
from .build import istio_crds

Schema = Mapping[str, Any]
Path = tuple[str, ...]
"""Names of fields; `[]` stands for an item of a list, `*` for an entry of a map."""

_TEXTS = ("10.1.2.3", "a.example.com", "/a", "5s", "GET", "8080", "YQ==")
"""What is tried for a text that has to be of a form."""
_ODD_TEXTS = (
    "",
    "yes",
    "null",
    "1e3",
    "0x1f",
    " a: b #c",
    "- a",
    'it\'s "q"',
    "é\n☃",
    "{a",
    "*a",
    "<b>&c",
)
_ODD_KEYS = ("example.com/a~b", "a.b", "yes", "1", "é")
_ODD = 0.15
"""How often `some` takes an odd text, or one of the least and the greatest numbers."""


def specs() -> Mapping[str, Schema]:
    """The schema of `spec` of each of Istio's kinds."""
    text = istio_crds().read_text()
    return {
        crd["spec"]["names"]["kind"]: version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for crd in objects(text)
        for version in crd["spec"]["versions"]
        if version["storage"]
    }


class Filling:
    """Makes values of a schema.

    `given` are the values of fields that mean something to a test, by path. `apart` are fields that
    exclude each other although the schema does not say so, or only in CEL, by the path of the
    object they are in. What is `needed` is never left out.
    """

    def __init__(
        self,
        chance: random.Random,
        given: Mapping[Path, Any],
        apart: Mapping[Path, Sequence[str]],
        needed: Collection[Path] = (),
    ) -> None:
        self._chance = chance
        self._given = given
        self._apart = apart
        self._needed = {path[:length] for path in needed for length in range(1, len(path) + 1)}

    def values(self, schema: Schema, path: Path = ()) -> list[Any]:
        """Values that have every field between them."""
        if path in self._given:
            return [self._given[path]]
        match schema.get("type"):
            case "object" if "properties" in schema:
                return self._objects(schema, path)
            case "object" if isinstance(schema.get("additionalProperties"), dict):
                found = self.values(schema["additionalProperties"], (*path, "*"))
                return [{f"{self._word()}-{number}": each for number, each in enumerate(found)}]
            case "object":
                return [{self._word(): {"any": [1, {"kind": True}]}}]
            case "array":
                found = self.values(schema["items"], (*path, "[]"))
                return [found]
        return [self._scalar(schema, path)]

    def some(self, schema: Schema, kept: float, path: Path = ()) -> Any:
        """A value with `kept` of the fields that may be left out, and in part an odd one."""
        if path in self._given:
            return self._given[path]
        if schema.get("nullable") and self._chance.random() < _ODD:
            return None
        match schema.get("type"):
            case "object" if "properties" in schema:
                return {
                    name: self.some(schema["properties"][name], kept, (*path, name))
                    for name in self._kept(schema, kept, path)
                }
            case "object" if isinstance(schema.get("additionalProperties"), dict):
                each = schema["additionalProperties"]
                keys = [self._word(), *_ODD_KEYS]
                some = self._chance.sample(keys, self._chance.choice((0, 1, 2)))
                return {key: self.some(each, kept, (*path, "*")) for key in some}
            case "array":
                step = (*path, "[]")
                least = max(schema.get("minItems", 0), step in self._needed)
                count = max(self._chance.choice((0, 1, 2)), least)
                return [self.some(schema["items"], kept, step) for _ in range(count)]
        found = self.values(schema, path)[0]
        return self._odd(schema, found) if self._chance.random() < _ODD else found

    def _kept(self, schema: Schema, kept: float, path: Path) -> list[str]:
        """The fields of an object that are not left out, in random order."""
        needed = {
            name
            for name in schema["properties"]
            if name in schema.get("required", ()) or (*path, name) in self._needed
        }
        names = set(schema["properties"])
        for group in self._groups(schema, path):
            stays = next((name for name in group if name in needed), self._chance.choice(group))
            names -= {name for name in group if name != stays}
        found = [name for name in sorted(names) if name in needed or self._chance.random() < kept]
        self._chance.shuffle(found)
        return found

    def _odd(self, schema: Schema, usual: Any) -> Any:
        if isinstance(usual, bool) or "enum" in schema:
            return usual
        if isinstance(usual, (int, float)):
            return self._chance.choice((schema.get("minimum", 0), schema.get("maximum", 2**31 - 1)))
        is_free = not {"pattern", "format", "minLength", "x-kubernetes-validations"} & set(schema)
        return self._chance.choice(_ODD_TEXTS) if is_free else usual

    def _groups(self, schema: Schema, path: Path) -> list[Sequence[str]]:
        """The groups of fields of which an object has one at most."""
        apart = [name for name in self._apart.get(path, ()) if name in schema["properties"]]
        return [*_alternatives(schema), *([apart] if apart else [])]

    def _objects(self, schema: Schema, path: Path) -> list[dict[str, Any]]:
        fields = {name: self.values(each, (*path, name)) for name, each in _fields(schema)}
        groups = self._groups(schema, path)
        together: list[list[dict[str, Any]]] = [
            [{name: value} for name in group for value in fields[name]] for group in groups
        ]
        grouped = {name for group in groups for name in group}
        together += [
            [{name: value} for value in values]
            for name, values in fields.items()
            if name not in grouped
        ]
        count = max(map(len, together), default=1)
        made = ([each[number % len(each)] for each in together] for number in range(count))
        return [{key: value for part in parts for key, value in part.items()} for parts in made]

    def _scalar(self, schema: Schema, path: Path) -> Any:
        if "enum" in schema:
            return self._chance.choice(schema["enum"])
        if schema.get("x-kubernetes-int-or-string"):
            return self._chance.randint(1, 100)
        match schema.get("type"):
            case "boolean":
                return self._chance.random() < 0.5
            case "integer" | "number" as kind:
                low, high = schema.get("minimum", 1), schema.get("maximum", 100)
                whole = self._chance.randint(int(low), int(min(high, 100)))
                return whole if kind == "integer" else whole / 2
            case "string":
                return self._text(schema, path)
        raise NotImplementedError(f"a value of {schema} for {'.'.join(path)}")

    def _text(self, schema: Schema, path: Path) -> str:
        if schema.get("format") in ("binary", "byte"):
            return "YQ=="
        rules = " ".join(each["rule"] for each in schema.get("x-kubernetes-validations", ()))
        if "duration(" in rules:
            return f"{self._chance.randint(1, 9)}s"
        for text in (self._word(), *_TEXTS):
            if re.search(schema.get("pattern", ""), text):
                return text
        raise NotImplementedError(f"a text like {schema['pattern']} for {'.'.join(path)}")

    def _word(self) -> str:
        return "".join(self._chance.choices("abcdefghijklmnopqrstuvwxyz", k=6))


def _fields(schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield from schema["properties"].items()


def _alternatives(schema: Schema) -> Iterator[Sequence[str]]:
    """The groups of fields that exclude each other by the schema."""
    for part in (schema, *schema.get("allOf", ()), *schema.get("anyOf", ())):
        group = [
            name
            for choice in part.get("oneOf", ())
            for name in choice.get("required", ())
            if name in schema["properties"]
        ]
        if group:
            yield list(dict.fromkeys(group))


def listed(schema: Schema, path: Path = ()) -> Iterator[Path]:
    """Every field that a schema lists."""
    for name, each in schema.get("properties", {}).items():
        yield (*path, name)
        yield from listed(each, (*path, name))
    for key, step in (("items", "[]"), ("additionalProperties", "*")):
        if isinstance(schema.get(key), dict):
            yield from listed(schema[key], (*path, step))


def filled(value: Any, schema: Schema, path: Path = ()) -> Iterator[Path]:
    """Every field of a schema that a value has."""
    if isinstance(value, list):
        for each in value:
            yield from filled(each, schema["items"], (*path, "[]"))
    elif isinstance(value, dict):
        for name, each in value.items():
            known = schema.get("properties", {}).get(name)
            if known is not None:
                yield (*path, name)
                yield from filled(each, known, (*path, name))
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from filled(each, schema["additionalProperties"], (*path, "*"))
