"""The configuration: what is accepted, what stops the start and with which sentence, what is shown (FR-022)."""

import dataclasses
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import database_url, env_file
from settings.development_secret import ensure_token_secret
from settings.settings import DEFAULT_RATE_LIMIT, LOCAL_FRONTENDS, Settings
from settings.values import MIN_SECRET, InvalidSettings
from tests.support.server import ROOT
from tools import settings_reference

NAMES = [one.metadata["name"] for one in dataclasses.fields(Settings)]
SECRET = "a-secret-of-more-than-thirty-two-bytes"


def refusal(**environment: str) -> str:
    """Return the sentence that refuses these settings."""
    with pytest.raises(InvalidSettings) as caught:
        Settings.load(environment)
    return str(caught.value)


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty current directory, with no setting in the environment."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The secret


@pytest.mark.parametrize("secret", ["x", "x" * 31, "é" * 15])
def test_a_secret_of_less_than_32_bytes_is_refused_and_told_how_to_make_one(secret: str) -> None:
    assert refusal(BETTER_AUTH_SECRET=secret) == (
        "BETTER_AUTH_SECRET is shorter than 32 bytes. Make one with: "
        'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
    )


@pytest.mark.parametrize("secret", ["x" * 32, "é" * 16])
def test_a_secret_of_32_bytes_is_accepted(secret: str) -> None:
    assert ensure_token_secret(Settings.load({"BETTER_AUTH_SECRET": secret})) == secret


def test_an_issuer_needs_no_secret() -> None:
    settings = Settings.load({"BETTER_AUTH_URL": "https://app.example.com/"})
    assert (settings.is_development, ensure_token_secret(settings)) == (False, None)
    assert settings.key_set_url == "https://app.example.com/api/auth/jwks"
    assert settings.origin == "https://app.example.com"


def test_a_key_set_may_be_elsewhere() -> None:
    settings = Settings.load({"BETTER_AUTH_URL": "https://app.example.com", "JWKS_URL": "https://keys.example.com/x"})
    assert settings.key_set_url == "https://keys.example.com/x"


def test_a_key_set_without_an_issuer_is_refused() -> None:
    assert refusal(JWKS_URL="https://keys.example.com") == (
        "JWKS_URL is set without the issuer that tokens must name. Set BETTER_AUTH_URL, or JWT_ISSUER and JWT_AUDIENCE."
    )
    own = {"JWT_ISSUER": "https://issuer.example.com", "JWT_AUDIENCE": "tasks"}
    assert ensure_token_secret(Settings.load(own | {"JWKS_URL": "https://keys.example.com"})) is None


def test_a_configured_secret_is_no_development(tmp_path: Path) -> None:
    settings = Settings.load({"BETTER_AUTH_SECRET": SECRET, "DATA_DIR": str(tmp_path)})
    assert (settings.is_development, ensure_token_secret(settings)) == (False, SECRET)
    assert list(tmp_path.iterdir()) == []


def test_without_a_secret_and_an_issuer_it_is_development() -> None:
    assert Settings.load({}).is_development


def test_the_development_secret_is_kept_between_loads(tmp_path: Path) -> None:
    environment = {"DATA_DIR": str(tmp_path / "data")}
    first = ensure_token_secret(Settings.load(environment))
    assert len(str(first).encode()) >= 32
    assert ensure_token_secret(Settings.load(environment)) == first


def test_two_machines_have_different_development_secrets(tmp_path: Path) -> None:
    first, second = (ensure_token_secret(Settings.load({"DATA_DIR": str(tmp_path / name)})) for name in ("one", "two"))
    assert first != second


def test_only_its_owner_can_read_the_development_secret(tmp_path: Path) -> None:
    settings = Settings.load({"DATA_DIR": str(tmp_path / "data")})
    ensure_token_secret(settings)
    files = [path for path in settings.data_dir.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]


@pytest.mark.parametrize("content", ["", "x" * 31, "\n" * 40])
def test_a_development_secret_that_is_too_short_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "development-secret"
    path.write_text(content)
    with pytest.raises(InvalidSettings) as refused:
        ensure_token_secret(Settings.load({"DATA_DIR": str(tmp_path)}))
    assert str(refused.value) == f"{path} has less than 32 bytes. Delete it, and a new one is made."


def test_processes_that_start_at_once_share_one_development_secret(tmp_path: Path) -> None:
    for attempt in range(20):
        settings = Settings.load({"DATA_DIR": str(tmp_path / str(attempt))})
        with ThreadPoolExecutor(8) as processes:
            secrets = set(processes.map(lambda _, settings=settings: ensure_token_secret(settings), range(8)))
        assert len(secrets) == 1


# The address


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_development_on_loopback_is_accepted(host: str) -> None:
    assert Settings.load({"HOST": host}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_development_on_an_address_that_others_reach_is_refused(host: str) -> None:
    assert refusal(HOST=host) == (
        f"HOST is {host}, which others can reach, and neither BETTER_AUTH_SECRET nor BETTER_AUTH_URL is "
        "set. Set one, or bind to 127.0.0.1."
    )


def test_development_on_every_address_by_an_empty_host_is_refused() -> None:
    with pytest.raises(InvalidSettings, match=r"^HOST is "):
        Settings.load({}, host="")


def test_with_a_secret_any_address_is_accepted() -> None:
    assert Settings.load({"HOST": "0.0.0.0", "BETTER_AUTH_SECRET": SECRET}).host == "0.0.0.0"


# Numbers and choices


@pytest.mark.parametrize("name", ["DATABASE_POOL_SIZE", "STATEMENT_TIMEOUT", "LOCK_TIMEOUT", "PORT", "WEB_CONCURRENCY"])
def test_a_number_that_is_none_is_refused(name: str) -> None:
    assert refusal(**{name: "many"}) == f"{name} is 'many'. Set it to a number."


@pytest.mark.parametrize("name", ["DATABASE_POOL_SIZE", "WEB_CONCURRENCY"])
@pytest.mark.parametrize("value", ["0", "-1", "1001"])
def test_a_count_out_of_bounds_is_refused(name: str, value: str) -> None:
    assert refusal(**{name: value}) == f"{name} is {value}. Set it to a number from 1 to 1000."


@pytest.mark.parametrize("name", ["STATEMENT_TIMEOUT", "LOCK_TIMEOUT"])
@pytest.mark.parametrize("value", ["0.0", "-1.0", "3601.0", "nan", "inf"])
def test_a_timeout_out_of_bounds_is_refused(name: str, value: str) -> None:
    assert refusal(**{name: value}) == f"{name} is {value}. Set it to seconds from 0.001 to 3600."


@pytest.mark.parametrize("value", ["-1", "65536"])
def test_a_port_out_of_bounds_is_refused(value: str) -> None:
    assert refusal(PORT=value) == f"PORT is {value}. Set it to a port number, at most 65535."


def test_bounds_hold_for_overrides_too() -> None:
    with pytest.raises(InvalidSettings, match=r"^PORT is 65536\. "):
        Settings.load({}, port=65536)


def test_an_unknown_framework_is_refused() -> None:
    assert refusal(SERVER_FRAMEWORK="django") == "SERVER_FRAMEWORK is 'django'. Set it to asgi or flask."


def test_an_unknown_log_level_is_refused() -> None:
    assert refusal(LOG_LEVEL="loud") == "LOG_LEVEL is 'loud'. Set it to debug, info, warning or error."


# The database


@pytest.mark.parametrize("name", ["DATABASE_URL", "NEON_DB_URL"])
@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_either_name_and_either_scheme_name_the_database(name: str, scheme: str) -> None:
    url = f"{scheme}://u@h/db?sslmode=require&channel_binding=require"
    assert Settings.load({name: url}).external_database_url == url


def test_database_url_wins_over_neon_db_url() -> None:
    settings = Settings.load({"DATABASE_URL": "postgresql://first/db", "NEON_DB_URL": "postgresql://second/db"})
    assert settings.external_database_url == "postgresql://first/db"


def test_without_a_url_the_database_is_the_embedded_one() -> None:
    assert Settings.load({}).external_database_url is None


@pytest.mark.parametrize("name", ["DATABASE_URL", "NEON_DB_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:pa55word@h/db",
        "postgresql+psycopg://u:pa55word@h/db",
        "postgresql://u:pa55word@h/db?pa55word=1",
        "host=h pa55word",
    ],
)
def test_a_url_that_libpq_cannot_read_is_refused_without_showing_its_password(name: str, url: str) -> None:
    sentence = refusal(**{name: url})
    assert name in sentence
    assert "pa55word" not in sentence


AMBIGUOUS = [
    "s3cr/xq7z",
    "s3cr@xq7z",
    "s3/cr?xq@7z#kv",
    "s3cr/xq:7z[kv",
    "s3@cr/xq7z",
    "s3cr%xq7z",
    "s3cr xq7z",
    "s3cr%a0xq7z",
]


@pytest.mark.parametrize("name", ["DATABASE_URL", "NEON_DB_URL"])
@pytest.mark.parametrize("password", AMBIGUOUS)
def test_a_password_with_an_unencoded_character_is_refused_and_not_shown(name: str, password: str) -> None:
    sentence = refusal(**{name: f"postgresql://tasks:{password}@localhost/db"})
    assert sentence.startswith(f"{name} ")
    assert "%2F" in sentence
    assert [part for part in re.split(r"\W", password) if len(part) > 1 and part in sentence] == []


def test_a_parameter_with_an_unencoded_character_is_told_so() -> None:
    assert refusal(DATABASE_URL="postgresql://u:pa55word@h/db?application_name=one@two").startswith(
        "DATABASE_URL has a character in its user, its password or a parameter that means something else in a URL. "
    )


@pytest.mark.parametrize("url", ["postgresql://tasks:s3cret", "postgresql://h/postgresql://u", "postgresql://h:0/db"])
def test_a_url_without_a_host_is_refused_and_not_shown(url: str) -> None:
    assert "s3cret" not in refusal(DATABASE_URL=url)


FORMS = [
    "postgresql://u:{quoted}@h/db",
    "postgresql://h/db?user=u&password={quoted}",
    "postgresql://h/db?sslpassword={quoted}",
    "postgresql://u:{quoted}@one:5432,two:5433/db?target_session_attrs=any",
    "postgresql://u:{raw}@h/db",
    "postgresql://h/db?password={raw}",
    "host=h password={raw}",
    "host=h password='{raw}' dbname=db",
]
PASSWORDS = st.text(st.sampled_from("abcdXYZ019/?#@%:[] &='\\,$é"), min_size=8, max_size=24)


@given(password=PASSWORDS, form=st.sampled_from(FORMS))
def test_no_piece_of_any_password_is_shown_or_in_a_sentence(password: str, form: str) -> None:
    url = form.format(raw=password, quoted=quote(password, safe=""))
    try:
        shown = repr(list(Settings.load({"DATABASE_URL": url}).masked()))
    except InvalidSettings as error:
        shown = str(error)
    rest = form + repr(list(Settings.load({}).masked())) + database_url.ENCODE + database_url.EXAMPLE
    pieces = {password[start : start + 4] for start in range(len(password) - 3)}
    assert [piece for piece in pieces if piece in shown and piece not in rest] == []


@pytest.mark.parametrize("parameter", database_url.FOREIGN)
def test_a_parameter_of_another_client_is_told_what_to_do(parameter: str) -> None:
    assert refusal(DATABASE_URL=f"postgresql://u:pa55word@h/db?{parameter}=v4lue") == (
        f"DATABASE_URL has the parameter {parameter}, which PostgreSQL's libpq does not know. "
        f"Remove it; {database_url.FOREIGN[parameter]}."
    )


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql+psycopg://u:pa55word@h/db", "names a driver behind a +."),
        ("postgresql+asyncpg://u:pa55word@h/db", "names a driver behind a +."),
        ("jdbc:postgresql://h/db?password=pa55word", "is a URL of JDBC."),
        ("prisma+postgres://h/?api_key=pa55word", "is a URL of Prisma's own service."),
        ("'postgresql://u:pa55word@h/db'", "begins with a quote."),
        ("psql 'postgresql://u:pa55word@h/db'", "is a command."),
        ("postgresql://u:pa55word@h/db?connect_timeout=soon", "has no whole number as connect_timeout."),
        ("postgresql://u:pa55word@h/db?colour=red", "has a parameter that PostgreSQL's libpq does not know."),
    ],
)
def test_a_url_of_another_client_is_told_what_to_change(url: str, part: str) -> None:
    sentence = refusal(DATABASE_URL=url)
    assert sentence.startswith(f"DATABASE_URL {part} ")
    assert "pa55word" not in sentence


# Origins


def test_the_default_origins_are_local_frontends() -> None:
    assert Settings.load({}).origins == ("http://localhost:3000", "http://localhost:3001")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "https://app.example.com"),
        ("https://app.example.com/api/auth", "https://app.example.com"),
        ("http://localhost:3000/api", "http://localhost:3000"),
    ],
)
def test_the_default_origin_is_the_one_of_the_issuer(url: str, origin: str) -> None:
    settings = Settings.load({"BETTER_AUTH_URL": url, "BETTER_AUTH_SECRET": SECRET})
    assert settings.origins == (origin,)


@pytest.mark.parametrize("url", ["https://App.Example.com", "https://app.example.com:443/"])
def test_the_default_origin_is_written_as_browsers_write_it(url: str) -> None:
    settings = Settings.load({"BETTER_AUTH_URL": url, "BETTER_AUTH_SECRET": SECRET})
    assert settings.origins == ("https://app.example.com",)


# Each as a browser serializes it: `new URL(url).origin`.
INTERNATIONAL = {
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://BÜCHER.example:443": "https://xn--bcher-kva.example",
    "https://faß.example": "https://xn--fa-hia.example",
    "https://日本語。example:8443": "https://xn--wgv71a119e.example:8443",
    "http://ｌｏｃａｌｈｏｓｔ:3000": "http://localhost:3000",
    "https://XN--BCHER-KVA.example": "https://xn--bcher-kva.example",
    "http://[0:0::0001]:3000": "http://[::1]:3000",
    "http://[2001:DB8::A:0:0:1]": "http://[2001:db8::a:0:0:1]",
    "http://[::ffff:127.0.0.1]": "http://[::ffff:7f00:1]",
}


@pytest.mark.parametrize(("url", "origin"), INTERNATIONAL.items())
def test_an_issuer_is_known_by_the_origin_that_browsers_send(url: str, origin: str) -> None:
    settings = Settings.load({"BETTER_AUTH_URL": url, "BETTER_AUTH_SECRET": SECRET})
    assert (settings.origin, settings.origins) == (origin, (origin,))
    assert settings.key_set_url == f"{origin}/api/auth/jwks"


@pytest.mark.parametrize(("url", "origin"), INTERNATIONAL.items())
def test_an_origin_that_browsers_send_in_another_form_is_refused_with_that_form(url: str, origin: str) -> None:
    assert refusal(CORS_ORIGINS=f"https://a.example,{url}") == (
        f"CORS_ORIGINS has {url!r}, which browsers send as {origin!r}. Write it like that."
    )
    assert Settings.load({"CORS_ORIGINS": origin}).origins == (origin,)


@pytest.mark.parametrize("name", ["BETTER_AUTH_URL", "CORS_ORIGINS", "JWKS_URL"])
@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "0x7f.0.0.1", "127.0.0.01", "2130706433", "256.0.0.1", "a b", "a..b", ".a", "%61.example", "a_é"),
        *("x" * 64, "a." * 128, "[::1%25eth0]", "[v1.x]", "é" * 64, "-\u0301.example", "a\\b", "a|b"),
    ],
)
def test_what_is_no_host_is_refused(name: str, host: str) -> None:
    others = {"JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}
    assert "no origin. Write it like https://app.example.com" in refusal(**{name: f"https://{host}"}, **others)


@pytest.mark.parametrize("url", ["app.example.com", "ftp://app.example.com", "https://", "http://[::1"])
def test_an_issuer_that_is_no_url_is_refused(url: str) -> None:
    assert refusal(BETTER_AUTH_URL=url, BETTER_AUTH_SECRET=SECRET) == (
        f"BETTER_AUTH_URL has {url!r}, which is no origin. Write it like https://app.example.com"
    )


def test_origins_are_a_list_with_commas() -> None:
    settings = Settings.load({"CORS_ORIGINS": " https://a.example.com, http://localhost:5173/ ,http://[::1]:3000,"})
    assert settings.origins == ("https://a.example.com", "http://localhost:5173", "http://[::1]:3000")


def test_configured_origins_win_over_the_one_of_the_issuer() -> None:
    environment = {"CORS_ORIGINS": "https://a.example.com", "BETTER_AUTH_URL": "https://b.example.com"}
    assert Settings.load(environment | {"BETTER_AUTH_SECRET": SECRET}).origins == ("https://a.example.com",)


@pytest.mark.parametrize(
    "origin", ["https://app.example.com/path", "https://app.example.com?x", "https://app.example.com#x"]
)
def test_an_origin_with_more_than_an_origin_is_refused(origin: str) -> None:
    assert refusal(CORS_ORIGINS=origin) == (
        f"CORS_ORIGINS has {origin!r}. Write origins only, such as https://app.example.com"
    )


@pytest.mark.parametrize(
    "origin", ["*", "null", "localhost:3000", "app.example.com", "ftp://example.com", "http://[::1"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    assert refusal(CORS_ORIGINS=origin) == (
        f"CORS_ORIGINS has {origin!r}, which is no origin. Write it like https://app.example.com"
    )


@pytest.mark.parametrize(
    "origin",
    [
        "https://*",
        "https://*.example.com",
        "https://App.example.com",
        "https://app.example.com:443",
        "http://localhost:80",
        "http://localhost:x",
        "https://u:p@app.example.com",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    assert "CORS_ORIGINS" in refusal(CORS_ORIGINS=origin)


@pytest.mark.parametrize("name", ["BETTER_AUTH_URL", "CORS_ORIGINS"])
@pytest.mark.parametrize("user", ["u:pa55word@", "pa55word@", "u:pa55word@evil@", "u:pa55word/@"])
def test_a_url_with_a_password_is_refused_without_showing_it(name: str, user: str) -> None:
    sentence = f"{name} has a user or a password. Write it like https://app.example.com"
    assert refusal(**{name: f"https://{user}app.example.com"}) == sentence
    assert refusal(**{name: f"{user}app.example.com"}) == sentence


def test_a_key_set_with_a_password_is_refused_without_showing_it() -> None:
    assert refusal(BETTER_AUTH_URL="https://app.example.com", JWKS_URL="https://u:pa55word@app.example.com/jwks") == (
        "JWKS_URL has a user or a password. Write it like https://app.example.com"
    )


def test_one_wrong_origin_of_many_is_refused() -> None:
    assert "'*'" in refusal(CORS_ORIGINS="https://app.example.com,*")


# Where settings come from


def test_a_dotenv_file_is_read(directory: Path) -> None:
    (directory / ".env").write_text("PORT=8001\n")
    assert Settings.load().port == 8001


def test_the_environment_wins_over_the_dotenv_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / ".env").write_text("PORT=8001\nLOG_LEVEL=error\n")
    monkeypatch.setenv("PORT", "8002")
    assert (Settings.load().port, Settings.load().log_level) == (8002, "error")


def test_overrides_win_over_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / ".env").write_text("PORT=8001\n")
    monkeypatch.setenv("PORT", "8002")
    assert Settings.load(port=8003).port == 8003


def test_overrides_that_are_none_leave_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / ".env").write_text("HOST=localhost\n")
    monkeypatch.setenv("PORT", "8002")
    settings = Settings.load(port=None, host=None)
    assert (settings.port, settings.host) == (8002, "localhost")


@pytest.mark.usefixtures("directory")
def test_without_any_setting_every_one_has_its_default() -> None:
    assert Settings.load() == Settings()


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_setting_is_not_set(blank: str) -> None:
    assert Settings.load(dict.fromkeys(NAMES, blank)) == Settings()


def test_spaces_around_a_setting_do_not_count() -> None:
    assert Settings.load({"LOG_LEVEL": " debug "}).log_level == "debug"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings.load({}).port = 1  # type: ignore[misc]


# What the npm package dotenv 18.0 makes of each line, as tried with it; Next.js, Vite and Node.js agree, except where
# they replace `$NAME`.
READ = {
    "S=abc$NAME-x": "abc$NAME-x",
    'S="abc${NAME}x"': "abc${NAME}x",
    "S='abc${NAME}x'": "abc${NAME}x",
    "S=`abc${NAME}x`": "abc${NAME}x",
    'S="abc\\$NAME"': "abc\\$NAME",
    "S=abc#def": "abc",
    "S=abc #def": "abc",
    'S="abc#def"': "abc#def",
    "S=abc   ": "abc",
    'S="abc  "  ': "abc  ",
    "export S=abc": "abc",
    "S=abc\r\nT=1\r\n": "abc",
    "\ufeffS=abc": "abc",
    'S="a\nb"': "a\nb",
    'S="a\\nb"': "a\nb",
    "S='a\\nb'": "a\\nb",
    'S="a\\tb"': "a\\tb",
    'S="a\\\\b"': "a\\\\b",
    'S=a"b"c': 'a"b"c',
    "S = abc": "abc",
    "S=1\nS=2": "2",
    "S=": "",
}


@pytest.mark.parametrize(("line", "value"), READ.items())
def test_the_secret_in_the_dotenv_file_is_read_as_the_frontend_reads_it(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / ".env").write_bytes(line.replace("S", "BETTER_AUTH_SECRET").encode())
    assert env_file.read(tmp_path / ".env")["BETTER_AUTH_SECRET"] == value


def test_a_secret_that_the_frontend_may_read_differently_is_told(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("BETTER_AUTH_SECRET='abc$NAME'\n")
    assert "Next.js and Vite replace $NAME" in str(env_file.doubt(path, {}))
    assert env_file.doubt(path, {"BETTER_AUTH_SECRET": "another"}) is None
    path.write_text("BETTER_AUTH_SECRET=abc\n")
    assert env_file.doubt(path, {}) is None


@pytest.mark.parametrize("name", ["BETTER_AUTH_SECRET", "DATABASE_URL", "HOST", "DATA_DIR", "CORS_ORIGINS"])
def test_a_setting_that_is_not_utf_8_is_refused(name: str) -> None:
    assert (
        refusal(**{name: "http://x/" + os.fsdecode(b"\xff") * 40}) == f"{name} is not UTF-8. Set it in that encoding."
    )


@pytest.mark.parametrize("url", ["https://h/?x=s3cret", "https://h/#s3cret", "https://h:s3cret", "https://h:s3cret/x"])
def test_a_secret_in_the_url_of_the_issuer_is_refused_and_not_shown(url: str) -> None:
    assert "s3cret" not in refusal(BETTER_AUTH_URL=url)


def test_the_query_of_a_url_is_not_shown() -> None:
    given = {"JWKS_URL": "https://h/keys?api_key=s3cret", "BETTER_AUTH_URL": "https://h"}
    shown = dict(Settings.load(given).masked())
    assert shown["JWKS_URL"] == "https://h/keys?********"
    assert "s3cret" not in repr(shown)


# Proxies and the rate limit


@pytest.mark.parametrize("value", ["*", "10.0.0.1", "10.0.0.0/8,::1", "fd00::/8"])
def test_proxies_are_addresses_or_networks(value: str) -> None:
    assert Settings.load({"FORWARDED_ALLOW_IPS": value}).forwarded_allow_ips == tuple(value.split(","))


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.256", "**"])
def test_a_proxy_that_is_no_address_is_refused(value: str) -> None:
    assert refusal(FORWARDED_ALLOW_IPS=f"127.0.0.1,{value}") == (
        f"FORWARDED_ALLOW_IPS has {value!r}. Write addresses or networks, such as 10.0.0.0/8, or *."
    )


@pytest.mark.parametrize(
    ("environment", "limit"),
    [
        ({}, 0),
        ({"HOST": "::1"}, 0),
        ({"HOST": "0.0.0.0"}, 600),
        ({"HOST": "0.0.0.0", "RATE_LIMIT": "off"}, 0),
        ({"HOST": "0.0.0.0", "RATE_LIMIT": "OFF"}, 0),
        ({"HOST": "0.0.0.0", "RATE_LIMIT": "0"}, 0),
        ({"RATE_LIMIT": "60"}, 60),
    ],
)
def test_requests_are_limited_where_others_reach_the_service(environment: dict[str, str], limit: int) -> None:
    assert Settings.load({"BETTER_AUTH_SECRET": SECRET, **environment}).requests_per_minute == limit


@pytest.mark.parametrize("value", ["-1", "1000001"])
def test_a_rate_limit_out_of_bounds_is_refused(value: str) -> None:
    assert refusal(RATE_LIMIT=value) == f"RATE_LIMIT is {value}. Set it to off or a number up to 1000000."


def test_a_rate_limit_that_is_no_number_is_refused() -> None:
    assert refusal(RATE_LIMIT="many") == "RATE_LIMIT is 'many'. Set it to a number."


@pytest.mark.parametrize(
    "value", ["memory://", "redis://host", "redis://host:6379/0", "rediss://:pa55word@[::1]:6379/1", "redis://u:p@h/2"]
)
def test_requests_are_counted_in_memory_or_redis(value: str) -> None:
    settings = Settings.load({"RATE_LIMIT_STORAGE": value})
    assert settings.rate_limit_storage == value
    assert "pa55word" not in dict(settings.masked())["RATE_LIMIT_STORAGE"]


@pytest.mark.parametrize(
    "value",
    ["redis", "redis://", "memory", "memcached://host", "redis://:pa55/word@host", "redis://h/x", "redis://h:99999/0"],
)
def test_another_storage_is_refused_without_showing_its_password(value: str) -> None:
    assert refusal(RATE_LIMIT_STORAGE=value) == (
        "RATE_LIMIT_STORAGE is neither memory:// nor a URL like redis://host:6379/0. Set it to one of them."
    )


# What is shown

SHOWN_DATABASES = {
    "postgresql://u:pa55word@h/db": "h/db",
    "postgresql://u:pa55word@h:5432/db?sslmode=require": "sslmode=require",
    "postgresql://u:pa:55:word@h/db": "h/db",
    "postgresql://u:pa%3A55%40word@h/db": "h/db",
    "postgresql://h/db?password=pa55word": "h/db",
    "postgresql://h/db?sslmode=require&password=pa55word&application_name=x": "sslmode=require",
    "postgresql://h/db?sslkey=client.key&sslpassword=pa55word": "sslkey=client.key",
    "host=h password=pa55word": "host=h",
    "host=h password='pa 55 word'": "host=h",
    "host=h password = pa55word": "host=h",
    "host=h password=pa&55&word": "host=h",
}


@pytest.mark.parametrize("name", ["DATABASE_URL", "NEON_DB_URL"])
@pytest.mark.parametrize("url", SHOWN_DATABASES)
def test_what_is_shown_of_a_database_has_no_part_of_its_password(name: str, url: str) -> None:
    shown = dict(Settings.load({name: url}).masked())[name]
    assert [part for part in ("pa", "55", "word") if part in shown.replace("password", "")] == []


@pytest.mark.parametrize(("url", "rest"), SHOWN_DATABASES.items())
def test_what_is_shown_of_a_database_says_which_one_it_is(url: str, rest: str) -> None:
    shown = dict(Settings.load({"DATABASE_URL": url}).masked())["DATABASE_URL"]
    assert set(re.split(r"[=/]", rest)) <= set(re.split(r"[=@:/?&\s]", shown))


def test_no_secret_is_shown() -> None:
    assert SECRET not in repr(list(Settings.load({"BETTER_AUTH_SECRET": SECRET}).masked()))


def test_every_setting_is_shown_under_its_name() -> None:
    assert [name for name, _ in Settings.load({}).masked()] == NAMES


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    shown = dict(Settings.load({"CORS_ORIGINS": "https://a.example.com,https://b.example.com"}).masked())
    assert {name: shown[name] for name in ("PORT", "CORS_ORIGINS", "JWT_ISSUER", "BETTER_AUTH_SECRET")} == {
        "PORT": "8000",
        "CORS_ORIGINS": "https://a.example.com, https://b.example.com",
        "JWT_ISSUER": "(not set)",
        "BETTER_AUTH_SECRET": "(not set)",
    }


@pytest.mark.parametrize("name", ["RATE_LIMIT", "MAX_TASKS_PER_USER", "MAX_IDEMPOTENCY_KEYS_PER_USER"])
@pytest.mark.parametrize(("value", "expected"), [("off", "off"), ("0", "off"), ("7", "7")])
def test_a_limit_that_is_off_is_shown_so(name: str, value: str, expected: str) -> None:
    assert dict(Settings.load({name: value}).masked())[name] == expected


# What is documented


def test_every_setting_is_described_below_its_declaration() -> None:
    assert set(settings_reference.descriptions()) == {one.name for one in dataclasses.fields(Settings)}


def test_descriptions_have_the_values_that_the_code_has() -> None:
    descriptions = settings_reference.descriptions()
    assert f"`{DEFAULT_RATE_LIMIT}`" in descriptions["rate_limit"]
    assert f"at least {MIN_SECRET} bytes" in descriptions["better_auth_secret"]
    assert " and ".join(f"`{origin}`" for origin in LOCAL_FRONTENDS) in descriptions["cors_origins"]


def test_the_reference_is_what_the_settings_say_of_themselves() -> None:
    document, example = (path.read_text(encoding="utf-8") for path in settings_reference.WRITTEN)
    is_current = (document, example) == (settings_reference.document(document), settings_reference.example())
    assert is_current, "docs/settings.md or .env.example differs from settings/settings.py. Run: make settings"


def test_the_reference_names_every_setting_once() -> None:
    names = re.findall(r"^\| `([A-Z_]+)` \|", settings_reference.table(), re.MULTILINE)
    assert (names, re.findall(r"^# ([A-Z_]+)=", settings_reference.example(), re.MULTILINE)) == (NAMES, NAMES)


def test_a_copy_of_the_example_is_accepted_as_it_is() -> None:
    Settings.load(env_file.read(ROOT / ".env.example"))
