"""PDFs for tests, written by hand."""

from __future__ import annotations

import base64
from typing import Any

__all__ = ["LOCKED", "pdf_block", "pdf_of"]

#: An encryption that no password opens.
LOCKED = b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%b> /U <%b> >> /ID [<00> <00>]" % (
    b"a1" * 32,
    b"b2" * 32,
)


def pdf_of(*pages: str, size: tuple[float, float] = (200, 200), trailer: bytes = b"") -> bytes:
    """Build a PDF with a page for each text; one without text is a grey square."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        drawn = b"BT /F1 12 Tf 10 100 Td (%b) Tj ET" % text.encode() if text else b"0.5 g 50 50 100 100 re f"
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %g %g] /Contents %d 0 R" % (*size, 5 + 2 * number)
            + b" /Resources << /Font << /F1 3 0 R >> >> >>",
            b"<< /Length %d >>\nstream\n%b\nendstream" % (len(drawn), drawn),
        ]
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    count = len(objects) + 1
    table = b"xref\n0 %d\n0000000000 65535 f \n" % count + b"".join(
        b"%010d 00000 n \n" % place for place in places
    )
    return (
        body
        + table
        + b"trailer << /Size %d /Root 1 0 R %b >>\nstartxref\n%d\n%%%%EOF\n" % (count, trailer, len(body))
    )


def pdf_block(data: bytes | str, **fields: Any) -> dict[str, Any]:
    """Return a document block with a file, or with this data."""
    if isinstance(data, bytes):
        data = base64.b64encode(data).decode("ascii")
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    return {"type": "document", "source": source, **fields}
