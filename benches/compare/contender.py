"""Who is compared with whom, and the rounds in which they run.

Contenders of a group run in turn, and each round begins with another one. A ratio is the median of
those of the rounds, so that what else the machine does meanwhile touches both sides.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from database import QueryFailedError, WrongResultError
from measure import ProgramFailedError, Usage


@dataclass(frozen=True)
class Contender:
    """One way of doing the job of a group."""

    name: str
    items: int
    """The rows or messages that it is given."""
    run: Callable[[], Usage]
    """Prepares a run, measures it and checks its result."""
    remark: str = ""
    missing: str = ""
    """Why it cannot take part; empty if it can."""


@dataclass
class Outcome:
    """What the runs of a contender cost, by round."""

    contender: Contender
    usages: dict[int, Usage] = field(default_factory=dict)
    failure: str = ""

    def rate(self, round_: int) -> float:
        """Rows or messages a second of wall-clock time."""
        return self.contender.items / self.usages[round_].wall_seconds

    def cpu_us(self, round_: int) -> float:
        """Microseconds of CPU a row or message."""
        return self.usages[round_].cpu_seconds / self.contender.items * 1e6

    def rates(self) -> list[float]:
        """Of all rounds."""
        return [self.rate(round_) for round_ in self.usages]

    def median_cpu_us(self) -> float:
        """Of all rounds."""
        return statistics.median(self.cpu_us(round_) for round_ in self.usages)

    def rate_beside(self, other: "Outcome") -> float | None:
        """How many times the other's rate; `None` if one of them has not run."""
        return self._median_ratio(other, Outcome.rate)

    def cpu_beside(self, other: "Outcome") -> float | None:
        """How much of the other's CPU a row or message; `None` if one of them has not run."""
        return self._median_ratio(other, Outcome.cpu_us)

    def _median_ratio(
        self, other: "Outcome", value: Callable[["Outcome", int], float]
    ) -> float | None:
        rounds = self.usages.keys() & other.usages.keys()
        if not rounds:
            return None
        return statistics.median(value(self, round_) / value(other, round_) for round_ in rounds)


@dataclass(frozen=True)
class Wanted:
    """What one shall reach beside another: at least `times` its rate, at most `times` its CPU."""

    contender: str
    beside: str
    times: float
    of: Literal["rate", "cpu"] = "rate"

    def measured(self, outcomes: Mapping[str, Outcome]) -> float | None:
        """How many times it is; `None` if one of the two has failed or not run."""
        contender, beside = outcomes[self.contender], outcomes[self.beside]
        if contender.failure or beside.failure:
            return None
        return contender.rate_beside(beside) if self.of == "rate" else contender.cpu_beside(beside)

    def is_met_by(self, measured: float) -> bool:
        """Whether that is enough."""
        return measured >= self.times if self.of == "rate" else measured <= self.times


@dataclass(frozen=True)
class Group:
    """Contenders that do one job."""

    name: str
    title: str
    unit: str
    base: str
    """The contender to whose rate all rates are set in proportion."""
    contenders: Sequence[Contender]
    wanted: Sequence[Wanted]


Results = Sequence[tuple[Group, Sequence[Outcome]]]


def in_turn(group: Group, rounds: int) -> list[Outcome]:
    """Runs a group. A contender that fails is not run again, and the others go on."""
    outcomes = [Outcome(contender) for contender in group.contenders]
    present = [outcome for outcome in outcomes if not outcome.contender.missing]
    for round_ in range(rounds):
        shift = round_ % len(present)
        for outcome in present[shift:] + present[:shift]:
            if outcome.failure:
                continue
            try:
                usage = outcome.contender.run()
            except (ProgramFailedError, QueryFailedError, WrongResultError) as error:
                outcome.failure = str(error)
                tell(f"{outcome.contender.name}: {error}")
                continue
            outcome.usages[round_] = usage
            tell(
                f"({group.name}) round {round_ + 1}: {outcome.contender.name}: "
                f"{outcome.rate(round_):,.0f} {group.unit}/s, {usage.wall_seconds:.1f} s"
            )
    return outcomes


def tell(text: str) -> None:
    """Progress is not the result: it goes to standard error."""
    print(text, file=sys.stderr, flush=True)
