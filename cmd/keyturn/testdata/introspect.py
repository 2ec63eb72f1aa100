"""Asks a server about a token as a Python service does that leaves the check to it, and then revokes the
token: RFC 7662 and RFC 7009, by Authlib. The arguments are the server's URL and the client; the first line of
standard input is the client's secret, and the second the token. It prints what the server says before and after,
and the status for another secret:

    [{"active": true, ...}, {"active": false}, 401]
"""
import json
import sys

from authlib.integrations.requests_client import OAuth2Session

server, client = sys.argv[1:]
secret, token = sys.stdin.read().split()


def ask(secret):
    session = OAuth2Session(client, secret)  # client_secret_basic
    session.trust_env = False  # no proxy of the environment
    return session, session.introspect_token(server + "/introspect", token, token_type_hint="access_token")


session, before = ask(secret)
before.raise_for_status()  # 503: the server cannot tell
session.revoke_token(server + "/revoke", token).raise_for_status()
after = session.introspect_token(server + "/introspect", token)
after.raise_for_status()
print(json.dumps([before.json(), after.json(), ask("not the secret")[1].status_code]))
