"""What was compared, and on what: the machine's shape, versions, and Postgres' settings."""

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from bench import Programs
from database import Database

PACKAGES = ("psycopg", "dlt", "duckdb", "boto3", "cryptography")
SETTINGS = (
    "shared_buffers",
    "max_wal_size",
    "wal_level",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
)
GIB = 1 << 30


def describe(programs: Programs, database: Database) -> dict:
    """Everything beside the figures that the result has to say."""
    repository = Path(__file__).parent
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": said_by(
            "git", "-C", repository, "describe", "--always", "--dirty", "--abbrev=12"
        ),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
            "processor": processor(),
            "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
            "load_average_before": round(os.getloadavg()[0], 2),
        },
        "versions": versions(programs, database),
        "postgres_settings": {name: database.query(f"SHOW {name}") for name in SETTINGS},
    }


def versions(programs: Programs, database: Database) -> dict[str, str]:
    """Of all contenders that are installed."""
    found = {
        "pgsluice": said_by(programs.pgsluice, "--version"),
        "PostgreSQL": database.query("SHOW server_version"),
        "psql": said_by("psql", "--version"),
        "Python": ".".join(map(str, sys.version_info[:3])),
    }
    if shutil.which("pgloader"):
        found["pgloader"] = said_by("pgloader", "--version")
    if programs.faucet.exists():
        found["faucet"] = said_by(programs.faucet, "--version")
    return found | {package: importlib.metadata.version(package) for package in PACKAGES}


def processor() -> str:
    """Its name as Linux tells it, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def said_by(*arguments: str | Path) -> str:
    """The first line that a program prints; empty if it fails."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return lines[0] if lines else ""
