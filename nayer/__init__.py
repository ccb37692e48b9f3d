"""The Python client of the service. It needs httpx and pydantic, and nothing of the service itself.

    spec = json.loads(Path("spec.json").read_text())  # the document of `POST /jobs`
    with nayer.Client("http://127.0.0.1:8000") as client:
        job = client.submit(Path("teacher.pt"), spec)
        job = nayer.follow(client, job.id)
        client.download(job.id, "student.safetensors", Path("student.safetensors"))

Every error is a `ClientError` with a stable code, a message and a hint; `nayer.errors` shows the tree.
"""

from nayer.client import Client, RemoteEvent, RemoteJob
from nayer.errors import ApiError, ClientError, DownloadCorruptError, InvalidField, ServiceUnreachableError
from nayer.following import follow

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "DownloadCorruptError",
    "InvalidField",
    "RemoteEvent",
    "RemoteJob",
    "ServiceUnreachableError",
    "follow",
]
