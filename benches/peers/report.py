"""From the rounds of each comparison to ratios, a table, and JSON."""
import statistics

UNDISTURBED = 0.05  # other processes' share of the CPU time above which a round counts as disturbed
FAR_NS = 80  # one L3: 25 to 35 ns; two: about 165 ns


def summarize(rounds, more_is_better):
    """{label: figures} of one comparison's rounds: medians of each side, the ratio of the medians, the
    lowest and highest ratio of one round. Above 1, annulus is ahead. Disturbed rounds count only where
    there is no other."""
    usable = [r for r in rounds if r.get("ours") and r.get("peer")]
    clean = [r for r in usable if not r["disturbed"]]
    counted = clean or usable
    labels = [label for label in counted[0]["ours"] if label in counted[0]["peer"]] if counted else []
    summary = {}
    for label in labels:
        pairs = [(r["ours"].get(label), r["peer"].get(label)) for r in counted]
        pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
        if not pairs:
            continue
        ours, peer = (statistics.median(side) for side in zip(*pairs))
        ratio = (lambda a, b: a / b) if more_is_better else (lambda a, b: b / a)
        ratios = [ratio(a, b) for a, b in pairs]
        summary[label] = {
            "ours": ours, "peer": peer, "ratio": ratio(ours, peer), "lowest": min(ratios), "highest": max(ratios),
            "rounds": len(pairs), "disturbed": not clean,
        }
    return summary


def cores_apart(rounds):
    """How far the two cores were apart in all probes: near, far, or both."""
    probes = [ns for r in rounds for ns in r["core_to_core_ns"] if ns is not None]
    if not probes:
        return "not measured"
    low, high = min(probes), max(probes)
    word = "near" if high < FAR_NS else "far" if low >= FAR_NS else "moved"
    return f"{word}, {low:.0f}–{high:.0f} ns"


def problem(rounds):
    """The first failure among the rounds, or None."""
    return next((r["failed"] for r in rounds if r.get("failed")), None)


def table(entries):
    """Lines of the table of all comparisons, each with name, unit, rounds, summary, and perhaps missing."""
    head = ("workload / peer", "annulus", "peer", "unit", "ratio", "of one round", "rounds", "cores")
    rows = [head]
    notes = []
    for entry in entries:
        for label, figures in entry["summary"].items():
            star = "*" if figures["disturbed"] else ""
            spread = f"{figures['lowest']:.2f}–{figures['highest']:.2f}"
            rows.append((f"{entry['name']} {label}".strip(), _number(figures["ours"]), _number(figures["peer"]),
                         entry["unit"], f"{figures['ratio']:.2f}{star}", spread,
                         f"{figures['rounds']}/{len(entry['rounds'])}", cores_apart(entry["rounds"])))
        trouble = entry.get("missing") or problem(entry["rounds"])
        if trouble and not entry["summary"]:
            rows.append((entry["name"], "–", "–", entry["unit"], "none", "–", f"0/{len(entry['rounds'])}", "–"))
        if trouble:
            notes.append(f"{entry['name']}: {trouble}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    explained = ["", "ratio: of the medians, above 1 annulus is ahead; of one round: the lowest and the highest of one round;",
                 "rounds: counted/taken; *: other processes disturbed every round; cores: one way between them"]
    return lines + explained + ([""] + notes if notes else [])


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
