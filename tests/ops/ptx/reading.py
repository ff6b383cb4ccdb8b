"""The text of PTX, taken apart."""

import re
from dataclasses import dataclass, field

PREDICATED = re.compile(r'(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*)', re.DOTALL)
ENDS = 'bra', 'ret'


class Unknown(NotImplementedError):
    """An instruction that is not understood."""


@dataclass
class Instruction:
    """One instruction.

    `parts` are its name and what follows at dots; a register may say whether it is carried out
    (`guard`), or its opposite (`negated`). `operands` are as PTX writes them.
    """

    parts: list[str]
    operands: list[str]
    guard: str | None = None
    negated: bool = False

    def __str__(self):
        return f'{".".join(self.parts)} {", ".join(self.operands)}'


@dataclass
class PTX:
    """A kernel by its blocks: instructions of which all or none are carried out, but for guards.

    Args:
        text (str): PTX of a module with one kernel.
        shared (int): Size of its shared memory in bytes.
    """

    text: str = field(repr=False)
    shared: int
    name: str = field(init=False)
    threads: int = field(init=False)
    parameters: list[tuple[str, int]] = field(init=False)  # name, bytes
    registers: dict[str, int] = field(init=False)  # number of each kind
    blocks: list[list[Instruction]] = field(init=False)
    labels: dict[str, int] = field(init=False)  # of blocks
    steps: list | None = field(init=False, repr=False, default=None)  # functions, once it has run

    def __post_init__(self):
        head, body = re.search(r'\.entry (.*?)\{\n(.*?)\n\}', self.text, re.DOTALL).groups()
        self.name = head[: head.index('(')]
        self.threads = int(re.search(r'\.reqntid (\d+)', head)[1])
        self.parameters = [
            (name, int(bits) // 8)
            for bits, name in re.findall(r'\.param \.[a-z](\d+).* (\w+)', head)
        ]
        self.registers = {kind: int(n) for kind, n in re.findall(r'%([a-z]+)<(\d+)>;', body)}
        self.blocks, self.labels = [[]], {}
        for statement in _statements(body):
            self.add(statement)

    def add(self, statement):
        """Add a label or an instruction."""
        if statement.startswith('$'):
            if self.blocks[-1]:
                self.blocks.append([])
            self.labels[statement] = len(self.blocks) - 1
            return
        if not (match := PREDICATED.fullmatch(statement)):
            raise Unknown(statement)
        negated, guard, name, operands = match.groups()
        parts = name.replace('::', '_').split('.')
        self.blocks[-1].append(Instruction(parts, split(operands), guard, bool(negated)))
        if parts[0] in ENDS:
            self.blocks.append([])


def _statements(body):
    """Labels and instructions without what only a debugger reads."""
    # A part of a register that is not wanted has a name of its own.
    body = re.sub(r'\{ \.reg \.b32 tmp; (.*?; )\}', lambda m: m[1].replace('tmp', '_'), body)
    for line in body.splitlines():
        line = line.partition('//')[0].strip()
        if line.endswith(':'):
            yield line[:-1]
        elif not line.startswith('.'):
            yield from (part.strip() for part in line.split(';') if part.strip())


def split(text: str) -> list[str]:
    """Operands between commas that are in no braces or brackets."""
    return [part.strip() for part in re.findall(r'(?:\{[^}]*\}|\[[^]]*\]|[^,])+', text)]


def listed(operand: str) -> list[str]:
    """Registers in braces, or the one without."""
    return split(operand.strip('{} '))
