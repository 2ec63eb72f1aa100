# An upstream in Python: a WSGI application of the standard library. Its environment is the CGI one, in
# which X-Auth-Subject and X_Auth_Subject are both HTTP_X_AUTH_SUBJECT.
import json
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()]


with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
    print(server.server_port, flush=True)
    sys.stdin.close()
    server.serve_forever()
