"""The Idempotency-Key header: a request that is sent again gets the job of the first.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import json
import re
from typing import Final

from starlette.requests import Request as HttpRequest

from ..params import Request
from .items import FILES, Uploads
from .problems import Problem

HEADER: Final = "Idempotency-Key"
# Visible ASCII without what separates and quotes; the draft's own form has quotes around it.
PATTERN: Final = r'^(?:[!#-+\-./0-\[\]-~]{1,255}|"[!#-+\-./0-\[\]-~]{1,255}")$'
_KEY: Final = re.compile(PATTERN)


def key_of(request: HttpRequest) -> str | None:
    """Return the key that a request has, without quotes; None when it has none.

    Raises:
        Problem: when it has two, or one that is none.
    """
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        detail = f"{HEADER} is one text of 1 to 255 visible ASCII characters without , and \\"
        raise Problem("bad-request", detail)
    return given[0].strip('"')


def fingerprint(route: str, item: Request, uploads: Uploads) -> str:
    """Return what two requests have in common that ask for the same.

    It counts what the caller gave: the params by their values, however they were written, and
    files by their bytes. What was left out does not count, so a seed that is drawn does not.
    """
    given = item.model_dump(mode="json", include=item.model_fields_set)
    files = {name: _digest(data) for name, data in uploads.files.items()}
    given |= {name: _digest(data) for name, data in uploads.media.items()}
    if files:
        given[FILES] = files
    # Sorted, for members of JSON have no order.
    text = json.dumps([route, given], sort_keys=True)
    return _digest(text.encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
