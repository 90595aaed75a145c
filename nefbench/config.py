"""Turn TOML, JSON and ``--set key=value`` into checked dataclasses, and back into plain data.

Configurations are frozen dataclasses beside what they configure. This module is the border: it
checks keys and kinds, lets pydantic check the leaf values against their annotations, and turns
every complaint into one line. Nothing else in the project imports pydantic.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import functools
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from nefbench.errors import ConfigError

T = TypeVar("T")


def config_from_mapping(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """Build the dataclass ``cls`` from plain data.

    A union of dataclasses is resolved by its ``kind`` key; a bare string there is short for
    ``{"kind": string}``. Types are strict: ``"32"`` is not a number, ``1`` is a valid float.

    Raises:
        ConfigError: On an unknown key or kind (with the nearest valid one) or a bad value.
    """
    built: T = _build(cls, mapping, "")
    return built


def config_to_mapping(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON data, every default written out."""
    plain = _plain(config)
    assert isinstance(plain, dict), f"a config is a dataclass instance, not {type(config).__name__}"
    return plain


def digest(mapping: Mapping[str, Any]) -> str:
    """SHA-256 of plain data in canonical JSON: equal data, equal digest, whatever the key order."""
    canonical = json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: If the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ConfigError: If the file cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected an object of keys")
    return content


def apply_overrides(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``mapping`` with ``a.b=value`` items applied; a value is TOML or else a string.

    Setting ``a.kind`` (or ``a`` itself to a kind) drops the other keys of ``a``: they belong to
    the alternative that was replaced.
    """
    result: dict[str, Any] = copy.deepcopy(dict(mapping))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"--set {override!r}: expected key=value, for example num_steps=500")
        try:
            _set(result, key.strip(), _parse_value(text.strip()))
        except ConfigError as error:
            raise ConfigError(f"--set {override!r}: {error}") from error
    return result


def with_values(mapping: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``mapping`` with plain values at dotted keys, set in their order.

    A kind drops the other keys of its table, as in ``apply_overrides``.
    """
    result: dict[str, Any] = copy.deepcopy(dict(mapping))
    for key, value in values.items():
        _set(result, key, value)
    return result


def _set(mapping: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    if last == "kind" and tables:
        *tables, last = tables
    node = mapping
    for name in tables:
        inner = node.setdefault(name, {})
        if isinstance(inner, str):
            inner = node[name] = {"kind": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"{name!r} is a value, not a table")
        node = inner
    node[last] = value


def differing_keys(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """List ``(dotted key, value in first, value in second)`` wherever two plain configs differ."""
    left, right = _flatten(first), _flatten(second)
    return [
        (key, left.get(key), right.get(key))
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    ]


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for a close candidate, or an empty string."""
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _build(annotation: Any, value: Any, path: str) -> Any:
    alternatives = _dataclass_alternatives(annotation)
    if not alternatives:
        item_type = _container_of_dataclasses(annotation)
        if item_type is None:
            return _check_leaf(annotation, value, path)
        return _build_container(typing.get_origin(annotation), item_type, value, path)
    if value is None and type(None) in typing.get_args(annotation):
        return None
    if dataclasses.is_dataclass(value) and isinstance(value, alternatives):
        return value
    kinds = {_kind_of(cls): cls for cls in alternatives}
    if isinstance(value, str) and None not in kinds:
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path or 'config'}: expected a table of keys (got {value!r})")
    cls = alternatives[0] if len(alternatives) == 1 else _chosen_kind(kinds, value, path)
    return _build_dataclass(cls, value, path)


def _build_container(container: Any, item_type: Any, value: Any, path: str) -> Any:
    if container is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path}: expected a table (got {value!r})")
        return {str(k): _build(item_type, item, _join(path, str(k))) for k, item in value.items()}
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{path}: expected a list (got {value!r})")
    return tuple(_build(item_type, item, _join(path, str(i))) for i, item in enumerate(value))


def _build_dataclass(cls: Any, value: Mapping[str, Any], path: str) -> Any:
    hints = _hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for key in value:
        if key not in names:
            known = f"; known keys: {', '.join(names)}"
            raise ConfigError(f"unknown key {_join(path, key)!r}{nearest(key, names) or known}")
    arguments = {key: _build(hints[key], item, _join(path, key)) for key, item in value.items()}
    missing = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"missing key {_join(path, missing[0])!r}")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}" if path else str(error)) from error


def _chosen_kind(
    kinds: Mapping[str | None, type[Any]], value: Mapping[str, Any], path: str
) -> type[Any]:
    names = [str(kind) for kind in kinds]
    if "kind" not in value:
        raise ConfigError(f"missing key {_join(path, 'kind')!r}: one of {', '.join(names)}")
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(
            f"{_join(path, 'kind')}: expected one of {', '.join(map(repr, names))} "
            f"(got {kind!r}){nearest(str(kind), names)}"
        )
    return kinds[kind]


def _check_leaf(annotation: Any, value: Any, path: str) -> Any:
    try:
        # JSON mode: arrays become tuples and strings become paths, all else stays strict.
        return _adapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([path, *(str(item) for item in first["loc"])])
        raise ConfigError(f"{where}: {_lower(first['msg'])} (got {value!r})") from error
    except TypeError as error:
        raise ConfigError(f"{path}: {value!r} is not a plain value") from error


def _dataclass_alternatives(annotation: Any) -> tuple[type[Any], ...]:
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    return tuple(o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o))


def _container_of_dataclasses(annotation: Any) -> Any | None:
    """Return ``X`` for ``tuple[X, ...]`` and ``dict[str, X]`` of dataclasses, else None."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple and arguments[1:] == (Ellipsis,):
        item_type = arguments[0]
    elif typing.get_origin(annotation) is dict:
        item_type = arguments[1]
    else:
        return None
    return item_type if _dataclass_alternatives(item_type) else None


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _kind_of(cls: type[Any]) -> str | None:
    for field in dataclasses.fields(cls):
        if field.name == "kind":
            return str(field.default)
    return None


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        name = _join(prefix, key)
        flat |= _flatten(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
