"""A Quart application made by a factory."""

from quart import Quart, request, websocket


def create_app(name="quart"):
    app = Quart(name)
    opened = {}

    @app.before_serving
    async def start():
        opened["state"] = "in lifespan"

    @app.get("/hello/<name>")
    async def hello(name):
        return {"hello": name}

    @app.get("/threaded/<name>")
    def threaded(name):
        return {"hello": name}

    @app.get("/state")
    async def state():
        return opened

    @app.post("/notes")
    async def notes():
        return {"size": 0, **await request.get_json()}, 201

    @app.post("/upload")
    async def upload():
        return {"size": len(await request.get_data())}

    @app.get("/stream")
    async def stream():
        async def parts():
            for number in range(5):
                yield f"{number}\n"

        return parts(), {"Content-Type": "text/plain"}

    @app.websocket("/ws")
    async def ws():
        await websocket.send("heard " + await websocket.receive())
        await websocket.close(4002)

    return app
