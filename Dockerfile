# The segmenter in a container: everything installed, nobody's root, its store in one volume.
#
#   docker build --tag livestem .
#   docker run --network host --volume livestem:/var/lib/livestem --memory 22g --stop-timeout 90 livestem --preset default
#
# --memory: a peer can take memory before anything is known of it; the limit ends the container before the machine
# suffers, and the journal is whole. --stop-timeout: finals under way get 60 s (drain_s). compose.yaml has both, with
# Prometheus and Grafana.
#
# Why --network host: the service binds its sockets and its HTTP endpoint to loopback, and refuses to bind ZeroMQ beyond
# it without CURVE keys. In a network of its own a container's loopback reaches nobody, so share the host's, where the
# acquisition adapter is. With keys (docs/security.md) the ports can be published instead:
#
#   docker run --memory 16g --publish 5570-5571:5570-5571 --volume livestem:/var/lib/livestem \
#     --volume /etc/livestem/keys:/keys:ro livestem --keys /keys --results tcp://0.0.0.0:5570 \
#     --acquisition tcp://MICROSCOPE:5560 --server-key /keys/MICROSCOPE.key
#
# The plain package index's torch brings GPU libraries, several GB. On a machine without a GPU, build with
#   --build-arg PIP_EXTRA_INDEX_URL=<an index of CPU builds>, which must offer torch AND torchvision: they belong together.
#
# A test runs the builder's steps in a clean environment (tests/system/test_container.py): keep them plain.

FROM python:3.11-slim AS builder
ARG EXTRAS=service,vgg16
# Set only where they are given: another index, or one more.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python -m venv /opt/livestem
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY service ./service
COPY clients ./clients
COPY configs/specimens configs/specimens
COPY simulator ./simulator
RUN /opt/livestem/bin/python -m pip wheel --no-deps --wheel-dir dist .
# The cache is the builder's own and never part of the image: torch is fetched once, not at each change of the sources.
RUN --mount=type=cache,target=/root/.cache/pip \
    wheel=$(ls dist/livestem-*.whl) && \
    /opt/livestem/bin/python -m pip install --constraint constraints.txt "${wheel}[${EXTRAS}]"

FROM python:3.11-slim
# A fixed number, so that a folder of the host can be given to it: chown 10570 /data/livestem
RUN useradd --uid 10570 --user-group --create-home --shell /usr/sbin/nologin livestem && \
    install --directory --owner livestem --group livestem /var/lib/livestem
COPY --from=builder /opt/livestem /opt/livestem
# Weights that were fetched or imported are kept in the volume too.
ENV PATH=/opt/livestem/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LIVESTEM_STORE=/var/lib/livestem/store \
    XDG_CACHE_HOME=/var/lib/livestem/cache
USER 10570:10570
WORKDIR /var/lib/livestem
VOLUME /var/lib/livestem
# results (XPUB), control (ROUTER), metrics and health (HTTP)
EXPOSE 5570 5571 9570
# SIGTERM drains: what has been received is written before the process ends.
STOPSIGNAL SIGTERM
# urlopen raises, and so fails, for anything but a good answer; the image has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9570/health', timeout=3)"]
ENTRYPOINT ["livestem", "serve"]
