"""Regular expressions in time linear in the text, as Go's RE2 has them; for filters that anybody may send.

Python's `re` tries one way after the other, and a filter of a few bytes can keep it busy for years. Here all ways are
followed at once. Understood: literals, `.`, classes, `\\d \\w \\s` and their opposites, `\\A \\z ^ $`, groups, `|`, and the
repetitions `* + ? {n} {n,} {n,m}`, lazy ones too. Not: flags, word boundaries, named classes, what is beyond ASCII in
`\\w`. Source: Thompson, "Regular expression search algorithm" (1968); Cox, "Regular expression matching: the virtual
machine approach" (2009).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

# After repetitions are written out; a text of 512 bytes takes some 50 ms at worst
INSTRUCTIONS_MAX: Final = 512
DEPTH_MAX: Final = 32  # of groups
REPETITIONS_MAX: Final = 256

Matcher = Callable[[str], bool]
DIGIT = frozenset("0123456789")
WORD = DIGIT | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
SPACE = frozenset("\t\n\f\r ")
CLASSES: Final = {"d": DIGIT, "w": WORD, "s": SPACE}
CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}


class BadExpression(ValueError):
    """It is none, or one that is not understood here."""


class Char(NamedTuple):
    matches: Matcher


class Split(NamedTuple):
    """Go on at both."""

    one: int
    other: int


class AtStart(NamedTuple):
    pass


class AtEnd(NamedTuple):
    pass


Instruction = Char | Split | AtStart | AtEnd  # whoever comes to the end of the program has found a match
Fragment = list[Instruction]  # jumps are relative to the instruction's own place


def search(expression: str, text: str) -> bool:
    """Whether a part of the text is described. BadExpression."""
    program = compile_expression(expression)
    current: set[int] = set()
    for position in range(len(text) + 1):
        _follow(program, 0, current, position=position, length=len(text))
        if len(program) in current:
            return True
        if position == len(text):
            break
        following: set[int] = set()
        for place in current:
            instruction = program[place]
            if isinstance(instruction, Char) and instruction.matches(text[position]):
                _follow(program, place + 1, following, position=position + 1, length=len(text))
        current = following
        if len(program) in current:
            return True
    return False


def _follow(program: Fragment, place: int, reached: set[int], *, position: int, length: int) -> None:
    """Add all places that can be reached without reading a character."""
    waiting = [place]
    while waiting:
        place = waiting.pop()
        if place in reached:
            continue
        if place < len(program):
            match program[place]:
                case Split(one, other):
                    waiting += [place + one, place + other]
                case AtStart() if position == 0:
                    waiting.append(place + 1)
                case AtEnd() if position == length:
                    waiting.append(place + 1)
        reached.add(place)


@lru_cache(maxsize=64)
def compile_expression(expression: str) -> Fragment:
    parser = _Parser(expression)
    fragment = parser.alternatives(0)
    if parser.rest:
        raise BadExpression(f"expression: unexpected ) at {parser.position}")
    return fragment


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self.position = 0

    @property
    def rest(self) -> str:
        return self._text[self.position :]

    def _next(self) -> str:
        if self.position >= len(self._text):
            raise BadExpression("expression: it ends too early")
        self.position += 1
        return self._text[self.position - 1]

    def _skip(self, prefix: str) -> bool:
        found = self._text.startswith(prefix, self.position)
        self.position += len(prefix) * found
        return found

    def alternatives(self, depth: int) -> Fragment:
        if depth > DEPTH_MAX:
            raise BadExpression(f"expression: expected {DEPTH_MAX} groups in each other at most")
        fragment = self._sequence(depth)
        if self._skip("|"):
            other = self.alternatives(depth)
            # split, this one, jump over the other, the other
            jump = len(other) + 1
            fragment = [Split(1, len(fragment) + 2), *fragment, Split(jump, jump), *other]
        return _checked(fragment)

    def _sequence(self, depth: int) -> Fragment:
        fragment: Fragment = []
        while self.rest and self.rest[0] not in "|)":
            fragment = _checked(fragment + self._repeated(self._atom(depth)))
        return fragment

    def _repeated(self, atom: Fragment) -> Fragment:
        if self._skip("*"):
            low, high = 0, None
        elif self._skip("+"):
            low, high = 1, None
        elif self._skip("?"):
            low, high = 0, 1
        elif self._skip("{"):
            low, high = self._bounds()
        else:
            return atom
        self._skip("?")  # lazy: the same, where only whether there is a match is asked
        if self.rest[:1] and self.rest[0] in "*+?{":
            raise BadExpression(f"expression: repetition of a repetition at {self.position}")
        required = atom * low
        if high is None:
            size = len(atom)
            return _checked([*required, Split(1, size + 2), *atom, Split(-size - 1, -size - 1)])
        optional = high - low
        size = len(atom) + 1
        return _checked(
            required + [each for left in range(optional, 0, -1) for each in (Split(1, left * size), *atom)]
        )

    def _bounds(self) -> tuple[int, int | None]:
        text, closed, _ = self.rest.partition("}")
        low, comma, high = text.partition(",")
        if not closed or not low.isdecimal() or (high and not high.isdecimal()) or len(text) > 9:
            raise BadExpression(f"expression: expected {{n}}, {{n,}} or {{n,m}} at {self.position}")
        self.position += len(text) + 1
        least = int(low)
        most = int(high) if high else None if comma else least
        if max(least, most or 0) > REPETITIONS_MAX or (most is not None and most < least):
            raise BadExpression(f"expression: expected up to {REPETITIONS_MAX} repetitions, found {text}")
        return least, most

    def _atom(self, depth: int) -> Fragment:
        found = self._next()
        match found:
            case "(":
                if self._skip("?") and not self._skip(":"):
                    raise BadExpression(f"expression: flags and names are not understood, at {self.position}")
                group = self.alternatives(depth + 1)
                if not self._skip(")"):
                    raise BadExpression("expression: a ) is missing")
                return group
            case "[":
                return [Char(self._class())]
            case ".":
                return [Char(lambda char: char != "\n")]
            case "^":
                return [AtStart()]
            case "$":
                return [AtEnd()]
            case "\\" if self.rest[:1] in ("A", "z"):
                return [AtStart() if self._next() == "A" else AtEnd()]
            case "\\":
                return [Char(self._escaped())]
            case "*" | "+" | "?":
                raise BadExpression(f"expression: nothing to repeat at {self.position - 1}")
            case _:
                return [Char(found.__eq__)]

    def _escaped(self) -> Matcher:
        char = self._next()
        if char.lower() in CLASSES:
            chars = CLASSES[char.lower()]
            return chars.__contains__ if char.islower() else lambda found: found not in chars
        return self._literal(char).__eq__

    def _literal(self, char: str) -> str:
        """What stands for itself behind a backslash."""
        if char in CONTROLS:
            return CONTROLS[char]
        if char.isalnum():
            raise BadExpression(f"expression: \\{char} is not understood")
        return char

    def _class(self) -> Matcher:
        is_negated = self._skip("^")
        matchers: list[Matcher] = []
        while not matchers or not self._skip("]"):
            if self._skip("[:"):
                raise BadExpression(f"expression: named classes are not understood, at {self.position}")
            char = self._next()
            if char == "\\" and self.rest[:1].lower() in CLASSES:
                matchers.append(self._escaped())
                continue
            first = self._literal(self._next()) if char == "\\" else char
            last = first
            if self.rest[:1] == "-" and self.rest[1:2] not in ("]", ""):
                self._skip("-")
                char = self._next()
                last = self._literal(self._next()) if char == "\\" else char
            if last < first:
                raise BadExpression(f"expression: the range {first}-{last} is empty")
            matchers.append(_range(first, last))
        return lambda found: is_negated != any(matches(found) for matches in matchers)


def _range(first: str, last: str) -> Matcher:
    return lambda found: first <= found <= last


def _checked(fragment: Fragment) -> Fragment:
    if len(fragment) > INSTRUCTIONS_MAX:
        raise BadExpression(f"expression: longer than {INSTRUCTIONS_MAX} steps")
    return fragment
