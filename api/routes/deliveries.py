"""Messages to the web hook of a job: list them, and send one again."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query

from api.dependencies import JobId, PartsOf
from api.problems import Problem, documented
from api.routing import Router
from api.webhook_schemas import EXAMPLE_DELIVERY_ID, DeliveryBody, DeliveryPage, Message
from jobs.errors import DeliveryNotFound
from jobs.webhooks.deliveries import Delivery

router = Router(tags=["web hooks"])
messages = APIRouter(tags=["web hooks"])

MessageId = Annotated[str, Header(description="The same in every attempt: identifies a repeated message.")]
SentAt = Annotated[int, Header(description="Time of this attempt in seconds since 1970.")]
Signature = Annotated[
    str | None,
    Header(
        alias="webhook-signature",
        description="`v1,` and base64 of HMAC-SHA256 over id, timestamp and body, if there is a secret.",
    ),
]
DeliveryId = Annotated[str, Path(description="The `id` of a delivery.", examples=[EXAMPLE_DELIVERY_ID])]


@router.get(
    "/jobs/{job_id}/deliveries",
    operation_id="listDeliveries",
    summary="List the messages to a job's web hook",
    response_model=DeliveryPage,
    responses=documented("job_not_found", "invalid_parameter"),
)
def list_deliveries(
    job_id: JobId,
    parts: PartsOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
) -> DeliveryPage:
    """Messages, newest first, each with its status. A job without a web hook has none."""
    try:
        page, has_more = parts.service.deliveries(job_id, limit, after)
    except DeliveryNotFound as error:
        raise Problem("invalid_parameter", f"after: {error.message}") from error
    following = page[-1].id if has_more else None
    return DeliveryPage(data=[_body(delivery) for delivery in page], has_more=has_more, next=following)


@router.post(
    "/jobs/{job_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    operation_id="redeliver",
    summary="Send a message to a job's web hook once more",
    response_model=DeliveryBody,
    responses=documented("job_not_found", "delivery_not_found"),
)
def redeliver(job_id: JobId, delivery_id: DeliveryId, parts: PartsOf) -> DeliveryBody:
    """The message is sent within seconds with its old `webhook-id`, even if it is delivered or failed."""
    return _body(parts.service.redeliver(job_id, delivery_id))


@messages.post(
    "job",
    status_code=204,
    operation_id="jobMessage",
    summary="A step of a job",
    responses={410: {"description": "Gone: the job's web hook gets no more messages."}},
)
def job_message(
    message: Message, webhook_id: MessageId, webhook_timestamp: SentAt, signature: Signature = None
) -> None:
    """The service sends this message to `webhook.url` of the spec, at least once. A 2xx within 10 seconds
    accepts it. Otherwise the service tries again, 10 times in 27 hours. It does not follow redirects.
    See standardwebhooks.com.
    """


def _body(delivery: Delivery) -> DeliveryBody:
    return DeliveryBody.model_validate(asdict(delivery))
