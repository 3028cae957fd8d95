"""Checks Kubernetes objects against the API's own schemas (tests/data/kubernetes), strictly: no unknown field."""
import json
import pathlib

SCHEMAS = json.loads((pathlib.Path(__file__).resolve().parents[1] / "data/kubernetes/schemas.json").read_text())
KINDS, DEFINITIONS = SCHEMAS["kinds"], SCHEMAS["definitions"]
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int, "number": (int, float)}


def _is(value, name):
    if isinstance(value, bool) and name in ("integer", "number"):
        return False
    return isinstance(value, TYPES[name])


def _problems(value, schema, where):
    if "$ref" in schema:
        yield from _problems(value, DEFINITIONS[schema["$ref"]], where)
        return
    if "oneOf" in schema:
        if not any(not list(_problems(value, one, where)) for one in schema["oneOf"]):
            yield f"{where}: {value!r} has no allowed type"
        return
    types = schema.get("type")
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, name) for name in types):
        yield f"{where}: {value!r} is not of type {' or '.join(types)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                yield f"{where}: {name} is missing"
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in known:
                yield from _problems(item, known[name], f"{where}.{name}")
            elif rest is False:
                yield f"{where}: unknown field {name}"
            elif isinstance(rest, dict):
                yield from _problems(item, rest, f"{where}.{name}")
    if isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield from _problems(item, schema["items"], f"{where}[{i}]")


def problems(doc):
    """One line a violation; kinds that are no part of Kubernetes itself (CRDs) have none here."""
    name = f"{doc.get('apiVersion')} {doc.get('kind')}"
    if name in KINDS:
        yield from _problems(doc, DEFINITIONS[KINDS[name]], doc["kind"])


def is_known(doc):
    return f"{doc.get('apiVersion')} {doc.get('kind')}" in KINDS
