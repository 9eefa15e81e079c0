# One image for every service; docker-compose.yml says which one a container runs.
# It holds the layout of a checkout, so that paths in config/ mean the same in both.

FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /zeta
COPY requirements.lock ./
# The lock is complete and hashed; --no-deps keeps pip from adding to it.
RUN python -m venv .venv \
 && .venv/bin/pip install --no-deps --require-hashes -r requirements.lock
# What compiles the router's decisions stays in this stage: a C compiler, and mypyc.
COPY requirements-compile.lock ./
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && python -m venv /compile \
 && /compile/bin/pip install --no-deps --require-hashes -r requirements-compile.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY protos/gen protos/gen
COPY services services
COPY router_svc router_svc
COPY telemetry_svc telemetry_svc
COPY zeta_client zeta_client
COPY tools/compile_core.py tools/
RUN PYTHONPATH=. /compile/bin/python tools/compile_core.py
# --build-arg EXTRA=tensorrt: TensorRT from NVIDIA's index, which no lock can hold.
ARG EXTRA=
# Compiled here, because the root file system is read-only when it runs.
RUN .venv/bin/pip install --no-deps --no-build-isolation --editable . \
 && { test -z "$EXTRA" || .venv/bin/pip install --no-build-isolation --editable ".[$EXTRA]"; } \
 && .venv/bin/python -m compileall -q services router_svc telemetry_svc zeta_client protos/gen

FROM python:3.11-slim
# An empty volume takes over this folder's owner.
RUN useradd --uid 10001 --no-create-home zeta && install -d -o zeta -g zeta /state
COPY --from=build /zeta /zeta
WORKDIR /zeta
ENV PATH=/zeta/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# As `zeta up` has it: numeric libraries start no thread per core; models get theirs by `threads`.
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
USER 10001:10001
ENTRYPOINT ["python", "-m"]
CMD ["zeta_client.cli", "--help"]
