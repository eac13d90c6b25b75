"""Differences that we own up to: `FAMILY.accepted` beside `FAMILY.c`, in blocks that an empty line ends.

    case     name/side, or name for all of its sides; several, apart by blanks
    reason   why it is so
    docs     the sentence in docs/sockets.md that says so
    -what the kernel printed
    +what sidestep prints instead

The lines are all that may differ in these runs, and they must. Several blocks may speak of one case.
"""

import fnmatch
import sys
from dataclasses import dataclass, field


@dataclass
class Exemption:
    where: str
    family: str
    cases: list = field(default_factory=list)
    reason: str = ""
    docs: str = ""
    lines: list = field(default_factory=list)

    def covers(self, job_name):
        short = job_name.removeprefix(f"{self.family}.")
        return short != job_name and any(fnmatch.fnmatch(name, case) for name in (short, short.split("/")[0])
                                         for case in self.cases)


def read(folder, page, known):
    """All exemptions; ends the program when one is not well founded."""
    text = squeeze(page.read_text())
    exemptions = [block for path in sorted(folder.glob("*.accepted")) for block in blocks(path)]
    for block in exemptions:
        if not (block.cases and block.reason and block.docs and block.lines):
            sys.exit(f"{block.where}: a block has the lines case, reason, docs, and one - or + at least")
        if squeeze(block.docs) not in text:
            sys.exit(f"{block.where}: docs/sockets.md does not say: {block.docs}")
        if not any(block.covers(name) for name in known):
            sys.exit(f"{block.where}: there is no such case: {' '.join(block.cases)}")
    return exemptions


def blocks(path):
    found, block = [], None
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            block = None
            continue
        if block is None:
            block = Exemption(f"{path.name}:{number}", path.stem)
            found.append(block)
        word, _, rest = line.partition(" ")
        if line[0] in "+-":
            block.lines.append(line)
        elif word == "case":
            block.cases += rest.split()
        elif word in ("reason", "docs"):
            setattr(block, word, f"{getattr(block, word)} {rest.strip()}".strip())
        else:
            sys.exit(f"{path.name}:{number}: neither case, reason, docs nor a line of output: {line}")
    return found


def squeeze(text):
    """Without line breaks and emphasis: a sentence may be broken anywhere."""
    return " ".join(text.replace("**", "").replace("`", "").split())
