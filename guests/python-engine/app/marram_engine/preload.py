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

# What those import only when it is needed.
import _ast_unparse, _pylong, _strptime, concurrent.futures.thread, email.generator  # noqa: E401, F401
import email.mime.application, email.mime.audio, email.mime.image, email.mime.message, email.mime.multipart  # noqa: E401, F401
import email.mime.text, unittest._log, unittest.async_case, xml.dom.expatbuilder, xml.dom.pulldom  # noqa: E401, F401
import xml.parsers.expat, xml.sax.expatreader  # noqa: E401, F401

from marram_engine import derive

# Codecs load when they are first named.
_CODECS = """
ascii latin-1 utf-7 utf-8 utf-8-sig utf-16 utf-16-le utf-16-be utf-32 utf-32-le utf-32-be idna punycode unicode_escape
raw_unicode_escape hex base64 quopri uu zlib rot13
iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9 iso8859-10 iso8859-11 iso8859-13 iso8859-14
iso8859-15 iso8859-16 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 cp437 cp850 cp852 cp858 cp866 cp874
koi8-r koi8-u mac-roman
shift_jis cp932 euc_jp iso2022_jp gb2312 gbk gb18030 big5 cp950 euc_kr cp949
"""
for _codec in _CODECS.split():
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
hashlib.pbkdf2_hmac = derive.pbkdf2_hmac
