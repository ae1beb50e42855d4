import os


def application(environment, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"gunicorn answers as {os.getuid()}\n".encode()]
