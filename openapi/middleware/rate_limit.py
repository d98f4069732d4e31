"""The rate limit of each user, whom the token has identified by then."""

from starlette.types import ASGIApp, Receive, Scope, Send

from openapi.problems import Code, Problem, ProblemError
from openapi.rate_limiter import RateLimiter
from openapi.request import Request


class RateLimit:
    """Refuses requests of a user over the limit; the headers follow draft-ietf-httpapi-ratelimit-headers-10."""

    def __init__(self, app: ASGIApp, *, limiter: RateLimiter | None) -> None:
        self.app = app
        self.limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request. Raises ProblemError (429)."""
        request = Request.of(scope)
        if self.limiter and request.caller and (counted := await self.limiter.hit(request.caller.id)):
            left, reset = counted
            limit, window = self.limiter.limit, self.limiter.window
            request.response_headers["RateLimit-Policy"] = f'"default";q={limit};w={window}'
            request.response_headers["RateLimit"] = f'"default";r={max(0, left)};t={reset}'
            if left < 0:
                detail = f"You sent more than {limit} requests in {window} seconds. Try again later."
                raise ProblemError(Problem(429, Code.RATE_LIMITED, detail, {"Retry-After": str(reset)}))
        await self.app(scope, receive, send)
