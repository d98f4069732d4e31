"""The hosts under which the application runs, for what is tested on both."""

import pytest

HOSTS = ("asgi", pytest.param("flask", marks=pytest.mark.second_host))
