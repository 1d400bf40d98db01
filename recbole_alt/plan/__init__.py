"""What a run will cost, said before its first step: rows, texts, steps, memory and minutes by stage.

The minutes come from a second or two of each kind of work, on the run's own data and machine. The models that are
measured are thrown away, and the random generators are put back, so that a run is the same with a plan and without.
"""

from recbole_alt.plan.planning import make_plan
from recbole_alt.plan.record import Plan

__all__ = ["Plan", "make_plan"]
