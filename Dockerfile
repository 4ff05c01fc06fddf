FROM python:3.11-slim

# docker build --build-arg SOURCE=https://... says where the source is.
ARG SOURCE=""
LABEL org.opencontainers.image.title="mcp-proxmox" \
      org.opencontainers.image.description="MCP server that lists and switches the machines of a Proxmox VE infrastructure" \
      org.opencontainers.image.version="1.0.0" \
      org.opencontainers.image.source="${SOURCE}" \
      io.modelcontextprotocol.server.name="mcp-proxmox"

# Unbuffered: what is left in a buffer at the end would land in the protocol.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

WORKDIR /app

# Before the source, so that a change of the source installs nothing again. Compiled,
# because the root may be read-only, and importing what is not takes a second longer.
COPY requirements.txt .
RUN pip install --no-cache-dir --compile --disable-pip-version-check \
        --root-user-action=ignore -r requirements.txt \
    && rm requirements.txt

# Readable by every user, whatever the modes in the checkout.
COPY src src
RUN chmod -R a+rX src && python -m compileall -q src

USER 10001:10001

ENTRYPOINT ["python", "-m", "src.server"]
