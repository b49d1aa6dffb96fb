"""The result as Markdown, and as data for JSON."""

import statistics
from collections.abc import Sequence

from contender import Group, Outcome, Wanted

MB = 1_000_000
Results = Sequence[tuple[Group, list[Outcome]]]


def markdown(results: Results, about: dict) -> str:
    """What is printed, and what the README shows."""
    parts = [_head(about)]
    parts += [_group(group, outcomes) for group, outcomes in results]
    parts.append(_wanted(results))
    parts.append("Versions: " + ", ".join(_version(*item) for item in about["versions"].items()) + ".")
    return "\n\n".join(parts) + "\n"


def data(results: Results, about: dict) -> dict:
    """The same and every single run."""
    return about | {"groups": [_group_data(group, outcomes) for group, outcomes in results]}


def _head(about: dict) -> str:
    machine = about["machine"]
    return (
        f"Measured on {about['date']} at commit {about['commit']} by `{about['command']}`: {machine['cores']} cores "
        f"({machine['architecture']}) that also carry the servers, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}, PostgreSQL {about['versions']['PostgreSQL']} "
        f"(fsync {about['postgres_settings']['fsync']}), load average before it "
        f"{machine['load_average_before']:g}. Medians of {about['rounds']} rounds; "
        "CPU and memory are the client's."
    )


def _group(group: Group, outcomes: list[Outcome]) -> str:
    base = next(outcome for outcome in outcomes if outcome.contender.name == group.base)
    unit = group.unit
    lines = [
        f"**({group.name}) {group.title}**",
        "",
        f"| | {unit} | {unit}/s | least – most | × {group.base} | CPU µs each | peak MB | |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += [_row(outcome, base) for outcome in outcomes]
    return "\n".join(lines)


def _row(outcome: Outcome, base: Outcome) -> str:
    contender = outcome.contender
    cells = [contender.name, f"{contender.items:,}"]
    if outcome.failure or not outcome.usages:
        failure = " ".join(outcome.failure.split()).replace("|", "/")
        cells += [""] * 5 + [contender.missing or f"**failed**: {failure}"]
    else:
        rates = outcome.rates()
        cells += [
            _rate(statistics.median(rates)),
            f"{_rate(min(rates))} – {_rate(max(rates))}",
            _ratio(outcome.rate_beside(base)),
            f"{outcome.median_cpu_us():.3g}",
            _peak(outcome),
            contender.remark,
        ]
    return f"| {' | '.join(cells)} |"


def _wanted(results: Results) -> str:
    lines = ["**What is wanted**", "", "| pgsluice | beside | wanted | measured | |", "|---|---|--:|--:|---|"]
    for group, outcomes in results:
        by_name = {outcome.contender.name: outcome for outcome in outcomes}
        for wanted in group.wanted:
            measured, met = _measured(wanted, by_name)
            bound = (
                f"≥ {wanted.rate_at_least:g} × {group.unit}/s"
                if wanted.rate_at_least is not None
                else f"≤ {wanted.cpu_at_most:g} × CPU"
            )
            verdict = {True: "met", False: "**not met**", None: "not measured"}[met]
            lines.append(
                f"| {wanted.contender.removeprefix('pgsluice ')} | {wanted.beside} | {bound} | "
                f"{_ratio(measured)} | {verdict} |"
            )
    return "\n".join(lines)


def _measured(wanted: Wanted, outcomes: dict[str, Outcome]) -> tuple[float | None, bool | None]:
    contender, beside = outcomes[wanted.contender], outcomes[wanted.beside]
    if contender.failure or beside.failure:
        return None, None
    if wanted.rate_at_least is not None:
        ratio = contender.rate_beside(beside)
        return ratio, None if ratio is None else ratio >= wanted.rate_at_least
    ratio = contender.cpu_beside(beside)
    return ratio, None if ratio is None else ratio <= wanted.cpu_at_most


def _group_data(group: Group, outcomes: list[Outcome]) -> dict:
    base = next(outcome for outcome in outcomes if outcome.contender.name == group.base)
    by_name = {outcome.contender.name: outcome for outcome in outcomes}
    contenders = []
    for outcome in outcomes:
        contender = outcome.contender
        found: dict = {"name": contender.name, group.unit: contender.items}
        if note := contender.missing or outcome.failure:
            found["not_measured"] = note
        else:
            found |= {
                "median_rate": statistics.median(outcome.rates()),
                "median_ratio": outcome.rate_beside(base),
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
        contenders.append(found)
    wanted = []
    for each in group.wanted:
        measured, met = _measured(each, by_name)
        wanted.append(vars(each) | {"measured": measured, "met": met})
    return {
        "name": group.name,
        "title": group.title,
        "unit": group.unit,
        "base": group.base,
        "contenders": contenders,
        "wanted": wanted,
    }


def _rate(rate: float) -> str:
    """Three digits say all that such a measurement knows."""
    return f"{float(f'{rate:.3g}'):,.0f}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def _peak(outcome: Outcome) -> str:
    usages = outcome.usages.values()
    peak = f"{max(usage.peak_rss_bytes for usage in usages) / MB:.0f}"
    return f"< {peak}" if all(usage.peak_rss_is_bound for usage in usages) else peak


def _version(program: str, said: str) -> str:
    """`psql (PostgreSQL) 15.1` says its own name, `15.1` does not."""
    return said if said.lower().startswith(program.lower()) else f"{program} {said}"
