# The production image: the binary without the local servers, its C library and the system's certificates; no shell.
# The staging directory must outlive the container: mount a volume at /var/lib/pgsluice.

FROM rust:1-slim-bookworm AS build
WORKDIR /source
COPY . .
ARG COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    PGSLUICE_COMMIT=$COMMIT cargo build --release --locked --no-default-features \
    && cp target/release/pgsluice /usr/local/bin/pgsluice \
    && mkdir --mode=700 /staging

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/pgsluice /usr/local/bin/pgsluice
COPY LICENSE THIRD-PARTY-LICENSES /usr/share/doc/pgsluice/
COPY --from=build --chown=nonroot:nonroot /staging /var/lib/pgsluice
ENV PGSLUICE_STAGING_DIR=/var/lib/pgsluice
VOLUME /var/lib/pgsluice
WORKDIR /home/nonroot
ENTRYPOINT ["pgsluice"]
CMD ["run"]
