"""A kind of job as data. The API, the service and the workers read it, and need no branch for a kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jobs.settings import Settings
from jobs.states import QueueName
from jobs.values.files import Artifact, StoredFile


@dataclass(frozen=True)
class UploadPart:
    """A file of the request, one part of its multipart body.

    Args:
        description: what the file is, for the API's description.
        max_bytes: reads its bound from the settings.
        is_required: whether a request without it is refused.
    """

    description: str
    max_bytes: Callable[[Settings], int]
    is_required: bool = False


@dataclass(frozen=True)
class JobKind:
    """One kind of job. `worker.flows.FLOWS` has the work of each stage.

    Args:
        name: value of the column and of the API's `kind`; lower case.
        path: where the API takes requests for it.
        operation_id: the name of that operation in generated clients.
        summary: one line for the API's description.
        description: a few sentences for it.
        uploads: the files of a request by the name of their part; `teacher` is always among them.
        stages: the queues that the job passes through, in order; each at most once.
        artifacts: media types of the files that it may publish, by their name.
        priority: of two waiting jobs the one with the higher priority is taken first.
    """

    name: str
    path: str
    operation_id: str
    summary: str
    description: str
    uploads: Mapping[str, UploadPart]
    stages: tuple[QueueName, ...]
    artifacts: Mapping[str, str]
    priority: int = 0

    def stage_after(self, queue: QueueName) -> QueueName | None:
        """The queue in which the job waits after its stage in `queue`; None after the last one."""
        following = self.stages[self.stages.index(queue) + 1 :]
        return following[0] if following else None

    def artifact(self, name: str, file: StoredFile) -> Artifact:
        """Describe a stored file as the artifact `name`, one of `artifacts`."""
        return Artifact(name, file.key, file.sha256, file.bytes, self.artifacts[name])
