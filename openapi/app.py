"""The application: the contract, its handlers, services and middlewares put together."""

import sys
from functools import partial

from connexion.apps.abstract import AbstractApp
from connexion.exceptions import ProblemException
from connexion.middleware.exceptions import ExceptionMiddleware
from connexion.middleware.lifespan import LifespanMiddleware
from connexion.middleware.security import SecurityMiddleware
from starlette.exceptions import HTTPException
from uvicorn.config import STARTUP_FAILURE

from handlers import health
from handlers.health import Readiness
from handlers.pages import Cursors
from models.quota import Quota
from models.service_key import service_key
from openapi.connexion_adapter import HOSTS, Host, Identification, Routing, answer_error, find_handler
from openapi.contract import Contract, InvalidContract
from openapi.contract_checks import check
from openapi.documentation import Documentation
from openapi.lifespan import lifespan
from openapi.middleware.access_log import AccessLog
from openapi.middleware.compression import Compression
from openapi.middleware.concurrency_limit import ConcurrencyLimit
from openapi.middleware.cors import Cors
from openapi.middleware.header_limits import HeaderLimits
from openapi.middleware.path_and_method import PathAndMethod
from openapi.middleware.rate_limit import RateLimit
from openapi.middleware.request_body import RequestBody
from openapi.middleware.request_context import RequestContext
from openapi.middleware.request_validation import RequestValidation
from openapi.middleware.security_headers import SecurityHeaders
from openapi.rate_limiter import RateLimiter
from openapi.request import Services
from openapi.slots import Slots
from postgres import embedded
from postgres.database import Database
from postgres.embedded.failure import EmbeddedFailure
from settings.development_secret import ensure_token_secret
from settings.proxy import proxy_for
from settings.settings import Settings
from settings.values import InvalidSettings, sentence
from tokens.key_set import KeySet
from tokens.verifier import TokenVerifier


def create_app(settings: Settings | None = None, *, is_alone: bool = False) -> AbstractApp:
    """Return the application for an ASGI server such as uvicorn.

    Raises InvalidSettings, InvalidContract, EmbeddedFailure.

    `is_alone` says that the process does nothing else. Garbage collection then skips everything that exists after the
    start, which it would otherwise search in the middle of a request.

    It is over 40 lines long so that one list shows every middleware in its order.
    """
    settings = settings or Settings.load()
    contract = Contract()
    check(contract, find_handler)
    host = HOSTS[settings.server_framework]
    database, tokens = _database(settings, host), token_verifier(settings)
    limit = settings.requests_per_minute
    limiter = RateLimiter(limit, settings.rate_limit_storage) if limit else None
    services = Services(
        database=database,
        tokens=tokens,
        cursors=Cursors(partial(service_key, database, "cursors")),
        quota=Quota(settings.max_tasks_per_user or 0, settings.max_keys_per_user or 0),
        readiness=Readiness(partial(host.run, health.check, database, tokens)),
        stream=host.stream,
        url_for=contract.url_for,
    )
    app = host.app(
        __name__,
        middlewares=[  # outermost first
            LifespanMiddleware,
            partial(RequestContext, contract=contract, services=services),
            AccessLog,
            SecurityHeaders,
            partial(Cors, contract=contract, origins=settings.origins),
            Compression,
            ExceptionMiddleware,
            HeaderLimits,
            partial(Documentation, contract=contract),
            PathAndMethod,
            RequestBody,
            Routing,
            SecurityMiddleware,
            Identification,
            partial(RateLimit, limiter=limiter),
            partial(RequestValidation, contract=contract),
            partial(ConcurrencyLimit, slots=_slots(host, settings), until_sent=host.threads is not None),
            host.innermost(contract),
        ],
        resolver=host.resolver,
        lifespan=partial(lifespan, run=host.run, services=services, limiter=limiter, is_alone=is_alone),
    )
    app.add_api(contract.document)
    for error in (ProblemException, HTTPException, Exception):
        app.add_error_handler(error, answer_error)
    return app


def application() -> AbstractApp:
    """Return the application for a process of its own, or exit with a sentence that says why there is none.

    The code is uvicorn's, by which its supervisor knows that another worker would fail too.
    """
    try:
        return create_app(is_alone=True)
    except (InvalidContract, InvalidSettings, EmbeddedFailure) as error:
        reason = str(error)
    except OSError as error:
        reason = sentence(error)
    sys.stderr.write(f"{reason}\n")
    sys.exit(STARTUP_FAILURE)


def _database(settings: Settings, host: Host) -> Database:
    return Database(
        settings.external_database_url or embedded.start(settings.data_dir / "postgres"),
        pool_size=settings.database_pool_size,
        statement_timeout=settings.statement_timeout,
        lock_timeout=settings.lock_timeout,
        on_loop=host.threads is None,
    )


def _slots(host: Host, settings: Settings) -> Slots:
    """Return a slot for each connection but one, which `/ready` and the sweep use; at most one for each host thread."""
    connections = max(1, settings.database_pool_size - 1)
    return Slots(min(connections, host.threads) if host.threads else connections)


def token_verifier(settings: Settings) -> TokenVerifier:
    """Return the verifier that the settings ask for."""
    return TokenVerifier(
        secret=ensure_token_secret(settings),
        key_set=KeySet(url, proxy=proxy_for(url)) if (url := settings.key_set_url) else None,
        origin=settings.origin,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )
