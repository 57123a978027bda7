"""What the figures were measured on: no paths, no names of hosts."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sysconfig
from importlib import metadata

from . import middleware
from .peers import PEERS, version_of
from .redis_peers import REDIS_PEERS

__all__ = ["facts"]

PEERS_OF_ALL = (PEERS, REDIS_PEERS, middleware.PEERS)


def processor() -> str:
    """The processor's own name, or the architecture's."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def facts() -> dict[str, object]:
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return {
        "sluicegate": metadata_version("sluicegate"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_optimised": "--enable-optimizations" in flags,
        "compiler": platform.python_compiler(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
        "redis": redis_version(),
        "peers": {
            package: version_of(package)
            for package in sorted(
                {peer.package for group in PEERS_OF_ALL for peer in group.values()}
            )
        },
    }


def redis_version() -> str | None:
    """Of the server that the rows about Redis run."""
    if shutil.which("redis-server") is None:
        return None
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v=(\S+)", said)
    return found and found.group(1)


def metadata_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "from the checkout"
