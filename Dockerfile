# One image for every process of RhythmWatch; the command picks which.
FROM python:3.13-slim

# pg_dump and pg_restore, for `rhythmwatch backup`.
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-client && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --uid 10001 rhythmwatch
RUN install -d -o rhythmwatch /var/lib/rhythmwatch /broker /certs
WORKDIR /app
COPY deploy/requirements.lock deploy/requirements.lock
RUN pip install --no-cache-dir --require-hashes --requirement deploy/requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY ingest ingest
COPY bus bus
COPY dsp dsp
COPY inference inference
COPY alerts alerts
COPY web web
COPY rhythmwatch rhythmwatch
RUN pip install --no-cache-dir --no-deps .
USER rhythmwatch
ENV NUMBA_CACHE_DIR=/home/rhythmwatch/kernels
RUN rhythmwatch warm
ENTRYPOINT ["rhythmwatch"]
CMD ["--help"]
