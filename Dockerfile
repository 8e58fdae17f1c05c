# All images of Modelyard: one per service and one of the command, each with that member's dependencies from the one lock and nothing else.
#
#   docker build --build-arg PACKAGE=registry --tag modelyard/registry .
#
# `make images` builds them all and prints what each adds to the base image. Only instructions that every builder knows
# are used (Docker's classic one, BuildKit, Buildah).
ARG PYTHON_IMAGE=python:3.11-slim
# registry | training | trainer | inference | inference-runtime | drift | operator | cli
ARG PACKAGE=registry

# The lock and the members' declarations alone, so that a change of code does not fetch the dependencies again.
FROM ${PYTHON_IMAGE} AS declarations
COPY . /source
RUN find /source -type f ! -name pyproject.toml ! -name uv.lock -delete \
    && find /source -type d -empty -delete

FROM ${PYTHON_IMAGE} AS dependencies
ARG UV_VERSION=0.13.9
# Where there is a mirror of PyPI: both are read by pip and uv and are not kept in the image.
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/app \
    # Sets are written to bytecode in hash order.
    PYTHONHASHSEED=0
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /source
COPY --from=declarations /source .
ARG PACKAGE
# A second member in the same environment: without a cluster, training starts the trainer as a process of its own.
ARG WITH=
# Bytecode is compiled here, since the root file system is read-only where the image runs; by hash and with one time
# for every file, so that the same lock gives the same layer. The libraries' own tests stay behind: a tenth of numpy.
RUN /opt/uv/bin/uv sync --quiet --frozen --no-dev --no-install-workspace \
        --package "modelyard-${PACKAGE}" ${WITH:+--package "modelyard-${WITH}"} \
    && find /app -type d \( -name __pycache__ -o -name tests \) -prune -exec rm -rf {} + \
    # A second copy of the runtime, for programs in C, what compilers and type checkers read, and tools that make
    # models: 45 MB that nothing here opens.
    && find /app -path '*/onnxruntime/capi/libonnxruntime.so.*' -delete \
    && find /app -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' -o -name '*.cpp' -o -name '*.a' \) -delete \
    && find /app -type d -path '*/onnxruntime/*' \( -name transformers -o -name quantization -o -name tools -o -name datasets \) \
        -prune -exec rm -rf {} + \
    && /app/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /app/lib \
    && echo /opt/modelyard > "$(/app/bin/python -c 'import site; print(site.getsitepackages()[0])')/modelyard.pth" \
    && mkdir /image && mv /app /image/app \
    && find /image -exec touch --no-dereference --date=@0 {} +

# Our own code, in a layer of its own: a release that changes no dependency is a pull of a megabyte.
FROM dependencies AS build
ARG PACKAGE
ARG WITH=
COPY . .
ARG SOURCE_DATE_EPOCH=0
RUN /opt/uv/bin/uv export --quiet --frozen --no-dev --no-editable --only-emit-workspace \
        --package "modelyard-${PACKAGE}" ${WITH:+--package "modelyard-${WITH}"} --output-file /tmp/members.txt \
    && /opt/uv/bin/uv pip install --quiet --no-deps --python /image/app/bin/python --target /opt/modelyard \
        --requirements /tmp/members.txt \
    # A package of which nothing was installed would be cached, and be found out when somebody starts it.
    && test -f "/opt/modelyard/modelyard_$(echo "${PACKAGE}" | tr - _)/main.py" \
    && cp tools/images/healthcheck.py LICENSE /opt/modelyard/ \
    && rm -f /opt/modelyard/.lock && find /opt/modelyard -name __pycache__ -type d -prune -exec rm -rf {} + \
    # uv notes there when the sources were copied.
    && find /opt/modelyard \( -name uv_cache.json -o -name RECORD \) -delete \
    && /image/app/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/modelyard \
    && mkdir -p /code/opt /state && mkdir -m 0700 /state/data && mv /opt/modelyard /code/opt/ \
    && find /code -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} + \
    && touch --date=@0 /state /state/data

FROM ${PYTHON_IMAGE} AS runtime
ARG PACKAGE
# Onto the root, since a folder that COPY itself makes bears the time of the build.
COPY --from=build --chown=10001:10001 /state/ /
COPY --from=dependencies /image/ /
COPY --from=build /code/ /
ENV PATH=/app/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Numeric, so that a pod's runAsNonRoot can be checked without reading /etc/passwd.
USER 10001:10001
VOLUME /data
STOPSIGNAL SIGTERM
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="modelyard-${PACKAGE}" \
      org.opencontainers.image.description="Modelyard ${PACKAGE}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Modelyard" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"

FROM runtime AS registry
ENV MODELYARD_REGISTRY_HOST=0.0.0.0 MODELYARD_REGISTRY_AUTH=token MODELYARD_REGISTRY_DATA_DIR=/data
EXPOSE 8081
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/app/bin/python", "-I", "/opt/modelyard/healthcheck.py", "REGISTRY", "8081"]
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_registry.main"]

FROM runtime AS training
ENV MODELYARD_TRAINING_HOST=0.0.0.0 MODELYARD_TRAINING_AUTH=token MODELYARD_TRAINING_DATA_DIR=/data
EXPOSE 8082
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/app/bin/python", "-I", "/opt/modelyard/healthcheck.py", "TRAINING", "8082"]
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_training.main"]

FROM runtime AS inference
ENV MODELYARD_INFERENCE_HOST=0.0.0.0 MODELYARD_INFERENCE_AUTH=token MODELYARD_INFERENCE_DATA_DIR=/data
EXPOSE 8080 8090
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/app/bin/python", "-I", "/opt/modelyard/healthcheck.py", "INFERENCE", "8080"]
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_inference.main"]

# Beside inference, in a folder that both share: what runs models that may crash, leak, or be code. It listens nowhere else.
FROM runtime AS inference-runtime
ENV MODELYARD_INFERENCE_RUNTIME_SOCKET=/data/runtime.sock
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/app/bin/python", "-I", "/opt/modelyard/healthcheck.py", "INFERENCE_RUNTIME", "socket"]
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_inference_runtime.main"]

FROM runtime AS drift
ENV MODELYARD_DRIFT_HOST=0.0.0.0 MODELYARD_DRIFT_AUTH=token MODELYARD_DRIFT_DATA_DIR=/data
EXPOSE 8083
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/app/bin/python", "-I", "/opt/modelyard/healthcheck.py", "DRIFT", "8083"]
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_drift.main"]

FROM runtime AS operator
ENV MODELYARD_OPERATOR_HOST=0.0.0.0 MODELYARD_OPERATOR_AUTH=token
EXPOSE 8084
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/app/bin/python", "-I", "/opt/modelyard/healthcheck.py", "OPERATOR", "8084"]
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_operator.main"]

# One job, then the end: no port and nothing to ask. The argument is the path of its job.json.
FROM runtime AS trainer
HEALTHCHECK NONE
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_trainer.main"]

# The command, for what runs beside the services: scoring files in Jobs. The arguments are its own.
FROM runtime AS cli
HEALTHCHECK NONE
ENTRYPOINT ["/app/bin/python", "-P", "-m", "modelyard_cli.main"]

FROM ${PACKAGE}
