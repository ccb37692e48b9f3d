"""Numbers for Prometheus: jobs as the database counts them, requests as this process served them."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.errors import ServiceUnavailable
from jobs.files.store import Storage
from jobs.service.for_clients import ClientJobs

SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800)  # a question to an upload of many gigabytes


class HttpMeasurements:
    """Requests by method, route and status, with the time to the start of the answer."""

    def __init__(self, registry: CollectorRegistry):
        labels = ("method", "route", "status")
        self._requests = Counter("nayer_http_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "nayer_http_request_seconds",
            "Time to the start of the answer.",
            labels[:2],
            buckets=SECONDS,
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note one answered request; `route` is a template, so that the series stay few."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)


class JobCollector(Collector):
    """Asks the database at each scrape; a scrape while it is away still gives the rest."""

    def __init__(self, service: ClientJobs):
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Jobs by status, how long the oldest waits in each queue, leases that ran out, web hooks."""
        up = GaugeMetricFamily("nayer_database_up", "Whether the jobs could be counted.")
        try:
            found = self._service.statistics()
        except ServiceUnavailable:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        jobs = GaugeMetricFamily("nayer_jobs", "Jobs by status.", labels=["status"])
        for status, count in found.counts.items():
            jobs.add_metric([status], count)
        yield jobs
        oldest = GaugeMetricFamily(
            "nayer_queue_oldest_seconds", "How long the oldest waiting job has waited.", labels=["queue"]
        )
        for queue, age in found.oldest_waiting_seconds.items():
            oldest.add_metric([queue], age)
        yield oldest
        leases = GaugeMetricFamily("nayer_leases_expired", "Jobs whose worker fell silent, not yet reaped.")
        leases.add_metric([], found.expired_leases)
        yield leases
        deliveries = GaugeMetricFamily(
            "nayer_webhook_deliveries", "Messages to web hooks by what became of them.", labels=["status"]
        )
        for state, count in found.deliveries.items():
            deliveries.add_metric([state], count)
        yield deliveries

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not need the database."""
        return ()


class StorageCollector(Collector):
    """Tells at each scrape how much room a store in a folder has; of a bucket nothing."""

    def __init__(self, storage: Storage):
        self._storage = storage

    def collect(self) -> Iterable[Metric]:
        """Bytes that are left."""
        free = self._storage.free_bytes()
        if free is not None:
            yield GaugeMetricFamily("nayer_storage_free_bytes", "Room left in the store.", value=free)

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not need the store."""
        return ()


class Measurements:
    """All numbers of one application."""

    def __init__(self, service: ClientJobs, storage: Storage):
        self._registry = CollectorRegistry()
        self.http = HttpMeasurements(self._registry)
        self._registry.register(JobCollector(service))
        self._registry.register(StorageCollector(storage))

    def exposition(self) -> bytes:
        """The text format of Prometheus, version 0.0.4."""
        return generate_latest(self._registry)
