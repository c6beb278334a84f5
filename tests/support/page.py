"""A page of HTML, read by what it shows."""

from html.parser import HTMLParser

VOID = {"meta", "img", "source", "input", "br", "link"}


class Page(HTMLParser):
    """Tables by id, pictures and headings; refuses tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.tags, self.title = [], {}, [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "table":
            self.rows = self.tables[attrs["id"]] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if "title" in self.open:
            self.title += data
