# SPDX-License-Identifier: Apache-2.0
"""Guests whose processors QEMU emulates: Debian's kernel package as it is, the host's files by 9p.

Debian packages: qemu-system-x86 busybox-static cpio kmod.
"""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from kernels import INSIDE, NoKernel, folder, locked, run

END = "busybox reboot -f"  # what ends the guest
# What reaches the root, then what the tests make; each with what it depends on.
MODULES = ("virtio_pci", "virtio_rng", "9pnet_virtio", "9p", "veth", "dummy", "wireguard",
           "bridge", "sch_netem", "sch_plug", "sch_tbf")

# The first process, in the initial RAM file system: {insmods} and {root} are filled in.
FIRST = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
{insmods}
share="trans=virtio,version=9p2000.L,msize=262144"
mount -t 9p -o "ro,cache=loose,$share" root /root || reboot -f
for dir in proc sys dev; do mount -o move "/$dir" "/root/$dir"; done
for dir in tmp run; do mount -t tmpfs -o mode=0755 none "/root/$dir"; done
chmod 1777 /root/tmp
mkdir -p /root{exchange} /root/dev/shm /root/dev/pts /root/run/lock
mount -t devpts -o mode=0620,ptmxmode=0666 none /root/dev/pts
mount -t tmpfs -o mode=1777 none /root/dev/shm
mount -t 9p -o "rw,cache=none,$share" exchange /root{exchange} || reboot -f
ip link set lo up
exec switch_root /root /bin/sh {exchange}/.guest/begin
"""


def fetch(cache):
    """The unpacked kernel package in `cache`, fetched unless it is there -> its root."""
    unpacked = cache / "unpacked"
    if unpacked.exists():
        return unpacked
    packages = sorted(cache.glob("linux-image-*.deb"))
    if not packages:
        try:
            depends = re.findall(r"^\s*Depends: (linux-image-\S+)$", run("apt-cache", "depends", "linux-image-amd64"), re.M)
            if not depends:
                raise RuntimeError("apt knows no linux-image-amd64 (apt-get update?)")
            run("apt-get", "--quiet", "download", depends[0], cwd=cache, timeout=600)
            packages = sorted(cache.glob("linux-image-*.deb"))
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as e:
            raise NoKernel(str(e)) from None
    with tempfile.TemporaryDirectory(dir=cache) as fresh:
        run("dpkg-deb", "--extract", packages[-1], fresh)
        os.chmod(fresh, 0o755)
        os.rename(fresh, unpacked)
        os.mkdir(fresh)  # for the context manager to remove
    return unpacked


def load_order(root, release):
    """The files of MODULES and of all they need, in the order to load them."""
    files = []
    for module in MODULES:
        plan = run("/sbin/modprobe", "--dirname", root, "--set-version", release, "--show-depends", module)
        for path in re.findall(r"^insmod (\S+)", plan, re.M):
            if path not in files:
                files.append(path)
    return files


def make_initrd(root, release, initrd):
    """Writes the initial RAM file system: busybox, the modules and FIRST."""
    run("/sbin/depmod", "--basedir", root, release)
    with tempfile.TemporaryDirectory() as dir:
        tree = pathlib.Path(dir)
        for name in ("bin", "modules", "proc", "sys", "dev", "root"):
            (tree / name).mkdir()
        shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
        insmods = []
        for path in load_order(root, release):
            shutil.copy(path, tree / "modules")
            insmods.append(f"insmod /modules/{os.path.basename(path)}")
        (tree / "init").write_text(FIRST.format(insmods="\n".join(insmods), exchange=INSIDE))
        (tree / "init").chmod(0o755)
        archive = subprocess.run("find . -print0 | cpio --null --create --format=newc --quiet", shell=True, cwd=tree,
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    fresh = initrd.with_suffix(".new")
    fresh.write_bytes(archive)
    fresh.rename(initrd)


def prepare():
    """-> (kernel image, initial RAM file system), made in the cache unless they are there."""
    cache = folder()
    with locked(cache):
        root = fetch(cache)
        kernel = next((root / "boot").glob("vmlinuz-*"))
        release = kernel.name.removeprefix("vmlinuz-")
        initrd = cache / f"initrd-{release}"
        if not initrd.exists() or initrd.stat().st_mtime < pathlib.Path(__file__).stat().st_mtime:
            make_initrd(root, release, initrd)
    return kernel, initrd


def boot(made, exchange, memory, limit):
    """Boots what prepare() made; returns when the guest has ended. Raises subprocess.TimeoutExpired."""
    kernel, initrd = made
    share = ("security_model=none", "multidevs=remap")
    subprocess.run(
        ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-machine", "q35", "-cpu", "max", "-smp", "2",
         "-m", str(memory), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-net", "none",
         "-kernel", kernel, "-initrd", initrd,
         "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on",
         "-serial", f"file:{exchange}/.guest/console", "-device", "virtio-rng-pci",
         "-virtfs", ",".join(("local", "path=/", "mount_tag=root", "readonly=on", *share)),
         "-virtfs", ",".join(("local", f"path={exchange}", "mount_tag=exchange", *share))],
        stdin=subprocess.DEVNULL, timeout=limit, check=True)
