"""The command ``recbole-alt``, which answers ``--help`` before ``recbole_alt`` imports torch and RecBole."""

#: True as soon as :func:`main` is called; ``recbole_alt/__init__.py`` asks.
starting = False


def main(command: str | None = None) -> int:
    """Run the command line; see :func:`recbole_alt.cli.main`."""
    global starting
    starting = True
    from recbole_alt.cli import main as run  # late: only now is it known that we are starting

    return run(command=command)
