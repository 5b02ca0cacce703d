"""A page of a report as a browser reads it."""

from html.parser import HTMLParser

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Reads a page and fails on tags that are not closed in order; `words` is what a reader sees."""

    def __init__(self, document):
        super().__init__()
        self.open, self.tags, self.words, self.addresses = [], [], [], []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def named(self, tag, kind):
        return [attrs for name, attrs in self.tags if name == tag and attrs.get("class", "").startswith(kind)]
