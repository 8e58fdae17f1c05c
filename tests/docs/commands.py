"""The command lines of documents, as a shell would take them apart."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = {"helm", "kubectl", "python"}


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of a document in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def section(document: str, title: str) -> str:
    """Return the text of one section."""
    text = (ROOT / document).read_text()
    [body] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return body


def commands(document: str) -> list[list[str]]:
    """Return each helm, kubectl and python -m of the bash blocks, and of the text, without what it is piped into."""
    scripts = blocks(document, "bash")
    prose = re.sub(r"```.*?```", "", (ROOT / document).read_text(), flags=re.DOTALL)
    scripts += re.findall(r"`((?:helm|kubectl|python -m) [^`…]+)`", prose)
    found = []
    for script in scripts:
        for line in script.replace("\\\n", " ").splitlines():
            found += [words for words in _pipeline(line) if words and words[0] in PROGRAMS]
    return found


def _pipeline(line: str) -> list[list[str]]:
    # What a shell would compute is one word here; quotes inside of it would only confuse the parser.
    line = re.sub(r'--patch "\{.*\}"', "--patch COMPUTED", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split = True
    lexer.commenters = ""
    parts: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|;&"):
            parts.append([])
        elif word.startswith((">", "2>")):
            break
        else:
            parts[-1].append(word)
    return parts
