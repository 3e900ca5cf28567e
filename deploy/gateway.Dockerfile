# syntax=docker/dockerfile:1
# The gateway: the client, the gateway and what both need; no server, no models, no GPU.
#
#   docker build -f deploy/gateway.Dockerfile -t frameswap-gateway:0.1.0 .
#
# Pin the digest that your registry shows: --build-arg PYTHON_IMAGE=python:3.12-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /opt/frameswap
# The runtime's lock holds what the client needs, and more; its versions are the constraint.
COPY requirements/runtime.lock requirements/gateway.lock requirements/
COPY client client
COPY gateway gateway
RUN python -m venv .venv \
 && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements/gateway.lock \
 && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.lock \
 && .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation ./client ./gateway

FROM ${PYTHON_IMAGE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 frameswap \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin frameswap \
 && install --directory --owner=10001 --group=10001 /data
COPY --from=build /opt/frameswap/.venv /opt/frameswap/.venv

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="frameswap-gateway" \
      org.opencontainers.image.description="REST and a web page in front of frameswap servers" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/gateway.md"

ENV PATH=/opt/frameswap/.venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=1m --retries=3 \
    CMD ["python", "-m", "frameswap_gateway.pulse"]
ENTRYPOINT ["frameswap", "gateway", "--address", "0.0.0.0", "--folder", "/data"]
