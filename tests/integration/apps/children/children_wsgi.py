"""jobs.py over WSGI."""

import jobs


def app(environ, start_response):
    body = jobs.answer(environ["PATH_INFO"])
    start_response("200 OK", [])
    return [body]
