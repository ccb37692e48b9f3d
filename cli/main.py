"""The `nayer` command.

Exit codes: 0 done · 1 the job failed or was cancelled · 2 the request was refused, or nothing
answered · 130 interrupted while following (the job goes on).
"""

import contextlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cli import options
from cli.output import answering
from cli.serve import fetch_encoders, serve
from cli.submit import end, follow_to_end, submit, validate
from nayer import ApiError, Client, RemoteJob, ServiceUnreachableError
from nayer.client import DEFAULT_URL
from nayer_core.contract.artifacts import STUDENT

ROWS_IN_A_TERMINAL = 30

app = typer.Typer(
    name="nayer",
    help="Data-free distillation: a trained network and its class names in, a smaller network out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(submit)
app.command()(validate)


@app.command()
def watch(
    job: options.JobId,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Follow a job to its end; exits 0 or 1 with it."""
    with answering(as_json) as out, Client(url, api_key) as client:
        outcome = follow_to_end(client, out, job)
        end(out, outcome, outcome.model_dump(mode="json"), f"{outcome.id} {outcome.status}")


@app.command()
def cancel(
    job: options.JobId,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Cancel a job; a finished one does not change."""
    with answering(as_json) as out, Client(url, api_key) as client:
        answer = client.cancel(job)
        out.result(answer.model_dump(mode="json"), f"{answer.id} {answer.status}")


@app.command()
def pause(
    job: options.JobId,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Pause a job; a running one saves its state first."""
    with answering(as_json) as out, Client(url, api_key) as client:
        answer = client.pause(job)
        note = " (it saves its state first)" if answer.status == "running" else ""
        out.result(answer.model_dump(mode="json"), f"{answer.id} {answer.status}{note}")


@app.command()
def resume(
    job: options.JobId,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Continue a paused job from its last state."""
    with answering(as_json) as out, Client(url, api_key) as client:
        answer = client.resume(job)
        out.result(answer.model_dump(mode="json"), f"{answer.id} {answer.status}")


@app.command()
def download(
    job: options.JobId,
    name: Annotated[str, typer.Argument(help="Which artifact.")] = STUDENT,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: its own name here.")] = None,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Fetch an artifact of a job, verified against its sha256."""
    with answering(as_json) as out, Client(url, api_key) as client:
        path = output or Path(Path(name).name)
        sha256 = client.download(job, name, path)
        out.result({"path": str(path), "sha256": sha256, "bytes": path.stat().st_size}, str(path))


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List jobs, newest first."""
    with answering(as_json) as out, Client(url, api_key) as client:
        jobs = client.jobs(status, limit)
        document = {"data": [job.model_dump(mode="json") for job in jobs]}
        out.table(document, ("id", "status", "phase", "done", "created"), map(_row, jobs))


@app.command()
def architectures(
    query: Annotated[str, typer.Argument(help="Only those with this in their name, family or notes.")] = "",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many at most. Default: 30 in a terminal, else all.", show_default=False
        ),
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List the networks that a teacher or a student may be: `nayer architectures mobilenet`."""
    with answering(as_json) as out, Client(url, api_key) as client:
        matches = client.architectures(query)
        if limit is None and not as_json and sys.stdout.isatty():
            limit = ROWS_IN_A_TERMINAL
        page = matches[:limit]
        rows = ((entry["name"], entry["family"], entry["notes"]) for entry in page)
        if page:
            out.table({"data": page}, ("name", "family", "notes"), rows)
        elif as_json:
            out.result({"data": []}, "")
        if not page:
            out.say(f"No architecture holds {escape(query)!r}. All are listed without QUERY.")
        elif len(page) < len(matches):
            out.say(
                f"{len(page)} of {len(matches)}. More: --limit {len(matches)}"
                + ("" if query else ", or fewer with a QUERY, e.g. `nayer architectures mobilenet`")
            )


@app.command()
def presets(
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """List the named configurations."""
    with answering(as_json) as out, Client(url, api_key) as client:
        entries = client.presets()
        rows = ((entry["name"], entry["summary"]) for entry in entries)
        out.table({"data": entries}, ("name", "what for"), rows)


@app.command()
def version(
    as_json: options.AsJson = False,
    url: options.Url = DEFAULT_URL,
    api_key: options.ApiKey = None,
) -> None:
    """Show the version here, and of the service where one answers."""
    with answering(as_json) as out:
        here, there = importlib.metadata.version("nayer"), None
        with contextlib.suppress(ServiceUnreachableError, ApiError), Client(url, api_key) as client:
            there = client.version()
        service = f"service {there['version']} at {url}" if there else f"no service at {url}"
        out.result({"version": here, "service": there}, f"nayer {here}, {service}")


def _row(job: RemoteJob) -> tuple[str, str, str, str, str]:
    fraction = job.progress.get("fraction")
    done = f"{fraction:.0%}" if fraction is not None else ""
    return job.id, job.status, job.phase or "", done, f"{job.created_at:%Y-%m-%d %H:%M:%S}"


app.command()(fetch_encoders)

if __name__ == "__main__":
    app()
