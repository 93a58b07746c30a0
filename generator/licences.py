"""What the licence of a model forbids, as far as its name says it."""

import re
from typing import Final

# "FLUX.1 [dev] Non-Commercial License", "CC-BY-NC-4.0", "noncommercial", "research only".
_FORBIDS: Final = re.compile(r"non[-_ ]?commercial|\bNC\b|\bresearch[-_ ]only\b", re.IGNORECASE)


def forbids_commercial_use(licence: str) -> bool:
    """Say whether a licence's name says that it forbids commercial use.

    False is no permission: many names say nothing.
    """
    return bool(_FORBIDS.search(licence.replace("_", "-")))
