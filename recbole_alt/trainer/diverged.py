"""When training comes to nothing that is a number."""


class Diverged(ValueError):
    """A loss or a prediction is not a number.

    The parameters are to blame, so that a search counts it as the worst of results and goes on.
    """
