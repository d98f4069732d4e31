"""Verification of bearer tokens."""

import hashlib
import json
import logging
import re
import time
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypedDict

import jwt
from jwt.utils import base64url_decode

from tokens.key_set import ALGORITHMS, Key, KeySet

logger = logging.getLogger(__name__)

LEEWAY: Final = 5  # seconds by which the clocks of issuer and service may differ
MAX_TOKEN_LENGTH: Final = 8192  # characters
MAX_SUBJECT_LENGTH: Final = 255  # characters, as in `users.id`
MAX_CLAIM_LENGTH: Final = 1000  # characters of `email` and `name`
REMEMBERED: Final = 2000  # tokens
MAX_TIME: Final = 253402300799  # seconds since 1970: the end of the year 9999
TEXT: Final = re.compile(r"[^\0\ud800-\udfff]+")  # what PostgreSQL can store: no NUL, no lone surrogates
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")  # RFC 7515, section 7.1

KEY_ALGORITHMS: Final = {algorithm for possible in ALGORITHMS.values() for algorithm in possible}
NOT_READABLE: Final = "The token is not a JSON Web Token that this service can read."


class InvalidToken(Exception):
    """The token is invalid; the message is for the client."""


class Claims(TypedDict):
    """The claims that the service uses; None for an unusable one (RFC 7519, section 4.1.2; OpenID Connect)."""

    sub: str
    email: str | None
    name: str | None


class Verified(NamedTuple):
    """The claims of a valid token, its expiry (seconds since 1970), and the key that verified it."""

    claims: Claims
    expires: int
    kid: str | None
    key: Key


@dataclass(frozen=True, kw_only=True)
class TokenVerifier:
    """Verifies tokens that are signed with the shared secret (HS256) or with a key of the issuer (RFC 7515).

    The configuration picks the algorithm, never the token: the secret is for HS256 alone, and each key of `key_set` is
    bound to one algorithm.

    Tokens signed with the secret need `issuer` and `audience` if these are set; without a configured audience a token
    with `aud` is refused (RFC 7519, section 4.1.3). Tokens signed with a key always need both, by default `origin`,
    because the issuer signs other tokens with the same keys.
    """

    secret: str | None = None
    key_set: KeySet | None = None
    origin: str | None = None
    issuer: str | None = None
    audience: str | None = None
    _remembered: dict[bytes, Verified] = field(default_factory=dict, init=False, repr=False)

    async def verify(self, token: str) -> Claims:
        """Return the claims of a token. Raises InvalidToken, KeysUnavailable.

        The last REMEMBERED valid tokens are not verified again until they expire or their key is fetched anew.
        """
        digest = hashlib.sha256(token.encode()).digest()
        remembered = self._remembered.get(digest)
        if remembered and await self._holds(remembered):
            return remembered.claims
        verified = await self._verify(token)
        if len(self._remembered) >= REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = verified
        return verified.claims

    async def load(self) -> None:
        """Fetch the issuer's keys. Raises KeysUnavailable."""
        if self.key_set:
            await self.key_set.refresh()
        self.check()

    def check(self) -> None:
        """Raise KeysUnavailable if the issuer's keys were never read."""
        if self.key_set:
            self.key_set.check()

    async def _holds(self, verified: Verified) -> bool:
        if time.time() >= verified.expires + LEEWAY:
            return False
        return self.key_set is None or verified.kid is None or await self.key_set.key(verified.kid) is verified.key

    async def _verify(self, token: str) -> Verified:
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidToken(f"The token is longer than {MAX_TOKEN_LENGTH} characters.")
        if not TOKEN.fullmatch(token):
            raise InvalidToken(NOT_READABLE)
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, RecursionError, ValueError) as error:
            raise InvalidToken(NOT_READABLE) from error
        algorithm = str(header.get("alg"))
        if algorithm == "HS256" and self.secret:
            return self._check(token, None, Key("HS256", self.secret), self.issuer, self.audience)
        if self.key_set is None or algorithm not in KEY_ALGORITHMS:
            raise InvalidToken("The token is not signed with an accepted algorithm.")
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise InvalidToken("The token does not name its key.")
        key = await self.key_set.key(kid)
        if key is None:
            raise InvalidToken("The token is signed with a key that its issuer does not have.")
        return self._check(token, kid, key, self.issuer or self.origin, self.audience or self.origin, "iss", "aud")

    def _check(
        self, token: str, kid: str | None, key: Key, issuer: str | None, audience: str | None, *required: str
    ) -> Verified:
        try:
            claims = jwt.decode(
                token,
                key.public_key,
                algorithms=[key.algorithm],
                issuer=issuer,
                audience=audience,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "sub", *required]},
            )
            _refuse_duplicates(token)
            if audience is None and "aud" in claims:
                raise jwt.InvalidAudienceError
        except (jwt.PyJWTError, RecursionError, ValueError, TypeError) as error:
            if isinstance(error, jwt.InvalidAudienceError):
                _warn_of_audience(audience)
            raise InvalidToken(_explain(error)) from error
        for claim in ("exp", "iat", "nbf"):
            value = claims.get(claim, 0)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidToken(f"The claim {claim} is not a number.")
            if value > MAX_TIME:
                raise InvalidToken(f"The claim {claim} is after the year 9999.")
        if not _is_text(claims["sub"], MAX_SUBJECT_LENGTH):
            raise InvalidToken(f"The claim sub is not a text of 1 to {MAX_SUBJECT_LENGTH} characters.")
        email, name = (
            claims[claim] if _is_text(claims.get(claim), MAX_CLAIM_LENGTH) else None for claim in ("email", "name")
        )
        return Verified(Claims(sub=claims["sub"], email=email, name=name), int(claims["exp"]), kid, key)

    def sign(self, claims: dict[str, Any], lifetime: int) -> str:
        """Return a token that is valid for `lifetime` seconds, for development. Raises ValueError without a secret."""
        if not self.secret:
            raise ValueError("there is no secret to sign with")
        now = int(time.time())
        own = {"iss": self.issuer, "aud": self.audience, "iat": now, "exp": now + lifetime} | claims
        return jwt.encode({name: value for name, value in own.items() if value is not None}, self.secret, "HS256")


def _warn_of_audience(audience: str | None) -> None:
    if audience is None:
        logger.warning("a token was refused because it carries aud; set JWT_AUDIENCE to the audience to accept")
    else:
        logger.warning("a token was refused because its aud is not %r; JWT_AUDIENCE sets another", audience)


def _refuse_duplicates(token: str) -> None:
    """Raise ValueError unless header and payload are strict JSON in UTF-8 without duplicate names.

    Of two claims with one name PyJWT takes the last, and other readers the first (RFC 8725, section 2.4).
    """
    for part in token.split(".")[:2]:
        json.loads(base64url_decode(part).decode(), object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name is not unique")
    return dict(pairs)


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _is_text(value: Any, limit: int) -> bool:
    return isinstance(value, str) and len(value) <= limit and TEXT.fullmatch(value) is not None


_EXPLANATIONS: Final[dict[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "The token has expired.",
    jwt.ImmatureSignatureError: "The token is not valid yet.",
    jwt.InvalidSignatureError: "The token's signature is not valid.",
    jwt.InvalidAlgorithmError: "The token is not signed with an accepted algorithm.",
    jwt.InvalidAudienceError: "The token is for another audience.",
    jwt.InvalidIssuerError: "The token is from another issuer.",
    jwt.exceptions.InvalidSubjectError: "The claim sub is not a text.",
}


def _explain(error: Exception) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"The token has no claim {error.claim}."
    return _EXPLANATIONS.get(type(error), NOT_READABLE)
