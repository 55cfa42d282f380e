# The image: one static program, the world's root certificates, and an empty folder for its state. docs/deployment/image.md

# By digest where it matters: --build-arg BUILDER=docker.io/library/rust@sha256:…
ARG BUILDER=docker.io/library/rust:1.95.0-bookworm

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# The commit's time, for whatever would take the time of the build.
ARG SOURCE_DATE_EPOCH=0
# Where it was built and where crates were unpacked must not be in the program. The profile's functions are found by names
# that change with the settings of cargo's profile and target, so neither is changed here.
ENV SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH} \
    CARGO_INCREMENTAL=0 \
    CFLAGS="-ffile-prefix-map=/src=outgate -ffile-prefix-map=/usr/local/cargo=cargo" \
    RUSTFLAGS="-C target-feature=+crt-static -C profile-use=/src/bench/outgate.profdata --remap-path-prefix=/src=outgate --remap-path-prefix=/usr/local/cargo=cargo"
# With a target, these flags are for the program alone: what runs while it is built is linked as usual.
RUN cargo build --locked --profile dist --package outgate --bin outgate \
        --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir /build \
 && install -D -m 0755 /build/*/dist/outgate /image/usr/local/bin/outgate \
 && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && strip --strip-debug /image/usr/local/bin/outgate \
 && install -d -m 0750 /volumes/outgate \
 && ! readelf --program-headers /image/usr/local/bin/outgate | grep INTERP \
 && /image/usr/local/bin/outgate --version

# docker build --target sbom --output . .
FROM build AS list
ENV RUSTFLAGS=""
RUN cargo install --locked --version 0.5.9 --root /tools cargo-cyclonedx \
 && PATH="/tools/bin:${PATH}" cargo cyclonedx --manifest-path crates/outgate/Cargo.toml \
        --format json --spec-version 1.5 --target "$(rustc -vV | sed -n 's/^host: //p')" \
        --override-filename outgate.cdx \
 && install -D -m 0644 crates/outgate/outgate.cdx.json /sbom/outgate.cdx.json

FROM scratch AS sbom
COPY --from=list /sbom/ /

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="outgate" \
      org.opencontainers.image.description="An egress gateway for agents" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# An empty volume that is mounted here takes over who owns it.
COPY --from=build --chown=65532:65532 /volumes/ /var/lib/
ENV OUTGATE_CONFIG=/etc/outgate/config/outgate.yaml \
    OUTGATE_STATE_DIR=/var/lib/outgate/state
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["/usr/local/bin/outgate", "health"]
ENTRYPOINT ["/usr/local/bin/outgate"]
CMD ["serve"]
