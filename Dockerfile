# nn.c in a container: docs/containers.md.
#   docker build -t nn .                              for NVIDIA GPUs; trains on the CPU too
#   docker build -t nn-cpu --build-arg VARIANT=cpu .  without CUDA
#   docker build -t nn-build --target build .         with compilers and sources, to edit trainers
# What RUN does is in scripts/container.sh, which tests/test_all_containers.sh executes.
ARG VARIANT=cuda
ARG CUDA=13.0.1

FROM debian:bookworm-slim AS base-cpu
FROM nvidia/cuda:${CUDA}-devel-ubuntu24.04 AS base-cuda
# A program runs where its C library is at least as new as that it was built with.
FROM debian:bookworm-slim AS final-cpu
FROM ubuntu:24.04 AS final-cuda

FROM base-${VARIANT} AS build
COPY . /nn.c
WORKDIR /nn.c
RUN scripts/container.sh build /opt/nn.c
CMD ["bash"]

FROM final-${VARIANT}
COPY --from=build /opt/nn.c /opt/nn.c
RUN /opt/nn.c/scripts/container.sh install /opt/nn.c
# For a runtime that passes GPUs by these variables; CDI does without.
ENV NVIDIA_VISIBLE_DEVICES=all
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PATH=/opt/nn.c:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /work
USER 10001
CMD ["train_cnn"]
