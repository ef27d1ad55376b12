"""Kafka: a record for each version of a pick, keyed by the pick's id."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from eqcctpro.errors import SinkError
from eqcctpro.live.outbox import Entry
from eqcctpro.live.sinks.base import RejectedError, Sink
from eqcctpro.live.sinks.payload import FORMATS_OPTION, payload_of

__all__ = ["KafkaSink"]

_log = logging.getLogger("eqcctpro.live.kafka")


class KafkaSink(Sink):
    """Records of a topic, by an idempotent producer; versions of a pick share a partition.

    A record whose acknowledgement is lost with this process is sent again; receivers know it by
    id and version, and a compacted topic keeps the last one.
    """

    schemes: ClassVar[tuple[str, ...]] = ("kafka", "kafkas")
    options: ClassVar[tuple[str, ...]] = ("brokers", "timeout", "mechanism", "ca", *FORMATS_OPTION)
    extra: ClassVar[str] = "kafka"
    library: ClassVar[str] = "confluent_kafka"

    def check(self) -> None:
        """Check broker, topic and options."""
        self.target.require("broker", self.target.host)
        self._topic = self.target.require("topic, as in kafka://HOST/TOPIC", self.target.path)
        self._timeout_s = self.target.number("timeout", 30, 1, 3600)
        self._payload = payload_of(self.target)
        self._producer: Any = None

    def open(self) -> None:
        """Make a producer, and ask for the topic."""
        from confluent_kafka import Producer

        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        brokers = [f"{host}:{self.target.port or 9092}"]
        brokers += filter(None, self.target.options.get("brokers", "").split(","))
        is_secure, has_user = self.target.scheme == "kafkas", bool(self.target.user)
        settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(brokers),
            "client.id": "eqcctpro",
            "enable.idempotence": True,
            "linger.ms": 5,
            "message.timeout.ms": int(self._timeout_s * 1000),
            "security.protocol": ("SASL_" if has_user else "")
            + ("SSL" if is_secure else "PLAINTEXT"),
        }
        if has_user:
            settings |= {
                "sasl.mechanism": self.target.options.get("mechanism", "PLAIN"),
                "sasl.username": self.target.user,
                "sasl.password": self.target.password,
            }
        if self.target.options.get("ca"):
            settings["ssl.ca.location"] = self.target.options["ca"]
        self._producer = Producer(settings, logger=_log)
        self._producer.list_topics(self._topic, timeout=self._timeout_s)

    def send(self, entries: Sequence[Entry]) -> None:
        """Send records, and wait until all replicas in sync have them."""
        from confluent_kafka import KafkaError

        failed: list[Any] = []
        acknowledged = 0

        def delivered(error: Any, _record: Any) -> None:
            nonlocal acknowledged
            acknowledged += error is None
            if error is not None:
                failed.append(error)

        for _, message in entries:
            self._producer.produce(
                self._topic,
                self._payload(message).encode(),
                key=message.id.encode(),
                on_delivery=delivered,
            )
        self._producer.flush(self._timeout_s + 1)
        if failed:
            too_large = KafkaError.MSG_SIZE_TOO_LARGE
            kind = RejectedError if failed[0].code() == too_large else SinkError
            raise kind(failed[0].str())
        if acknowledged < len(entries):
            raise SinkError(f"no acknowledgement within {self._timeout_s:g} s")

    def close(self) -> None:
        """Give up what is under way."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(Exception):
                producer.purge()
                producer.flush(0.5)
