from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app):
    yield {"opened": "in lifespan"}


app = FastAPI(lifespan=lifespan)


class Note(BaseModel):
    title: str
    size: int = 0


@app.get("/hello/{name}")
async def hello(name: str):
    return {"hello": name}


@app.get("/threaded/{name}")
def threaded(name: str):
    return {"hello": name}


@app.get("/state")
async def state(request: Request):
    return {"state": request.state.opened}


@app.post("/notes", status_code=201)
async def notes(note: Note):
    return {"title": note.title, "size": note.size}


@app.post("/upload")
async def upload(body: Annotated[bytes, Body(media_type="application/octet-stream")]):
    return {"size": len(body)}


@app.get("/stream")
async def stream():
    async def parts():
        for number in range(5):
            yield f"{number}\n"

    return StreamingResponse(parts(), media_type="text/plain")


@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept()
    await socket.send_text("heard " + await socket.receive_text())
    await socket.close(4002)
