# The query service: Python, delta-rs, a Kafka client. No Java, no Spark.
#   docker build -f docker/service.Dockerfile -t unique-users-service .
# It runs as user 10001 on a read-only root file system, and writes nothing.
FROM debian:bookworm-slim AS build

RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Behind a proxy that has its own certificate, mount the certificate in /usr/local/share/ca-certificates for the build.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN update-ca-certificates && python3 -m venv /opt/venv

WORKDIR /build
COPY docker/requirements-service.txt .
RUN /opt/venv/bin/pip install --quiet --require-hashes -r requirements-service.txt
RUN cd /opt/venv/lib/python3*/site-packages \
    && rm -rf pip pip-* setuptools setuptools-* _distutils_hack distutils-precedence.pth \
    && find /opt/venv -name __pycache__ -type d -prune -exec rm -rf {} +

FROM debian:bookworm-slim

ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="unique-users-service" \
      org.opencontainers.image.description="Answers questions about unique users over HTTP" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"

# ca-certificates: for object stores.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc/* /usr/share/man/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/unique-users --shell /usr/sbin/nologin job \
    && mkdir -p /var/lib/unique-users

COPY --from=build /opt/venv /opt/venv
COPY jobs/uniques /opt/unique-users/uniques
COPY service/unique_users_service /opt/unique-users/unique_users_service

ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/opt/unique-users PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
# Relative paths, such as the default --minutes-table, start here: mount the tables of rollup_users.py.
WORKDIR /var/lib/unique-users
EXPOSE 8050
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8050/healthz', timeout=4)"]
ENTRYPOINT ["/usr/bin/tini", "--", "python3", "-m", "unique_users_service.server"]
# On every interface of the container: publish the port on 127.0.0.1, or give --token-file.
CMD ["--port=0.0.0.0:8050"]
