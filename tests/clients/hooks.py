"""Schemathesis sends what it makes up as JSON Lines as text."""

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def as_text(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", errors="replace")
