"""The version check on the wire: end-1."""

from aiohttp import web

from cacheproxy.api.call import Call


async def ping(call: Call) -> web.StreamResponse:
    return web.Response(
        headers={
            "Content-Type": "application/json",
            "Docker-Distribution-API-Version": "registry/2.0",
        },
        body=b"{}",
    )
