# SPDX-License-Identifier: Apache-2.0
"""Reads strace's output: which system calls touched the log's folder or the token's, and which one was struck."""

import collections
import os
import re

SYSCALLS = ("write", "writev", "pwrite64", "pwritev", "fdatasync", "fsync", "syncfs", "sync_file_range", "open", "openat",
            "creat", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat",
            "ftruncate", "truncate", "fallocate")

LINE = re.compile(r"^(?:(\d+)\s+)?(\w+)\((.*)$", re.S)
FD = re.compile(r"^(?:AT_FDCWD|\d+)<([^>]*)>")
FD_AND_NAME = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "((?:[^"\\]|\\.)*)"')
NAME = re.compile(r'^"((?:[^"\\]|\\.)*)"')
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# One call: thread is the order in which the process's threads first appeared, nth counts this thread's calls of this name.
Call = collections.namedtuple("Call", "process thread name nth path how injected")


def paths_of(name, arguments):
    """The files that a call names or has open, absolute."""
    pairs = FD_AND_NAME.findall(arguments)
    if pairs:
        return [os.path.normpath(os.path.join(folder, file)) for folder, file in pairs]
    single = FD.match(arguments) or NAME.match(arguments)
    return [os.path.normpath(single.group(1))] if single else []


def read(text, process, folders):
    """The calls of one trace that touch one of the folders (a dict: name -> path); their paths begin with the folder's name."""
    threads, counts, out = {}, collections.Counter(), []
    for line in text.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        pid, name, arguments = found.groups()
        if name not in SYSCALLS:
            continue
        thread = threads.setdefault(pid, len(threads))
        counts[thread, name] += 1
        for path in paths_of(name, arguments):
            short = shorten(path, folders)
            if short:
                how = "create" if "O_CREAT" in arguments else "read" if "O_RDONLY" in arguments else ""
                out.append(Call(process, thread, name, counts[thread, name], short, how, "(INJECTED)" in line or "(DELAYED)" in line))
                break
    return out


def shorten(path, folders):
    for name, folder in folders.items():
        if path == folder or path.startswith(folder + "/"):
            return name + path[len(folder):]
    return None


def kind(call):
    """What makes two calls the same sort: names without their random and counting parts."""
    path = re.sub(r"\d+", "N", UUID.sub("U", call.path))
    return call.process, call.name, path, call.how
