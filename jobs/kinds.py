"""The kinds of job. A new kind needs an entry here and a flow for each of its stages."""

from types import MappingProxyType

from jobs.values.kinds import JobKind, UploadPart
from nayer_core.contract.artifacts import METRICS, MODEL_CARD, PARTIAL_STUDENT, REPORT, SAMPLES, STUDENT

_UPLOADS = MappingProxyType(
    {
        "teacher": UploadPart(
            "Weights: .safetensors, or .pt/.pth/.th with a state_dict.",
            lambda settings: settings.max_teacher_bytes,
            is_required=True,
        ),
        "evaluation": UploadPart(
            "An .npz with `images` uint8 (N, H, W, C) and `labels` int64 (N,); "
            "used to measure only, never to train.",
            lambda settings: settings.max_evaluation_bytes,
        ),
        "embeddings": UploadPart(
            "A .safetensors with `lte` (num_classes, dim), for the text encoder 'file'.",
            lambda settings: settings.max_embeddings_bytes,
        ),
    }
)
_JSON = "application/json"

DISTILL = JobKind(
    name="distill",
    path="/jobs",
    operation_id="createJob",
    summary="Submit a teacher, get a student",
    description="Stream the parts into the store and queue the job. Parts may come in any order; with `spec` "
    "first, the client gets its errors before it sends the teacher.",
    uploads=_UPLOADS,
    stages=("inspect", "distill"),
    artifacts=MappingProxyType(
        {
            STUDENT: "application/octet-stream",
            PARTIAL_STUDENT: "application/octet-stream",
            MODEL_CARD: _JSON,
            METRICS: "application/x-ndjson",
            SAMPLES: "image/png",
            REPORT: _JSON,
        }
    ),
)

VALIDATE = JobKind(
    name="validate",
    path="/jobs/validate",
    operation_id="validateJob",
    summary="Inspect a teacher without distilling it",
    description="The body is the same. The job ends after inspection, with a report and an estimate, or with "
    "an error.",
    uploads=_UPLOADS,
    stages=("inspect",),
    artifacts=MappingProxyType({REPORT: _JSON}),
    priority=1,  # a person waits for the answer
)

KINDS = {kind.name: kind for kind in (DISTILL, VALIDATE)}
