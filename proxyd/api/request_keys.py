"""Keys under which the handlers share facts about one request."""

from __future__ import annotations

from aiohttp import web

from proxyd.store.virtual_keys import VirtualKey

__all__ = ["CLIENT_ADDRESS", "IS_CALL", "IS_PEER", "MODEL", "REQUEST_ID", "VIRTUAL_KEY"]

#: The id that we give each request before anything else.
REQUEST_ID = web.RequestKey("request_id", str)
#: The address of the client; absent for one on this machine, where it says nothing.
CLIENT_ADDRESS = web.RequestKey("client_address", str)
#: True once the request has become a call, which gets its own line in the log however it ends.
IS_CALL = web.RequestKey("is_call", bool)
#: True for a request of another worker of this daemon.
IS_PEER = web.RequestKey("is_peer", bool)
#: The model that the request names, once its body has been read; for the log.
MODEL = web.RequestKey("model", str)
#: The proxy's own key that the request was sent with, where ``auth: keys`` asks for one.
VIRTUAL_KEY = web.RequestKey("virtual_key", VirtualKey)
