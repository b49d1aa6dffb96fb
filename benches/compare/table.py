"""The result as Markdown, and as data for JSON."""

import statistics
from collections.abc import Sequence

from contender import Group, Outcome, Results, Wanted

MB = 1_000_000


def markdown(results: Results, about: dict) -> str:
    """What is printed, and what BENCHMARKS.md shows."""
    parts = [_head(about)]
    parts += [_group(group, outcomes) for group, outcomes in results]
    parts.append(_wanted(results))
    versions = ", ".join(_version(*item) for item in about["versions"].items())
    parts.append(f"Versions: {versions}.")
    return "\n\n".join(parts) + "\n"


def data(results: Results, about: dict) -> dict:
    """The same and every single run."""
    return about | {"groups": [_group_data(group, outcomes) for group, outcomes in results]}


def _head(about: dict) -> str:
    machine = about["machine"]
    return (
        f"Measured on {about['date']} at commit {about['commit']}\n"
        f"by `{about['command']}`,\n"
        f"on {machine['cores']} cores ({machine['processor']}) that carried the servers, too,\n"
        f"{machine['memory_gib']:g} GiB, {machine['system']}, "
        f"PostgreSQL with fsync {about['postgres_settings']['fsync']}, "
        f"load average {machine['load_average_before']:g} before it.\n"
        f"Rounds: {about['rounds']}; medians. CPU and memory are those of the client."
    )


def _group(group: Group, outcomes: Sequence[Outcome]) -> str:
    unit = group.unit
    lines = [
        f"**({group.name}) {group.title}**",
        "",
        f"| | {unit} | {unit}/s | least – most | × {group.base} | CPU µs each | peak MB | |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    base = _by_name(outcomes)[group.base]
    lines += [_row(outcome, base) for outcome in outcomes]
    return "\n".join(lines)


def _row(outcome: Outcome, base: Outcome) -> str:
    contender = outcome.contender
    cells = [contender.name, f"{contender.items:,}"]
    if contender.missing or outcome.failure:
        failure = " ".join(outcome.failure.split()).replace("|", "/")
        cells += [""] * 5 + [contender.missing or f"**failed**: {failure}"]
    else:
        rates = outcome.rates()
        cells += [
            _three_digits(statistics.median(rates)),
            f"{_three_digits(min(rates))} – {_three_digits(max(rates))}",
            _ratio(outcome.rate_beside(base)),
            _three_digits(outcome.median_cpu_us()),
            _peak(outcome),
            contender.remark,
        ]
    return f"| {' | '.join(cells)} |"


def _wanted(results: Results) -> str:
    lines = [
        "**What is wanted**",
        "",
        "| pgsluice | beside | wanted | measured | |",
        "|---|---|--:|--:|---|",
    ]
    for group, outcomes in results:
        for wanted in group.wanted:
            measured = wanted.measured(_by_name(outcomes))
            lines.append(
                f"| {wanted.contender.removeprefix('pgsluice ')} | {wanted.beside} "
                f"| {_bound(wanted, group.unit)} | {_ratio(measured)} "
                f"| {_verdict(wanted, measured)} |"
            )
    return "\n".join(lines)


def _bound(wanted: Wanted, unit: str) -> str:
    return f"≥ {wanted.times:g} × {unit}/s" if wanted.of == "rate" else f"≤ {wanted.times:g} × CPU"


def _verdict(wanted: Wanted, measured: float | None) -> str:
    if measured is None:
        return "not measured"
    return "met" if wanted.is_met_by(measured) else "**not met**"


def _by_name(outcomes: Sequence[Outcome]) -> dict[str, Outcome]:
    return {outcome.contender.name: outcome for outcome in outcomes}


def _group_data(group: Group, outcomes: Sequence[Outcome]) -> dict:
    by_name = _by_name(outcomes)
    return {
        "name": group.name,
        "title": group.title,
        "unit": group.unit,
        "base": group.base,
        "contenders": [_outcome_data(outcome, by_name[group.base]) for outcome in outcomes],
        "wanted": [
            vars(wanted) | {"measured": wanted.measured(by_name)} for wanted in group.wanted
        ],
    }


def _outcome_data(outcome: Outcome, base: Outcome) -> dict:
    contender = outcome.contender
    head = {"name": contender.name, "items": contender.items, "remark": contender.remark}
    if not_measured := contender.missing or outcome.failure:
        return head | {"not_measured": not_measured}
    return head | {
        "median_rate": statistics.median(outcome.rates()),
        "median_rate_beside_base": outcome.rate_beside(base),
        "median_cpu_us": outcome.median_cpu_us(),
        "runs": [
            {
                "round": round_ + 1,
                "wall_seconds": usage.wall_seconds,
                "cpu_seconds": usage.cpu_seconds,
                "peak_rss_bytes": usage.peak_rss_bytes,
                "peak_rss_is_bound": usage.peak_rss_is_bound,
            }
            for round_, usage in outcome.usages.items()
        ],
    }


def _three_digits(value: float) -> str:
    """All that such a measurement knows: 1,420,000, 21.7, 0.129."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def _peak(outcome: Outcome) -> str:
    usages = outcome.usages.values()
    peak = f"{max(usage.peak_rss_bytes for usage in usages) / MB:.0f}"
    return f"< {peak}" if all(usage.peak_rss_is_bound for usage in usages) else peak


def _version(program: str, said: str) -> str:
    """`psql (PostgreSQL) 15.1` says its own name, `15.1` does not."""
    return said if said.lower().startswith(program.lower()) else f"{program} {said}"
