"""Loading the function's source as module `app`, once an instance, and turning its mistakes into messages with a line."""

import linecache
import os
import random
import sys
import traceback
import types

import marram
from wit_world.imports import environment, source


class LoadError(Exception):
    """The program does not load. Carries what the host reports."""

    def __init__(self, message, file, line, column, trace):
        super().__init__(message)
        self.message, self.file, self.line, self.column, self.trace = message, file, line, column, trace


def _wake():
    """Undoes what the snapshot froze when the engine was built: environment, random seed, buffering."""
    os.environ.clear()
    os.environ.update(environment.get_environment())
    random.seed()
    sys.stdout.reconfigure(line_buffering=True)


_module = None
_failure = None


def module():
    """The loaded program. Raises LoadError, the same one each time, when it does not load."""
    global _module, _failure
    if _failure is not None:
        raise _failure
    if _module is None:
        _wake()
        program = source.get()
        # For tracebacks that quote the line.
        lines = program.text.splitlines(keepends=True)
        linecache.cache[program.file] = (len(program.text), None, lines, program.file)
        try:
            _module = _executed(program)
        except LoadError as error:
            _failure = error
            raise
    return _module


def handler(loaded):
    """The function that answers requests. A `fetch` that was imported from marram asks, and does not answer."""
    named = (getattr(loaded, name, None) for name in ("fetch", "on_fetch"))
    return next((value for value in named if callable(value) and value is not marram.fetch), None)


def application(loaded):
    """The WSGI application."""
    named = (getattr(loaded, name, None) for name in ("app", "application"))
    return next((value for value in named if callable(value)), None)


def _executed(program):
    loaded = types.ModuleType("app")
    loaded.__file__ = program.file
    sys.modules["app"] = loaded
    try:
        exec(compile(program.text, program.file, "exec"), loaded.__dict__)
    except BaseException as error:
        del sys.modules["app"]
        raise _described(error, program.file) from None
    if handler(loaded) is None and application(loaded) is None:
        message = "nothing to call: define `async def fetch(request, env)` or a WSGI callable named `app`"
        raise LoadError(message, program.file, 0, 0, "")
    return loaded


def _described(error, file):
    line, column = 0, 0
    if isinstance(error, SyntaxError):
        line, column = error.lineno or 0, error.offset or 0
    else:
        # The innermost frame of the user's own file is where they look first.
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        if own:
            line, column = own[-1].lineno or 0, (own[-1].colno or -1) + 1
    message = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return LoadError(message, file, line, max(column, 0), trace_of(error))


def trace_of(error):
    """A traceback that begins in the user's program, without the engine's own frames above it."""
    summary = traceback.TracebackException.from_exception(error)
    own = [n for n, frame in enumerate(summary.stack) if "marram_engine" not in frame.filename]
    if own:
        del summary.stack[: own[0]]
    else:
        summary.stack.clear()
    return "".join(summary.format())
