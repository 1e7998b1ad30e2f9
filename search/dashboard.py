"""Optuna's dashboard on a run's studies, for looking only: what would change the record is refused."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from lpsnet.errors import UserError
from search.study import open_storage

LOOKING = ("GET", "HEAD")
LOCAL = ("127.0.0.1", "localhost", "::1")

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal shows the run."""


def looking_only(app: Wsgi, host: str = "") -> Wsgi:
    """The app, with every request refused that could change something.

    Where it listens on this machine alone, one that was meant for another name is refused, too: a page from elsewhere, whose name
    was made to lead here, would read the record through the browser.
    """

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        named = re.sub(r":[0-9]+$", "", environ.get("HTTP_HOST", ""))
        if host in LOCAL and named.strip("[]") not in LOCAL:
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [b'{"reason": "this dashboard answers to this machine only; watch --host names another address"}']
        if environ.get("REQUEST_METHOD") in LOOKING:
            return app(environ, start_response)
        start_response("405 Method Not Allowed", [("Content-Type", "application/json"), ("Allow", ", ".join(LOOKING))])
        return [b'{"reason": "this dashboard shows a search and changes nothing"}']

    return guarded


@contextmanager
def dashboard(storage: str, host: str, port: int) -> Iterator[str]:
    """Serve the dashboard until the block ends; gives its address.

    Args:
        storage: a journal file's path or a database URL.
        host: address to listen on.
        port: to listen on; 0 for any that is free.

    Raises:
        UserError: optuna-dashboard is not installed, or the address is taken.
        StudyError: the record is damaged or cannot be reached.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UserError(f"the dashboard is not installed ({error}); pip install 'lps-search[dashboard]' brings it") from error
    app = looking_only(wsgi(open_storage(storage)), host)
    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise UserError(f"the dashboard cannot listen on {host}:{port}: {error}; name another --port or --host") from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
