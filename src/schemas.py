"""Plain JSON schemas: some clients cannot read references, unions or null."""

from typing import Any

Schema = dict[str, Any]


def plain(schema: Schema, nullable: bool) -> Schema:
    """Return the schema without $ref, $defs, anyOf, defaults and generated titles.

    What may be null has the type ["string", "null"] if `nullable`, else just "string": a
    parameter that is not required may be left out.
    """
    return _plain(schema, schema.get("$defs", {}), nullable)


def _plain(schema: Schema, definitions: Schema, nullable: bool) -> Schema:
    if reference := schema.get("$ref"):
        return _plain(definitions[reference.rpartition("/")[2]], definitions, nullable)
    found = {k: v for k, v in schema.items() if k not in ("$defs", "title", "default", "anyOf")}
    kinds = schema.get("anyOf", [])
    for kind in kinds:
        if kind.get("type") != "null":
            found = _plain(kind, definitions, nullable) | found
    if nullable and {"type": "null"} in kinds:
        found["type"] = [found["type"], "null"]
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    if "items" in found:
        found["items"] = _plain(found["items"], definitions, nullable)
    if "properties" in found:
        properties = found["properties"].items()
        found["properties"] = {k: _plain(v, definitions, nullable) for k, v in properties}
    return found
