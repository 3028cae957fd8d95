# CPU image: docker build -t videonsa .
# CUDA image: docker build --target cuda-runtime --build-arg BASE=<debian 12 with the CUDA 13.0 libraries> -t videonsa-cuda .
ARG BASE=debian:12-slim

FROM ${BASE} AS build
COPY deploy/build/packages.txt deploy/build/install_packages.sh /src/deploy/build/
RUN /src/deploy/build/install_packages.sh && rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
ARG JOBS=2
RUN cmake --preset release -Wno-dev -DVIDEONSA_CUDA=OFF -DVIDEONSA_BENCHMARKS=OFF -DVIDEONSA_TESTS=OFF \
 && cmake --build build/release -j ${JOBS} --target videonsa-server videonsa videonsa-decoder videonsa-openai \
 && (cd build/release/bin && strip videonsa-server videonsa videonsa-decoder videonsa-openai) \
 && deploy/build/stage_install.sh build/release /stage

# Libraries only: what the four programs link, found by ldd in the stage script.
FROM ${BASE} AS runtime
COPY --from=build /stage/packages.txt /tmp/packages.txt
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive xargs apt-get install -y -q --no-install-recommends < /tmp/packages.txt \
 && rm -rf /var/lib/apt/lists/* /tmp/packages.txt \
 && mkdir -p /var/lib/videonsa && chown 65532:65532 /var/lib/videonsa
COPY --from=build /stage/usr /usr
LABEL org.opencontainers.image.title="videonsa-server" \
      org.opencontainers.image.description="Video question answering with native sparse attention over gRPC"
USER 65532:65532
VOLUME /var/lib/videonsa
EXPOSE 8090 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["/usr/bin/videonsa", "health", "--server", "127.0.0.1:8090"]
ENTRYPOINT ["/usr/bin/videonsa-server"]
CMD ["--listen", "0.0.0.0:8090", "--metrics-listen", "0.0.0.0:9090", "--clip-dir", "/var/lib/videonsa/clips"]
