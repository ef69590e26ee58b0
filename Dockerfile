# syntax=docker/dockerfile:1
FROM rust:1-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY benches ./benches
COPY config ./config
COPY packaging ./packaging
COPY src ./src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin looker-feed \
 && packaging/image-root target/release/looker-feed /image
# An empty directory that the runtime's user owns: a new volume takes its owner from here.
RUN mkdir -m 0700 /outbox

# Holds the binary and Debian's glibc and libgcc, and no shell. The roots of public TLS are in the binary.
# `packaging/build image` makes this stage without the one above, out of what is built already.
FROM scratch
COPY --from=build /image /
COPY --from=build --chown=65532:65532 /outbox /var/lib/looker-feed
# The key that seals credentials must not lie in the volume of the outbox: mount it.
ENV LOOKER_FEED_OUTBOX__PATH=/var/lib/looker-feed/outbox \
    LOOKER_FEED_SEAL__KEY_FILE=/run/secrets/looker-feed-seal-key \
    LOOKER_FEED_INTAKE__SECRET_FILE=/run/secrets/looker-feed-secret \
    LOOKER_FEED_INTAKE__LISTEN=0.0.0.0:8080 \
    LOOKER_FEED_LOG__FORMAT=json
VOLUME /var/lib/looker-feed
EXPOSE 8080
USER 65532:65532
# The daemon is process 1 itself, with handlers of its own for SIGTERM, SIGINT and SIGHUP.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/looker-feed", "status"]
ENTRYPOINT ["/usr/local/bin/looker-feed"]
CMD ["serve"]
