"""Secrets: each is seen by what needs it alone, and none is written into a file of the project."""

import re
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from ..diagnostics import Diagnostic
from ..graph.words import show
from ..load import Node
from ..spec import Models, Settings

# Variables that are of use to one function alone; workers get the others. The download reads the
# first line; under the names of the second, people keep the same tokens.
DOWNLOAD_VARIABLES: Final = frozenset(
    "HF_TOKEN HF_ENDPOINT CIVITAI_API_KEY "
    "HUGGING_FACE_HUB_TOKEN HUGGINGFACE_TOKEN HF_API_TOKEN CIVITAI_TOKEN CIVITAI_API_TOKEN".split()
)
GATEWAY_VARIABLES: Final = frozenset(("API_KEYS",))

# What servers call a key in an address, without its punctuation; signed addresses end in a day too.
_KEYS: Final = frozenset(
    "accesskey accesstoken apikey apitoken auth authkey authorization authtoken awsaccesskeyid bearer "
    "clientsecret credential jwt key oauthtoken passwd password privatetoken pwd secret sig signature "
    "token xamzcredential xamzsecuritytoken xamzsignature xapikey xgoogcredential xgoogsignature".split()
)

_ADDRESS: Final = re.compile(r"[a-z+]+://\S+", re.IGNORECASE)


def check_secrets(settings: Settings) -> list[Diagnostic]:
    """Return the Secrets that would tell a part of the app what is meant for another.

    Modal hands a Secret out as a whole, whatever variables of it are named.
    """
    faults: list[Diagnostic] = []
    written = settings.at.mapping.get("secrets")
    for name, variables in settings.secrets.items() if written else ():
        readers = {reader: [v for v in variables if _reader(v) == reader] for reader in _READERS}
        readers = {reader: found for reader, found in readers.items() if found}
        if written and len(readers) > 1:
            said = ", ".join(f"{' '.join(found)} for {reader}" for reader, found in readers.items())
            message = f"the Secret {show(name)} mixes {said}; Modal hands it out as a whole"
            hint = "make a Secret of each: modal secret create NAME KEY=VALUE"
            faults.append(written.mapping[name].error("mixed-secret", message, hint=hint))
    return faults


_READERS: Final = ("the gateway", "the download", "the workers")


def _reader(variable: str) -> str:
    """Return which part of the app reads a variable."""
    gateway, download, workers = _READERS
    if variable in GATEWAY_VARIABLES:
        return gateway
    return download if variable in DOWNLOAD_VARIABLES else workers


def check_addresses(models: Models) -> list[Diagnostic]:
    """Return the addresses of models and packs that hold a key: the lock and the build copy them."""
    sources = [model.at.mapping["source"].mapping for model in models.models.values()]
    urls = [source["url"] for source in sources if "url" in source]
    hint = (
        "leave it out. Civitai's key comes from a Secret: secrets: {civitai: [CIVITAI_API_KEY]}; what "
        "is private elsewhere goes to Hugging Face (HF_TOKEN), or onto a Volume: source: {volume: NAME}"
    )
    faults = [_secret_in(at, what, hint) for at in urls if (what := _key_in(at.text))]
    hint = "leave it out; images are built of what is open to all"
    packs = [pack.at.mapping for pack in models.packs.values()]
    places = [
        at for pack in packs for at in (pack["git"], *(pack["pip"].items if "pip" in pack else ()))
    ]
    return faults + [_secret_in(at, what, hint) for at in places if (what := _key_in(at.text))]


def _secret_in(at: Node, what: str, hint: str) -> Diagnostic:
    message = f"{what} in an address is for nobody's eyes, and generator.lock and build/ have it"
    return at.error("secret-in-address", message, hint=hint)


def _key_in(text: str) -> str:
    """Return what looks like a key in the addresses of a text, in words; empty where nothing does."""
    for address in _ADDRESS.findall(text):
        try:
            parts = urlsplit(address)
        except ValueError:
            continue
        # Anybody is the user "git" of a server that is asked over SSH.
        if "@" in parts.netloc and not parts.scheme.endswith("ssh"):
            return "a user's name or password"
        pairs = [pair for part in (parts.query, parts.fragment) for pair in parse_qsl(part)]
        for name, _ in pairs:
            if "".join(filter(str.isalnum, name.lower())) in _KEYS:
                return f"the value of {show(name)}"
    return ""
