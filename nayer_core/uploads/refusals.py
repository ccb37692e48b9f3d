"""Errors for files that are refused, with hints that lead to an accepted file."""

from nayer_core.contract.errors import ErrorCode, TeacherError

SAVE_STATE_DICT = 'torch.save(network.state_dict(), "teacher.pt")'
WRITES = "Upload what this line writes:"
SAVE_HINT = f"{WRITES} {SAVE_STATE_DICT}"
AGAIN = "Upload it again; if that does not help, save it again."
IF_TRUSTED = "If you trust the file, run this line where it was trained, and upload what it writes:"
# The statement that makes every tensor of `sd` plain.
DENSE = (
    "sd = {k: (v.dequantize() if v.is_quantized else v.to_dense()).float()"
    " for k, v in sd.items() if isinstance(v, torch.Tensor)}"
)


def refuse(code: ErrorCode, message: str, hint: str = SAVE_HINT) -> TeacherError:
    """Build an error about an uploaded teacher; the default hint is the line that saves one."""
    return TeacherError(code, message, hint)


def printable(text: object, limit: int = 60) -> str:
    """Quote a stranger's text as plain ASCII of at most `limit` characters."""
    literal = ascii(str(text)[: limit + 1])
    return literal if len(literal) <= limit + 2 else f"{literal[: limit - 2]}...'"


def torchscript() -> TeacherError:
    """Refuse a TorchScript archive, which is a program."""
    return refuse(
        ErrorCode.TORCHSCRIPT,
        "The teacher file is a TorchScript program; only weights are accepted.",
        'Upload what this line writes: torch.save(torch.jit.load("teacher.pt").state_dict(), "weights.pt")',
    )
