"""The hosts under which the application runs."""

HOSTS = ("asgi", "flask")
