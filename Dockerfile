# The node hardening agent. `make image` builds it with docker, podman or buildah, whichever is there.
# BASE: Debian 12, slim or a debootstrap tree; the agent runs on its python3.
ARG BASE=debian:12-slim

FROM ${BASE} AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-pip ca-certificates
WORKDIR /src
# dist/wheels, when `make image` filled it, has every wheel that is needed: then nothing is fetched from an index here.
COPY requirements/run.txt dist/wheel[s] /wheels/
RUN if ls /wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; fi \
 && python3 -m pip install --no-cache-dir --no-compile --only-binary :all: --require-hashes \
      --report /wheels/report.json --target /opt/node-hardening "$@" -r /wheels/run.txt
COPY agent /src/agent
COPY profiles /src/agent/profiles
COPY tools/prune-image tools/sbom /src/
# Byte code without docstrings and columns, valid whatever the clock says: nothing is compiled or written on a node.
RUN python3 -B /src/sbom wheels /wheels/report.json > /src/wheels.json \
 && cp -r /src/agent /opt/node-hardening/agent \
 && sh /src/prune-image packages /opt/node-hardening \
 && python3 -OO -X no_debug_ranges -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
      -s /opt/node-hardening -p /opt/node-hardening /opt/node-hardening

FROM ${BASE} AS root
# apparmor: apparmor_parser and the abstractions that profiles include. kmod: modprobe for --host-exec direct.
# util-linux brings nsenter, tzdata the zones of reboot windows.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      python3 apparmor kmod util-linux tzdata ca-certificates
COPY tools/prune-image tools/sbom /tmp/
# What packages say of themselves is noted for the SBOM before it goes.
RUN python3 -B /tmp/sbom note / > /tmp/noted.json \
 && sh /tmp/prune-image root / \
 && python3 -OO -X no_debug_ranges -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /usr/lib/python3.11
COPY --from=build /opt/node-hardening /opt/node-hardening
# For `kubectl exec`: node-hardening-agent audit.
RUN printf '#!/bin/sh\nexec /usr/bin/python3 -m agent "$@"\n' > /usr/local/bin/node-hardening-agent \
 && chmod 755 /usr/local/bin/node-hardening-agent
COPY --from=build /src/wheels.json /tmp/
ARG VERSION=0.0.0
ARG SOURCE_DATE_EPOCH
RUN mkdir -p /usr/share/sbom \
 && python3 -B /tmp/sbom write / /tmp/noted.json /tmp/wheels.json "$VERSION" > /usr/share/sbom/node-hardening-agent.cdx.json \
 && rm /tmp/*

# One layer, without what the base brought and nobody needs on a node: package manager, perl, documentation.
FROM scratch
ARG BASE
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
# org.opencontainers.image.source is added by tools/image, which knows where this was cloned from.
LABEL org.opencontainers.image.title="node-hardening-agent" \
      org.opencontainers.image.description="One privileged daemon per Kubernetes node: hardens it, audits it, reboots it safely" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
COPY --from=root / /
# What each of these saves is measured in docs/performance.md. MALLOC: one arena and eager trimming, so that what a big
# LIST took is given back. UTF8: no locale is loaded. TZPATH: zoneinfo need not ask how Python was built. WARNINGS:
# requests misses the detector of character sets that tools/prune-image takes out.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/node-hardening \
    PYTHONSAFEPATH=1 \
    PYTHONOPTIMIZE=2 \
    PYTHONNODEBUGRANGES=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONUTF8=1 \
    PYTHONCOERCECLOCALE=0 \
    PYTHONTZPATH=/usr/share/zoneinfo \
    PYTHONWARNINGS="ignore:Unable to find acceptable character detection dependency" \
    MALLOC_ARENA_MAX=1 \
    MALLOC_TRIM_THRESHOLD_=65536 \
    MALLOC_MMAP_THRESHOLD_=65536
USER 0:0
WORKDIR /
ENTRYPOINT ["/usr/bin/python3", "-m", "agent"]
CMD ["run", "--host-root", "/host", "--host-exec", "nsenter"]
