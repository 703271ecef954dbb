"""Several messages in one call to SQS, which kombu's transport cannot."""

from __future__ import annotations

from typing import Any

BUNDLE = 10  #: messages that SQS takes in one call


class Bundle:
    """Messages on their way to SQS in as few calls as there are queues; at most ``BUNDLE`` of them."""

    def __init__(self) -> None:
        self._client: Any = None
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._count = 0

    def of(self, client: Any) -> Bundle:
        """This bundle, in the client's place."""
        self._client = client
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def send_message(self, *, QueueUrl: str, **message: Any) -> None:  # noqa: N803 - as boto3 has it
        """Keep a message. It is named by its number."""
        self._entries.setdefault(QueueUrl, []).append({"Id": str(self._count), **message})
        self._count += 1

    def send(self) -> dict[int, str]:
        """Send them. Returns the numbers of those that were not taken, and why; raises what boto3 raises."""
        refused: dict[int, str] = {}
        for url, entries in self._entries.items():
            answer = self._client.send_message_batch(QueueUrl=url, Entries=entries)
            refused |= {int(one["Id"]): one.get("Message", one["Code"]) for one in answer.get("Failed", ())}
        return refused
