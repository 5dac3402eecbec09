# docker build -t locat_mm .                                              # CPU
# docker build -t locat_mm --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 .  # CUDA
# docker run --rm [--gpus all] -v DATA:/locat_mm/data locat_mm make demo
ARG BASE=ubuntu:24.04
FROM ${BASE}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv make libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /locat_mm
# The stack first: it changes less often than the code.
COPY requirements.txt requirements-dev.txt setup.py README.md model-index.yml pyproject.toml Makefile ./
COPY locat_mm/version.py locat_mm/version.py
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir --requirement requirements.txt
COPY . .
RUN make install
ENV PATH=/locat_mm/.venv/bin:$PATH
CMD ["bash"]
