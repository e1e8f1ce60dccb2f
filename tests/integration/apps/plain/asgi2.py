"""An application of ASGI 2: called with the scope, then with receive and send; it knows no lifespan."""


class Application:
    def __init__(self, scope):
        assert scope["type"] == "http", scope["type"]
        self.scope = scope

    async def __call__(self, receive, send):
        body = b"asgi 2 at " + self.scope["path"].encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
        )
        await send({"type": "http.response.body", "body": body})
