# syntax=docker/dockerfile:1
# The server as a container image: docker build -t external-server .
# docs/install.md says how to configure, run and extend it.
ARG GO_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

# --- The server. gcc comes with the image: loading module libraries needs cgo.
FROM ${GO_IMAGE} AS build
# go.mod may ask for a newer patch release than the image has.
ENV GOTOOLCHAIN=auto
WORKDIR /src
COPY . .
ARG VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    make server VERSION="$VERSION"

# --- Module libraries: every folder modules/<name>/ with a CMakeLists.txt or a
# Makefile is compiled against modules/include, and its shared libraries come to
# /opt/modules. MODULE_PACKAGES are Debian packages they need to compile, such
# as "libcurl4-openssl-dev".
FROM ${BASE_IMAGE} AS modules
ARG MODULE_PACKAGES=""
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates cmake git pkg-config ${MODULE_PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY scripts/build-modules scripts/
COPY modules/ modules/
RUN scripts/build-modules modules out

# --- The image. RUNTIME_PACKAGES are Debian packages that module libraries need
# to run, such as "libcurl4".
FROM ${BASE_IMAGE}
ARG RUNTIME_PACKAGES=""
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 ${RUNTIME_PACKAGES} \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/external-server --shell /usr/sbin/nologin external-server \
    && install -d /etc/external-server /opt/modules \
    && install -d -o 10001 -g 10001 /var/lib/external-server /var/log/external-server
COPY --from=build /src/bin/external-server /usr/local/bin/
COPY --from=modules /src/out/ /opt/modules/
COPY config/for_docker.json config/for_compose.json /etc/external-server/
# Libraries that modules bring along beside themselves.
ENV LD_LIBRARY_PATH=/opt/modules
# What configurations name by a relative path is kept in the state volume.
WORKDIR /var/lib/external-server
VOLUME ["/var/lib/external-server", "/var/log/external-server"]
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/external-server", "health", "--running", "-c", "/etc/external-server/for_docker.json"]
ENTRYPOINT ["/usr/local/bin/external-server"]
CMD ["-c", "/etc/external-server/for_docker.json"]
