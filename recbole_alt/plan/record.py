"""The plan of a run: the numbers as a record, and as tables to read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recbole_alt.markdown import Markdown, markdown_table
from recbole_alt.plan.stages import STEPS_TO_BEST, StagePlan
from recbole_alt.plan.texts import TextCount
from recbole_alt.values import show_time

_TITLES = {"pretrain": "alignment"}


@dataclass(frozen=True)
class Plan:
    """What a run will cost; a notebook shows it as :meth:`table`.

    Attributes:
        about: the model, the dataset and the machine, in words.
        rows: of training, validation and test.
        texts: by segment, over all rows.
        stages: in their order.
        remedies: keys that make it cheaper, as on a command line → the seconds that each saves.
        example_texts: of some training rows, by segment, as the language model reads them; none where no stage does.
    """

    about: str
    rows: Mapping[str, int]
    texts: Mapping[str, TextCount]
    stages: Mapping[str, StagePlan]
    remedies: Mapping[str, float]
    example_texts: Sequence[Mapping[str, str]] = ()

    @property
    def seconds(self) -> float:
        """Expected seconds of the whole run, without reading the data."""
        return sum(stage.seconds + stage.other_seconds for stage in self.stages.values())

    def record(self) -> dict[str, Any]:
        """What ``plan.json`` holds."""
        return {"seconds": self.seconds, **asdict(self)}

    def table(self) -> Markdown:
        """The plan in Markdown."""
        lines = [f"Plan of {self.about}: about {show_time(self.seconds)}"]
        rows = ", ".join(f"{count:,} {part}" for part, count in self.rows.items())
        lines.append(f"Rows: {rows}")
        if self.texts:
            header = ["distinct texts", "number", "tokens", "longest", "cut"]
            counts = [[name, *(f"{n:,}" for n in asdict(count).values())] for name, count in self.texts.items()]
            lines.append(markdown_table(header, counts, "lr"))
        header = ["stage", "steps", "texts encoded", "minutes", "at most", "MiB at first"]
        stages = [
            [_TITLES.get(name, name), _steps(stage), f"{stage.texts_encoded:,}", _minutes(stage.seconds),
             _minutes(stage.most_seconds), f"{stage.peak_memory_mib:,.0f}"]
            for name, stage in self.stages.items()
        ]  # fmt: skip
        other = sum(stage.other_seconds for stage in self.stages.values())
        most = sum(stage.most_seconds for stage in self.stages.values()) + other
        stages.append(["building models, testing", "", "", _minutes(other), _minutes(other), ""])
        stages.append(["total", "", "", _minutes(self.seconds), _minutes(most), ""])
        lines.append(markdown_table(header, stages, "llrrrr"))
        if any(stage.epochs < stage.most_epochs for stage in self.stages.values()):
            lines.append(
                f"Early stopping may end finetuning before. The minutes expect that after the epochs in brackets: "
                f"{STEPS_TO_BEST} steps to the best epoch, and then the validations without improvement."
            )
        if self.remedies:
            said = "; ".join(f"`{keys}` ({_minutes(saved)} min less)" for keys, saved in self.remedies.items())
            lines.append(f"To take less: {said}")
        return Markdown("\n\n".join(lines))

    def _repr_markdown_(self) -> str:
        return self.table()


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def _steps(stage: StagePlan) -> str:
    if not stage.most_epochs:
        return f"{stage.steps:,}"
    expected = f" ({stage.epochs})" if stage.epochs < stage.most_epochs else ""
    return f"{stage.steps:,} × {'at most ' if expected else ''}{stage.most_epochs} epochs{expected}"
