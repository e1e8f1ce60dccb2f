from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.datastructures import State
from litestar.response import Stream


@get("/hello/{name:str}")
async def hello(name: str) -> dict[str, str]:
    return {"hello": name}


@get("/threaded/{name:str}", sync_to_thread=True)
def threaded(name: str) -> dict[str, str]:
    return {"hello": name}


@get("/state")
async def opened(state: State) -> dict[str, str]:
    return {"state": state.opened}


@post("/notes")
async def notes(request: Request) -> dict:
    return {"size": 0, **await request.json()}


@post("/upload", status_code=200)
async def upload(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


@get("/stream", media_type="text/plain")
async def stream() -> Stream:
    async def parts():
        for number in range(5):
            yield f"{number}\n"

    return Stream(parts())


@websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("heard " + await socket.receive_text())
    await socket.close(4002)


def start(app: Litestar) -> None:
    app.state.opened = "in lifespan"


app = Litestar(
    [hello, threaded, opened, notes, upload, stream, ws], on_startup=[start], request_max_body_size=None
)
