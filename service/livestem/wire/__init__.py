"""The wire, version 1: every message, how it becomes frames, and all validation. Nothing here touches a socket."""

from livestem.wire.codec import Message, decode, encode, topic_of
from livestem.wire.messages import VERSION

__all__ = ["VERSION", "Message", "decode", "encode", "topic_of"]
