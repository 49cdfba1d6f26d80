# The image for GKE (launch/gke.py) and for Slurm with containers (docs/launch.md).
#
#     docker build --build-arg ACCELERATOR=tpu --tag REGION-docker.pkg.dev/PROJECT/REPO/musicssl:1 .
#     docker run --rm IMAGE doctor
#
# ACCELERATOR is tpu, cuda12, cuda13 or cpu. CUDA's libraries come with JAX's own wheels; only the driver is the host's.
FROM python:3.12-slim

# An init process. As process 1 itself, the program would not be ended by SIGTERM while it starts up, and JAX's abort
# when it lost a peer would end with 139, not 134 (the kernel spares process 1 such signals).
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY musicssl_jax musicssl_jax
COPY data_pipelines data_pipelines
COPY configs configs

ARG ACCELERATOR=cpu
RUN case "$ACCELERATOR" in \
        tpu|cuda12|cuda13) extras="$ACCELERATOR,gcs" ;; \
        cpu) extras=gcs ;; \
        *) echo "ACCELERATOR=$ACCELERATOR: tpu, cuda12, cuda13 or cpu" >&2; exit 2 ;; \
    esac && \
    pip install --no-cache-dir "/src[$extras]"

# Not root; the home is for caches. (launch/gke.py --user says who it is in a pod.)
RUN useradd --create-home --uid 1000 musicssl
USER 1000
WORKDIR /home/musicssl

ENTRYPOINT ["tini", "--", "musicssl"]
