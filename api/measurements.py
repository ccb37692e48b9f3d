"""Metrics for Prometheus: the jobs in the database, and the requests that this process served."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from jobs.errors import ServiceUnavailable
from jobs.files.store import Storage
from jobs.service.for_clients import ClientJobs

SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800)  # from a short query to an upload of many gigabytes


class HttpMeasurements:
    """Requests by method, route and status, with the time to the start of the response."""

    def __init__(self, registry: CollectorRegistry):
        labels = ("method", "route", "status")
        self._requests = Counter(
            "nayer_http_requests", "Requests with a response.", labels, registry=registry
        )
        self._seconds = Histogram(
            "nayer_http_request_seconds",
            "Time to the start of the response.",
            labels[:2],
            buckets=SECONDS,
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record one request; `route` is a template, so that there are few series."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)


class JobCollector(Collector):
    """Queries the database at each scrape; without the database a scrape returns the other metrics."""

    def __init__(self, service: ClientJobs):
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Jobs by status, the longest wait in each queue, expired leases, and messages to web hooks."""
        up = GaugeMetricFamily("nayer_database_up", "1 if the database could count the jobs, else 0.")
        try:
            statistics = self._service.statistics()
        except ServiceUnavailable:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        jobs = GaugeMetricFamily("nayer_jobs", "Jobs by status.", labels=["status"])
        for status, count in statistics.counts.items():
            jobs.add_metric([status], count)
        yield jobs
        oldest = GaugeMetricFamily(
            "nayer_queue_oldest_seconds", "How long the oldest waiting job has waited.", labels=["queue"]
        )
        for queue, age in statistics.oldest_waiting_seconds.items():
            oldest.add_metric([queue], age)
        yield oldest
        leases = GaugeMetricFamily("nayer_leases_expired", "Jobs with an expired lease, not reaped yet.")
        leases.add_metric([], statistics.expired_leases)
        yield leases
        deliveries = GaugeMetricFamily(
            "nayer_webhook_deliveries", "Messages to web hooks by status.", labels=["status"]
        )
        for state, count in statistics.deliveries.items():
            deliveries.add_metric([state], count)
        yield deliveries

    def describe(self) -> Iterable[Metric]:
        """No metrics: registration must not need the database."""
        return ()


class StorageCollector(Collector):
    """Reports the free space of a store in a folder at each scrape; a bucket has no such metric."""

    def __init__(self, storage: Storage):
        self._storage = storage

    def collect(self) -> Iterable[Metric]:
        """Free bytes."""
        free = self._storage.free_bytes()
        if free is not None:
            yield GaugeMetricFamily("nayer_storage_free_bytes", "Free bytes in the store.", value=free)

    def describe(self) -> Iterable[Metric]:
        """No metrics: registration must not need the store."""
        return ()


class Measurements:
    """All metrics of one application."""

    def __init__(self, service: ClientJobs, storage: Storage):
        self._registry = CollectorRegistry()
        self.http = HttpMeasurements(self._registry)
        self._registry.register(JobCollector(service))
        self._registry.register(StorageCollector(storage))

    def exposition(self) -> bytes:
        """The text format of Prometheus, version 0.0.4."""
        return generate_latest(self._registry)
