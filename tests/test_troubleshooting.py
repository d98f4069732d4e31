"""The guide to troubleshooting names the cause of a refused algorithm, for every algorithm and configuration."""

import asyncio
import base64
import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.server import ROOT, SECRET
from tokens.key_set import Key
from tokens.verifier import KEY_ALGORITHMS, InvalidToken, TokenVerifier

GUIDE = ROOT / "docs" / "troubleshooting.md"
HEADING = "## 401: not signed with an accepted algorithm"
REFUSAL = "The token is not signed with an accepted algorithm."


class OneKey:
    """A key set with one key, for EdDSA."""

    async def key(self, _: str) -> Key:
        return Key("EdDSA", Ed25519PrivateKey.generate().public_key())


VERIFIERS = {
    "the secret": TokenVerifier(secret=SECRET),
    "the keys": TokenVerifier(key_set=OneKey(), origin="https://app.example.com"),  # type: ignore[arg-type]
    "both": TokenVerifier(secret=SECRET, key_set=OneKey(), origin="https://app.example.com"),  # type: ignore[arg-type]
}


def rows() -> list[list[str]]:
    """Return the algorithms that each row of the guide's table names."""
    section = GUIDE.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    return [re.findall("`(.*?)`", cell) for cell in re.findall(r"^\| (.*?) \|", section, re.MULTILINE)[1:]]


HS256, KEYS, _, NEVER, UNSIGNED = rows()


def answer(verifier: TokenVerifier, algorithm: str | None) -> str:
    """Return what the service says to a token with this algorithm in its header."""
    header = {"kid": "one"} | ({"alg": algorithm} if algorithm else {})
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, {})]
    with pytest.raises(InvalidToken) as refused:
        asyncio.run(verifier.verify(".".join([*parts, "AAAA"])))
    return str(refused.value)


def test_the_guide_names_every_algorithm_that_is_accepted() -> None:
    assert (HS256, set(KEYS)) == (["HS256"], KEY_ALGORITHMS)


def test_a_token_of_the_secret_is_refused_for_its_algorithm_only_without_a_secret() -> None:
    assert [name for name, one in VERIFIERS.items() if answer(one, "HS256") == REFUSAL] == ["the keys"]


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_of_a_key_is_refused_for_its_algorithm_without_keys_or_where_its_key_is_for_another(
    algorithm: str,
) -> None:
    refused = [name for name, one in VERIFIERS.items() if answer(one, algorithm) == REFUSAL]
    assert refused == (["the secret"] if algorithm == "EdDSA" else ["the secret", "the keys", "both"])


@pytest.mark.parametrize("algorithm", [*NEVER, *UNSIGNED, None])
def test_other_algorithms_are_refused_whatever_the_service_has(algorithm: str | None) -> None:
    assert {answer(one, algorithm) for one in VERIFIERS.values()} == {REFUSAL}


@pytest.mark.parametrize("token", ["nN4uEdLgtPTAVCrd2wqK3Z", "nN4uEdLgtPTAVCrd.b64%3D", "e30..QUFB.QUFB.QUFB"])
def test_what_is_no_signed_token_is_not_refused_for_its_algorithm(token: str) -> None:
    with pytest.raises(InvalidToken, match="not a JSON Web Token"):
        asyncio.run(VERIFIERS["both"].verify(token))
