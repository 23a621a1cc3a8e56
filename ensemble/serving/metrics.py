"""Counters for Prometheus, in a registry of their own."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ensemble.model.answers import Priced

CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = ("GET", "HEAD", "POST")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """What one server counts; labels are of closed sets, so that no client can make new series."""

    def __init__(self, fingerprint: str, version: str, n_waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"shelfprice_{name}", text, labels, registry=self.registry)

        def histogram(
            name: str, text: str, buckets: Sequence[float], labels: Iterable[str] = ()
        ) -> Histogram:
            return Histogram(f"shelfprice_{name}", text, labels, buckets=buckets, registry=self.registry)

        self._requests = counter("requests", "Requests answered.", ("route", "method", "status"))
        self._seconds = histogram(
            "request_seconds", "Seconds from head to answer of a request.", _SECONDS, ("route",)
        )
        self._rows = counter("rows", "Products priced or refused.", ("outcome",))
        self._flags = counter("flags", "Products with a flag.", ("flag",))
        self._batch_rows = histogram("batch_rows", "Products in a batch.", _ROWS, ("call",))
        self._batch_seconds = histogram(
            "batch_seconds", "Seconds of the model for a batch.", _SECONDS, ("call",)
        )
        self.errors = counter("model_errors", "Exceptions of the model.")
        self.at_work = Gauge(
            "shelfprice_requests_at_work", "Requests being answered.", registry=self.registry
        )
        waiting = Gauge(
            "shelfprice_waiting_rows", "Products that the model has not begun.", registry=self.registry
        )
        waiting.set_function(n_waiting)
        model = Gauge("shelfprice_model", "The model served.", ("model", "version"), registry=self.registry)
        model.labels(fingerprint, version).set(1)

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_priced(self, answers: Iterable[Priced]) -> None:
        for one in answers:
            self._rows.labels("refused" if one.price is None else "priced").inc()
            for flag in one.flags:
                self._flags.labels(flag).inc()

    def count_batch(self, call: str, n_rows: int, seconds: float) -> None:
        self._batch_rows.labels(call).observe(n_rows)
        self._batch_seconds.labels(call).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self.registry)
