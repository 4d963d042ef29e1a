"""Runs the code of python tasks, one after the other: one request in, one reply out.

Frames travel on descriptor 3: four bytes of length (big endian), then JSON. Descriptors 1 and 2
belong to the tasks: nothing they print can meet a frame. After a task its mark is written to both,
so that their reader knows which of the output is whose.

Arguments: memory limit in bytes (0: none), largest result in bytes. Python 3.8 or newer, POSIX.
"""

import faulthandler
import fcntl
import io
import json
import os
import resource
import select
import signal
import struct
import sys
import threading

from noetl_runner.failure import failure_of
from noetl_runner.result import encoded
from noetl_runner.shared import whole
from noetl_runner.task import NOTHING, perform

LINK = 3
#: A process that holds more than this share of its limit makes room for a new one.
WORN_SHARE = 0.5

MEMORY_MAX, RESULT_MAX = (int(text) for text in sys.argv[1:3])
FOLDER = os.getcwd()
ENVIRONMENT = dict(os.environ)
# The runner's own folder is no place for a task to import from, and `-B` was for it alone.
PATHS = sys.path[1:]
sys.dont_write_bytecode = False
RECURSION_MAX = sys.getrecursionlimit()


def receive():
    """The next request, or None when the other side has gone."""
    head = read(4)
    body = head and read(struct.unpack(">I", head)[0])
    return None if body is None else whole(json.loads(body))


def read(count):
    parts = []
    while count > 0:
        part = os.read(LINK, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def send(body):
    data = memoryview(struct.pack(">I", len(body)) + body)
    while data:
        data = data[os.write(LINK, data) :]


def leave(*_signal):
    """Ends this process and whatever its tasks have begun. As a signal's handler: if nobody reads."""
    if _signal and not select.select([LINK], [], [], 0)[0]:
        return
    os.killpg(os.getpgrp(), signal.SIGKILL)


def watch(on):
    """While a task runs nothing arrives on the link but its end: then nobody wants the result."""
    flags = fcntl.fcntl(LINK, fcntl.F_GETFL)
    fcntl.fcntl(LINK, fcntl.F_SETFL, flags | os.O_ASYNC if on else flags & ~os.O_ASYNC)
    if on:
        leave(signal.SIGIO)


def stream(descriptor):
    return io.TextIOWrapper(
        io.FileIO(descriptor, "w", closefd=False),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def prepare(environment):
    """The process as a task may expect it, whatever those before it have changed."""
    os.chdir(FOLDER)
    wanted = {**ENVIRONMENT, **environment}
    if dict(os.environ) != wanted:
        os.environ.clear()
        os.environ.update(wanted)
    sys.path[:] = PATHS
    sys.argv[:] = [""]
    sys.setrecursionlimit(RECURSION_MAX)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGIO, leave)
    sys.stdout, sys.stderr = stream(1), stream(2)


def finish(mark):
    """Tells the readers of both outputs that this task has printed all. False: it took one away."""
    told = True
    for descriptor, output in ((1, sys.stdout), (2, sys.stderr)):
        try:
            output.flush()
        except Exception:
            pass
        try:
            os.write(descriptor, mark)
        except OSError:
            told = False
    return told


def worn(error):
    """Why this process should run no further task; None when it is as good as new."""
    if isinstance(error, MemoryError):
        return "memory"
    if len(threading.enumerate()) > 1:
        return "threads"
    try:
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
        return "children"
    except OSError:
        pass
    return "memory" if MEMORY_MAX and resident() > MEMORY_MAX * WORN_SHARE else None


def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def answer(request):
    me = os.getpid()
    error, head = None, b'{"none":true'
    try:
        prepare(request["env"])
        watch(True)
        result = perform(request, lambda value: encoded(value, RESULT_MAX))
        if result is not NOTHING:
            head = b'{"result":' + result
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            error = leaving
    except BaseException as thrown:
        error = thrown
    if os.getpid() != me:
        # A child that the task has forked came to the end of the task's code.
        os._exit(0)
    watch(False)
    if error is not None:
        failure = failure_of(error, request["filename"], MEMORY_MAX)
        head = b'{"error":' + json.dumps(failure).encode()
    marked = finish(request["mark"].encode())
    tail = {"worn": worn(error), "marked": marked}
    return head + b"," + json.dumps(tail).encode()[1:]


def limit():
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if MEMORY_MAX:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))


def serve():
    os.set_inheritable(LINK, False)
    signal.signal(signal.SIGIO, leave)
    fcntl.fcntl(LINK, fcntl.F_SETOWN, os.getpid())
    limit()
    send(b'{"ready":true}')
    while True:
        request = receive()
        if request is None:
            leave()
        send(answer(request))


if __name__ == "__main__":
    serve()
