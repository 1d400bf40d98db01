"""What was added to a run, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from recbole_alt.extending.rows import TEMPERATURE


@dataclass
class Extension:
    """What :func:`extend` made.

    Attributes:
        folder: of the new run.
        run: the folder of the run that was extended.
        added: ``user`` and ``item`` → how many are new.
        by_map, by_neighbours: stage → side → how many embedding tables got the rows of new ids by the map of grounded
            embeddings, and from known ids with similar texts.
        neighbours: how many of these were asked.
        new_values: field → how many values of other fields are new.
        left_out: what was not taken over as it was given, in words → how often.
        passed_over: columns that the run does not read.
    """

    folder: str
    run: str
    neighbours: int
    added: dict[str, int] = field(default_factory=dict)
    by_map: dict[str, dict[str, int]] = field(default_factory=dict)
    by_neighbours: dict[str, dict[str, int]] = field(default_factory=dict)
    new_values: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """What was added, how, and what was left out, a line each."""
        added = " and ".join(_count(side, number) for side, number in self.added.items())
        lines = [f"{self.folder}: {added} added to {self.run}"]
        for stage, sides in self.by_map.items():
            for side, tables in sides.items():
                asked = self.by_neighbours[stage][side]
                how = [f"the map of grounded embeddings ({_count('table', tables)})"] if tables else []
                nearest = f"the softmax-weighted mean of the {self.neighbours} nearest known {side}s in text"
                how += [f"{nearest}, temperature {TEMPERATURE} ({_count('table', asked)})"] if asked else []
                lines.append(f"{stage}: new {side}s have embeddings by {' and '.join(how)}")
        lines += [f"{name}: {_count('value', count)} new to the run" for name, count in self.new_values.items()]
        lines += [f"not as given: {count:,} {what}" for what, count in self.left_out.items()]
        if self.passed_over:
            lines.append(f"passed over, as the run does not read them: {', '.join(self.passed_over)}")
        return "\n".join(lines)


def _count(what: str, number: int) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
