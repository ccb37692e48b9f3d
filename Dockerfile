# syntax=docker/dockerfile:1
# Two images from one file:
#   api      the HTTP edge, the migrations and the upkeep; no torch inside
#   worker   both queues and the core; torch inside, for the CPU and for NVIDIA GPUs alike
#
# docker build --target api    -t nayer-api .
# docker build --target worker -t nayer-worker .
#
# The worker is 6.6 GB, most of it for GPUs. Without one it is smaller by gigabytes with torch's own index for the CPU:
#   --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-trixie AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# In /opt and not in a home: whoever the processes become must be able to read it.
RUN python -m venv /opt/nayer
ENV PATH=/opt/nayer/bin:$PATH
WORKDIR /src
# What is needed to name the dependencies, and nothing that changes every day: the layer below is kept.
COPY pyproject.toml README.md LICENSE ./

FROM build AS build-api
# --compile: without bytecode every start of a process would compile its imports again.
RUN pip install --compile '/src[api]'
COPY . .
RUN pip install --compile --no-deps --force-reinstall .

FROM build AS build-worker
ARG PIP_EXTRA_INDEX_URL=""
# The import fails where two indexes gave builds of torch and torchvision that do not belong together.
RUN pip install --compile '/src[core,service]' && python -c 'import torchvision'
COPY . .
RUN pip install --compile --no-deps --force-reinstall .

FROM python:${PYTHON_VERSION}-slim-trixie AS runtime
# Empty and owned by the service, so that volumes mounted here start that way.
RUN groupadd --system --gid 10001 nayer \
    && useradd --system --uid 10001 --gid nayer --home-dir /var/lib/nayer --no-create-home nayer \
    && install --directory --owner=nayer --group=nayer --mode=0700 \
        /var/lib/nayer /var/lib/nayer/scratch /var/lib/nayer/huggingface
ENV PATH=/opt/nayer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/nayer \
    NAYER_DATA_DIR=/var/lib/nayer \
    NAYER_SCRATCH_DIR=/var/lib/nayer/scratch
WORKDIR /var/lib/nayer
USER 10001:10001

FROM runtime AS worker
# torch's threads wait for each other in a busy loop by default; beside another process that costs a
# multiple of the time.
ENV HF_HOME=/var/lib/nayer/huggingface OMP_WAIT_POLICY=PASSIVE
COPY --from=build-worker /opt/nayer /opt/nayer
# `docker compose up --wait` waits for the first probe, which runs after one interval. A probe takes 0.4 s of a core.
HEALTHCHECK --interval=15s --timeout=30s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "celery -A worker.celery_app inspect ping -t 10 -d distill@$(hostname)"]
CMD ["celery", "-A", "worker.celery_app", "worker", "-Q", "distill", "-P", "threads", "-c", "1", "-n", "distill@%h", "-l", "INFO", "--without-gossip", "--without-mingle"]
ARG NAYER_REVISION=""
ENV NAYER_REVISION=${NAYER_REVISION}

FROM runtime AS api
COPY --from=build-api /opt/nayer /opt/nayer
EXPOSE 8000
# Whether the process answers; what it needs is told by /readyz.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
ARG NAYER_REVISION=""
ENV NAYER_REVISION=${NAYER_REVISION}
