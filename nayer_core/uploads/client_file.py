"""Lines of Python that turn a client's file into one that is accepted.

A client whose file is refused often has no network any more, so a hint changes the file itself. The names in
a line come from the file of a stranger, so they are quoted.
"""

from collections.abc import Iterable
from dataclasses import dataclass

MAX_LINE_CHARS = 900  # a longer hint would be cut on its way out of the jail


@dataclass(frozen=True)
class ClientFile:
    """The place of the tensors in a client's file.

    Args:
        safetensors: whether it is a safetensors file; else one that `torch.load` reads.
        keys: that lead to the tensors, outermost first.
        needs_trust: whether reading it must load objects, which may run code of the file.
    """

    safetensors: bool = False
    keys: tuple[str, ...] = ()
    needs_trust: bool = False

    @property
    def introduction(self) -> str:
        """The words before a line that changes the file."""
        if self.needs_trust:
            return "If you trust the file, run this line where it was trained, and upload what it writes:"
        return "Upload what this line writes:"

    def edited(self, *statements: str) -> str | None:
        """Return the line that changes the file; None if it would be too long.

        Args:
            statements: change `sd`, a dict of tensors by name; no loops.
        """
        if self.safetensors:
            steps = ["import torch", "from safetensors.torch import load_file, save_file"]
            steps += ['sd = load_file("teacher.safetensors")', *statements]
            steps.append('save_file(sd, "new_teacher.safetensors")')
        else:
            options = 'map_location="cpu"' + (", weights_only=False" if self.needs_trust else "")
            steps = ["import torch", f'sd = torch.load("teacher.pt", {options}){subscripts(self.keys)}']
            steps += [*statements, 'torch.save(sd, "new_teacher.pt")']
        line = "; ".join(steps)
        return line if len(line) <= MAX_LINE_CHARS else None


def subscripts(keys: Iterable[str]) -> str:
    """Return `["state_dict"]["model"]` for these keys."""
    return "".join(f"[{quoted(key)}]" for key in keys)


def quoted(text: str) -> str:
    """Return `text` as a Python literal of plain ASCII."""
    literal = ascii(text)
    return (
        f'"{literal[1:-1]}"' if '"' not in literal and literal[0] == "'" and "\\'" not in literal else literal
    )
