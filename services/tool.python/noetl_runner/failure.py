"""What a task threw, told with the lines of its own code."""

import traceback

from .program import BODY
from .result import ResultError
from .task import LibraryError


def failure_of(error, filename, memory_max):
    """What went wrong, with the lines of the task's own code."""
    trace, line = own_trace(error, filename)
    if isinstance(error, SyntaxError) and error.filename == filename:
        line, text = error.lineno, error.msg
    else:
        text = str(error)
    if isinstance(error, MemoryError):
        # Its frames hold what has filled the memory.
        traceback.clear_frames(error.__traceback__)
        text = text or "the memory limit is %d bytes (NOETL_PYTHON_MEMORY_MAX_BYTES)" % memory_max
    lines = traceback.format_exception(type(error), error, trace)
    return {
        "exception": type(error).__name__,
        "message": text,
        "line": line,
        "cause": cause_of(error, filename),
        "traceback": "".join(lines).replace("in %s\n" % BODY, "in <module>\n"),
    }


def own_trace(error, filename):
    """The trace from where the task's code begins, and the last line of it that was reached."""
    first, line = None, None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == filename:
            first = first or trace
            line = trace.tb_lineno
        trace = trace.tb_next
    return first, line


def cause_of(error, filename):
    if isinstance(error, SyntaxError) and error.filename == filename:
        return "syntax"
    for kind, cause in (
        (ResultError, "result"),
        (LibraryError, "library"),
        (MemoryError, "memory"),
        (SystemExit, "exit"),
    ):
        if isinstance(error, kind):
            return cause
    for one in (error, getattr(error, "reason", None)):
        # Before Python 3.10 socket.timeout was not a TimeoutError.
        if isinstance(one, TimeoutError) or type(one).__name__ == "timeout":
            return "timeout"
        if isinstance(one, ConnectionError):
            return "connection"
    return "exception"
