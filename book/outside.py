"""A preprocessor of mdBook: the pages outside of docs/ become pages of the book, and links lead to them.

On a forge and in an editor all pages are plain Markdown files with relative links, from whatever folder they are in. mdBook
knows only the files below docs/. So SUMMARY.md may name a page outside (`../CONTRIBUTING.md`), which gets a place in the book
here; and a link to a source (`../examples/php/chat.php`, or a whole folder) leads to a page that shows it.
"""

import json
import posixpath
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = "docs"
GUIDE = "crates/taut/src/guide/"
# Both are a README.md where they are, and only one can be the first page.
FRONT_PAGES = {"docs/README.md": "index.md", "README.md": "taut.md"}
# Where sources are shown: below this page in the list.
EXAMPLES = "examples/README.md"
# Folders whose sources are worth a page. Of a link to another source the text remains.
SHOWN_FOLDERS = ("bench/lines", "examples")
LANGUAGES = {
    ".css": "css", ".html": "html", ".js": "js", ".json": "json", ".php": "php", ".py": "python", ".rs": "rust,noplayground",
    ".sh": "sh", ".toml": "toml", ".yaml": "yaml",
}
# Larger files are lists of what a package manager has chosen.
LARGEST_SOURCE = 32 << 10

LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]*(?:\(\))?)\)")
PICTURE = re.compile(r"(!\[[^\]]*\]\()([^()\s]+)\)")
ATTRIBUTE = re.compile(r'\b(src|srcset|href)="([^"]+)"')
FENCE = re.compile(r"^\s*```")
HEADING = re.compile(r"^(#+ )")


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "supports":
        return
    _, book = json.load(sys.stdin)
    chapters = list(every_chapter(book["items"]))
    places = {source_of(chapter): place_of(source_of(chapter)) for chapter in chapters}
    sources = Sources(places)
    for chapter in chapters:
        rewrite(chapter, places, sources)
    examples = next(chapter for chapter in chapters if source_of(chapter) == EXAMPLES)
    examples["sub_items"] += sources.chapters(examples)
    for chapter in chapters:
        chapter["path"] = places[source_of(chapter)]
    json.dump(book, sys.stdout)


def every_chapter(items):
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            yield item["Chapter"]
            yield from every_chapter(item["Chapter"]["sub_items"])


def source_of(chapter):
    """The file that a chapter was read from, as a path in the repository."""
    return posixpath.normpath(posixpath.join(DOCS, chapter["source_path"]))


def place_of(source):
    """The path of a page in the book, which ends in `.md` until mdBook writes it."""
    if source in FRONT_PAGES:
        return FRONT_PAGES[source]
    if source.startswith(DOCS + "/"):
        return source.removeprefix(DOCS + "/")
    if source.startswith(GUIDE):
        return "guide/" + source.removeprefix(GUIDE)
    folder, name = posixpath.split(source)
    if name == "README.md":
        return folder + ".md"
    return source.lower() if source.endswith(".md") else source + ".md"


def rewrite(chapter, places, sources):
    source = source_of(chapter)
    is_guide = source.startswith(GUIDE)
    lines, inside = [], False
    for line in chapter["content"].split("\n"):
        if FENCE.match(line):
            inside = not inside
            line = rust_fence(line) if is_guide and inside else line
        elif not inside:
            line = demoted(line) if is_guide else line
        lines.append(line)
    text = "\n".join(lines)
    if is_guide:  # which rustdoc gives its heading
        text = f"# {chapter['name']}\n\n{text}"
    chapter["content"] = outside_of_code(text, lambda part: with_links(part, source, places, sources))


def outside_of_code(text, change):
    """Fenced blocks stay as they are; what is between them may have links that go over several lines."""
    parts = re.split(r"(?ms)(^[ \t]*```.*?^[ \t]*```[ \t]*$)", text)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


def rust_fence(line):
    """rustdoc takes a block without a language for Rust."""
    words = line.strip().removeprefix("```")
    return line if words.split(",")[0] in ("text", "toml", "sh", "rust", "js") else line.replace("```" + words, "```rust")


def demoted(line):
    """A page of the guide has several headings of the first level, below the one that rustdoc gives it."""
    return HEADING.sub(lambda found: "#" + found[1], line)


def with_links(text, source, places, sources):
    def place(target):
        return target_in_book(target, source, places, sources)

    def link(found):
        target = place(found[2])
        return found[1] if target is None else f"[{found[1]}]({target})"

    text = LINK.sub(link, text)
    text = PICTURE.sub(lambda found: f"{found[1]}{place(found[2])})", text)
    return ATTRIBUTE.sub(lambda found: f'{found[1]}="{place(found[2])}"', text)


def target_in_book(target, source, places, sources):
    """Where a link leads in the book: relative to the page, or None if the book does not have that."""
    if re.match(r"[a-z+]+:(?!:)", target) or target.startswith("#"):
        return target
    if target.startswith(("crate", "super")):
        page = re.fullmatch(r"crate::guide::(\w+)", target)
        target = f"/{GUIDE}{page[1]}.md" if page else None
        if target is None:
            return None
        path, anchor = target[1:], ""
    else:
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if (REPOSITORY / path).is_dir() and f"{path}/README.md" in places:
        path = f"{path}/README.md"
    if path in places:
        place = places[path]
    elif path.startswith(DOCS + "/"):
        place = path.removeprefix(DOCS + "/")
    else:
        place = sources.place(path)
    if place is None:
        return None
    here = posixpath.dirname(places.get(source) or place_of(source))
    return posixpath.relpath(place, here or ".") + (f"#{anchor}" if anchor else "")


class Sources:
    """Files and folders that pages link to and that are not pages themselves."""

    def __init__(self, places):
        self._places = places
        self._wanted = {}

    def place(self, path):
        if not any(path == folder or path.startswith(folder + "/") for folder in SHOWN_FOLDERS):
            return None
        self._wanted[path] = place_of(path)
        return self._wanted[path]

    def chapters(self, parent):
        parents = parent["parent_names"] + [parent["name"]]
        # mdBook puts a chapter below another by the length of its number.
        first = len(parent["sub_items"]) + 1
        numbered = enumerate(sorted(self._wanted.items()), first)
        return [self._chapter(path, place, parents, parent["number"] + [number]) for number, (path, place) in numbered]

    def _chapter(self, path, place, parents, number):
        root = REPOSITORY / path
        files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if is_source(file))
        content = [f"# {path}"]
        for file in files:
            if file != root:
                content.append(f"## {file.relative_to(root)}")
            content.append(block(file.read_text(encoding="utf-8"), LANGUAGES.get(file.suffix, "text")))
        chapter = {"name": path, "content": "\n\n".join(content) + "\n", "number": number, "sub_items": []}
        return {"Chapter": {**chapter, "path": place, "source_path": None, "parent_names": parents}}


def is_source(file):
    built = {"node_modules", "__pycache__", "target"} & set(file.parts)
    return file.is_file() and not built and file.suffix != ".lock" and file.stat().st_size <= LARGEST_SOURCE


def block(text, language):
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


if __name__ == "__main__":
    main()
