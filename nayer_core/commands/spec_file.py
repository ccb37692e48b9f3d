"""SPEC.json -> a checked spec, with errors that name the field."""

from pathlib import Path

from pydantic import ValidationError

from nayer_core.contract.errors import ErrorCode, SpecError
from nayer_core.contract.spec import JobSpec

_HINT = "Compare it with GET /schema, which lists every field with its default."


def read_job_spec(path: Path) -> JobSpec:
    """Read the document of `POST /jobs`.

    Raises:
        SpecError: `invalid_spec`, or the code of the one name in it that is unknown.
    """
    try:
        return JobSpec.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        is_known = problem["type"] in list(ErrorCode)
        raise SpecError(
            ErrorCode(problem["type"]) if is_known else ErrorCode.INVALID_SPEC,
            f"The spec cannot be used{f', at {field}' if field else ''}: {problem['msg']}.",
            _HINT,
        ) from error
