"""README and docs/: links lead somewhere, commands compose, examples run, tables name all that there is."""

import fnmatch
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from conftest import scene
from hydra.core.override_parser.overrides_parser import OverridesParser

from realsr.imaging import Photo, to_uint, write_image
from realsr.runtime.help import conf_dir

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CONF = Path(conf_dir())
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


GROUPS = sorted({path.parent.name for path in CONF.glob("*/*.yaml")} - {"callbacks", "ablation"})


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return [text for kind, text in FENCE.findall(TEXTS[page]) if kind == language]


def commands() -> set[tuple[str, ...]]:
    """Every ``python -m realsr.NAME OPTION ...`` of a block that holds no shell variables, without its comment."""
    found = set()
    for page in TEXTS:
        for text in blocks(page, "bash"):
            for line in text.replace("\\\n", "").splitlines():
                _, here, command = line.partition("-m realsr.")
                if here and "$" not in command:
                    found.add(tuple(word for word in shlex.split(command, comments=True) if word not in ("...", "-m")))
    return found


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_and_headings(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXTS[page])):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (ROOT / page).parent / path if path else ROOT / page
        known = anchors(target.read_text(encoding="utf-8")) if anchor and target.suffix == ".md" else {anchor}
        outside = page.startswith("docs/") and not target.resolve().is_relative_to(ROOT / "docs")  # not in the site
        if not target.exists() or anchor not in known or outside:
            broken.append(link)
    assert broken == []


def test_the_door_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


def test_the_map_has_every_room():
    rows = re.findall(r"^\| (`.*?`) \|", TEXTS["README.md"].split("## Map of the code")[1], re.MULTILINE)
    named = [name.partition("/")[0] for name in re.findall(r"`([^`]+)`", " ".join(rows))]
    rooms = {path.name for path in (ROOT / "realsr").iterdir()} - {"__init__.py", "__pycache__", "py.typed"}
    assert [name for name in named if not fnmatch.filter(rooms, name)] == []
    assert {room for room in rooms if not any(fnmatch.fnmatch(room, name) for name in named)} == set()


def test_every_page_stands_once_in_the_site():
    listed = re.findall(r'= "([\w/]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(page.removeprefix("docs/") for page in TEXTS if page.startswith("docs/"))


def test_the_apis_names_are_there():
    names = [name for text in TEXTS.values() for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    assert len(names) > 40
    assert len(names) == len(set(names))
    for name in names:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("command", sorted(commands()), ids=" ".join)
def test_commands_compose(compose, command):
    name, *options = command
    if name == "sweep":  # which takes a folder
        return
    given = OverridesParser.create().parse_overrides(options)
    compose(name, *(o.input_line if not o.is_sweep_override() else first_of(o) for o in given))


def first_of(override) -> str:
    """A sweep's option with the first of its values."""
    value = next(iter(override.sweep_string_iterator()))
    return f"{override.get_key_element()}={value}"


def test_options_in_the_text_are_in_conf():
    keys = set(re.findall(r"[\w-]+(?=:)", "\n".join(path.read_text() for path in CONF.rglob("*.yaml"))))
    keys |= {path.name for path in CONF.rglob("*") if path.is_dir()}
    named = {
        key
        for page, text in TEXTS.items()
        if page != "CHANGELOG.md"  # which also names what is gone
        for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
        for key in re.findall(r"(?:^| )'?\+?([a-z][\w./@]*)=", code)
        if not key.startswith(("key", "factors"))  # which stand for any
    }
    assert len(named) > 60
    assert {key for key in named if re.split(r"[./]", key.partition("@")[0])[-1] not in keys} == set()


@pytest.mark.parametrize("group", GROUPS)
def test_the_table_of_groups_has_every_option(group):
    rows = re.findall(rf"^\| [^|]*`{group}`[^|]*\|(.*)\|$", TEXTS["docs/commands.md"], re.MULTILINE)
    named = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`]+)`", " ".join(rows)))))
    assert {path.stem for path in (CONF / group).glob("*.yaml")} - named == set()


def test_the_tables_have_every_command_and_extra():
    text = TEXTS["docs/commands.md"]
    scripts = re.findall(r"^realsr-(\w+) =", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(re.findall(r"^\| `python -m realsr\.(\w+)", text, re.MULTILINE)) == set(scripts)
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.MULTILINE)
    cells = re.findall(r"^\| (`.*?) \|", text.split("## Extras")[1], re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(cells))) == set(extras)


def test_the_librarys_examples_run(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.rename("last.ckpt")
    photo = Photo(to_uint(scene(160, 192)))
    write_image(Path("photo.jpg"), photo)
    write_image(Path("scan.tif"), photo)
    names: dict = {}
    for text in blocks("docs/library.md", "python"):
        exec(text, names)
    assert names["lr"].shape == (2, 3, 32, 32)
    assert names["sr"].shape == (3, 192, 256)
    assert names["large"].size == (768, 640)
    assert names["estimate"].kernel.shape == (17, 17)
    assert names["estimate"].kernels[4].shape == (33, 33)
    assert {path.name for path in tmp_path.iterdir()} >= {"large.png", "large.tif"}
