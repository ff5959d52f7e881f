"""amqtt with what it leaves open closed, by its own points of extension where there are any.

As it comes, amqtt 0.12 takes a session over (or deletes it) before it has asked for the password, publishes a last will
on any topic, forgets what a client sent just before it left although that was acknowledged, and gives a message up that
its reader did not acknowledge in 5 s or before it went away.
"""

from __future__ import annotations

import asyncio
from typing import Any

import amqtt.broker
from amqtt.contexts import Action
from amqtt.errors import MQTTError
from amqtt.mqtt.connack import NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import OutgoingApplicationMessage


class GuardedHandler(BrokerProtocolHandler):  # type: ignore[misc]
    """One connection."""

    @classmethod
    async def init_from_connect(cls, reader: Any, writer: Any, plugins_manager: Any, loop: Any = None) -> Any:
        """Read CONNECT, and refuse whoever may not come in before any session is touched."""
        handler, session = await super().init_from_connect(reader, writer, plugins_manager, loop)
        answers = await plugins_manager.map_plugin_auth(session=session)
        if not answers or not all(answers.values()):
            await ConnackPacket.build(0, NOT_AUTHORIZED).to_stream(writer)
            raise MQTTError("refused: wrong name, password or client id")
        return handler, session

    async def _handle_qos1_message_flow(self, app_message: Any) -> None:
        try:
            await super()._handle_qos1_message_flow(app_message)
        except (TimeoutError, asyncio.CancelledError, OSError):
            session = self.session
            if (
                isinstance(app_message, OutgoingApplicationMessage)
                and not app_message.puback_packet
                and session is not None
                and not session.clean_session
            ):
                # It is sent again when the reader comes back.
                session.retained_messages.put_nowait(app_message)
            raise


class GuardedBroker(amqtt.broker.Broker):  # type: ignore[misc]
    """The broker."""

    async def _handle_disconnect(self, client_session: Any, handler: Any, disconnect_waiter: Any) -> None:
        loop = asyncio.get_running_loop()
        queue = client_session.delivered_message_queue
        while not queue.empty():
            left: asyncio.Future[Any] = loop.create_future()
            left.set_result(queue.get_nowait())
            await self._handle_message_delivery(client_session, handler, left)
        if client_session.will_flag and not await self._topic_filtering(
            client_session, topic=client_session.will_topic or "", action=Action.PUBLISH
        ):
            client_session.will_flag = False
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)


amqtt.broker.BrokerProtocolHandler = GuardedHandler
