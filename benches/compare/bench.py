"""What all groups share: programs, servers, data, and the variables that programs are given."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from contender import WrongResultError
from database import Content, Database
from dataset import Dataset

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
    def faucet(self) -> str | None:
        """`None` if it is not installed."""
        return shutil.which("faucet", path=self.root / "faucet/bin")

    @property
    def pgloader(self) -> str | None:
        """`None` if it is not installed."""
        return shutil.which("pgloader")

    def peer(self, script: str) -> list[str | Path]:
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

    def check(self, found: Content, expected: Content) -> None:
        """A result that is fast and wrong is no result."""
        if found != expected:
            raise WrongResultError(f"wrong result: {found}, expected {expected}")


def config_path(programs: Programs, config: str) -> Path:
    """Where a variant of the configuration lies."""
    return programs.root / f"{config}.toml"


def write_configs(programs: Programs) -> None:
    """The variants of pgsluice.toml: message and segment, by what makes two deliveries the same, and unmasked."""
    message = (HERE / "pgsluice.toml").read_text()
    lines = message.splitlines(keepends=True)
    variants = {
        "message": message,
        "segment": message.replace('dedupe = "message"', 'dedupe = "segment"'),
        "unmasked": "".join(line for line in lines if not line.startswith("mask ")),
    }
    for name, text in variants.items():
        config_path(programs, name).write_text(text)
