# syntax=docker/dockerfile:1
# The server as a container image: docker build -t external-server .
# docs/install.md says how to configure, run and extend it.
# Both may be pinned by digest: --build-arg BASE_IMAGE=debian@sha256:...
# Platforms are built on machines, or emulators, of their own, each with its own gcc:
#   docker buildx build --platform linux/amd64,linux/arm64 .
ARG GO_IMAGE=golang:1.26-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

# --- The server. gcc comes with the image: loading module libraries needs cgo.
FROM ${GO_IMAGE} AS build
# The build uses the Go of the image and fetches none. go.mod names the oldest that will do;
# its line "toolchain", which may be newer, is what releases are made with: "auto" fetches it.
ARG GOTOOLCHAIN=local
ENV GOTOOLCHAIN=${GOTOOLCHAIN}
# Where modules of Go come from; empty is Go's own default.
ARG GOPROXY=""
ENV GOPROXY=${GOPROXY}
WORKDIR /src
COPY . .
ARG VERSION=dev
# Set by the engine for each platform.
ARG TARGETARCH=""
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    make server VERSION="$VERSION" GOARCH="$TARGETARCH"

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
    && install -d -o 10001 -g 10001 /var/lib/external-server /var/lib/external-server/keys /var/log/external-server
COPY --from=build /src/bin/external-server /usr/local/bin/
COPY --from=modules /src/out/ /opt/modules/
COPY LICENSE /usr/share/doc/external-server/
COPY config/for_docker.json config/for_compose.json config/for_cluster.json /etc/external-server/

# Libraries that modules bring along beside themselves.
ENV LD_LIBRARY_PATH=/opt/modules
# What configurations name by a relative path is kept in the state volume.
WORKDIR /var/lib/external-server
VOLUME ["/var/lib/external-server", "/var/log/external-server"]
# HTTP API, dashboard and metrics, embedded broker, other servers of a cluster: whichever
# the configuration has.
EXPOSE 8080 8090 1883 8070
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/external-server", "health", "--running", "-c", "/etc/external-server/for_docker.json"]
ARG VERSION=dev
ARG COMMIT=""
LABEL org.opencontainers.image.title="external-server" \
    org.opencontainers.image.description="The cloud end of the Fleet Protocol" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/fleet-protocol/external-server" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$COMMIT"
ENTRYPOINT ["/usr/local/bin/external-server"]
CMD ["-c", "/etc/external-server/for_docker.json"]
