# SPDX-License-Identifier: Apache-2.0
"""The applier's device layer on wireguard-go: what is read and set of a device and its peers. (Kernel: tests/kernel.)"""

import pathlib

import pytest

import device_checks
import tunnel as tunnel_module
from tunnel import Tunnel

pytestmark = pytest.mark.skipif(tunnel_module.missing() is not None, reason=str(tunnel_module.missing()))


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """One tunnel for all tests here; each begins with devices that are clear."""
    with Tunnel(tmp_path_factory.mktemp("tunnel")) as t:
        yield t


@pytest.mark.parametrize("check", device_checks.DEVICE_CHECKS, ids=lambda check: check.__name__)
def test_device(joined, check, tmp_path):
    for end in joined.ends:
        device_checks.clear(end)
    check(joined, "kernel" if joined.kernel else "userspace", pathlib.Path(tmp_path))


def test_auto_chooses_as_the_device_is_made(joined):
    with device_checks.Driver(joined.a, "auto") as driver:
        assert driver.backend == ("kernel" if joined.kernel else "userspace")
