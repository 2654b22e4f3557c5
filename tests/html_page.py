"""A page of ours, parsed."""

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "wbr"}


class Page(HTMLParser):
    """What a page says; fails where an element is not closed, or in another order than it was opened."""

    forbidden = ("script", "link", "iframe")

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.images, self.tables, self.headings = [], [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attrs):
        assert not any(name.startswith("on") for name, _ in attrs) and tag not in self.forbidden
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    def table_of(self, *columns):
        """The rows, as dictionaries, of the only table that has these columns."""
        (found,) = (rows for rows in self.tables if set(columns) <= set(rows[0]))
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]
