# The Rust image with a binary that is built already: its cargo hands that out in place of compiling. deploy/Dockerfile
# on top of it makes the image that it always makes, in seconds. The binary's glibc must be no newer than the image's.
ARG RUST_IMAGE=rust:1-slim-bookworm
FROM ${RUST_IMAGE}
COPY posthorn /built/posthorn
RUN cargo=$(command -v cargo) && rm "$cargo" \
 && printf '#!/bin/sh\nmkdir -p target/release && cp /built/posthorn target/release/\n' >"$cargo" \
 && chmod 0755 "$cargo"
