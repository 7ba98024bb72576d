"""The fenced blocks of docs/deploy.md, by the heading that they stand under."""

import pathlib


class Page:
    def __init__(self, path):
        self.blocks = []
        heading, block = "", None
        for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                if block is None:
                    block = (heading, line[3:], [])
                    self.blocks.append(block)
                else:
                    block = None
            elif block is not None:
                block[2].append(line)
            elif line.startswith("#"):
                heading = line.lstrip("# ")

    def names(self):
        return [(heading, language) for heading, language, _ in self.blocks]

    def block(self, heading, language, number=0):
        """The text of a block: the first of its language under a heading, or the one with this number."""
        found = ["\n".join(lines) + "\n" for where, kind, lines in self.blocks if (where, kind) == (heading, language)]
        return found[number]
