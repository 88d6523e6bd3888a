# SPDX-License-Identifier: Apache-2.0
"""Guests that are User-mode Linux: a kernel that runs as a process of this machine, with its files by hostfs.

Its processes run on this machine's processor, only their system calls are the guest's: a rotation takes a fifth of the time
that it takes under emulation. One guest has one processor. The kernel is built from Debian's newest linux-source package,
of a suite whose kernels take system calls by seccomp, not ptrace (6.16 and later); that takes some eight minutes, once.

Debian packages: bc bison busybox-static flex gcc make xz-utils.
"""

import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

from kernels import INSIDE, NoKernel, folder, locked, run

END = "busybox poweroff -f"  # what ends the guest
SUITE = "trixie-backports"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Nothing but what the tests need, none of it as a module.
CONFIG = """
64BIT MULTIUSER BINFMT_ELF BINFMT_SCRIPT ELF_CORE COREDUMP PRINTK PRINTK_TIME TTY UNIX98_PTYS STDERR_CONSOLE SSL NULL_CHAN
HIGH_RES_TIMERS NO_HZ_IDLE POSIX_TIMERS FUTEX EPOLL SIGNALFD TIMERFD EVENTFD AIO SHMEM SYSVIPC POSIX_MQUEUE FHANDLE
ADVISE_SYSCALLS MEMBARRIER FILE_LOCKING INOTIFY_USER FANOTIFY SECCOMP HW_RANDOM UML_RANDOM
PROC_FS SYSFS TMPFS TMPFS_XATTR DEVTMPFS HOSTFS CGROUPS NAMESPACES UTS_NS IPC_NS USER_NS PID_NS NET_NS
NET UNIX UNIX_DIAG PACKET INET INET_DIAG IPV6 IP_ADVANCED_ROUTER IP_MULTIPLE_TABLES IPV6_MULTIPLE_TABLES BRIDGE
NET_SCHED NET_SCH_PLUG NET_SCH_TBF NET_SCH_NETEM NET_SCH_FQ_CODEL NETDEVICES NET_CORE WIREGUARD VETH DUMMY TUN
""".split()

# The first process; {exchange} is the folder's name on the host, {inside} in the guest.
FIRST = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
for dir in tmp run; do mount -t tmpfs -o mode=0755 none "/$dir"; done
chmod 1777 /tmp
mkdir -p {inside} /dev/shm /dev/pts /run/lock
mount -t devpts -o mode=0620,ptmxmode=0666 none /dev/pts
mount -t tmpfs -o mode=1777 none /dev/shm
mount -t hostfs -o {exchange} none {inside} || {end}
ip link set lo up
exec /bin/sh {inside}/.guest/begin
"""


# ---- the kernel ----

def archive():
    """The address of the Debian archive that this machine has its packages from."""
    for line in run("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)").splitlines():
        uri, component = line.split()
        if component == "main" and uri.rstrip("/").endswith("/debian"):
            return uri
    raise NoKernel("apt knows no Debian archive")


def fetch(dir):
    """Fetches the source's package into `dir` -> its path."""
    (dir / "lists").mkdir()
    (dir / "sources").write_text(f"deb [signed-by={KEYRING}] {archive()} {SUITE} main\n")
    options = [f"Dir::Etc::SourceList={dir / 'sources'}", "Dir::Etc::SourceParts=/dev/null", f"Dir::State::Lists={dir / 'lists'}",
               f"Dir::Cache={dir}", "APT::Sandbox::User=root"]
    options = [word for option in options for word in ("-o", option)]
    run("apt-get", *options, "--quiet", "update", timeout=600)
    names = re.findall(r"^\s*Depends: (linux-source-\S+)$", run("apt-cache", *options, "depends", "linux-source"), re.M)
    if not names:
        raise NoKernel(f"{SUITE} has no linux-source")
    run("apt-get", *options, "--quiet", "download", names[0], cwd=dir, timeout=1200)
    return next(dir.glob("linux-source-*.deb"))


def build(package, dir):
    """-> the built kernel, a program."""
    run("dpkg-deb", "--extract", package, dir / "package")
    tar = next((dir / "package" / "usr" / "src").glob("linux-source-*.tar.*"))
    (dir / "source").mkdir()
    run("tar", "--extract", "--file", tar, "--strip-components=1", "--directory", dir / "source", timeout=600)
    (dir / "config").write_text("".join(f"CONFIG_{name}=y\n" for name in CONFIG))
    make = ("make", "--silent", f"--jobs={os.cpu_count()}", f"--directory={dir / 'source'}", "ARCH=um")
    run(*make, "allnoconfig", env={**os.environ, "KCONFIG_ALLCONFIG": str(dir / "config")})
    there = set((dir / "source" / ".config").read_text().split())
    lacking = [name for name in CONFIG if f"CONFIG_{name}=y" not in there]
    if lacking:
        raise NoKernel(f"{tar.name} cannot be configured with {' '.join(lacking)}")
    run(*make, "linux", timeout=3600)
    return dir / "source" / "linux"


def prepare():
    """-> the kernel, made in the cache unless it is there."""
    cache = folder()
    what = hashlib.sha256(" ".join((SUITE, *CONFIG)).encode()).hexdigest()
    kernel = cache / f"linux-user-mode-{what[:16]}"
    with locked(cache):
        if not kernel.exists():
            with tempfile.TemporaryDirectory(dir=cache) as name:
                dir = pathlib.Path(name)
                try:
                    built = build(fetch(dir), dir)
                except (RuntimeError, OSError, subprocess.TimeoutExpired) as e:
                    raise NoKernel(str(e)) from None
                shutil.copy(built, dir / "linux")
                (dir / "linux").rename(kernel)
    return kernel


# ---- a guest ----

def boot(kernel, exchange, memory, limit):
    """Boots; returns when the guest has ended. Raises subprocess.TimeoutExpired.

    All that the guest is stays on one of the processors that this process may use: it hands over to its processes and back
    at each system call, which is cheaper so."""
    first = pathlib.Path(exchange) / ".guest" / "first"
    first.write_text(FIRST.format(exchange=exchange, inside=INSIDE, end=END))
    first.chmod(0o755)
    argv = [kernel, f"mem={memory}M", "seccomp=auto", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={first}",
            "con=null", "con0=null,fd:1", "ssl=null", "quiet", "panic=-1"]
    processor = max(os.sched_getaffinity(0))
    with open(first.with_name("console"), "wb") as console:
        guest = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                                 start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, {processor}))
        try:
            guest.wait(limit)
        finally:
            if guest.poll() is None:
                os.killpg(guest.pid, signal.SIGKILL)
                guest.wait()
