# All parts in one image; which one runs is the command: `docker run storage-telemetry aggregator …`. See docs/deployment.md.
FROM python:3.13-slim-trixie AS build
WORKDIR /source
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY telemetry telemetry
COPY broker broker
COPY schemas schemas
RUN python -m venv /opt/telemetry && /opt/telemetry/bin/pip install --no-cache-dir '.[web]'

FROM python:3.13-slim-trixie
RUN apt-get update \
    && apt-get install -y --no-install-recommends mosquitto \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin telemetry \
    && install -d -o telemetry -g telemetry /data /var/lib/telemetry-agent
COPY --from=build /opt/telemetry /opt/telemetry
ENV PATH=/opt/telemetry/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /data
ENTRYPOINT ["telemetry"]
CMD ["--help"]
