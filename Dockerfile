# The image of the service. The database is outside: see compose.yaml and docs/deployment.md.

FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.lock ./
# A wheel of every package in the lock file, each with its hash checked. The development tools are in the lock file too;
# they end here, since the last stage takes only what the service depends on.
RUN pip wheel --no-cache-dir --no-deps --require-hashes --requirement requirements.lock --wheel-dir /wheels
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY settings settings
COPY openapi openapi
COPY tokens tokens
COPY handlers handlers
COPY models models
COPY postgres postgres
RUN pip wheel --no-cache-dir --no-deps --no-index --find-links /wheels --wheel-dir /wheels .

FROM python:3.13-slim
ENV HOST=0.0.0.0 PORT=8000 PYTHONUNBUFFERED=1
RUN useradd --system --create-home --home-dir /app tasks-api
WORKDIR /app
# The folder has one version of each package, the pinned one, and no index is asked.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels tasks-api
USER tasks-api
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
    CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$PORT/health', timeout=3)"
CMD ["tasks-api", "serve"]
