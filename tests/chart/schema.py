"""What `values.schema.json` of the chart says of the settings of the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from cacheproxy.settings import Bytes, Config, settings

CHART: Final = Path(__file__).parent.parent.parent / "helm" / "cacheproxy"
SCHEMA: Final = CHART / "values.schema.json"

_READ: Final = (("metrics", "listen"), ("server", "listen"), ("storage", "url"))
"""The settings that the chart itself reads: they may be other ones, but not absent."""

_BOUNDS: Final = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
}


def settings_schema() -> dict[str, Any]:
    """The schema of `config`: the settings in the code, and no other."""
    schema = _struct(msgspec.inspect.type_info(Config))
    for setting in settings():
        schema["properties"][setting.section]["properties"][setting.name] |= {
            "description": setting.help
        }
    for section, name in _READ:
        schema["properties"][section]["required"] = [name]
    return schema | {"required": [section for section, _ in _READ]}


def _schema(kind: msgspec.inspect.Type) -> dict[str, Any]:
    match kind:
        case msgspec.inspect.StructType():
            return _struct(kind)
        case msgspec.inspect.CustomType() if kind.cls is Bytes:
            return {"type": ["integer", "string"], "pattern": r"^\d+\s*(|B|KiB|MiB|GiB|TiB)$"}
        case msgspec.inspect.BoolType():
            return {"type": "boolean"}
        case msgspec.inspect.StrType() | msgspec.inspect.CustomType():
            return {"type": "string"}
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            name = "integer" if isinstance(kind, msgspec.inspect.IntType) else "number"
            return {"type": name, **_bounds(kind)}
        case msgspec.inspect.LiteralType():
            return {"enum": list(kind.values)}
        case msgspec.inspect.VarTupleType():
            return {"type": "array", "items": _schema(kind.item_type)}
        case msgspec.inspect.DictType():
            return {"type": "object", "additionalProperties": _schema(kind.value_type)}
        case msgspec.inspect.UnionType():  # with none, for what a rule leaves as it is
            (known,) = (one for one in kind.types if type(one) is not msgspec.inspect.NoneType)
            return _schema(known)
        case _:
            raise NotImplementedError(f"settings of type {kind}")


def _struct(kind: msgspec.inspect.Type) -> dict[str, Any]:
    assert isinstance(kind, msgspec.inspect.StructType)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: _schema(field.type) for field in kind.fields},
        "required": [field.name for field in kind.fields if field.required],
    }


def _bounds(kind: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> dict[str, Any]:
    return {
        word: value
        for short, word in _BOUNDS.items()
        if (value := getattr(kind, short)) is not None
    }


def as_text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2) + "\n"


def main() -> None:
    """Write the settings into the schema: `python -m tests.chart.schema`."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["config"] = settings_schema()
    SCHEMA.write_text(as_text(schema))


if __name__ == "__main__":
    main()
