"""A Flask application as its tutorial has it: a package with a factory."""

from flask import Flask, Response, request


def create_app():
    app = Flask(__name__)

    @app.get("/hello/<name>")
    def hello(name):
        return {"hello": name}

    @app.post("/notes")
    def notes():
        return {"size": 0, **request.get_json()}, 201

    @app.post("/upload")
    def upload():
        return {"size": len(request.get_data())}

    @app.get("/stream")
    def stream():
        return Response((f"{number}\n" for number in range(5)), mimetype="text/plain")

    return app
