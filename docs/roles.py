"""For mkdocstrings: names in docstrings, :func:`realsr.module.name`, become links, and doctests become code."""

import re

import griffe

ROLE = re.compile(r":(?:mod|func|class|meth|data|attr):`([\w.]+)`")
DOCTEST = re.compile(r"^>>> .*(?:\n[ \t]*\S.*)*", re.MULTILINE)  # up to an empty line


class Roles(griffe.Extension):
    """Sphinx's roles in docstrings as autorefs' elements, doctests as blocks of code."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: object) -> None:
        """Rewrite the docstring of an object; names without a module are looked for where the object is."""
        if obj.docstring is not None:
            text = DOCTEST.sub(lambda test: f"```pycon\n{test.group()}\n```", obj.docstring.value)
            obj.docstring.value = ROLE.sub(lambda role: _link(obj, role.group(1)), text)


def _link(obj: griffe.Object, name: str) -> str:
    try:
        path = name if "." in name else obj.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name.rpartition(".")[2]}</code></autoref>'
