"""What the numbers depend on, in a form that may be published: versions and sizes, no names of machines or paths."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.process import find


def facts(folder: str) -> Mapping[str, str]:
    """Say on what is measured, now."""
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        **{package: _version(package) for package in ("smtprecv", "trio", "aiosmtpd")},
        "Postfix": _postfix(),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "processor": _first("/proc/cpuinfo", "model name"),
        "cores": str(os.cpu_count()),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "file system": _file_system(folder),
        "load average": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _postfix() -> str:
    postconf = find("postconf")
    if postconf is None:
        return "not installed"
    done = subprocess.run([postconf, "-dh", "mail_version"], check=False, capture_output=True, text=True)
    return done.stdout.strip()


def _first(file: str, name: str) -> str:
    """Give the value of the first line of a file of /proc that has this name."""
    lines = Path(file).read_text().splitlines() if Path(file).exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")


def _file_system(folder: str) -> str:
    """Give the type of the file system of a folder, and whether an ext4 has a journal."""
    status = Path(folder).stat()
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    # proc(5), mountinfo: the third field is the device, the type and the source stand behind the dash.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, rest = line.partition(" - ")
        if mount.split()[2] == device:
            kind, source, *_ = rest.split()
            journals = [path.name for path in Path("/proc/fs/jbd2").glob(f"{Path(source).name}-*")]
            return kind if kind != "ext4" else f"ext4 {'with' if journals else 'without'} a journal"
    return "unknown"
