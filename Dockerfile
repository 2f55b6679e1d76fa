# The image of a server. Build and run it:
#   docker buildx build -t cacheproxy --load .
#   docker run --read-only --tmpfs /tmp -v cacheproxy:/data -p 5000:5000 cacheproxy
# Settings are environment variables, or a file of your own at /etc/cacheproxy/cacheproxy.yaml.

ARG PYTHON=python:3.13.16-slim-trixie

FROM ${PYTHON} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# The secret is for who has packages from elsewhere: --secret id=pip,src=pip.conf
COPY requirements.lock .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m pip wheel --quiet --require-hashes --wheel-dir /wheels --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY cacheproxy cacheproxy
# Of the locked wheels, only those are installed that a server needs.
RUN python -m venv --without-pip /tools \
 && python -m pip --python /tools install --quiet --no-index --find-links /wheels hatchling \
 && python -m pip --python /tools wheel --quiet --no-index --no-deps --no-build-isolation \
    --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/cacheproxy \
 && python -m pip --python /opt/cacheproxy install --quiet --no-index --find-links /wheels \
    --compile cacheproxy
COPY <<EOF /etc/cacheproxy/cacheproxy.yaml
server: {listen: "0.0.0.0:5000"}
storage: {url: "file:///data/storage"}
tier: {folder: /data/tier}
EOF
RUN mkdir /data

FROM ${PYTHON}
COPY --from=build /opt/cacheproxy /opt/cacheproxy
COPY --from=build /etc/cacheproxy /etc/cacheproxy
COPY --from=build --chown=65532:65532 /data /data
ENV PATH=/opt/cacheproxy/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    CACHEPROXY_CONFIG=/etc/cacheproxy/cacheproxy.yaml HOME=/tmp
USER 65532:65532
WORKDIR /data
VOLUME /data
# The second one is for `metrics.listen`.
EXPOSE 5000 5001
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.title=cacheproxy \
      org.opencontainers.image.description="The registry that understands BuildKit caches" \
      org.opencontainers.image.licenses=Apache-2.0
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import ssl; from http.client import HTTPConnection, HTTPSConnection; \
from cacheproxy.config import load; of = load({}); at = of.metrics.listen or of.server.listen; \
there = '127.0.0.1', int(at.rpartition(':')[2]); \
trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); trust.check_hostname = False; \
trust.verify_mode = ssl.CERT_NONE; \
to = HTTPSConnection(*there, timeout=4, context=trust) \
if of.server.tls_cert_file and not of.metrics.listen else HTTPConnection(*there, timeout=4); \
to.request('GET', '/healthz'); raise SystemExit(to.getresponse().status != 200)"]
ENTRYPOINT ["cacheproxy"]
CMD ["serve"]
