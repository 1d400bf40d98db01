"""New users and items for a finished run: ``recbole-alt extend RUN --item=new.item --out=NEW_RUN``."""

from recbole_alt.extending.extending import Extension, extend

__all__ = ["Extension", "extend"]
