# One image for every process of RhythmWatch; the command picks which.
FROM python:3.13-slim

RUN useradd --system --create-home --uid 10001 rhythmwatch
RUN install -d -o rhythmwatch /var/lib/rhythmwatch /broker /certs
WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE NOTICE ./
COPY ingest ingest
COPY bus bus
COPY dsp dsp
COPY inference inference
COPY alerts alerts
COPY web web
COPY rhythmwatch rhythmwatch
RUN pip install --no-cache-dir --constraint requirements.lock .
USER rhythmwatch
ENV NUMBA_CACHE_DIR=/home/rhythmwatch/kernels
RUN rhythmwatch warm
ENTRYPOINT ["rhythmwatch"]
CMD ["--help"]
