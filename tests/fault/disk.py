# SPDX-License-Identifier: Apache-2.0
"""A model of a disk and its page cache: replays what strace saw, and builds folders as a power cut may leave them.

What a file holds is safe as far as it was fsynced or fdatasynced, and the names in a folder as far as the folder was.
The rest is dropped, kept, zeroed or mixed by pages."""

import collections
import os
import pathlib
import re

PAGE = 4096
SYSCALLS = ("openat", "open", "close", "read", "write", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync", "rename", "renameat",
            "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "dup", "dup2", "dup3", "clone", "clone3", "fork",
            "vfork", "execve", "fcntl", "close_range", "fallocate", "writev", "pwritev", "syncfs", "linkat", "link")
REFUSED = ("writev", "pwritev", "linkat", "link")  # not in the model: nobody uses them on these files

Event = collections.namedtuple("Event", "time pid name arguments result")

WHOLE = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)$", re.S)
BEGUN = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((.*) <unfinished \.\.\.>$", re.S)
RESUMED = re.compile(r"^(\d+) +(\d+\.\d+) <\.\.\. (\w+) resumed>(.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)$", re.S)
TOOK = re.compile(r"<(\d+\.\d+)>$")


def read_trace(text):
    """The calls of a trace (strace -f -ttt -T -y -xx), in the order in which they were done: by their ends, and those of a
    thread as it made them, whatever the clock did meanwhile."""
    begun, events, latest = {}, [], collections.defaultdict(float)

    def done(at, pid, name, arguments, result):
        latest[pid] = max(latest[pid], at)
        events.append(Event(latest[pid], int(pid), name, arguments, result))

    for line in text.splitlines():
        whole, resumed, unfinished = WHOLE.match(line), RESUMED.match(line), BEGUN.match(line)
        if whole:
            pid, at, name, arguments, result, rest = whole.groups()
            took = TOOK.search(rest)
            done(float(at) + (float(took.group(1)) if took else 0), pid, name, arguments, result)
        elif resumed:
            pid, at, name, more, result, _ = resumed.groups()
            done(float(at), pid, name, begun.pop(pid, "") + more, result)
        elif unfinished:
            begun[unfinished.group(1)] = unfinished.group(4)
    return sorted(events, key=lambda e: e.time)


def unhex(text):
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


class Inode:
    """A file: what is safe, what it holds now, and every size it had since it was last made safe."""

    def __init__(self, data=b""):
        self.safe = bytes(data)
        self.now = bytearray(data)
        self.sizes = [len(data)]

    def sync(self):
        self.safe = bytes(self.now)
        self.sizes = [len(self.now)]

    def write(self, offset, data):
        if offset > len(self.now):
            self.now.extend(bytes(offset - len(self.now)))
        self.now[offset:offset + len(data)] = data
        self.sizes.append(len(self.now))

    def truncate(self, size):
        if size <= len(self.now):
            del self.now[size:]
        else:
            self.now.extend(bytes(size - len(self.now)))
        self.sizes.append(size)

    def after_cut(self, mode, chance):
        if mode == "drop":
            return self.safe
        if mode == "keep":
            return bytes(self.now)
        kept = min(self.sizes)
        if mode == "zero":  # the size is on the disk; of what was not safe, no byte is
            return self.safe[:kept] + bytes(max(0, len(self.now) - kept))
        size = chance.choice(self.sizes)
        if kept >= len(self.safe) and chance.random() < 0.5:  # it only grew: perhaps not as far as any one write
            size = chance.randint(kept, max(self.sizes))
        pages = [self.page(self.now if chance.random() < 0.5 else self.safe, at) for at in range(0, size, PAGE)]
        return b"".join(pages)[:size]

    @staticmethod
    def page(data, at):
        part = bytes(data[at:at + PAGE])
        return part + bytes(PAGE - len(part))


class Folder:
    """Names: as they are safe, and what was done to them since."""

    def __init__(self):
        self.safe = {}
        self.now = {}
        self.pending = []  # (name, inode or Folder or None), in order

    def set(self, name, node):
        if node is None:
            self.now.pop(name, None)
        else:
            self.now[name] = node
        self.pending.append((name, node))

    def sync(self):
        self.safe = dict(self.now)
        self.pending = []

    def after_cut(self, mode, chance):
        if mode == "drop":
            return self.safe
        if mode != "mix":
            return self.now
        names = dict(self.safe)
        for name, node in self.pending[:chance.randrange(len(self.pending) + 1)]:
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
        return names


class Open:
    """An open file description."""

    def __init__(self, node, path, append=False):
        self.node, self.path, self.append, self.offset = node, path, append, 0


class Disk:
    """The folders `roots` (paths), as they are on the real disk when this begins."""

    def __init__(self, roots):
        self.roots = {str(root): self.load(pathlib.Path(root)) for root in roots}
        self.descriptors = {}  # (process, fd) -> Open
        self.process_of = {}  # thread -> process

    def load(self, path):
        if not path.is_dir():
            return Inode(path.read_bytes())
        folder = Folder()
        for entry in path.iterdir():
            folder.now[entry.name] = self.load(entry)
        folder.sync()
        return folder

    # ---- names ----

    def locate(self, path):
        """The folder that holds `path`, its last name, and what is there; (None, None, None) when it is none of ours."""
        for root, node in self.roots.items():
            if path == root:
                return None, None, node
            if path.startswith(root + "/"):
                *folders, name = path[len(root) + 1:].split("/")
                for part in folders:
                    node = node.now.get(part) if isinstance(node, Folder) else None
                if isinstance(node, Folder):
                    return node, name, node.now.get(name)
        return None, None, None

    @staticmethod
    def paths(arguments):
        found = re.findall(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"', arguments)
        return [os.path.normpath(os.path.join(unhex(folder).decode(), unhex(name).decode(errors="replace")))
                for folder, name in found]

    # ---- replaying ----

    def process(self, pid):
        return self.process_of.get(pid, pid)

    def apply(self, event):
        """One call that was done."""
        if event.result == "?":
            return
        result = int(event.result, 0)
        handler = getattr(self, "do_" + event.name.rstrip("0123456789") if event.name not in ("pwrite64",) else "do_pwrite", None)
        if result >= 0 and handler:
            handler(event, result)
        elif result >= 0 and event.name in REFUSED and self.opened(event):
            raise NotImplementedError(f"{event.name} on {self.opened(event).path} is not in the model")

    def opened(self, event):
        fd = re.match(r"\d+", event.arguments)
        return self.descriptors.get((self.process(event.pid), int(fd.group()))) if fd else None

    def do_clone(self, event, child):
        if "CLONE_THREAD" in event.arguments:
            self.process_of[child] = self.process(event.pid)

    def do_openat(self, event, fd):
        self.descriptors.pop((self.process(event.pid), fd), None)
        paths = self.paths(event.arguments)
        if not paths:
            return
        folder, name, node = self.locate(paths[0])
        if node is None and folder is not None and "O_CREAT" in event.arguments:
            node = Inode()
            folder.set(name, node)
        if node is None:
            return
        if "O_TRUNC" in event.arguments and isinstance(node, Inode):
            node.truncate(0)
        self.descriptors[self.process(event.pid), fd] = Open(node, paths[0], "O_APPEND" in event.arguments)

    do_open = do_openat

    def do_close(self, event, _):
        self.descriptors.pop((self.process(event.pid), int(re.match(r"\d+", event.arguments).group())), None)

    def do_dup(self, event, fd):
        opened = self.opened(event)
        self.descriptors.pop((self.process(event.pid), fd), None)
        if opened:
            self.descriptors[self.process(event.pid), fd] = opened

    def do_fcntl(self, event, fd):
        if "F_DUPFD" in event.arguments:
            self.do_dup(event, fd)

    def do_execve(self, event, _):
        for key in [k for k in self.descriptors if k[0] == self.process(event.pid)]:
            del self.descriptors[key]

    def do_read(self, event, count):
        opened = self.opened(event)
        if opened:
            opened.offset += count

    def do_lseek(self, event, offset):
        opened = self.opened(event)
        if opened:
            opened.offset = offset

    @staticmethod
    def data(event, count):
        return unhex(re.search(r'"([^"]*)"', event.arguments).group(1))[:count]

    def do_write(self, event, count):
        opened = self.opened(event)
        if opened is None or not isinstance(opened.node, Inode):
            return
        at = len(opened.node.now) if opened.append else opened.offset
        opened.node.write(at, self.data(event, count))
        opened.offset = at + count

    def do_pwrite(self, event, count):
        opened = self.opened(event)
        if opened:
            opened.node.write(int(event.arguments.rpartition(", ")[2], 0), self.data(event, count))

    def do_ftruncate(self, event, _):
        opened = self.opened(event)
        if opened:
            opened.node.truncate(int(event.arguments.rpartition(", ")[2], 0))

    def do_fallocate(self, event, _):
        opened = self.opened(event)
        if opened:
            _, mode, offset, length = event.arguments.rsplit(", ", 3)
            if mode != "0":
                raise NotImplementedError(f"fallocate {mode} is not in the model")
            opened.node.truncate(max(len(opened.node.now), int(offset, 0) + int(length, 0)))

    def do_fsync(self, event, _):
        opened = self.opened(event)
        if opened:
            opened.node.sync()

    do_fdatasync = do_fsync

    def do_syncfs(self, event, _):
        """All of the folder it was called on; the other ones may be other file systems."""
        opened = self.opened(event)
        for root, node in self.roots.items():
            if opened and (opened.path + "/").startswith(root + "/"):
                self.sync_all(node)

    def sync_all(self, node):
        node.sync()
        for child in node.now.values() if isinstance(node, Folder) else ():
            self.sync_all(child)

    def do_mkdirat(self, event, _):
        folder, name, _ = self.locate(self.paths(event.arguments)[0])
        if folder is not None:
            folder.set(name, Folder())

    do_mkdir = do_mkdirat

    def do_unlinkat(self, event, _):
        folder, name, _ = self.locate(self.paths(event.arguments)[0])
        if folder is not None:
            folder.set(name, None)

    do_unlink = do_rmdir = do_unlinkat

    def do_renameat(self, event, _):
        old, new = self.paths(event.arguments)[:2]
        from_folder, from_name, node = self.locate(old)
        to_folder, to_name, _ = self.locate(new)
        if from_folder is not None and to_folder is not None:
            to_folder.set(to_name, node)
            from_folder.set(from_name, None)

    do_rename = do_renameat

    # ---- what is left ----

    def build(self, mode, chance, targets):
        """Writes what a power cut now leaves of each root into its folder of `targets`."""
        for root, node in self.roots.items():
            self.build_node(node, mode, chance, pathlib.Path(targets[root]))

    def build_node(self, node, mode, chance, path):
        if isinstance(node, Folder):
            path.mkdir(parents=True, exist_ok=True)
            for name, child in node.after_cut(mode, chance).items():
                self.build_node(child, mode, chance, path / name)
        else:
            path.write_bytes(node.after_cut(mode, chance))
            path.chmod(0o600)

    def differences(self):
        """Where the model is not what the real folders hold now: it must be nowhere."""
        out = []
        for root, node in self.roots.items():
            self.compare(node, pathlib.Path(root), out)
        return out

    def compare(self, node, path, out):
        if isinstance(node, Inode):
            real = path.read_bytes() if path.is_file() else None
            if real != bytes(node.now):
                first = next((i for i, (a, b) in enumerate(zip(real or b"", node.now)) if a != b), "the shorter's end")
                out.append(f"{path}: {'none' if real is None else len(real)} bytes, modelled {len(node.now)}, from {first} on")
            return
        names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        out += [str(path / name) for name in names ^ set(node.now)]
        for name in names & set(node.now):
            self.compare(node.now[name], path / name, out)
