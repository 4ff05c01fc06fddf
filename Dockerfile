FROM python:3.11-slim

# To record where the source is: docker build --build-arg SOURCE=https://... For the MCP registry,
# add --label io.modelcontextprotocol.server.name=io.github.OWNER/NAME.
ARG SOURCE=""
LABEL org.opencontainers.image.title="mcp-proxmox" \
      org.opencontainers.image.description="MCP server that lists, starts, stops and reboots the machines of a Proxmox VE infrastructure" \
      org.opencontainers.image.version="1.0.0" \
      org.opencontainers.image.source="${SOURCE}"

# Unbuffered, because Python would flush a leftover buffer into the protocol at exit.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MCP_PROXMOX_SOURCE="${SOURCE}"

WORKDIR /app

# Install the packages before copying the source, so that a change in the source does not
# reinstall them. Compile them here: the root file system may be read-only at run time, and
# importing uncompiled packages takes a second longer.
COPY requirements.txt .
RUN pip install --no-cache-dir --compile --disable-pip-version-check \
        --root-user-action=ignore -r requirements.txt \
    && rm requirements.txt

# Let every user read the source, whatever the file modes in the checkout.
COPY src src
RUN chmod -R a+rX src && python -m compileall -q src

USER 10001:10001

ENTRYPOINT ["python", "-m", "src.server"]
