"""README and the pages in docs/ as tests read them: code blocks, lines for a shell, calls of the programs there."""

import configparser
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PROGRAMS = ("gscnn", "gscnn-fit", "torchrun")
SHELL = ("", "sh", "bash", "shell", "console")


TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))

_setup = configparser.ConfigParser(interpolation=None)
_setup.read(ROOT / "setup.cfg", encoding="utf-8")
EXTRAS = set(_setup["options.extras_require"])


def languages(page):
    """Words behind the fences of a page's code blocks."""
    return {language for language, _ in _fenced(page)}


def blocks(page, *languages):
    """Code blocks of a page, by the word behind the fence."""
    return [text for language, text in _fenced(page) if language in languages]


def _fenced(page):
    return re.findall(r"^```(\S*)[^\n]*\n(.*?)^```\s*$", page.read_text(encoding="utf-8"), re.M | re.S)


def lines_of(text):
    """Lines as a shell takes them, without what a prompt says."""
    return [line.strip().removeprefix("$ ") for line in re.sub(r"\\\n\s*", "", text).splitlines()]


def lines(page):
    """Lines of the blocks for a shell."""
    return [line for text in blocks(page, *SHELL) for line in lines_of(text)]


def calls(line):
    """Calls of our programs in a line, as the program and its arguments; what they print is none.

    torchrun is one of them, where it starts ours.
    """
    ours = r"(gscnn|gscnn-fit) (--)?[\w./-]+( |$)|torchrun .* -m gscnn_lightning "
    if not re.match(rf"(\w+=\S* )*((srun|nohup|time)\b.* )?({ours})", line):
        return
    parts = shlex.shlex(line, posix=True, punctuation_chars="|;&>")
    parts.whitespace_split, parts.commenters = True, "#"
    words = []
    for word in [*parts, ";"]:
        if word[:1] in "|;&>":
            for program in PROGRAMS:
                if program in words:
                    yield program, words[words.index(program) + 1 :]
            words = []
        else:
            words.append(word)


TYPED = sorted({(program, *args) for page in PAGES for line in lines(page) for program, args in calls(line)})
