"""For mkdocstrings: what docstrings name by :func:`realsr.module.name` becomes a link where its page is in the site."""

import re

import griffe

ROLE = re.compile(r":(?:mod|func|class|meth|data|attr):`([\w.]+)`")


class Roles(griffe.Extension):
    """Sphinx's roles in docstrings as autorefs' elements."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: object) -> None:
        """Rewrite the docstring of an object; names without a module are looked for where the object is."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda role: _link(obj, role.group(1)), obj.docstring.value)


def _link(obj: griffe.Object, name: str) -> str:
    try:
        path = name if "." in name else obj.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name.rpartition(".")[2]}</code></autoref>'
