"""A Starlette application in a package, served on asyncio and on trio."""

import contextlib

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"opened": "in lifespan"}


async def hello(request):
    return JSONResponse({"hello": request.path_params["name"]})


def threaded(request):
    return JSONResponse({"hello": request.path_params["name"]})


async def state(request):
    return JSONResponse({"state": request.state.opened})


async def notes(request):
    return JSONResponse({"size": 0, **await request.json()}, 201)


async def upload(request):
    size = 0
    async for part in request.stream():
        size += len(part)
    return JSONResponse({"size": size})


async def stream(request):
    async def parts():
        for number in range(5):
            yield f"{number}\n"

    return StreamingResponse(parts(), media_type="text/plain")


async def ws(socket):
    await socket.accept()
    await socket.send_text("heard " + await socket.receive_text())
    await socket.close(4002)


app = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Route("/threaded/{name}", threaded),
        Route("/state", state),
        Route("/notes", notes, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/stream", stream),
        WebSocketRoute("/ws", ws),
    ],
    lifespan=lifespan,
)
