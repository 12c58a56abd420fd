# Parley as an image, with GraphiQL's files and its own documentation in it:
#
#     docker build -t parley .
#     docker run -p 8000:8000 -v parley:/data parley
FROM python:3.11-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.txt ./
RUN python3 -m venv /opt/parley \
 && /opt/parley/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.txt
COPY . ./
# Where the files can't be fetched pages would ask a CDN for them; an image shall hold them.
RUN python3 -m graphql_api.static_assets \
 && test -f graphql_api/static/graphiql.min.js \
 && /opt/parley/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --no-index .

FROM python:3.11-slim-bookworm
RUN useradd --uid 1000 parley && install -d -o parley -g parley /data
COPY --from=build /opt/parley /opt/parley
ENV PATH=/opt/parley/bin:$PATH HOST=0.0.0.0 DATA_DIR=/data
USER parley
WORKDIR /data
VOLUME /data
EXPOSE 8000
# Not /db-health: that would keep a database awake which sleeps when nobody uses it.
HEALTHCHECK --start-period=60s CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["parley"]
CMD ["serve"]
