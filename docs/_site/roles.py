"""A griffe extension: docstrings with Sphinx's roles, as Markdown."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r':(?:attr|class|data|func|meth|mod):`~?([^`]+)`')


class PlainRoles(griffe.Extension):
    """Writes ``:func:`locat_mm.attach``` as code, which is what Markdown knows."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object."""
        if obj.docstring is not None:
            text = _ROLE.sub(r'`\1`', obj.docstring.value)
            # A docstring that begins with its arguments has no summary for griffe to find.
            obj.docstring.value = text.replace('``', '`')
