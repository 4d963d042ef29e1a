"""One task: its namespace, its run, and where its result is found."""

import datetime
import importlib
import json
import linecache
import os
import sys
import types
import uuid

from .program import BODY, program_of

#: Module of a task: a class or a function made in it can be found by its name while it runs.
MODULE = "noetl_task"
NOTHING = object()


class LibraryError(Exception):
    """A library that the task asks for is not there."""


def perform(request, finish):
    """The task's result; NOTHING when its code gives none. `finish` is handed it while all is alive."""
    filename = request["filename"]
    code = request["code"]
    linecache.cache[filename] = (len(code), None, code.splitlines(True), filename)
    program = program_of(code, filename)
    inputs = request["input"]
    given = {**inputs, **request["iteration"]}
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    scope = module.__dict__
    scope.update(os=os, json=json, datetime=datetime, uuid=uuid, get_val=get_val)
    maps = {"args": inputs, "input_data": inputs, "context": request.get("context", {})}
    scope.update(maps)
    scope.update(given)
    add_libraries(scope, request.get("libs"))
    before = scope.get("result")
    try:
        exec(program, scope)
        returned = scope[BODY]() if BODY in scope else None
        if returned is not None:
            return finish(returned)
        if "result" in scope and ("result" not in given or scope["result"] is not before):
            return finish(scope["result"])
        if callable(scope.get("main")):
            return finish(call_main(scope["main"], given, maps))
        return NOTHING
    finally:
        # Functions and their namespace hold each other: a long life must not gather them.
        del before, given, maps
        scope.clear()
        sys.modules.pop(MODULE, None)


def call_main(main, given, maps):
    """Calls it with the inputs that its parameters name; with all of them for `**kwargs`."""
    import inspect

    parameters = inspect.signature(main).parameters.values()
    known = {**maps, **given}
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters)
    first = [one.name for one in parameters if one.kind is one.POSITIONAL_ONLY]
    positional = [known[name] for name in first if name in known]
    wanted = {one.name for one in parameters} - set(first)
    names = set(given) - set(first) if takes_all else set()
    named = {name: known[name] for name in known if name in names | wanted}
    value = main(*positional, **named)
    if inspect.iscoroutine(value):
        import asyncio

        return asyncio.run(value)
    return value


def add_libraries(scope, libs):
    """`{alias: module}`, `{alias: {from, import}}`, or a list of names and `{from, import}`."""
    listed = libs if isinstance(libs, list) else [libs] if isinstance(libs, str) else []
    pairs = list(libs.items()) if isinstance(libs, dict) else [(None, one) for one in listed]
    if isinstance(libs, dict) and isinstance(libs.get("from"), str) and "import" in libs:
        pairs = [(None, libs)]
    for alias, wanted in pairs:
        module, member = (wanted, None) if isinstance(wanted, str) else member_of(wanted)
        try:
            found = importlib.import_module(module)
            if member is None and alias is None:
                scope[module.split(".")[0]] = importlib.import_module(module.split(".")[0])
                continue
            if member is not None and not hasattr(found, member):
                found = importlib.import_module("%s.%s" % (module, member))
            elif member is not None:
                found = getattr(found, member)
        except ImportError as error:
            raise LibraryError("libs: %s" % error) from None
        scope[alias or member] = found


def member_of(wanted):
    if isinstance(wanted, dict):
        module, member = wanted.get("from"), wanted.get("import")
        if isinstance(module, str) and isinstance(member, str):
            return module, member
    raise LibraryError("libs: expected {alias: module}, a list of modules, or {from, import}")


def get_val(value, path, default=None):
    """A member deep in maps and lists: `get_val(row, 'a.b')` or `get_val(row, ['a', 'b'])`."""
    for key in path.split(".") if isinstance(path, str) else path:
        try:
            value = value[int(key) if isinstance(value, (list, tuple)) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            return default
    return value
