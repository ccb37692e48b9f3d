"""Errors of a request, with messages that a stranger can act on.

    NayerError          ends a command of the core with exit code 2
      SpecError         the job specification itself cannot work (HTTP 422)
      TeacherError      the uploaded teacher cannot be used
      UploadError       the evaluation set or the embeddings cannot be used
      TrainingError     the run cannot continue

Every error carries a stable code, a message that names the value and the limit, and a hint that
says what to change. A library's own message is never passed on: it may advise unsafe things.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """The stable codes of failed jobs; clients branch on these, never on messages."""

    INVALID_COMMAND = "invalid_command"
    INVALID_SPEC = "invalid_spec"
    UNKNOWN_ARCHITECTURE = "unknown_architecture"
    UNKNOWN_METHOD = "unknown_method"
    UNKNOWN_PRESET = "unknown_preset"
    UNKNOWN_TEXT_ENCODER = "unknown_text_encoder"
    INPUT_SIZE_UNSUPPORTED = "input_size_unsupported"
    RUN_TOO_LARGE = "run_too_large"

    NOT_A_CHECKPOINT = "not_a_checkpoint"
    TRUNCATED_FILE = "truncated_file"
    DAMAGED_FILE = "damaged_file"
    UNSAFE_CHECKPOINT = "unsafe_checkpoint"
    PICKLED_MODULE = "pickled_module"
    TORCHSCRIPT = "torchscript"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNSUPPORTED_TENSOR = "unsupported_tensor"
    NON_FINITE_WEIGHTS = "non_finite_weights"
    CLASS_COUNT_MISMATCH = "class_count_mismatch"
    ARCHITECTURE_MISMATCH = "architecture_mismatch"
    ARCHITECTURE_AMBIGUOUS = "architecture_ambiguous"
    ARCHITECTURE_UNRECOGNISED = "architecture_unrecognised"
    TEACHER_REJECTED = "teacher_rejected"

    EVALUATION_INVALID = "evaluation_invalid"
    EMBEDDINGS_INVALID = "embeddings_invalid"
    TEXT_ENCODER_UNAVAILABLE = "text_encoder_unavailable"

    DEVICE_OUT_OF_MEMORY = "device_out_of_memory"
    DIVERGED = "diverged"
    CHECKPOINT_INVALID = "checkpoint_invalid"

    MAX_RUNTIME_EXCEEDED = "max_runtime_exceeded"
    WORKER_LOST = "worker_lost"
    DISK_FAILED = "disk_failed"


class NayerError(Exception):
    """A request that cannot work, described so that its author can correct it.

    Args:
        code: one of `ErrorCode`.
        message: what is wrong, with the value and the limit.
        hint: what to change; one sentence.
        retryable: whether the very same request may succeed later.
    """

    def __init__(self, code: ErrorCode, message: str, hint: str, *, retryable: bool = False):
        super().__init__(f"{code}: {message} {hint}")
        self.code = code
        self.message = message
        self.hint = hint
        self.retryable = retryable


class SpecError(NayerError):
    """The job specification cannot work with any files."""


class TeacherError(NayerError):
    """The uploaded teacher cannot be used."""


class UploadError(NayerError):
    """The evaluation set or the embeddings cannot be used."""


class TrainingError(NayerError):
    """The run cannot continue."""
