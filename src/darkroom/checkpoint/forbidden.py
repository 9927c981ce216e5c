"""Names that no model needs and an attack does: refused wherever they stand in a pickle."""

import re

from darkroom.core.errors import ModelFileError


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# First parts of module names; whatever lies in them can run programs, load code or reach files and hosts.
_FORBIDDEN = word_set(
    "os posix nt posixpath ntpath sys subprocess _posixsubprocess shutil socket _socket importlib "
    "_frozen_importlib imp runpy pty ctypes _ctypes cffi webbrowser code codeop commands popen2 timeit "
    "cProfile profile pdb bdb trace doctest pickle _pickle cPickle dill cloudpickle joblib marshal shelve "
    "types operator _operator multiprocessing asyncio concurrent threading _thread signal platform tempfile "
    "urllib http ftplib smtplib telnetlib poplib imaplib xmlrpc socketserver requests httpx aiohttp ssl pip "
    "pkgutil pkg_resources zipimport venv ensurepip distutils setuptools fileinput linecache inspect gc mmap "
    "resource atexit site pydoc sqlite3 winreg _winapi msvcrt _winreg nturl2path antigravity idlelib lib2to3 "
    "test tkinter io _io fcntl paramiko fabric"
)
# Parts that are refused at any place of a name, such as torch.os.system.
_PARTS = word_set(
    "os posix nt sys subprocess shutil socket ctypes importlib builtins __builtin__ __builtins__ eval exec "
    "compile system popen __import__ getattr setattr __globals__ __subclasses__ __reduce__ runpy open "
    "execfile"
)
BUILTINS = frozenset({"builtins", "__builtin__", "__builtins__"})
_PLAIN_TYPES = word_set(
    "set frozenset list dict tuple int long float complex bool str unicode bytes bytearray object slice range "
    "xrange NoneType Ellipsis NotImplemented"
)


def refuse_forbidden(module: str, qualified: str, *, where: str) -> None:
    """`ModelFileError` for a global name that could run code, load it, or reach files and hosts."""
    parts = re.split(r"[.\s]+", f"{module}.{qualified}")
    if module in BUILTINS and qualified in _PLAIN_TYPES:
        return
    if parts[0] in _FORBIDDEN or module in BUILTINS or _PARTS & set(parts):
        raise ModelFileError(
            f"{where}: refused, its pickle names {f'{module}.{qualified}'[:200]}, which could run code; "
            "do not trust this file"
        )
