# One image for every worker, for the set-up and for the demo: `docker run … tradetape work state`.
# Versions come from constraints.txt; the virtual environment is built in the first stage and copied whole.

FROM python:3.12-slim-bookworm AS build
WORKDIR /source
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/tradetape \
 && /opt/tradetape/bin/python -m pip install --quiet --constraint constraints.txt pip
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY schemas schemas
COPY producers producers
COPY streams streams
COPY sinks sinks
COPY console console
# What only installs or tests is left out. Compiled files stay: with a read-only root nothing could be compiled later.
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/tradetape/bin/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt '.[demo]' \
 && /opt/tradetape/bin/python -m pip uninstall --quiet --yes pip \
 && find /opt/tradetape -depth -type d \( -name tests -o -name test -o -name testing \) -path '*/site-packages/*' \
      -not -path '*/site-packages/tradetape/*' -exec rm -rf {} + \
 && install --directory --owner 10001 --group 10001 --mode 700 /var/lib/tradetape /var/cache/tradetape

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="tradetape" \
      org.opencontainers.image.description="The durable tape of a trading system: its workers and its command" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tradetape /opt/tradetape
# Folders that a volume may take over with their owner: outboxes and logs, and what a schema registry said.
COPY --from=build --chown=10001:10001 /var/lib/tradetape /var/lib/tradetape
COPY --from=build --chown=10001:10001 /var/cache/tradetape /var/cache/tradetape
ENV PATH=/opt/tradetape/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TRADETAPE_HOME=/var/lib/tradetape \
    TRADETAPE_CACHE=/var/cache/tradetape \
    TRADETAPE_OUTBOX_DIR=/var/lib/tradetape/outbox \
    TRADETAPE_HTTP_HOST=0.0.0.0 \
    TRADETAPE_HTTP_PORT=8080
USER 10001:10001
WORKDIR /var/lib/tradetape
EXPOSE 8080
# Process 1 has no default for TERM, but Python answers INT from its first moment; workers drain on either.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-I", "-m", "tradetape.console.ready"]
ENTRYPOINT ["tradetape"]
CMD ["--help"]
