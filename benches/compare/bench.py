"""What all groups share: programs, servers, data, and the variables that programs are given."""

import sys
from dataclasses import dataclass
from pathlib import Path

from database import Database
from dataset import Dataset
from measure import Arguments

HERE = Path(__file__).parent
PEERS = HERE / "peers"
MASKING = {
    "PGSLUICE_KEY": b"Sixteen byte key".hex(),
    "PGSLUICE_FIXED_IV": b"InitializationVe".hex(),
}


@dataclass(frozen=True)
class Programs:
    """Where the programs lie."""

    release: Path
    """Cargo's directory of release builds."""
    root: Path
    """What the comparison installs and makes, and its results."""

    @property
    def pgsluice(self) -> Path:
        """The binary under test."""
        return self.release / "pgsluice"

    @property
    def examples(self) -> Path:
        """The servers, the floor and the maker of spools."""
        return self.release / "examples"

    @property
    def faucet(self) -> Path:
        """Where `make faucet` installs it."""
        return self.root / "faucet/bin/faucet"

    def peer(self, script: str) -> Arguments:
        """A script of `peers/`, run by the Python that has the packages: this one."""
        return [sys.executable, PEERS / script]


@dataclass(frozen=True)
class Bench:
    """Everything that a contender may need."""

    programs: Programs
    database: Database
    dataset: Dataset
    messages: int

    def environment(self, config: str = "message") -> dict[str, str]:
        """The variables of a program; `config` is one of `write_configs`."""
        return MASKING | {
            "DATABASE_URL": self.database.url,
            "PGSLUICE_CONFIG": str(config_path(self.programs, config)),
        }


def config_path(programs: Programs, config: str) -> Path:
    """Where a variant of the configuration lies."""
    return programs.root / f"{config}.toml"


def write_configs(programs: Programs) -> None:
    """The variants of pgsluice.toml: `message` and `segment`, after their dedupe; `unmasked`."""
    message = (HERE / "pgsluice.toml").read_text()
    lines = message.splitlines(keepends=True)
    variants = {
        "message": message,
        "segment": message.replace('dedupe = "message"', 'dedupe = "segment"'),
        "unmasked": "".join(line for line in lines if not line.startswith("mask ")),
    }
    for name, text in variants.items():
        config_path(programs, name).write_text(text)
