# The HTTP service on a CPU:  docker build -t umls-reranker .
# With CUDA:                  docker build -t umls-reranker --build-arg TORCH_INDEX=https://pypi.org/simple .
# docs/deployment.md says how to run it with a model of your own.
FROM python:3.12-slim AS build

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
# Before the code, so that a change of the code does not download PyTorch again.
COPY constraints.txt .
RUN pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch
COPY . .
RUN pip install --constraint constraints.txt ".[serve]"

FROM python:3.12-slim

# The cache of the Hub is a folder of the user's, so that a volume mounted there is too.
RUN useradd --create-home --uid 10001 reranker && install --directory --owner reranker /cache
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH HF_HOME=/cache
USER 10001
WORKDIR /home/reranker
EXPOSE 8080
HEALTHCHECK --start-period=120s --interval=30s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["umls-reranker", "serve", "--host", "0.0.0.0"]
CMD ["built-in"]
