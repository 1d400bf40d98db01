"""Curves of a training that are small enough to keep in its record, however many steps it takes."""

from collections.abc import Mapping

_POINTS = 100  # of a curve, at most one more

#: Name → points, each a step or an epoch and the value there.
Curves = dict[str, list[list[float]]]


def points_every(steps: int) -> int:
    """How many of so many planned steps a point of a curve sums up."""
    return max(1, steps // _POINTS)


def add_step(curves: Curves, step: int, values: Mapping[str, float], every: int) -> None:
    """Add what ``step``, counted from 0, measured: a point is the mean over ``every`` steps, of those that are numbers.

    Points of ``curves`` are ``[last step so far, mean so far, number of values]``, the last counted from 1.
    """
    for name, value in values.items():
        if value != value:
            continue
        points = curves.setdefault(name, [])
        if not points or (step // every) * every >= points[-1][0]:
            points.append([0, 0.0, 0])
        _, mean, count = points[-1]
        points[-1] = [step + 1, mean + (value - mean) / (count + 1), count + 1]
