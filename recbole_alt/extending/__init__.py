"""New users and items for a finished run: ``recbole-alt extend RUN --item=new.item --out=NEW_RUN``."""

from recbole_alt.extending.extending import extend
from recbole_alt.extending.extension import Extension

__all__ = ["Extension", "extend"]
