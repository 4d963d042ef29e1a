"""A task's result as JSON. What JSON has no type for: see the decisions on python in README.md."""

import base64
import collections
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import json
import os
import uuid

#: Maps and lists in each other: deeper than this no reader follows.
DEPTH_MAX = 500


class ResultError(Exception):
    """The task's result cannot be sent."""


def encoded(value, bytes_max):
    try:
        text = dumped(value, converted)
    except (TypeError, ValueError, RecursionError):
        text = None
    if text is None:
        # Names the place of what is not JSON, and turns what JSON has no word for into null.
        text = dumped(plain(value, "result", ()), None)
    body = text.encode("utf-8", "replace")
    if len(body) <= bytes_max:
        return body
    sizes = "the result has %d bytes as JSON, %d are allowed" % (len(body), bytes_max)
    raise ResultError(sizes + " (NOETL_PYTHON_RESULT_MAX_BYTES): return less, or where it is kept")


def dumped(value, default):
    return json.dumps(
        value, default=default, allow_nan=False, ensure_ascii=False, separators=(",", ":")
    )


def plain(value, path, above):
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if id(value) in above or len(above) > DEPTH_MAX:
        raise ResultError("%s: it contains itself, or is nested too deep" % path)
    inside = above + (id(value),)
    if isinstance(value, dict):
        return {
            key_of(key, path): plain(item, "%s[%r]" % (path, key), inside)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(item, "%s[%d]" % (path, at), inside) for at, item in enumerate(value)]
    try:
        inner = converted(value)
    except TypeError as error:
        raise ResultError("%s: %s" % (path, error)) from None
    return plain(inner, path, inside)


def key_of(key, path):
    if key is None or isinstance(key, (str, bool, int, float)):
        return key
    text = converted(key) if not isinstance(key, tuple) else key
    if isinstance(text, str):
        return text
    raise ResultError("%s: a key of type '%s' is not text" % (path, type(key).__name__))


def converted(value):
    """The value as something nearer to JSON. Throws TypeError when there is nothing."""
    if isinstance(value, (decimal.Decimal, uuid.UUID, os.PathLike, datetime.timedelta)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        try:
            return sorted(value)
        except TypeError:
            return list(value)
    lists = (range, collections.deque, collections.abc.MappingView)
    if isinstance(value, lists):
        return list(value)
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if callable(getattr(value, "tolist", None)):
        return value.tolist()
    raise TypeError("a value of type '%s' is not JSON" % type(value).__name__)
