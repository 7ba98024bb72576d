# The server as a container image: the program, what it is linked with, and nothing else. docs/deploy.md tells more.
#
#   docker build --build-arg TAUT_COMMIT="$(git rev-parse --short=12 HEAD)" -t taut .
#   docker run -p 6001:6001 -e TAUT_APPS=1:a-key:a-secret --ulimit nofile=1048576 --stop-timeout 35 taut

ARG RUST=docker.io/library/rust:1-slim-bookworm
# Another stage or image that has /usr/local/bin/taut, in the place of the one that compiles it.
ARG PROGRAM=compiled

FROM ${RUST} AS compiled
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG TAUT_COMMIT=""
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package taut-cli \
    && cp target/release/taut /usr/local/bin/taut

# hadolint ignore=DL3006
FROM ${PROGRAM} AS files
COPY deploy/image/files /usr/local/bin/taut-image-files
RUN /usr/local/bin/taut-image-files /image

FROM scratch
LABEL org.opencontainers.image.title="Taut" \
    org.opencontainers.image.description="WebSockets that stay up: a realtime server that speaks the Pusher protocol" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=files /image/ /
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532
WORKDIR /var/lib/taut
# Inside of a container, all of its addresses: what others reach is for -p to say.
ENV TAUT_LISTEN=0.0.0.0:6001 \
    TAUT_METRICS_LISTEN=0.0.0.0:9601
EXPOSE 6001 9601
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/taut", "health"]
ENTRYPOINT ["/usr/local/bin/taut"]
CMD ["serve"]
