"""Modules of the standard library that functions commonly import. Imported when the engine is built, they are in its
snapshot and cost a function nothing; the rest of the standard library is not in the component's reach at run time."""

import abc, array, ast, asyncio, base64, binascii, bisect, builtins, calendar, cmath, codecs  # noqa: E401, F401
import collections, collections.abc, colorsys, concurrent.futures, configparser, contextlib, contextvars, copy  # noqa: E401, F401
import csv, dataclasses, datetime, decimal, difflib, email.message, email.parser, email.policy, email.utils  # noqa: E401, F401
import enum, errno, fnmatch, fractions, functools, gc, getpass, gettext, glob, gzip, hashlib, heapq, hmac  # noqa: E401, F401
import html, html.entities, html.parser, http, http.client, http.cookies, http.server, importlib, importlib.util  # noqa: E401, F401
import inspect, io, ipaddress, itertools, json, keyword, linecache, locale, logging, logging.config  # noqa: E401, F401
import logging.handlers, math, mimetypes, numbers, operator, os, pathlib, pickle, platform, pprint, queue, quopri  # noqa: E401, F401
import random, re, reprlib, secrets, shlex, shutil, signal, stat, statistics, string, string.templatelib, struct  # noqa: E401, F401
import tempfile, textwrap, threading, time, timeit, token, tokenize, tomllib, traceback, types, typing  # noqa: E401, F401
import unicodedata, unittest, unittest.mock, urllib.error, urllib.parse, urllib.request, uuid, warnings, weakref  # noqa: E401, F401
import wsgiref.headers, wsgiref.util, xml.dom.minidom, xml.etree.ElementTree, xml.sax.saxutils, zipfile, zlib, zoneinfo  # noqa: E401, F401

# Codecs load when they are first named.
for _codec in ("utf-8", "utf-16", "utf-32", "ascii", "latin-1", "cp1252", "idna", "punycode", "unicode_escape", "hex", "base64"):
    codecs.lookup(_codec)


def _keep_time_zones():
    """Takes the time zone database into the snapshot: there are no files at run time."""
    import tzdata

    root = pathlib.Path(tzdata.__file__).parent
    zones = {name: (root / "zoneinfo" / name).read_bytes() for name in (root / "zones").read_text().split()}

    def load(key):
        try:
            return io.BytesIO(zones[key])
        except KeyError:
            raise zoneinfo.ZoneInfoNotFoundError(f"no time zone found with key {key}") from None

    zoneinfo._common.load_tzdata = load
    zoneinfo.available_timezones = lambda: set(zones)


_keep_time_zones()
