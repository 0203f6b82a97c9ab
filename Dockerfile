# gptnode in a slim image, as a user without rights.
#
#   docker build -t gptnode .
#   docker run --rm gptnode demo --prompt "What is a BlocksMap?"
#
# torch comes from pip's own index, with CUDA and several gigabytes of it. For a server without a GPU
# name an index of CPU builds: docker build --build-arg TORCH_INDEX=URL -t gptnode .

FROM python:3.12-slim AS build
ARG TORCH_INDEX=""
# The compiler makes the kernels; they choose by what the processor has when they run.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libgmp-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/gptnode \
    && /opt/gptnode/bin/pip install --no-cache-dir -c constraints.txt \
        ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml setup.py README.md LICENSE ./
COPY gptnode gptnode
RUN /opt/gptnode/bin/pip install --no-cache-dir -c constraints.txt '.[traces]'

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home --home-dir /swarm gptnode \
    && chmod 0700 /swarm
COPY --from=build /opt/gptnode /opt/gptnode
ENV PATH="/opt/gptnode/bin:$PATH" \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /swarm
VOLUME /swarm
EXPOSE 4001 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["gptnode"]
CMD ["--help"]
