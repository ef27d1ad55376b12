"""MQTT: a message for each version of a pick, acknowledged by the broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from eqcctpro.errors import SettingsError, SinkError
from eqcctpro.live.outbox import Entry
from eqcctpro.live.sinks.base import Sink
from eqcctpro.live.sinks.payload import FORMATS_OPTION, payload_of, topic_of

__all__ = ["MqttSink"]


class MqttSink(Sink):
    """Messages of quality of service 1 in ``TOPIC/NETWORK/STATION/PHASE``.

    A message whose acknowledgement is lost is sent again; receivers know it by id and version.
    """

    schemes: ClassVar[tuple[str, ...]] = ("mqtt", "mqtts")
    options: ClassVar[tuple[str, ...]] = ("timeout", "ca", *FORMATS_OPTION)
    extra: ClassVar[str] = "mqtt"
    library: ClassVar[str] = "paho"

    def check(self) -> None:
        """Check host, topic and options."""
        self.target.require("host", self.target.host)
        self._topic = self.target.require("topic, as in mqtt://HOST/TOPIC", self.target.path)
        if any(letter in self._topic for letter in "+#\0"):
            raise SettingsError(f"sink {self.target.name}: a topic has no + and no #")
        self._timeout_s = self.target.number("timeout", 10, 0.1, 3600)
        self._payload = payload_of(self.target)
        self._client: Any = None

    def open(self) -> None:
        """Connect, and wait until the broker has accepted it."""
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        answered, self._lost = threading.Event(), threading.Event()
        refused: list[str] = []

        def connected(_c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
            if reason.is_failure:
                refused.append(str(reason))
            answered.set()

        self._client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._client.on_connect = connected
        self._client.on_disconnect = lambda *_: self._lost.set()
        self._client.connect_timeout = self._timeout_s
        if self.target.user:
            self._client.username_pw_set(self.target.user, self.target.password or None)
        if self.target.scheme == "mqtts":
            self._client.tls_set(self.target.options.get("ca") or None)
        port = self.target.port or (8883 if self.target.scheme == "mqtts" else 1883)
        self._client.connect(self.target.host, port, keepalive=30)
        self._client.loop_start()
        if not answered.wait(self._timeout_s) or refused:
            raise SinkError(
                f"the broker refuses the connection: {refused[0]}"
                if refused
                else f"the broker did not answer within {self._timeout_s:g} s"
            )

    def send(self, entries: Sequence[Entry]) -> None:
        """Publish messages, and wait for their acknowledgements."""
        sent = [
            self._client.publish(
                "/".join((self._topic, *topic_of(message))),
                self._payload(message),
                qos=1,
            )
            for _, message in entries
        ]
        deadline = time.monotonic() + self._timeout_s
        for info in sent:
            while not info.is_published():
                if self._lost.is_set():
                    raise SinkError("the connection to the broker was lost")
                if time.monotonic() > deadline:
                    raise SinkError(f"no acknowledgement within {self._timeout_s:g} s")
                info.wait_for_publish(0.05)

    def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.disconnect()
            with suppress(Exception):
                client.loop_stop()
