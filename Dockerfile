# CPU image:  docker build -t videonsa-server:0.1.0 .
# CUDA image: docker build --build-arg CUDA=ON -t videonsa-server-cuda:0.1.0 .
# Pinned to the last byte: --build-arg BASE=debian:12-slim@sha256:… --build-arg SNAPSHOT=20261101T000000Z
ARG BASE=debian:12-slim

# Debian's packages as they are today, or as they were at SNAPSHOT.
FROM ${BASE} AS base
ARG SNAPSHOT=
RUN [ -z "${SNAPSHOT}" ] || { rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*; \
      for suite in "debian bookworm" "debian bookworm-updates" "debian-security bookworm-security"; do set -- ${suite}; \
        echo "deb [check-valid-until=no] http://snapshot.debian.org/archive/$1/${SNAPSHOT} $2 main" >> /etc/apt/sources.list; done; }

# With CUDA=ON compiler, cuBLAS and NCCL are the pinned packages of cuda_packages.txt and cuda_image_packages.txt; the driver comes from the machine that runs the image.
FROM base AS build
COPY deploy/build/packages.txt deploy/build/test_packages.txt deploy/build/install_packages.sh /src/deploy/build/
ARG CUDA=OFF
RUN /src/deploy/build/install_packages.sh $([ "${CUDA}" = OFF ] || echo test_packages.txt) && rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
ARG JOBS=2
RUN ([ "${CUDA}" = OFF ] || deploy/build/cuda_toolkit.sh --for-image) \
 && cmake --preset release -Wno-dev -DVIDEONSA_CUDA=${CUDA} -DVIDEONSA_BENCHMARKS=OFF -DVIDEONSA_TESTS=OFF \
 && cmake --build build/release -j ${JOBS} --target videonsa-server videonsa videonsa-decoder videonsa-openai \
 && (cd build/release/bin && strip videonsa-server videonsa videonsa-decoder videonsa-openai) \
 && deploy/build/stage_install.sh build/release /stage $([ "${CUDA}" = OFF ] || echo build/cuda-toolkit/image_lib)

# Libraries only: what the four programs link, found by ldd in the stage script.
FROM base AS runtime
COPY --from=build /stage/packages.txt /tmp/packages.txt
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive xargs apt-get install -y -q --no-install-recommends < /tmp/packages.txt \
 && rm -rf /var/lib/apt/lists/* /tmp/packages.txt \
 && mkdir -p /var/lib/videonsa && chown 65532:65532 /var/lib/videonsa
COPY --from=build /stage/usr /usr
LABEL org.opencontainers.image.title="videonsa-server" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.description="Video question answering with native sparse attention over gRPC"
# Both for CUDA only: where cuBLAS and NCCL lie, and what the container runtime shall bring.
ENV LD_LIBRARY_PATH=/usr/lib/videonsa NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
VOLUME /var/lib/videonsa
EXPOSE 8090 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15m CMD ["/usr/bin/videonsa", "health", "--server", "127.0.0.1:8090"]
ENTRYPOINT ["/usr/bin/videonsa-server"]
CMD ["--listen", "0.0.0.0:8090", "--metrics-listen", "0.0.0.0:9090", "--clip-dir", "/var/lib/videonsa/clips"]
